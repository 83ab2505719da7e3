"""Decide what to run. Pure: scripts, ledger entries and options in, one plan out, no I/O and no clock."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from mydocs.migrations.errors import (
    ChangedScripts,
    NeedsDecision,
    NotReversible,
    OutOfOrder,
    RenamedScripts,
    ScriptsInvalid,
    ScriptUnfinished,
    SquashIncomplete,
    UnknownVersion,
    UsageError,
)
from mydocs.migrations.model import (
    STANDARD_VERSION,
    Entry,
    IndexAction,
    LeaseView,
    MigrationState,
    Script,
    ScriptKind,
    TrackedIndex,
)
from mydocs.migrations.values import value


@value
class Options:
    """What the caller allows. ``target`` is a version in any number of digits."""

    target: str | None = None
    allow_changed: bool = False
    allow_out_of_order: bool = False


@value
class Standing:
    """
    One migration: its file, its ledger entry (one of them may be absent), and where it stands.

    :param squashed: it counts as applied without an entry, since all that it replaces is applied
    """

    version: str
    state: MigrationState
    script: Script | None = None
    entry: Entry | None = None
    squashed: bool = False

    @property
    def name(self) -> str:
        return self.script.name if self.script else self.entry.name if self.entry else ""

    @property
    def number(self) -> int:
        return int(self.version)


@value
class Plan:
    """The steps to take, in order, and what else the look at files and ledger has shown."""

    steps: tuple[Standing, ...] = ()
    standard: bool = False
    standings: tuple[Standing, ...] = ()
    entries: tuple[Entry, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        return not self.steps and not self.standard


def classify(
    scripts: Sequence[Script], entries: Sequence[Entry], lease: LeaseView | None, *, run_id: str | None = None
) -> tuple[Standing, ...]:
    """
    Say where each migration stands, in the order of their numbers; the standard indexes are none of them.

    :param run_id: of the caller's own run, where that holds the lease
    """
    by_number = {int(entry.version): entry for entry in entries if entry.version != STANDARD_VERSION}
    on_disk = {script.number: script for script in scripts}
    standings = tuple(
        Standing(
            version=by_number[number].version if number in by_number else on_disk[number].version,
            state=_state(on_disk.get(number), by_number.get(number), lease, run_id),
            script=on_disk.get(number),
            entry=by_number.get(number),
        )
        for number in sorted(on_disk.keys() | by_number.keys())
    )
    return _squashed(standings) if any(script.replaces for script in scripts) else standings


def _squashed(standings: Sequence[Standing]) -> tuple[Standing, ...]:
    """
    Settle what scripts with ``REPLACES`` and the migrations that they replace are to each other.

    A replaced migration that is applied stays so, edited or gone as its file may be; where all of them are, the script
    counts as applied, too. One without an entry is not a migration any more, unless others of them have begun and the
    script itself has not: then it is what is missing.
    """
    found = {standing.number: standing for standing in standings}
    for standing in standings:  # by number: what is replaced comes before what replaces it
        if standing.script is None or not standing.script.replaces:
            continue
        numbers = {int(version) for version in standing.script.replaces}
        for number in numbers & found.keys():
            if found[number].state in (MigrationState.CHANGED, MigrationState.MISSING):
                found[number] = replace(found[number], state=MigrationState.APPLIED)
        begun = {number for number in numbers & found.keys() if found[number].state is not MigrationState.PENDING}
        if standing.entry is not None or not begun:
            for number in numbers & found.keys() - begun:
                del found[number]
        elif all(number in found and found[number].state is MigrationState.APPLIED for number in numbers):
            found[standing.number] = replace(standing, state=MigrationState.APPLIED, squashed=True)
    return tuple(found.values())


def _state(script: Script | None, entry: Entry | None, lease: LeaseView | None, run_id: str | None) -> MigrationState:
    if entry is None:
        return MigrationState.PENDING
    if entry.state is MigrationState.RUNNING:
        return MigrationState.INTERRUPTED if is_interrupted(entry, lease, run_id) else MigrationState.RUNNING
    if entry.state is MigrationState.APPLIED:
        if script is None:
            return MigrationState.MISSING
        if entry.checksum not in (None, script.checksum):
            return MigrationState.CHANGED
    return entry.state


def is_interrupted(entry: Entry, lease: LeaseView | None, run_id: str | None = None) -> bool:
    """
    Whether the run that wrote a ``running`` entry has ended.

    The lease was read before the entry, so an entry of a later term has been written by somebody who took the lease
    in between and is alive. Whoever holds the lease knows better: no other run than its own is, whatever the terms
    say after somebody has removed the lease's document.

    :param run_id: of the caller's own run, where that holds the lease
    """
    if run_id is not None:
        return entry.run is None or entry.run.run_id != run_id
    term = entry.run.term if entry.run else 0
    return lease is None or term < lease.term or (term == lease.term and not lease.live)


def make_plan(
    scripts: Sequence[Script],
    entries: Sequence[Entry],
    lease: LeaseView | None,
    options: Options,
    *,
    standard_checksum: str | None,
    run_id: str | None = None,
) -> Plan:
    """
    Decide what a run has to do.

    :param standard_checksum: digest of the application's standard indexes, ``None`` where it has none
    :param run_id: of the caller's own run, where that holds the lease
    :raises PlanError: where files and ledger do not fit together
    :raises UnknownVersion: where ``options.target`` is not a migration's number
    """
    standings = classify(scripts, entries, lease, run_id=run_id)
    limit = find(standings, options.target).number if options.target is not None else None
    changed = [
        s.script.file_name + (f" (applied as {s.entry.script})" if s.entry.script != s.script.file_name else "")
        for s in standings
        if s.state is MigrationState.CHANGED and s.script and s.entry
    ]
    if changed and not options.allow_changed:
        raise ChangedScripts(changed)
    steps = tuple(
        standing
        for standing in standings
        if standing.script is not None
        and standing.state not in (MigrationState.APPLIED, MigrationState.CHANGED)
        and (limit is None or standing.number <= limit)
    )
    if not options.allow_changed and (renamed := _renamed(steps, standings)):
        raise RenamedScripts(renamed)
    done = [s for s in standings if s.squashed or (s.entry is not None and s.entry.state is MigrationState.APPLIED)]
    if done and not options.allow_out_of_order:
        late = [s.version for s in steps if s.state is MigrationState.PENDING and s.number < done[-1].number]
        if late:
            raise OutOfOrder(late, done[-1].version)
    if unfinished := [step.script for step in steps if step.script is not None and step.script.unfinished is not None]:
        raise ScriptUnfinished(unfinished)
    refuse_unfit(steps)
    for step in steps:
        _check_replaced(step, standings)
        if (
            step.state in (MigrationState.FAILED, MigrationState.INTERRUPTED)
            and step.script is not None
            and not step.script.idempotent
        ):
            raise NeedsDecision(step.script, step.state)
    return Plan(
        steps=steps,
        standard=standard_checksum is not None and not standard_is_applied(entries, standard_checksum),
        standings=standings,
        entries=tuple(entries),
        warnings=tuple(_warnings(standings)),
    )


def _renamed(steps: Sequence[Standing], standings: Sequence[Standing]) -> list[tuple[Script, Entry]]:
    """Find the scripts that would run again what is applied under another number whose file is gone: same text."""
    gone = {s.entry.checksum: s.entry for s in standings if s.state is MigrationState.MISSING and s.entry is not None}
    pending = [step.script for step in steps if step.script is not None and step.entry is None]
    return [(script, gone[script.checksum]) for script in pending if script.checksum in gone]


def _check_replaced(step: Standing, standings: Sequence[Standing]) -> None:
    """
    Refuse to run a script in place of migrations of which some have begun.

    Not while another run executes one of them: this run waits for its turn, and then looks again.

    :raises SquashIncomplete: names what is missing
    """
    if step.script is None or step.entry is not None or not step.script.replaces:
        return
    states = {standing.number: standing.state for standing in standings}
    of = [(version, states.get(int(version), MigrationState.PENDING)) for version in step.script.replaces]
    missing = [(version, state) for version, state in of if state is not MigrationState.APPLIED]
    begun = any(state is not MigrationState.PENDING for _, state in of)
    if begun and MigrationState.RUNNING not in states.values():
        applied = [version for version, state in of if state is MigrationState.APPLIED]
        raise SquashIncomplete(step.script, applied, missing)


def standard_is_applied(entries: Sequence[Entry], checksum: str | None = None) -> bool:
    """
    Whether the standard indexes were created.

    :param checksum: digest of the list that must have been created; ``None`` for any list
    """
    return any(
        entry.version == STANDARD_VERSION
        and entry.state is MigrationState.APPLIED
        and checksum in (None, entry.checksum)
        for entry in entries
    )


def _warnings(standings: Sequence[Standing]) -> list[str]:
    missing = [s.version for s in standings if s.state is MigrationState.MISSING]
    done = (MigrationState.MISSING, MigrationState.APPLIED)  # applied without a file is what another script replaces
    lost = [s for s in standings if s.script is None and s.state not in done]
    legacy = [(s.script, s.entry) for s in standings if s.script and s.entry and s.entry.legacy]
    return [
        *([f"applied, but not in this directory: {', '.join(missing)}"] if missing else []),
        *(f"{s.version} is recorded as {s.state.value} and its file is gone" for s in lost),
        *(
            f"{script.file_name} counts as applied, since the earlier runner has applied {entry.script}"
            for script, entry in legacy
            if entry.script != script.file_name
        ),
    ]


def find(standings: Sequence[Standing], version: str) -> Standing:
    """
    Find a migration by its version, with or without leading zeros.

    :raises UnknownVersion: with a suggestion where one is near
    :raises UsageError: where it is no text
    """
    if not isinstance(version, str):
        raise UsageError(f"a version is a text such as '005', not {version!r}")
    if version.isascii() and version.isdigit():
        for standing in standings:
            if standing.number == int(version):
                return standing
    known = [standing.version for standing in standings]
    for standing in standings:
        if version in (standing.name, f"{standing.version}_{standing.name}", f"{standing.version}_{standing.name}.py"):
            return standing
    # Another digit makes another number, so that is not near; the same digits in another order are.
    digits = version.zfill(3)
    from difflib import get_close_matches  # only for the message

    near = get_close_matches(digits, known, n=1, cutoff=0.8)
    near += [each for each in known if sorted(each) == sorted(digits)]
    raise UnknownVersion(version, known, near[0] if near else None)


def refuse_unfit(steps: Iterable[Standing]) -> None:
    """
    Refuse scripts of which parsing tells that something in them would be left undone without a word.

    :raises ScriptsInvalid: with every such place
    """
    problems = [problem for step in steps if step.script for problem in step.script.problems]
    if problems:
        raise ScriptsInvalid(problems)


def make_rollback(standings: Sequence[Standing], *, steps: int | None, target: str | None) -> tuple[Standing, ...]:
    """
    Decide what to take back, newest first: the last ``steps`` applied ones (1), or all above ``target``.

    One that somebody else is running counts as well: the lease is waited for before anything is taken back, and what
    stands in the ledger then decides.

    :raises UsageError: where ``steps`` is not 1 or more, or both are given
    :raises NotReversible: names every one that has no ``down``, before the first is touched
    :raises UnknownVersion: where ``target`` is not a migration's number
    """
    if steps is not None and (steps < 1 or target is not None):
        raise UsageError("say how many migrations to take back, 1 or more, or which one is to stay, and not both")
    applied = [s for s in standings if s.state is not MigrationState.PENDING]
    recorded = {s.number for s in applied if s.entry is not None}
    if target is not None:
        limit = find(standings, target).number
        chosen = [s for s in applied if s.number > limit]
    else:
        chosen = applied[-(steps or 1) :]
    problems = [problem for s in reversed(chosen) if (problem := _why_not_reversible(s, recorded)) is not None]
    if problems:
        raise NotReversible(problems)
    return tuple(reversed(chosen))


def _why_not_reversible(standing: Standing, recorded: Collection[int]) -> str | None:
    """:param recorded: the numbers that the ledger knows"""
    if standing.script is None:
        return f"{standing.version}_{standing.name} has no file in this directory any more, so its `down` is not known"
    ran_alone = [version for version in standing.script.replaces if int(version) in recorded]
    if ran_alone:
        return (
            f"{standing.script.file_name} replaces {', '.join(ran_alone)}, which ran on their own in this database, so "
            "it has nothing to take back; write a new migration"
        )
    if standing.script.kind is ScriptKind.PLAIN:
        return f"{standing.script.file_name} is a plain script and cannot be rolled back; write a new migration"
    if not standing.script.reversible:
        return f"{standing.script.file_name} has no `async def down(db)`; write it, or write a new migration"
    return None


def tracked(entries: Sequence[Entry]) -> tuple[TrackedIndex, ...]:
    """
    Return what each search index should be: the record of the entry that named it last, unless that dropped it.

    Entries count in the order in which they started, which with out-of-order runs is not that of their numbers.
    """
    latest = {index.key: index for entry in sorted(entries, key=_started) for index in entry.indexes}
    return tuple(index for _, index in sorted(latest.items()) if index.action is not IndexAction.DROPPED)


def _started(entry: Entry) -> tuple[float, int]:
    at = entry.started_at or entry.finished_at
    number = int(entry.version) if entry.version.isdigit() else 0
    return (at.timestamp() if at else 0.0, number)
