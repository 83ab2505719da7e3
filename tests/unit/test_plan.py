"""Files and ledger entries become one plan, or one error that says what to do."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mydocs.migrations.errors import (
    ChangedScripts,
    NeedsDecision,
    NotReversible,
    OutOfOrder,
    PlanError,
    RenamedScripts,
    ScriptUnfinished,
    SquashIncomplete,
    UnknownVersion,
    UsageError,
)
from mydocs.migrations.ledger.plan import Options, Plan, Standing, classify, make_plan, make_rollback, tracked
from mydocs.migrations.model import (
    Entry,
    IndexAction,
    IndexType,
    LeaseView,
    MigrationState,
    RunStamp,
    Script,
    ScriptKind,
    TrackedIndex,
)

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
STATES = {
    "a": MigrationState.APPLIED,
    "f": MigrationState.FAILED,
    "r": MigrationState.RUNNING,
}


def script(number: int, *, checksum: str | None = None, **options: object) -> Script:
    version = f"{number:03}"
    fields: dict[str, object] = {"kind": ScriptKind.ASYNC, "source": "", "reversible": True} | options
    path, checksum = Path(f"{version}_s{number}.py"), checksum or f"sha256:{number}"
    return Script(number=number, version=version, name=f"s{number}", path=path, checksum=checksum, **fields)  # type: ignore[arg-type]  # the options are a Script's own


def scripts(numbers: str) -> tuple[Script, ...]:
    return tuple(script(int(number)) for number in numbers)


def entry(number: int, state: str = "a", *, term: int = 1, checksum: str | None = "its own") -> Entry:
    return Entry(
        version=f"{number:03}",
        name=f"s{number}",
        script=f"{number:03}_s{number}.py",
        checksum=f"sha256:{number}" if checksum == "its own" else checksum,
        state=STATES[state],
        started_at=NOON + timedelta(seconds=number),
        run=RunStamp(run_id="run", term=term, host="h", pid=1, tool="t"),
    )


def entries(text: str) -> tuple[Entry, ...]:
    """``1a 2f`` is 001 applied and 002 failed."""
    return tuple(entry(int(word[:-1]), word[-1]) for word in text.split())


def lease(term: int = 1, *, live: bool) -> LeaseView:
    return LeaseView(host="h", pid=1, run_id="run", term=term, live=live, remaining=20.0 if live else 0.0)


def plan(
    on_disk: Sequence[Script],
    in_ledger: Sequence[Entry],
    options: Options | None = None,
    holder: LeaseView | None = None,
) -> Plan:
    return make_plan(on_disk, in_ledger, holder, options or Options(), standard_checksum=None)


def numbers_of(made: Plan) -> str:
    return "".join(str(step.number) for step in made.steps)


@pytest.mark.parametrize(
    ("on_disk", "in_ledger", "target", "expected"),
    [
        pytest.param("", "", None, "", id="nothing at all"),
        pytest.param("123", "", None, "123", id="first run"),
        pytest.param("123", "1a", None, "23", id="some applied"),
        pytest.param("123", "1a 2a 3a", None, "", id="all applied"),
        pytest.param("13", "", None, "13", id="a gap is allowed"),
        pytest.param("123", "1a", "2", "2", id="target is included"),
        pytest.param("123", "1a", "002", "2", id="target with zeros"),
        pytest.param("123", "1a", "002_s2.py", "2", id="target by file name"),
        pytest.param("123", "1a 2a", "1", "", id="an applied target runs nothing after it"),
        pytest.param("123", "1a 2f", None, "23", id="failed runs again"),
        pytest.param("123", "1a 2r", None, "23", id="interrupted runs again"),
        pytest.param("23", "1a", None, "23", id="missing stops nothing"),
        pytest.param("12", "1a 2a 3a", None, "", id="an older image on a newer database"),
        pytest.param("12", "1f 2a", None, "1", id="failed below applied is not out of order"),
    ],
)
def test_plan_holds_what_is_pending(on_disk: str, in_ledger: str, target: str | None, expected: str) -> None:
    assert numbers_of(plan(scripts(on_disk), entries(in_ledger), Options(target=target))) == expected


@pytest.mark.parametrize(
    ("state", "holder", "expected"),
    [
        pytest.param("r", None, MigrationState.INTERRUPTED, id="nobody ever held the lease"),
        pytest.param("r", lease(1, live=True), MigrationState.RUNNING, id="its lease lives"),
        pytest.param("r", lease(1, live=False), MigrationState.INTERRUPTED, id="its lease has run out"),
        pytest.param("r", lease(2, live=True), MigrationState.INTERRUPTED, id="somebody else has the lease"),
        pytest.param("a", lease(2, live=True), MigrationState.APPLIED, id="applied stays applied"),
        pytest.param("f", None, MigrationState.FAILED, id="failed stays failed"),
    ],
)
def test_a_running_entry_is_interrupted_once_no_live_lease_holds_its_term(
    state: str, holder: LeaseView | None, expected: MigrationState
) -> None:
    (standing,) = classify(scripts("1"), [entry(1, state)], holder)
    assert standing.state is expected


def test_an_entry_of_a_later_term_than_the_lease_that_was_read_is_running() -> None:
    (standing,) = classify(scripts("1"), [entry(1, "r", term=3)], lease(2, live=False))
    assert standing.state is MigrationState.RUNNING


def test_an_edited_script_stops_the_plan_and_is_named() -> None:
    edited = [script(1, checksum="sha256:2"), script(2)]
    with pytest.raises(ChangedScripts, match=r"001_s1\.py") as caught:
        plan(edited, [entry(1)])
    assert caught.value.file_names == ("001_s1.py",)
    assert numbers_of(plan(edited, [entry(1)], Options(allow_changed=True))) == "2"


def test_an_edited_script_that_has_failed_is_simply_run_again() -> None:
    assert numbers_of(plan([script(1, checksum="sha256:2")], [entry(1, "f")])) == "1"


def test_an_entry_without_a_checksum_counts_as_unchanged() -> None:
    adopted = replace(entry(1, checksum=None), legacy=True, run=None, script="001_s1.py")
    assert plan(scripts("1"), [adopted]).is_empty


def test_another_script_of_an_applied_number_is_named_with_the_one_that_was_applied() -> None:
    applied = replace(entry(1), script="001_other.py")
    with pytest.raises(ChangedScripts, match=r"001_s1\.py \(applied as 001_other\.py\) changed"):
        plan([script(1, checksum="sha256:2")], [applied])


def test_a_script_that_counts_as_applied_for_another_file_is_told() -> None:
    adopted = replace(entry(1, checksum=None), legacy=True, run=None, script="001_other.py")
    (warning,) = plan(scripts("1"), [adopted]).warnings
    assert warning == "001_s1.py counts as applied, since the earlier runner has applied 001_other.py"


def test_a_pending_script_below_the_highest_applied_one_stops_the_plan_and_names_both() -> None:
    with pytest.raises(OutOfOrder) as caught:
        plan(scripts("1234"), entries("1a 3a"))
    assert (caught.value.versions, caught.value.newest_applied) == (("002",), "003")
    assert numbers_of(plan(scripts("1234"), entries("1a 3a"), Options(allow_out_of_order=True))) == "24"


def test_out_of_order_counts_a_highest_applied_script_whose_file_is_gone() -> None:
    with pytest.raises(OutOfOrder, match="before 003"):
        plan(scripts("12"), entries("1a 3a"))


def test_a_missing_file_warns() -> None:
    assert plan(scripts("1"), entries("1a 2a")).warnings == ("applied, but not in this directory: 002",)


def test_a_failed_entry_without_its_file_warns() -> None:
    (warning,) = plan(scripts("1"), entries("1a 2f")).warnings
    assert "002" in warning
    assert "failed" in warning


@pytest.mark.parametrize(("state", "word"), [("f", "failed"), ("r", "interrupted")])
def test_a_script_that_must_not_run_twice_needs_a_decision(state: str, word: str) -> None:
    once = script(1, idempotent=False)
    with pytest.raises(NeedsDecision, match=word) as caught:
        plan([once], [entry(1, state)])
    assert "mark 001 --applied" in str(caught.value)
    assert "mark 001 --pending" in str(caught.value)
    assert numbers_of(plan([once], [])) == "1"


def test_a_script_beyond_the_target_needs_no_decision_yet() -> None:
    on_disk = [script(1), script(2, idempotent=False)]
    assert numbers_of(plan(on_disk, entries("2f"), Options(target="1"))) == "1"


@pytest.mark.parametrize(
    ("target", "hint"),
    [
        pytest.param("021", "did you mean 012?", id="something near"),
        pytest.param("999", "known are 001, 012", id="nothing near"),
        pytest.param("a file", "known are", id="no number"),
    ],
)
def test_an_unknown_target_is_an_error_with_a_hint(target: str, hint: str) -> None:
    with pytest.raises(UnknownVersion) as caught:
        plan([script(1), script(12)], [], Options(target=target))
    assert hint in str(caught.value)
    assert caught.value.exit_code == 2


def test_the_standard_indexes_are_planned_until_the_ledger_has_their_digest() -> None:
    done = replace(entry(1, checksum="digest"), version="standard")
    wanted = [
        make_plan((), known, None, Options(), standard_checksum=checksum).standard
        for known, checksum in [
            ((), "digest"),
            ((done,), "digest"),
            ((done,), "another"),
            ((replace(done, state=MigrationState.FAILED),), "digest"),
            ((), None),
        ]
    ]
    assert wanted == [True, False, True, True, False]


@st.composite
def ledgers(draw: st.DrawFn) -> tuple[tuple[Script, ...], tuple[Entry, ...]]:
    on_disk = draw(st.sets(st.integers(1, 12)))
    recorded = draw(st.dictionaries(st.integers(1, 12), st.sampled_from("afr")))
    edited = draw(st.sets(st.sampled_from(sorted(on_disk)))) if on_disk else set()
    return (
        tuple(script(n, checksum="sha256:2" if n in edited else "sha256:1") for n in on_disk),
        tuple(entry(n, state) for n, state in recorded.items()),
    )


@given(found=ledgers(), target=st.none() | st.integers(1, 12), permissive=st.booleans())
def test_a_plan_is_in_order_runs_nothing_twice_and_is_empty_once_it_was_followed(
    found: tuple[tuple[Script, ...], tuple[Entry, ...]], target: int | None, permissive: bool
) -> None:
    on_disk, in_ledger = found
    options = Options(
        target=None if target is None else str(target), allow_changed=permissive, allow_out_of_order=permissive
    )
    try:
        made = plan(on_disk, in_ledger, options)
    except (PlanError, UnknownVersion):
        return
    steps = [step.number for step in made.steps]
    applied = {int(e.version) for e in in_ledger if e.state is MigrationState.APPLIED}
    assert steps == sorted(steps)
    assert not applied & set(steps)
    assert set(steps) == {s.number for s in on_disk if target is None or s.number <= target} - applied
    kept = [e for e in in_ledger if int(e.version) not in steps]
    then = [*kept, *(entry(s.number, checksum=s.checksum) for s in on_disk if s.number in steps)]
    assert plan(on_disk, then, options).is_empty


def record(name: str, action: IndexAction, collection: str = "pages") -> TrackedIndex:
    return TrackedIndex(collection=collection, name=name, type=IndexType.SEARCH, action=action)


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        pytest.param([(1, "ft", "created")], ["ft:created"], id="created"),
        pytest.param([(1, "ft", "created"), (2, "ft", "updated")], ["ft:updated"], id="the latest word counts"),
        pytest.param([(1, "ft", "created"), (2, "ft", "dropped")], [], id="dropped is no longer tracked"),
        pytest.param(
            [(1, "ft", "created"), (2, "ft", "dropped"), (3, "ft", "created")], ["ft:created"], id="created once more"
        ),
        pytest.param([(2, "b", "created"), (1, "a", "created")], ["a:created", "b:created"], id="two indexes"),
    ],
)
def test_tracked_says_what_each_index_should_be(history: list[tuple[int, str, str]], expected: list[str]) -> None:
    known = [replace(entry(n), indexes=(record(name, IndexAction(action)),)) for n, name, action in history]
    assert [f"{r.name}:{r.action.value}" for r in tracked(known)] == expected


def test_tracked_goes_by_the_order_of_application_and_not_of_numbers() -> None:
    late = replace(entry(1), started_at=NOON + timedelta(hours=1), indexes=(record("ft", IndexAction.UPDATED),))
    early = replace(entry(2), started_at=NOON, indexes=(record("ft", IndexAction.DROPPED),))
    assert [r.action for r in tracked([late, early])] == [IndexAction.UPDATED]


def test_one_name_on_two_collections_is_two_indexes() -> None:
    both = (record("ft", IndexAction.CREATED), record("ft", IndexAction.CREATED, "documents"))
    assert len(tracked([replace(entry(1), indexes=both)])) == 2


@pytest.mark.parametrize(
    ("in_ledger", "steps", "target", "expected"),
    [
        pytest.param("1a 2a 3a", 1, None, "3", id="the newest"),
        pytest.param("1a 2a 3a", 2, None, "32", id="newest first"),
        pytest.param("1a 2a 3a", 9, None, "321", id="no more than there are"),
        pytest.param("1a 2a 3a", None, "1", "32", id="the target stays"),
        pytest.param("1a 2a 3a", None, "3", "", id="the newest stays"),
        pytest.param("1a 2f", 1, None, "2", id="a failed one can be taken back"),
        pytest.param("", 1, None, "", id="nothing applied"),
    ],
)
def test_a_rollback_takes_back_the_newest_first(
    in_ledger: str, steps: int | None, target: str | None, expected: str
) -> None:
    standings = classify(scripts("123"), entries(in_ledger), None)
    assert "".join(str(s.number) for s in make_rollback(standings, steps=steps, target=target)) == expected


def test_a_rollback_names_all_that_cannot_be_taken_back_before_it_touches_one() -> None:
    on_disk = [script(1, kind=ScriptKind.PLAIN, reversible=False), script(2, reversible=False), script(4)]
    standings = classify(on_disk, entries("1a 2a 3a 4a"), None)
    with pytest.raises(NotReversible) as caught:
        make_rollback(standings, steps=4, target=None)
    assert [problem[:3] for problem in caught.value.problems] == ["003", "002", "001"]


@pytest.mark.parametrize(
    ("holder", "state"),
    [
        pytest.param(None, MigrationState.RUNNING, id="somebody of a later term may be at work"),
        pytest.param("run", MigrationState.RUNNING, id="the holder's own"),
        pytest.param("other", MigrationState.INTERRUPTED, id="whoever holds the lease knows that nobody else is"),
    ],
)
def test_the_holder_of_the_lease_takes_no_other_run_for_alive(holder: str | None, state: MigrationState) -> None:
    (standing,) = classify(scripts("1"), [entry(1, "r", term=5)], lease(2, live=True), run_id=holder)
    assert standing.state is state


@pytest.mark.parametrize(("steps", "target"), [(0, None), (-1, None), (1, "001")])
def test_a_rollback_is_told_how_far_in_one_way(steps: int, target: str | None) -> None:
    standings = classify(scripts("1"), [entry(1, "a")], lease(2, live=False))
    with pytest.raises(UsageError, match="1 or more, or which one is to stay"):
        make_rollback(standings, steps=steps, target=target)


def squash(number: int, *replaces: str) -> Script:
    return script(number, replaces=replaces)


@pytest.mark.parametrize(
    ("on_disk", "in_ledger", "steps", "standings"),
    [
        pytest.param("", "", "3", "3 pending", id="a new database runs it alone, the files gone"),
        pytest.param("12", "", "3", "3 pending", id="a new database runs it alone, the files there"),
        pytest.param("", "1a 2a", "", "1 applied, 2 applied, 3 applied", id="all applied, the files gone"),
        pytest.param("12", "1a 2a", "", "1 applied, 2 applied, 3 applied", id="all applied, the files there"),
        pytest.param("12", "3a", "", "3 applied", id="it ran itself, the files there"),
        pytest.param("", "3a", "", "3 applied", id="it ran itself, the files gone"),
        pytest.param("1", "1a 2a 3a", "", "1 applied, 2 applied, 3 applied", id="recorded, a file is gone"),
        pytest.param("12", "3f", "3", "3 failed", id="it failed and runs again"),
        pytest.param("124", "1a 2a", "4", "1 applied, 2 applied, 3 applied, 4 pending", id="what follows it runs"),
        pytest.param("124", "1a 2a 4a", "", "1 applied, 2 applied, 3 applied, 4 applied", id="older than the last"),
    ],
)
def test_a_script_stands_for_those_that_it_replaces(on_disk: str, in_ledger: str, steps: str, standings: str) -> None:
    made = plan([*scripts(on_disk), squash(3, "001", "2")], entries(in_ledger))
    assert numbers_of(made) == steps
    assert ", ".join(f"{s.number} {s.state}" for s in made.standings) == standings
    assert made.warnings == ()


@pytest.mark.parametrize(
    ("on_disk", "in_ledger", "missing"),
    [
        pytest.param("", "1a", "002 (pending)", id="one never ran, its file gone"),
        pytest.param("12", "1a", "002 (pending)", id="one never ran, its file there"),
        pytest.param("", "2a", "001 (pending)", id="the first never ran"),
        pytest.param("12", "1a 2f", "002 (failed)", id="one failed"),
        pytest.param("12", "1a 2r", "002 (interrupted)", id="one was interrupted"),
        pytest.param("12", "1f", "001 (failed), 002 (pending)", id="none is applied"),
    ],
)
def test_a_mixture_of_replaced_ones_is_refused_by_what_is_missing(on_disk: str, in_ledger: str, missing: str) -> None:
    with pytest.raises(SquashIncomplete) as caught:
        plan([*scripts(on_disk), squash(3, "001", "002")], entries(in_ledger))
    assert f"missing: {missing};" in str(caught.value)
    assert "003_s3.py replaces 001, 002" in str(caught.value)
    assert "`mydocs migrate mark 003 --applied`" in str(caught.value)


def test_a_mixture_is_no_error_while_somebody_is_at_work_on_it() -> None:
    made = plan([squash(3, "001", "002")], entries("1a 2r"), holder=lease(live=True))
    assert numbers_of(made) == "3"


def test_a_replaced_script_that_was_edited_stops_nothing() -> None:
    edited = script(1, checksum="sha256:edited")
    made = plan([edited, squash(2, "001")], entries("1a"))
    assert [s.state for s in made.standings] == [MigrationState.APPLIED, MigrationState.APPLIED]


def test_a_squash_of_squashes_stands_for_all_of_them() -> None:
    outer = [squash(3, "001", "002"), squash(5, "003", "004")]
    assert numbers_of(plan(outer, ())) == "5"
    assert numbers_of(plan([*scripts("124"), *outer], ())) == "5"
    assert numbers_of(plan([*scripts("124"), *outer], entries("1a 2a 4a"))) == ""
    with pytest.raises(SquashIncomplete, match=r"004 \(pending\)"):
        plan(outer, entries("1a 2a"))


@pytest.mark.parametrize("in_ledger", ["1a 2a", "1a 2a 3a"])
def test_what_only_counts_as_applied_cannot_be_rolled_back(in_ledger: str) -> None:
    standings = classify([*scripts("12"), squash(3, "001", "002")], entries(in_ledger), None)
    with pytest.raises(NotReversible, match=r"003_s3\.py replaces 001, 002, which ran on their own"):
        make_rollback(standings, steps=1, target=None)


def test_a_squash_that_ran_itself_can_be_rolled_back() -> None:
    standings = classify([*scripts("12"), squash(3, "001", "002")], entries("3a"), None)
    assert [s.version for s in make_rollback(standings, steps=1, target=None)] == ["003"]


def test_a_renamed_script_is_named_with_what_it_was() -> None:
    renamed = script(4, checksum="sha256:2")
    with pytest.raises(RenamedScripts, match=r"004_s4\.py has the text of 002_s2\.py, which is applied") as caught:
        plan([script(1), renamed], [entry(1), entry(2)])
    assert "mydocs migrate mark 004 --applied" in str(caught.value)
    assert numbers_of(plan([script(1), renamed], [entry(1), entry(2)], Options(allow_changed=True))) == "4"


def test_a_copy_of_a_script_that_is_still_there_is_no_renamed_one() -> None:
    assert numbers_of(plan([script(1), script(2, checksum="sha256:1")], [entry(1)])) == "2"


def test_a_script_that_is_not_written_yet_stops_the_run_before_anything() -> None:
    with pytest.raises(ScriptUnfinished, match=r"002_s2\.py, line 9") as caught:
        plan([script(1), script(2, unfinished=9)], [])
    assert (caught.value.path, caught.value.line) == (Path("002_s2.py"), 9)
    assert numbers_of(plan([script(1), script(2, unfinished=9)], [], Options(target="1"))) == "1"
    assert numbers_of(plan([script(1), script(2, unfinished=9)], [entry(1), entry(2)])) == ""


@pytest.mark.parametrize(("asked", "meant"), [("0100", "010"), ("9", None), ("021", "012"), ("s1O", None)])
def test_only_a_version_that_is_near_is_suggested(asked: str, meant: str | None) -> None:
    with pytest.raises(UnknownVersion) as caught:
        plan([script(number) for number in (1, 2, 10, 12)], [], Options(target=asked))
    assert ("did you mean" in str(caught.value)) is (meant is not None)
    assert meant is None or f"did you mean {meant}?" in str(caught.value)


def test_the_work_of_a_plan_grows_with_the_scripts_and_not_with_their_square(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = 0

    def number(self: Standing) -> int:
        nonlocal looked
        looked += 1
        return int(self.version)

    monkeypatch.setattr(Standing, "number", property(number))
    costs = []
    for count in (100, 200):
        looked = 0
        make_plan([script(n) for n in range(1, count + 1)], [], None, Options(), standard_checksum=None)
        costs.append(looked)
    assert costs[1] <= 2 * costs[0]
