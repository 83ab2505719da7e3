"""What a process for plain scripts costs, beside the import that each of them needs anyway. I/O."""

from pathlib import Path
from statistics import median

from .lab import Lab, folder_of, scratch
from .peers import MYDOCS
from .table import Row, Section

NAME = "plain"
SIZES = (1, 20)
TEXTS = {
    "async": "async def up(db):\n    await db.runs.insert_one({})\n",
    "plain": "import lightodm\nlightodm.get_database().runs.insert_one({})\n",
}
IMPORT = "python -c 'import lightodm'"


def measure(lab: Lab) -> Section:
    """Run each in turn, round for round, so that a noisy moment meets all of them."""
    python = lab.tools.program(MYDOCS, "python")
    times: dict[tuple[str, int], list[float]] = {(IMPORT, 0): []}
    with scratch() as base:
        cases = [(kind, count) for count in SIZES for kind in TEXTS]
        folders = {case: _written(folder_of(base, *case), *case) for case in cases}
        times |= {key: [] for key in folders}
        for _ in range(2 if lab.quick else 9):
            times[IMPORT, 0].append(lab.run([python, "-c", "import lightodm"]).seconds)
            for (kind, count), folder in folders.items():
                database = lab.database()
                ran = lab.run(lab.tools.run_command(MYDOCS, lab.url, database, folder))
                if lab.seen[database].inserts["runs"] != count:
                    raise RuntimeError(f"{lab.seen[database].inserts['runs']} of {count} {kind} scripts were run")
                times[kind, count].append(ran.seconds)
                lab.drop(database)
    found = {key: median(seconds) for key, seconds in times.items()}
    unit = found[IMPORT, 0]
    added = {count: found["plain", count] - found["async", count] for count in SIZES}
    more = f"{added[1]:.2f} s more than the async one, {added[1] / unit:.2f} x the import"
    notes = {
        ("plain", 1): f"{more}: the host, its imports, the script",
        ("plain", 20): f"{(added[20] - added[1]) / 19 * 1000:.0f} ms more for each after the first",
    }
    rows = [
        Row(
            section=NAME,
            work=kind if kind == IMPORT else f"first run of {count} {kind}",
            tool="python" if kind == IMPORT else MYDOCS,
            size=count or None,
            seconds=tuple(seconds),
            note=notes.get((kind, count), ""),
        )
        for (kind, count), seconds in times.items()
    ]
    return Section(
        title="Plain scripts, each in a process of its own",
        limit="the first at most 1.5 imports of lightodm, the others near nothing",
        rows=tuple(rows),
    )


def _written(folder: Path, kind: str, count: int) -> Path:
    folder.mkdir()
    for number in range(1, count + 1):
        (folder / f"{number:03}_{kind}.py").write_text(TEXTS[kind])
    return folder
