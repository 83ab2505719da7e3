"""
Define every error that a caller can meet, with its message. Pure.

::

    MigrationError                      exit code
    ├── ScriptsInvalid                  1  files that cannot be migrations
    ├── ScriptUnfinished                1  a script that is not written yet
    ├── PlanError                       1  files and ledger do not fit together
    │   ├── ChangedScripts
    │   ├── RenamedScripts
    │   ├── OutOfOrder
    │   ├── NeedsDecision
    │   ├── NotReversible
    │   └── SquashIncomplete
    ├── LedgerInvalid                   1  a stored document that mydocs has not written
    ├── LedgerChanged                   1  an entry that is gone while its script runs
    ├── MigrationFailed                 1  a script raised
    ├── TimedOut                        1  a script took too long; the cause of a MigrationFailed
    ├── IndexConflict                   1  an existing index is in the way
    ├── IndexRefused                    1  the server refuses a definition
    ├── ChangeInvalid                   1  the result of a script's function is not a change of its document
    ├── NotPossible                     1  the request is not possible here
    ├── UsageError                      2
    │   ├── DirectoryMissing
    │   ├── UnknownVersion
    │   └── SettingsInvalid
    ├── ServerError                     3
    │   ├── ServerUnreachable
    │   ├── NotAuthorised
    │   ├── CommandRefused
    │   └── SearchUnavailable
    ├── NotReady                        5
    ├── IndexFailed                     6
    ├── LeaseError                      7
    │   ├── LeaseHeld
    │   └── LeaseLost
    ├── WorkLeft                        8
    ├── WouldFail                       1  a script of a plan fails on the copy
    ├── WouldTakeAway                   8  a plan shows that an index or a collection is taken away
    ├── Unverified                      9  ready, but not right
    │   ├── VerifyFailed
    │   └── VectorsUnfit
    └── Interrupted                     130, 143
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mydocs.migrations.model import Entry, LeaseView, MigrationState, Problem, Script
from mydocs.migrations.values import value

if TYPE_CHECKING:  # the report module imports this one; only its name is needed here
    from mydocs.migrations.indexes.vectors import VectorReport
    from mydocs.migrations.reporting.report import RunReport


NAMED_VERSIONS = 12  # a longer list would hide the sentence around it
RESUME = "the builds go on, `mydocs migrate wait` resumes the wait"


@value
class NextStep:
    """
    The advice after an error.

    :param command: the command of `mydocs migrate` that the text names; the step is not shown after that very command
    """

    text: str
    command: str | None = None


IN_THE_SENTENCE = NextStep(text="")
"""The message of the error already says what to do."""

# By exit code, if an error other than the script's own is the cause.
NOT_THE_SCRIPT: Mapping[int, NextStep] = {
    3: NextStep(text="check the server and the user's roles (docs/permissions.md), and give the same command again"),
    5: NextStep(text="`mydocs migrate status` shows the index; give the same command again when it is ready"),
    6: NextStep(text="correct the index's definition and give the same command again"),
    9: NextStep(text="correct the documents that are named, or what makes them, and give the same command again"),
}


class MigrationError(Exception):
    """An error that keeps a database from the state that was asked for."""

    exit_code = 1
    report: "RunReport | None" = None
    """What was done until then; the called function sets it."""
    path: Path | None = None
    """The file to correct."""
    line: int | None = None
    """The line in the file of ``path`` that the error passed through, if any."""
    problems: tuple[str, ...] = ()
    """The problems, one sentence each, if an error can have several."""
    head = ""
    """The line above several problems on a screen."""
    remedy = ""
    """The line below them."""
    _places: tuple[Problem, ...] = ()
    next_step: NextStep | None = None
    """What to do next, if the kind of the error decides it; see also :meth:`advice`."""

    def advice(self) -> NextStep | None:
        """Return what to do next, or ``None`` if there is no advice."""
        return self.next_step

    def lines(self) -> tuple[str, ...]:
        """Return the message for a screen. Each of several problems has a line of its own."""
        if len(self.problems) < 2:
            return (str(self),)
        return (self.head, *(f"  {problem}" for problem in self.problems), *([self.remedy] if self.remedy else []))

    def places(self) -> tuple[Problem, ...]:
        """Return what to mark in which file: at least one problem, with or without a file."""
        return self._places or (Problem(text=str(self), path=self.path, line=self.line),)

    def next_step_after(self, command: str | None) -> str | None:
        """Return what to do next after a command has failed, or ``None`` if it is the same command again."""
        step = self.advice()
        return None if step is None or (step.command is not None and step.command == command) else step.text or None


def _located(problems: Sequence[str | Problem]) -> tuple[Problem, ...]:
    return tuple(each if isinstance(each, Problem) else Problem(text=each) for each in problems)


class ScriptsInvalid(MigrationError):
    """Files in the directory cannot be migrations. The message names every problem."""

    next_step = NextStep(text="correct the files; `mydocs migrate list` checks what can be seen without running them")
    head = "these files cannot be migrations:"

    def __init__(self, problems: Sequence[str | Problem]) -> None:
        self._places = _located(problems)
        self.problems = tuple(each.text for each in self._places)
        super().__init__("; ".join(self.problems))


class ScriptUnfinished(MigrationError):
    """Scripts begin with `raise NotImplementedError`, as a new one does. None was run."""

    next_step = NextStep(text="write the change, take that line out, and give the same command again")

    head = "these scripts are not written yet:"

    def __init__(self, scripts: Sequence[Script]) -> None:
        self._places = tuple(
            Problem(
                text=f"{script.file_name}, line {script.unfinished}: it is not written yet, its `up` begins with "
                "`raise NotImplementedError`",
                path=script.path,
                line=script.unfinished,
            )
            for script in scripts
        )
        self.problems = tuple(each.text for each in self._places)
        super().__init__("; ".join(self.problems))
        self.path, self.line = scripts[0].path, scripts[0].unfinished


class PlanError(MigrationError):
    """Files and ledger do not fit together."""

    next_step = NextStep(text="`mydocs migrate status` shows the state of each migration", command="status")


class ChangedScripts(PlanError):
    """Scripts were edited after they were applied."""

    next_step = IN_THE_SENTENCE

    def __init__(self, file_names: Sequence[str]) -> None:
        self.file_names = tuple(file_names)
        super().__init__(
            f"{', '.join(file_names)} changed after being applied; restore the applied text, accept the new one "
            "permanently with `mydocs migrate repair`, or for this run with --allow-changed"
        )


class RenamedScripts(PlanError):
    """Scripts have the text of migrations that are applied under other numbers, whose files are gone."""

    next_step = IN_THE_SENTENCE

    def __init__(self, renamed: Sequence[tuple[Script, Entry]]) -> None:
        said = [f"{script.file_name} has the text of {entry.script or entry.version}" for script, entry in renamed]
        versions = " ".join(script.version for script, _ in renamed)
        super().__init__(
            f"{', '.join(said)}, which is applied; give the file its name back, or keep the new one with `mydocs "
            f"migrate mark {versions} --applied` and `mydocs migrate repair`, or run it again with --allow-changed"
        )


class OutOfOrder(PlanError):
    """A pending version sorts before one that is already applied."""

    next_step = NextStep(text="`mydocs migrate run --allow-out-of-order` runs them anyway")

    def __init__(self, versions: Sequence[str], newest_applied: str) -> None:
        self.versions = tuple(versions)
        self.newest_applied = newest_applied
        super().__init__(
            f"pending {', '.join(versions)} come{'s' if len(versions) == 1 else ''} before {newest_applied}, which is "
            "applied; give a higher number, or run with --allow-out-of-order"
        )


class NeedsDecision(PlanError):
    """A script that must not run twice by itself has started and has failed or was interrupted."""

    next_step = IN_THE_SENTENCE

    def __init__(self, script: Script, state: MigrationState) -> None:
        self.version = script.version
        how = "was interrupted" if state is MigrationState.INTERRUPTED else "failed"
        super().__init__(f"{script.file_name} {how} and {_settled_by_hand(script.version)}")


class SquashIncomplete(PlanError):
    """Of the migrations that a script replaces, some are applied and some are not."""

    next_step = IN_THE_SENTENCE

    def __init__(self, script: Script, applied: Sequence[str], missing: Sequence[tuple[str, MigrationState]]) -> None:
        """
        Write the message.

        :param missing: versions with their states
        """
        self.version, self.missing = script.version, tuple(version for version, _ in missing)
        lack = ", ".join(f"{version} ({state.value})" for version, state in missing)
        super().__init__(
            f"{script.file_name} replaces {', '.join(script.replaces)}, of which {', '.join(applied) or 'none'} "
            f"{'are' if len(applied) > 1 else 'is'} applied; missing: {lack}; apply what is missing with the release "
            f"that still has its file, or, where its work is done, use `mydocs migrate mark {script.version} --applied`"
        )


class NotReversible(PlanError):
    """A script cannot do the rollback that was asked for."""

    head = "these migrations cannot be rolled back:"
    next_step = NextStep(text="`mydocs migrate new` makes a migration that undoes it")

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(self.problems))


class LedgerInvalid(MigrationError):
    """A document of the ledger or the lease has a form that mydocs never writes."""

    next_step = NextStep(text="`mydocs migrate status` looks again", command="status")

    def __init__(self, collection: str, key: str, problem: str) -> None:
        super().__init__(
            f"the document {key} in {collection} is not one of ours: {problem}; it is unchanged; correct or remove it"
        )


class LedgerChanged(MigrationError):
    """An entry has been removed from the ledger although this run holds the lease."""

    def __init__(self, version: str) -> None:
        self.version = version
        super().__init__(
            f"the entry of {version} is gone from _migrations although this run holds the lease: a script has removed "
            "it, or somebody by hand; leave the ledger to mydocs. What the script did is done: record it with "
            f"`mydocs migrate mark {version} --applied`"
        )


class MigrationFailed(MigrationError):
    """A script raised. Nothing after it was started."""

    next_step = NextStep(
        text="correct the script and give the same command again; `mydocs migrate status` shows what is done"
    )

    def __init__(self, script: str, where: str, problem: str, *, by_hand: str | None = None) -> None:
        """
        Write the message.

        :param by_hand: the version of a script that must not run twice by itself
        """
        self.script = script
        self.by_hand = by_hand
        self._where = where
        also = "" if by_hand is None else f"; it {_settled_by_hand(by_hand)}"
        super().__init__(f"{script} failed{where}: {problem}{also}")

    def lines(self) -> tuple[str, ...]:
        """Return the message for a screen. Each problem of a cause of ours has a line of its own."""
        cause = self.__cause__.lines() if isinstance(self.__cause__, MigrationError) else ()
        if len(cause) < 2:
            return super().lines()
        also = () if self.by_hand is None else (f"it {_settled_by_hand(self.by_hand)}",)
        return (f"{self.script} failed{self._where}: {cause[0]}", *cause[1:], *also)

    def advice(self) -> NextStep | None:
        """Return what to do next. If the cause is an error of ours, its advice is better than this one's."""
        cause = self.__cause__.advice() if isinstance(self.__cause__, MigrationError) else None
        if self.by_hand is not None or cause is IN_THE_SENTENCE:
            return IN_THE_SENTENCE
        return NOT_THE_SCRIPT.get(self.exit_code) or cause or self.next_step


class TimedOut(MigrationError):
    """A script ran longer than its limit. What it did until then stays. The cause of a :class:`MigrationFailed`."""

    next_step = NextStep(text="raise --script-timeout, or correct the script, and give the same command again")

    def __init__(self, seconds: float) -> None:
        """
        Write the message.

        :param seconds: the limit
        """
        self.seconds = seconds
        super().__init__(f"it ran longer than {seconds:g} s, which is the limit for a script (--script-timeout)")


class IndexConflict(MigrationError):
    """An existing index cannot become the index that was asked for."""

    next_step = NextStep(text="do in the migration what the message says, and give the same command again")

    def __init__(self, collection: str, *problems: str, remedy: str = "", standard: bool = False) -> None:
        """
        Write the message.

        :param remedy: what to do about all of the problems
        :param standard: the problems concern standard indexes, which may be dropped; a live search index must not be
        """
        self.collection, self.problems, self.remedy = collection, problems, remedy
        self.head = f"{collection}: these indexes are in the way:"
        if standard:
            self.next_step = NextStep(
                text="drop or rename the index that is in the way, and give the same command again"
            )
        super().__init__("; ".join([f"{collection}: {'; '.join(problems)}", *filter(None, [remedy])]))


class IndexRefused(MigrationError):
    """The server refuses the definition of an index, or any further index."""

    next_step = NextStep(text="change the definition that the server refused, and give the same command again")

    def __init__(self, collection: str, problems: Sequence[str], *, others_created: bool = False) -> None:
        self.collection = collection
        self.problems = tuple(problems)
        self.head = f"{collection}: the server refuses these indexes:"
        self.remedy = "the other indexes of the call were created" if others_created else ""
        super().__init__("; ".join([f"{collection}: {'; '.join(problems)}", *filter(None, [self.remedy])]))


class ChangeInvalid(MigrationError):
    """The result of a script's function is not a valid change of its document."""

    next_step = NextStep(
        text="correct the script and give the same command again: it continues after the last finished batch"
    )

    def __init__(self, collection: str, identity: object, problem: str) -> None:
        self.collection = collection
        super().__init__(f"{collection}, document with _id {identity!r}: {problem}")


class NotPossible(MigrationError):
    """The request of a script is not possible on this deployment or in this place."""

    next_step = NextStep(text="change what the message names, and give the same command again")


class UsageError(MigrationError):
    """The call itself is wrong."""

    exit_code = 2


class DirectoryMissing(UsageError):
    """
    The folder of the scripts does not exist, or cannot be read.

    :param reason: why an existing one cannot be read
    """

    def __init__(self, directory: Path, reason: str | None = None) -> None:
        problem = f"the directory {directory} cannot be read ({reason})" if reason else f"no directory {directory}"
        super().__init__(f"{problem}; name the one that contains the scripts with --dir or MYDOCS_MIGRATIONS_DIR")


class UnknownVersion(UsageError):
    """No migration has this version."""

    next_step = NextStep(text="`mydocs migrate list` shows the versions", command="list")

    def __init__(self, version: str, known: Sequence[str], suggestion: str | None = None) -> None:
        self.version = version
        some = ", ".join(known if len(known) <= NAMED_VERSIONS else [*known[:2], "…", *known[-2:]])
        hint = f"did you mean {suggestion}?" if suggestion else f"known are {some or 'none'}"
        super().__init__(f"no migration {version}; {hint}")


class SettingsInvalid(UsageError):
    """A flag, an environment variable or a line of the env file is not valid."""


class ServerError(MigrationError):
    """The server cannot be reached, or refuses."""

    exit_code = 3
    next_step = NextStep(text="`mydocs migrate status` asks again and shows what is done", command="status")


class ServerUnreachable(ServerError):
    """
    There was no answer within the time that the driver and the retries allow.

    :param search: the server answered, but the search process behind it did not
    """

    def __init__(self, problem: str, *, search: bool = False) -> None:
        self.problem = problem
        super().__init__(
            f"the server has no answer from its search process (mongot): {problem}; check that it runs"
            if search
            else f"no answer from the server: {problem}; check the URL, the network and that the server is up"
        )


class NotAuthorised(ServerError):
    """The login failed, or the user has no permission for this command."""

    next_step = NextStep(
        text="`mydocs migrate status` tries the login; docs/permissions.md names the roles", command="status"
    )

    def __init__(self, problem: str) -> None:
        super().__init__(f"not authorised: {problem}; check user, password and the user's roles")


class CommandRefused(ServerError):
    """The server answered with an error that a retry cannot correct."""

    def __init__(self, problem: str, code: int | None) -> None:
        super().__init__(f"the server refused: {problem}" + (f" (code {code})" if code is not None else ""))


class SearchUnavailable(ServerError):
    """This server has no search indexes."""

    next_step = NextStep(text="`mydocs migrate run --wait --local` tries the migrations on this machine")

    def __init__(self, problem: str) -> None:
        super().__init__(
            f"this server has no search indexes ({problem}); use Atlas, mongodb/mongodb-atlas-local, a server with "
            "mongot, or `--local` for a try on this machine"
        )


class NotReady(MigrationError):
    """The time was up before every index could be queried, or before every script was applied."""

    exit_code = 5
    next_step = IN_THE_SENTENCE

    def __init__(self, what: Sequence[str], seconds: float, remedy: str = RESUME) -> None:
        self.what = self.problems = tuple(what)
        self.head, self.remedy = f"not ready after {round(seconds, 1):g} s:", remedy
        super().__init__(f"{self.head} {', '.join(what)}; {remedy}")


class IndexFailed(MigrationError):
    """At least one index build failed. The others were waited for."""

    exit_code = 6
    next_step = NextStep(
        text="`mydocs migrate new --kind search` makes the migration; `mydocs migrate wait` looks again"
    )

    def __init__(self, failures: Sequence[tuple[str, str]], *, gone: bool = False) -> None:
        """
        Write the message.

        :param gone: no build failed: the indexes are absent
        """
        self.failures = tuple(failures)
        self.problems = tuple(f"index {index} failed: {reason}" for index, reason in failures)
        self.head = f"{len(failures)} indexes failed:"
        remedy = "correct the definition in a new migration and run again"
        if gone:
            remedy = "create it in a new migration, or run the one that did again (`mydocs migrate mark NNN --pending`)"
            self.next_step = IN_THE_SENTENCE
        self.remedy = remedy
        super().__init__("; ".join([*self.problems, remedy]))


class LeaseError(MigrationError):
    """Another run may migrate now, and this one may not."""

    exit_code = 7


class LeaseHeld(LeaseError):
    """Another run held the lease for the whole time limit."""

    next_step = IN_THE_SENTENCE

    def __init__(
        self,
        holder: LeaseView,
        waited: float,
        remedy: str = "wait for it, raise --lock-timeout, or look at `mydocs migrate unlock`",
    ) -> None:
        self.holder = holder
        still = f", still after {waited:.0f} s" if waited >= 1 else ""
        super().__init__(f"{describe_holder(holder)} holds the lease{still}; {remedy}")


class LeaseLost(LeaseError):
    """The lease ran out or was taken while a script was running."""

    next_step = IN_THE_SENTENCE

    def __init__(self, term: int) -> None:
        self.term = term
        super().__init__(
            f"the lease of term {term} was lost while migrating; nothing more was recorded, the next run decides what "
            "is left (`mydocs migrate status`)"
        )


class WorkLeft(MigrationError):
    """The database is not in the state that the files ask for."""

    exit_code = 8
    next_step = IN_THE_SENTENCE
    head = "work is left:"

    def __init__(
        self, what: Sequence[str], ways_out: Sequence[str] = ("`mydocs migrate check` says what does it",)
    ) -> None:
        self.what, self.ways_out = tuple(what), tuple(ways_out)
        self.problems = self.what
        self.remedy = "; ".join(ways_out)
        super().__init__("; ".join([f"{self.head} {'; '.join(what)}", *ways_out]))


class WouldFail(MigrationError):
    """A plan shows that a script fails."""

    next_step = NextStep(
        text="correct the script, then `mydocs migrate plan` again; docs/plan.md says what a copy cannot do"
    )

    def __init__(self, version: str, problem: str) -> None:
        self.version = version
        super().__init__(f"{version} fails on the copy: {problem}; nothing was changed")


class WouldTakeAway(MigrationError):
    """A plan shows that a run takes an index or a collection away."""

    exit_code = 8
    next_step = NextStep(
        text="if that is meant, `mydocs migrate run` does it; else make the new index beside the old one"
    )
    head = "a run takes something away:"
    remedy = "nothing was changed"

    def __init__(self, what: Sequence[str]) -> None:
        self.what = self.problems = tuple(what)
        super().__init__(f"{self.head} {'; '.join(what)}; {self.remedy}")


class Unverified(MigrationError):
    """Everything is applied and ready, but not right."""

    exit_code = 9
    next_step = NextStep(
        text="correct the data, or what checks it, and run `mydocs migrate check --vectors`", command="check"
    )


class VerifyFailed(Unverified):
    """The ``verify`` of a script raised, or ``check`` found vectors that do not fit. The message names each problem."""

    head = "these checks failed:"

    def __init__(self, problems: Sequence[str | Problem]) -> None:
        self._places = _located(problems)
        self.problems = tuple(each.text for each in self._places)
        super().__init__("; ".join(self.problems))
        self.path, self.line = self._places[0].path, self._places[0].line


class VectorsUnfit(Unverified):
    """
    Documents have vectors that the index does not take, or filter paths that no document has.

    ``vectors``: the counts
    """

    def __init__(self, vectors: "VectorReport", problem: str) -> None:
        self.vectors = vectors
        super().__init__(f"{problem}; correct these documents, or the definition, and run again")


class Interrupted(MigrationError):
    """A signal ended the run."""

    next_step = NextStep(text="`mydocs migrate status` shows what is left", command="status")

    def __init__(self, signal_number: int) -> None:
        self.exit_code = 128 + signal_number
        super().__init__("interrupted; what was done until then is recorded")


def _settled_by_hand(version: str) -> str:
    return (
        f"says IDEMPOTENT = False; look at what it did, then mark it with `mydocs migrate mark {version} --applied` "
        f"(it is done) or `mydocs migrate mark {version} --pending` (run it again)"
    )


def describe_holder(holder: LeaseView) -> str:
    """Return who holds a lease, and how long it lives without a renewal."""
    who = f"{holder.host or 'an unknown host'} (pid {holder.pid if holder.pid is not None else 'unknown'})"
    return f"{who}, term {holder.term}" + (f", {holder.remaining:.0f} s left" if holder.live else ", expired")
