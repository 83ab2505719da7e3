"""Print what the sweep has covered."""

from collections import Counter

import pytest

COVERED: pytest.StashKey[Counter[str]] = pytest.StashKey()


@pytest.fixture
def covered(request: pytest.FixtureRequest) -> Counter[str]:
    """Counts of this session, printed at its end."""
    return request.config.stash.setdefault(COVERED, Counter())


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    counts = terminalreporter.config.stash.get(COVERED, None)
    if counts:
        terminalreporter.section("faults injected")
        for name, count in sorted(counts.items()):
            terminalreporter.write_line(f"{name}: {count}")
