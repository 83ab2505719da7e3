"""One command, one table: `python -m tests.bench [--quick] [--before REVISION] [--json FILE] [--only SECTION]`. I/O."""

import argparse
import os
import platform
import time
from collections.abc import Collection
from pathlib import Path

from . import batches, crowds, fleets, floor, growth, plain, runs, startup, waiting
from .lab import Lab
from .peers import PROJECT, tools
from .table import Section, as_json, text, with_tables

PAGE = PROJECT / "docs" / "design" / "benchmarks.md"
CACHE = PROJECT / ".nox" / "bench-peers"
SECTIONS = {
    section.NAME: section.measure for section in (startup, floor, plain, crowds, fleets, runs, waiting, batches)
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds and smaller sizes: about a minute")
    parser.add_argument("--million", action="store_true", help="also transform a million documents: five minutes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every round to a file")
    parser.add_argument("--page", action="store_true", help="also put the tables into docs/design/benchmarks.md")
    parser.add_argument("--before", metavar="REVISION", help="also measure an earlier version of this repository")
    parser.add_argument("--only", choices=SECTIONS, action="append", help="leave the other sections out")
    parser.add_argument("--cache", type=Path, default=CACHE, help="where the peers' environments are")
    options = parser.parse_args()
    found = tools(options.cache, options.before)
    facts = {
        **found.versions,
        "machine": f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}",
        "server": "one local server for all; it is not MongoDB, and its time is part of each row",
    }
    began = time.monotonic()
    print("\n".join(f"{name}: {fact}" for name, fact in facts.items()), end="\n\n", flush=True)
    with Lab(found, quick=options.quick, million=options.million).open() as lab:
        sections = measured(lab, options.only or SECTIONS)
    print(growth.plots(sections), end="\n\n")
    print(f"measured in {time.monotonic() - began:.0f} s")
    if options.page:
        PAGE.write_text(with_tables(PAGE.read_text(), sections))
    if options.json:
        options.json.write_text(as_json(sections, facts))


def measured(lab: Lab, chosen: Collection[str]) -> list[Section]:
    """Measure section by section, and show each as soon as it is there."""
    sections: list[Section] = []
    for name, measure in SECTIONS.items():
        if name in chosen:
            sections.append(measure(lab))
            print(text(sections[-1]), flush=True)
    return sections


if __name__ == "__main__":
    main()
