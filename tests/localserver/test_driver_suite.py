"""The counting of the driver's own tests: what is a refusal, and what a failure."""

from pathlib import Path

import pytest

from tests.driver.suite import REFUSAL, results

A = "<testcase classname='test.a.TestA' name="
CASES = [
    (f"{A}'ok'/>", ("passed", "TestA.ok", "")),
    (f"{A}'no'><skipped/></testcase>", ("skipped", "TestA.no", "")),
    (
        f"{A}'b'><failure message='E: {REFUSAL}collations, full error: x'/></testcase>",
        ("refused", "TestA.b", "collations"),
    ),
    (
        f"{A}'c'><error message='setup'>E {REFUSAL}the stage $x', 'code': 238</error></testcase>",
        ("refused", "TestA.c", "the stage $x"),
    ),
    (
        f"{A}'d'><failure message='No replica set members match selector \"x\"'/></testcase>",
        ("refused", "TestA.d", "reads from a secondary: it is the only member"),
    ),
    (
        "<testcase classname='test.TestCollection' name='test_exhaust'><failure message='0 != 1'/></testcase>",
        ("refused", "TestCollection.test_exhaust", "streams of batches: an exhaust cursor is served batch by batch"),
    ),
    (
        f"{A}'e'><failure message='AssertionError: 1 != 2'/></testcase>",
        ("failed", "TestA.e", "AssertionError: 1 != 2"),
    ),
]


@pytest.mark.parametrize(("case", "expected"), CASES, ids=[expected[0] for _, expected in CASES])
def test_an_outcome_is_read_from_the_report(tmp_path: Path, case: str, expected: tuple[str, str, str]) -> None:
    report = tmp_path / "report.xml"
    report.write_text(f"<testsuites><testsuite>{case}</testsuite></testsuites>")
    assert list(results(report)) == [expected]
