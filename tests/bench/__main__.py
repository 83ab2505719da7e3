"""One command, one table: `python -m tests.bench [--quick] [--json FILE] [--only SECTION]`. I/O."""

import argparse
import os
import platform
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from . import batches, crowds, fleets, floor, growth, plain, runs, startup, waiting
from .lab import Lab
from .peers import PROJECT, tools
from .table import Section, as_json, text

CACHE = PROJECT / ".nox" / "bench-peers"
SECTIONS = (startup.NAME, floor.NAME, plain.NAME, runs.NAME, waiting.NAME, crowds.NAME, fleets.NAME, batches.NAME)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds and smaller sizes: about a minute")
    parser.add_argument("--million", action="store_true", help="also transform a million documents: five minutes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every round to a file")
    parser.add_argument("--only", choices=SECTIONS, action="append", help="leave the other sections out")
    parser.add_argument("--cache", type=Path, default=CACHE, help="where the peers' environments are")
    options = parser.parse_args()
    found = tools(options.cache)
    facts = {
        **found.versions,
        "machine": f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}",
        "server": "one local server for all; it is not MongoDB, and its time is part of each row",
    }
    began = time.monotonic()
    print("\n".join(f"{name}: {fact}" for name, fact in facts.items()), end="\n\n", flush=True)
    with Lab(found, quick=options.quick, million=options.million).open() as lab:
        sections = [*measured(lab, options.only or SECTIONS)]
    print(growth.plots(sections), end="\n\n")
    print(f"measured in {time.monotonic() - began:.0f} s")
    if options.json:
        options.json.write_text(as_json(sections, facts))


def measured(lab: Lab, chosen: Sequence[str]) -> list[Section]:
    """Measure section by section, and show each as soon as it is there."""
    sections: list[Section] = []

    def show(section: Section) -> None:
        sections.append(section)
        print(text(section), flush=True)

    if startup.NAME in chosen:
        show(startup.measure(lab))
    if floor.NAME in chosen:
        show(floor.measure(lab))
    if plain.NAME in chosen:
        show(plain.measure(lab))
    if crowds.NAME in chosen:
        show(crowds.measure(lab))
    if fleets.NAME in chosen:
        show(fleets.measure(lab))
    waiting.prepare(lab)
    with ThreadPoolExecutor(1) as background:
        # It sleeps for minutes, and so do the runs at 20 ms.
        slow = background.submit(waiting.measure_one_by_one, lab) if waiting.NAME in chosen else None
        if runs.NAME in chosen:
            show(runs.measure(lab))
        if slow is not None:
            show(waiting.measure(lab, slow.result()))
    if batches.NAME in chosen:
        show(batches.measure(lab))
    return sections


if __name__ == "__main__":
    main()
