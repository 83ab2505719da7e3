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
    """The caller's choices. ``target`` is a version, with or without leading zeros."""

    target: str | None = None
    allow_changed: bool = False
    allow_out_of_order: bool = False


@value
class Standing:
    """
    One migration: its file, its ledger entry, and its state. Either the file or the entry may be absent.

    :param squashed: it has no entry and counts as applied, since all migrations that it replaces are applied
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
    """The steps to take, in order, and the findings about files and ledger."""

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
    Return the standing of each migration, in the order of the numbers. The standard indexes are not included.

    :param run_id: of the caller's own run, if that holds the lease
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
    Classify scripts with ``REPLACES`` and the migrations that they replace.

    A replaced migration that is applied stays applied, even if its file was edited or is gone. If all of them are
    applied, the script counts as applied, too. A replaced migration without an entry is dropped from the list. It
    stays, as missing, only if others of its group have begun and the script itself has not.
    """
    found = {standing.number: standing for standing in standings}
    for standing in standings:  # by number: replaced migrations come before the script that replaces them
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
    Return whether the run that wrote a ``running`` entry has ended.

    The lease was read before the entry. So an entry of a later term belongs to a run that took the lease in between,
    and is alive. If the caller holds the lease, no other run is alive, whatever the terms say: an operator may have
    removed the lease's document.

    :param run_id: of the caller's own run, if that holds the lease
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

    :param standard_checksum: digest of the application's standard indexes, or ``None`` if it has none
    :param run_id: of the caller's own run, if that holds the lease
    :raises PlanError: if files and ledger do not fit together
    :raises UnknownVersion: if ``options.target`` is not a migration's number
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
    """Find pending scripts with the text of a migration that is applied under another number and has lost its file."""
    gone = {s.entry.checksum: s.entry for s in standings if s.state is MigrationState.MISSING and s.entry is not None}
    pending = [step.script for step in steps if step.script is not None and step.entry is None]
    return [(script, gone[script.checksum]) for script in pending if script.checksum in gone]


def _check_replaced(step: Standing, standings: Sequence[Standing]) -> None:
    """
    Refuse to run a script if some of the migrations that it replaces have begun.

    While another run executes one of them there is no refusal: this run waits for its turn, and decides then.

    :raises SquashIncomplete: names the missing ones
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
    Return whether the standard indexes were created.

    :param checksum: digest of the list that must have been created, or ``None`` for any list
    """
    return any(
        entry.version == STANDARD_VERSION
        and entry.state is MigrationState.APPLIED
        and checksum in (None, entry.checksum)
        for entry in entries
    )


def _warnings(standings: Sequence[Standing]) -> list[str]:
    missing = [s.version for s in standings if s.state is MigrationState.MISSING]
    done = (MigrationState.MISSING, MigrationState.APPLIED)  # APPLIED without a file: another script replaces it
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

    :raises UnknownVersion: if there is none; the message suggests a similar one
    :raises UsageError: if ``version`` is not a string
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
    # A missing or additional digit makes another number, so it is not similar. The same digits in another order are.
    digits = version.zfill(3)
    from difflib import get_close_matches  # only for the message

    near = get_close_matches(digits, known, n=1, cutoff=0.8)
    near += [each for each in known if sorted(each) == sorted(digits)]
    raise UnknownVersion(version, known, near[0] if near else None)


def refuse_unfit(steps: Iterable[Standing]) -> None:
    """
    Refuse scripts if parsing shows that a part of them would silently not run.

    :raises ScriptsInvalid: lists every such place
    """
    problems = [problem for step in steps if step.script for problem in step.script.problems]
    if problems:
        raise ScriptsInvalid(problems)


def make_rollback(standings: Sequence[Standing], *, steps: int | None, target: str | None) -> tuple[Standing, ...]:
    """
    Decide what to roll back, newest first: the last ``steps`` applied migrations (1), or all above ``target``.

    A migration that another run executes counts as well. The lease is awaited before anything is rolled back, and the
    ledger is read again then.

    :raises UsageError: if ``steps`` is less than 1, or both are given
    :raises NotReversible: names all migrations that have no ``down``, before the first is rolled back
    :raises UnknownVersion: if ``target`` is not a migration's number
    """
    if steps is not None and (steps < 1 or target is not None):
        raise UsageError("say how many migrations to roll back, 1 or more, or which one is to stay, and not both")
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
    """
    Return why a migration cannot be rolled back, or ``None``.

    :param recorded: the numbers that the ledger knows
    """
    if standing.script is None:
        return f"{standing.version}_{standing.name} has no file in this directory any more, so its `down` is not known"
    ran_alone = [version for version in standing.script.replaces if int(version) in recorded]
    if ran_alone:
        return (
            f"{standing.script.file_name} replaces {', '.join(ran_alone)}, which ran on their own in this database, so "
            "it has nothing to roll back; write a new migration"
        )
    if standing.script.kind is ScriptKind.PLAIN:
        return f"{standing.script.file_name} is a plain script and cannot be rolled back; write a new migration"
    if not standing.script.reversible:
        return f"{standing.script.file_name} has no `async def down(db)`; write it, or write a new migration"
    return None


def tracked(entries: Sequence[Entry]) -> tuple[TrackedIndex, ...]:
    """
    Return the last record of each search index, without the indexes that were dropped last.

    Entries count in the order of their start. With out-of-order runs this is not the order of the numbers.
    """
    latest = {index.key: index for entry in sorted(entries, key=_started) for index in entry.indexes}
    return tuple(index for _, index in sorted(latest.items()) if index.action is not IndexAction.DROPPED)


def _started(entry: Entry) -> tuple[float, int]:
    at = entry.started_at or entry.finished_at
    number = int(entry.version) if entry.version.isdigit() else 0
    return (at.timestamp() if at else 0.0, number)
