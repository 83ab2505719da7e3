"""The catalogue of search indexes: commands, lives and listings, on a clock that only the test moves."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from math import inf
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mydocs.localserver.control.clock import ManualClock
from mydocs.localserver.errors import CommandError
from mydocs.localserver.search import MONGOT, Dialect, Generation, IndexOutcome, SearchSettings
from mydocs.localserver.search.catalogue import SearchCatalogue

START = datetime(2026, 3, 1, 12, 0, 0, 125_000, tzinfo=UTC)
TEXT = {"mappings": {"dynamic": True}}
OTHER = {"mappings": {"dynamic": False, "fields": {"a": {"type": "string"}}}}
VECTOR = {"fields": [{"type": "vector", "path": "v", "numDimensions": 8, "similarity": "cosine"}]}
EMBED = {"fields": [{"type": "autoEmbed", "path": "t", "model": "voyage-4", "modality": "text"}]}
UUID = "a1"


class Server:
    """A catalogue with one collection, what it saved, and its clock."""

    def __init__(
        self, settings: SearchSettings | None = None, *, stored: dict[str, Mapping[str, Any]] | None = None
    ) -> None:
        self.clock = ManualClock(START)
        self.stored = {} if stored is None else stored
        self.catalogue = SearchCatalogue(self.clock, settings, self.stored, self._save)

    def _save(self, key: str, document: Mapping[str, Any] | None) -> None:
        if document is None:
            self.stored.pop(key, None)
        else:
            self.stored[key] = document

    def create(self, *names: str, definition: Any = None, kind: str | None = None) -> list[str]:
        spec = {"definition": definition or TEXT} | ({} if kind is None else {"type": kind})
        indexes = [{"name": name, **spec} for name in names]
        created = self.catalogue.create("db", "docs", UUID, {"createSearchIndexes": "docs", "indexes": indexes})
        return [one["id"] for one in created["indexesCreated"]]

    def update(self, name: str, definition: Any = None, **more: Any) -> None:
        command = {"updateSearchIndex": "docs", "name": name, "definition": definition or OTHER, **more}
        assert self.catalogue.update("db", "docs", UUID, command) == {}

    def drop(self, name: str) -> None:
        assert self.catalogue.drop("db", "docs", UUID, {"dropSearchIndex": "docs", "name": name}) == {}

    def listing(self, name: str | None = None) -> list[dict[str, Any]]:
        return self.catalogue.list("db", "docs", UUID, {} if name is None else {"name": name})

    def look(self, name: str = "a") -> tuple[str, bool, int] | None:
        """Give status, queryable and version of one index."""
        for one in self.listing(name):
            return one["status"], one["queryable"], one["latestDefinitionVersion"]["version"]
        return None

    def looks(self, name: str, *seconds: float) -> list[str]:
        """Give the status at each of these times after the start."""
        found = []
        for moment in seconds:
            self.clock.advance(moment - self.clock.monotonic())
            seen = self.look(name)
            found.append("-" if seen is None else seen[0] + ("+" if seen[1] else ""))
        return found


def refusal(call: Callable[[], object]) -> tuple[int, str]:
    with pytest.raises(CommandError) as refused:
        call()
    return refused.value.code, refused.value.message


# -- lives


def test_an_index_is_pending_then_building_then_ready() -> None:
    server = Server(SearchSettings(pending_seconds=1, build_seconds=2))
    server.create("a")
    assert server.looks("a", 0, 0.9, 1, 2.9, 3) == ["PENDING", "PENDING", "BUILDING", "BUILDING", "READY+"]


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        pytest.param({"fails": "boom"}, "BUILDING FAILED FAILED FAILED FAILED FAILED FAILED", id="fails"),
        pytest.param(
            {"fails": "boom", "recovers_after": 2},
            "BUILDING FAILED FAILED BUILDING READY+ READY+ READY+",
            id="recovers",
        ),
        pytest.param({"build_seconds": inf}, " ".join(["BUILDING"] * 7), id="never ends"),
        pytest.param({"pending_seconds": 2}, "PENDING PENDING BUILDING READY+ READY+ READY+ READY+", id="waits"),
        pytest.param(
            {"stale_after": 2, "stale_seconds": 2}, "BUILDING READY+ READY+ STALE+ STALE+ READY+ READY+", id="stale"
        ),
        pytest.param({"appears_after": 3}, "- - - READY+ READY+ READY+ READY+", id="listed late"),
        pytest.param({"vanishes_after": 4}, "BUILDING READY+ READY+ READY+ - - -", id="dropped by somebody"),
    ],
)
def test_an_outcome_decides_the_life_of_its_index_alone(outcome: dict[str, Any], expected: str) -> None:
    server = Server(SearchSettings(pending_seconds=0, build_seconds=1))
    server.catalogue.outcome("a", **outcome)
    server.create("a", "b")
    assert " ".join(server.looks("a", 0, 1, 2, 3, 4, 5, 6)) == expected
    assert server.look("b") == ("READY", True, 0)


def test_an_outcome_of_one_collection_leaves_the_others_alone() -> None:
    settings = SearchSettings(outcomes={("docs", "a"): IndexOutcome(fails="no"), "a": IndexOutcome(build_seconds=9)})
    server = Server(settings)
    server.create("a")
    server.catalogue.create("db", "pages", "b2", {"indexes": [{"name": "a", "definition": TEXT}]})
    server.clock.advance(10)
    assert server.look() == ("FAILED", False, 0)
    assert [one["status"] for one in server.catalogue.list("db", "pages", "b2", {})] == ["READY"]


def test_a_change_of_outcome_changes_what_is_to_come_and_not_the_past() -> None:
    server = Server(SearchSettings(pending_seconds=0, build_seconds=10))
    server.create("a")
    server.clock.advance(1)
    server.catalogue.outcome("a", build_seconds=0)
    assert server.look() == ("READY", True, 0)
    server.catalogue.outcome("a", fails="too late")
    assert server.look() == ("READY", True, 0)
    server.update("a")
    assert server.look() == ("FAILED", True, 1)


def test_while_an_update_builds_the_old_version_serves() -> None:
    server = Server(SearchSettings(pending_seconds=1, build_seconds=1))
    server.create("a")
    server.clock.advance(2)
    server.update("a")
    assert server.look() == ("BUILDING", True, 1)
    (listed,) = server.listing()
    (detail,) = listed["statusDetail"]
    assert listed["latestDefinition"] == OTHER
    assert (detail["mainIndex"]["status"], detail["mainIndex"]["definition"]) == ("READY", TEXT)
    assert (detail["stagedIndex"]["status"], detail["stagedIndex"]["definition"]) == ("PENDING", OTHER)
    server.clock.advance(2)
    assert server.look() == ("READY", True, 1)
    assert "stagedIndex" not in server.listing()[0]["statusDetail"][0]


def test_an_update_that_fails_leaves_the_old_version_serving() -> None:
    server = Server()
    server.create("a")
    server.clock.advance(2)
    server.catalogue.outcome("a", fails="Invalid definition: no analyzer x")
    server.update("a")
    server.clock.advance(2)
    assert server.look() == ("FAILED", True, 1)
    detail = server.listing()[0]["statusDetail"][0]
    assert detail["stagedIndex"]["message"] == "Invalid definition: no analyzer x"
    assert detail["mainIndex"]["queryable"] is True
    server.catalogue.outcome("a", fails=None)
    server.update("a", TEXT)
    server.clock.advance(2)
    assert server.look() == ("READY", True, 2)


def test_an_update_of_what_never_was_ready_replaces_it() -> None:
    server = Server()
    server.create("a")
    server.update("a")
    assert server.look() == ("PENDING", False, 1)


@pytest.mark.parametrize("outcome", [{"old_seconds": 3.0}, {"old_looks": 2}], ids=["for a time", "for some looks"])
def test_right_after_an_update_the_old_version_can_still_be_listed_as_ready(outcome: dict[str, Any]) -> None:
    server = Server()
    server.catalogue.outcome("a", **outcome)
    server.create("a")
    server.clock.advance(5)
    server.update("a")
    assert [server.look(), server.look()] == [("READY", True, 0), ("READY", True, 0)]
    server.clock.advance(3)
    assert server.look() == ("READY", True, 1)


def test_a_host_that_lags_holds_the_index_back_once_it_has_reported() -> None:
    server = Server(SearchSettings(pending_seconds=0, build_seconds=2, hosts=("h0", "h1")))
    server.catalogue.outcome("a", lags=(0, 3))
    server.create("a")
    # At 2 the second host has not been heard of, so the listing says READY too early.
    assert server.looks("a", 1, 2, 3, 5) == ["BUILDING", "READY+", "BUILDING", "READY+"]
    server.update("a")
    server.clock.advance(2)
    (listed,) = server.listing()
    assert [detail["hostname"] for detail in listed["statusDetail"]] == ["h0", "h1"]
    assert [detail["mainIndex"]["definitionVersion"]["version"] for detail in listed["statusDetail"]] == [1, 0]
    assert (listed["status"], listed["queryable"]) == ("BUILDING", True)


def test_hosts_of_a_self_managed_server_report_at_their_ticks() -> None:
    server = Server(MONGOT)
    server.create("a")
    # The start is at a full minute and 0.125 s, a tick comes each 30 s.
    assert server.looks("a", 0, 5, 29.8, 29.9) == ["PENDING", "PENDING", "PENDING", "READY+"]
    assert server.listing()[0]["statusDetail"] != []


def test_a_queue_of_two_builds_two_at_a_time() -> None:
    server = Server(SearchSettings(pending_seconds=0, build_seconds=10, max_building=2))
    server.create("a", "b", "c", "d", "e")
    shown = []
    for _ in range(4):
        shown.append("".join(one["status"][0] for one in server.listing()))
        server.clock.advance(10)
    assert shown == ["BBPPP", "RRBBP", "RRRRB", "RRRRR"]


def test_a_place_in_the_queue_that_becomes_free_is_taken_from_then_on() -> None:
    server = Server(SearchSettings(dialect=Dialect.SELF_MANAGED, pending_seconds=0, build_seconds=10, max_building=1))
    server.create("a", "b", "c")
    server.clock.advance(4)
    server.drop("a")
    assert server.looks("b", 4, 13.9, 14) == ["BUILDING", "BUILDING", "READY+"]
    server.catalogue.outcome("c", build_seconds=1)
    assert server.looks("c", 14.9, 15) == ["BUILDING", "READY+"]


@given(
    seconds=st.lists(st.integers(0, 30), min_size=1, max_size=8),
    limit=st.integers(1, 4),
    moments=st.lists(st.floats(0, 100), max_size=8),
    touch=st.booleans(),
)
def test_no_more_are_built_than_allowed_and_what_is_ready_stays_so(
    seconds: list[int], limit: int, moments: list[float], touch: bool
) -> None:
    names = [f"i{number}" for number in range(len(seconds))]
    outcomes: dict[str | tuple[str, str], IndexOutcome] = {
        name: IndexOutcome(build_seconds=value) for name, value in zip(names, seconds, strict=True)
    }
    server = Server(SearchSettings(pending_seconds=0, max_building=limit, outcomes=outcomes))
    server.create(*names)
    ready: set[str] = set()
    for moment in [*sorted(moments), 8 * 30.0]:
        server.clock.advance(max(0.0, moment - server.clock.monotonic()))
        if touch:
            server.catalogue.outcome("another", build_seconds=1)  # writes down what has happened
        listed = {one["name"]: one["status"] for one in server.listing()}
        assert list(listed.values()).count("BUILDING") <= limit
        now_ready = {name for name, status in listed.items() if status == "READY"}
        assert ready <= now_ready
        ready = now_ready
    assert ready == set(names)


def test_builds_go_on_over_a_restart() -> None:
    settings = SearchSettings(pending_seconds=0, build_seconds=10, max_building=1)
    server = Server(settings)
    server.create("a", "b")
    server.update("b")
    server.clock.advance(5)
    again = Server(settings, stored=server.stored)
    assert again.listing() == Server(settings, stored=again.stored).listing()
    again.clock.advance(20)
    assert [(one["status"], one["latestDefinition"]) for one in again.listing()] == [("READY", TEXT), ("READY", OTHER)]
    again.drop("a")
    again.clock.advance(1)
    again.listing()
    assert [document["name"] for document in again.stored.values()] == ["b"]


# -- commands


def test_a_name_and_a_type_are_filled_in() -> None:
    server = Server()
    reply = server.catalogue.create("db", "docs", UUID, {"indexes": [{"definition": TEXT}]})
    (listed,) = server.listing()
    assert reply == {"indexesCreated": [{"id": listed["id"], "name": "default"}]}
    assert (listed["name"], listed["type"]) == ("default", "search")
    assert len(bytes.fromhex(listed["id"])) == 12


def test_an_index_is_found_by_its_id_too() -> None:
    server = Server()
    key, _ = server.create("a", "b")
    server.catalogue.update("db", "docs", UUID, {"id": key, "definition": OTHER})
    assert [one["name"] for one in server.catalogue.list("db", "docs", UUID, {"id": key})] == ["a"]
    assert server.look("a") == ("PENDING", False, 1)
    server.catalogue.drop("db", "docs", UUID, {"id": key})
    assert server.look("a") == ("DELETING", False, 1)


@pytest.mark.parametrize(
    ("command", "code"),
    [
        pytest.param({"name": "a", "id": "b", "definition": TEXT}, 72, id="both"),
        pytest.param({"definition": TEXT}, 72, id="neither"),
        pytest.param({"name": 1, "definition": TEXT}, 14, id="a name that is a number"),
        pytest.param({"name": "a"}, 40414, id="no definition"),
        pytest.param({"name": "a", "definition": TEXT, "wait": True}, 40415, id="unknown field"),
        pytest.param({"name": "a", "definition": TEXT, "writeConcern": {"w": 1}}, 72, id="write concern"),
        pytest.param({"name": "x", "definition": TEXT}, 27, id="no such index"),
        pytest.param({"id": "64" * 12, "definition": TEXT}, 27, id="no such id"),
        pytest.param({"name": "a", "definition": VECTOR}, 197, id="another type, by its keys"),
        pytest.param({"name": "a", "type": "vectorSearch", "definition": {"x": 1}}, 197, id="another type, said so"),
        pytest.param({"name": "a", "definition": {"x": 1}}, 2, id="no mappings"),
    ],
)
def test_an_update_is_refused_and_changes_nothing(command: dict[str, Any], code: int) -> None:
    server = Server()
    server.create("a")
    server.create("e", definition=EMBED, kind="vectorSearch")
    before = server.listing()
    assert refusal(lambda: server.catalogue.update("db", "docs", UUID, command))[0] == code
    assert server.listing() == before


def test_atlas_embeds_anew_while_the_old_definition_serves() -> None:
    server = Server()
    server.create("e", definition=EMBED, kind="vectorSearch")
    server.clock.advance(10)
    assert server.look("e") == ("READY", True, 0)
    again = {"fields": [{**EMBED["fields"][0], "model": "voyage-5"}]}
    server.catalogue.update("db", "docs", UUID, {"name": "e", "definition": again})
    assert server.look("e") == ("BUILDING", True, 1)
    server.clock.advance(10)
    assert server.look("e") == ("READY", True, 1)


@pytest.mark.parametrize("dialect", [Dialect.SELF_MANAGED, Dialect.ATLAS_LOCAL])
def test_mongot_refuses_to_embed_anew(dialect: Dialect) -> None:
    server = Server(SearchSettings(dialect=dialect))
    server.create("e", definition=EMBED, kind="vectorSearch")
    before = server.listing()
    for definition in ({"fields": [{**EMBED["fields"][0], "model": "voyage-5"}]}, VECTOR):
        command = {"name": "e", "definition": definition}
        code, message = refusal(lambda command=command: server.catalogue.update("db", "docs", UUID, command))  # type: ignore[misc]  # bound now
        assert (code, "delete the index" in message) == (125, True)
    assert server.listing() == before


@pytest.mark.parametrize(
    ("command", "code"),
    [
        pytest.param({}, 40414, id="no indexes"),
        pytest.param({"indexes": {"definition": TEXT}}, 14, id="no array"),
        pytest.param({"indexes": [1]}, 14, id="no document"),
        pytest.param({"indexes": [{"name": "b"}]}, 40414, id="no definition"),
        pytest.param({"indexes": [{"definition": TEXT, "kind": "search"}]}, 40415, id="unknown field of an index"),
        pytest.param({"indexes": [{"definition": TEXT}], "commitQuorum": 1}, 40415, id="unknown field"),
        pytest.param({"indexes": [{"definition": TEXT}], "readConcern": {}}, 72, id="read concern"),
        pytest.param({"indexes": [{"definition": TEXT, "type": 1}]}, 14, id="a type that is a number"),
        pytest.param({"indexes": [{"definition": TEXT}, {"name": "v", "definition": VECTOR}]}, 2, id="one is bad"),
        pytest.param({"indexes": [{"definition": TEXT}, {"name": "a", "definition": TEXT}]}, 68, id="one is there"),
        pytest.param({"indexes": [{"definition": TEXT}, {"definition": TEXT}]}, 68, id="one twice"),
    ],
)
def test_a_create_is_refused_as_a_whole(command: dict[str, Any], code: int) -> None:
    server = Server()
    server.create("a")
    assert refusal(lambda: server.catalogue.create("db", "docs", UUID, command))[0] == code
    assert [one["name"] for one in server.listing()] == ["a"]


def test_what_a_driver_adds_to_any_command_is_accepted() -> None:
    command = {"indexes": [{"definition": TEXT}], "$db": "db", "lsid": {}, "$clusterTime": {}, "comment": "c"}
    assert Server().catalogue.create("db", "docs", UUID, command)["indexesCreated"]


@pytest.mark.parametrize("dialect", Dialect, ids=str)
def test_a_missing_collection_is_an_error_but_lists_as_empty(dialect: Dialect) -> None:
    catalogue = Server(SearchSettings(dialect=dialect)).catalogue
    create = {"indexes": [{"definition": TEXT}]}
    expected = (26, "Collection 'db.none' does not exist.")
    assert refusal(lambda: catalogue.create("db", "none", None, create)) == expected
    assert refusal(lambda: catalogue.update("db", "none", None, {"name": "a", "definition": TEXT})) == expected
    assert refusal(lambda: catalogue.drop("db", "none", None, {"name": "a"})) == expected
    assert catalogue.list("db", "none", None, {}) == []


def test_a_self_managed_server_takes_an_equal_create_for_done_and_mints_an_id() -> None:
    server = Server(SearchSettings(dialect=Dialect.SELF_MANAGED))
    (key,) = server.create("a", definition=OTHER)
    filled = {"mappings": {"fields": {"a": {"type": "string", "store": True}}}}
    other, _ = server.create("a", "b", definition=filled)
    assert [one["name"] for one in server.listing()] == ["a", "b"]
    assert server.listing("a")[0]["id"] == key != other
    assert server.listing("a")[0]["latestDefinition"] == OTHER
    code, message = refusal(lambda: server.create("c", "a"))
    assert (code, message.split(".")[0]) == (68, "Index a already exists with a different definition")
    assert refusal(lambda: server.create("d", "d"))[0] == 125
    assert [one["name"] for one in server.listing()] == ["a", "b"]


@pytest.mark.parametrize(
    ("dialect", "version"), [(Dialect.SELF_MANAGED, 1), (Dialect.ATLAS, 0)], ids=["self-managed", "atlas"]
)
def test_an_update_that_changes_nothing_rebuilds_on_a_self_managed_server(dialect: Dialect, version: int) -> None:
    server = Server(SearchSettings(dialect=dialect))
    server.create("a")
    server.clock.advance(2)
    server.update("a", TEXT)
    assert server.look() == ("READY" if version == 0 else "BUILDING", True, version)


def test_atlas_lists_an_index_that_is_being_deleted_and_keeps_its_name_meanwhile() -> None:
    server = Server(SearchSettings(delete_seconds=3))
    server.create("a")
    server.clock.advance(2)
    server.drop("a")
    assert server.look() == ("DELETING", False, 0)
    assert refusal(lambda: server.drop("a")) == (125, "Index already requested to be deleted")
    assert refusal(lambda: server.create("a")) == (68, "Duplicate Index")
    assert refusal(lambda: server.update("a"))[0] == 27
    server.clock.advance(3)
    assert server.look() is None
    assert refusal(lambda: server.drop("a")) == (27, "No index with name a exists in namespace db.docs")
    server.create("a")


def test_an_index_that_was_updated_before_it_was_dropped_leaves_like_any_other() -> None:
    server = Server(SearchSettings(delete_seconds=3))
    server.create("a")
    server.clock.advance(2)
    server.update("a")
    server.drop("a")
    assert server.looks("a", 2, 4.9, 5) == ["DELETING", "DELETING", "-"]


STEP = st.one_of(
    st.tuples(st.sampled_from(["create", "update"]), st.sampled_from("ab"), st.sampled_from([TEXT, OTHER, VECTOR])),
    st.tuples(st.just("drop"), st.sampled_from("ab")),
    st.tuples(st.just("advance"), st.sampled_from([0.1, 0.4, 1.0, 5.0])),
    st.tuples(
        st.just("outcome"),
        st.sampled_from("ab"),
        st.sampled_from([{"fails": "no"}, {"fails": None}, {"vanishes_after": 3.0}, {"old_looks": 1}, {"lags": (1,)}]),
    ),
    st.tuples(st.just("restart")),
)
# What a server says to commands that come at the wrong time.
ORDINARY = {27, 68, 125, 197, 2}


@pytest.mark.parametrize("dialect", Dialect, ids=str)
@settings(max_examples=400)
@given(
    steps=st.lists(STEP, max_size=20),
    max_building=st.sampled_from([None, 1]),
    publish_seconds=st.sampled_from([0.0, 2.0]),
)
def test_whatever_comes_in_whatever_order_is_answered_or_refused(
    dialect: Dialect, steps: list[tuple[Any, ...]], max_building: int | None, publish_seconds: float
) -> None:
    search = SearchSettings(dialect=dialect, max_building=max_building, publish_seconds=publish_seconds)
    server = Server(search)
    server.create("a")
    server.clock.advance(1)  # ready, so that an update leaves two versions of it
    for step, *given_with in steps:
        try:
            match step, given_with:
                case "create", [name, definition]:
                    server.create(name, definition=definition, kind="vectorSearch" if definition is VECTOR else None)
                case "update", [name, definition]:
                    server.update(name, definition)
                case "drop", [name]:
                    server.drop(name)
                case "advance", [seconds]:
                    server.clock.advance(seconds)
                case "outcome", [name, changes]:
                    server.catalogue.outcome(name, **changes)
                case _:
                    clock = server.clock
                    server = Server(search, stored=server.stored)
                    server.clock.advance(clock.monotonic())
        except CommandError as refused:
            if refused.code not in ORDINARY:
                raise
        names = [one["name"] for one in server.listing()]
        assert len(names) == len(set(names))


def test_elsewhere_a_dropped_index_is_gone_with_the_reply() -> None:
    server = Server(SearchSettings(dialect=Dialect.SELF_MANAGED, delete_seconds=3))
    server.create("a")
    server.drop("a")
    assert server.listing() == []
    assert server.stored == {}


def test_a_dropped_collection_takes_its_indexes_along() -> None:
    server = Server()
    server.create("a")
    server.catalogue.create("db", "docs", "new", {"indexes": [{"definition": TEXT}]})
    server.catalogue.drop_collection(UUID)
    assert server.listing() == []
    assert len(server.catalogue.list("db", "docs", "new", {})) == 1
    assert len(server.stored) == 1


def test_a_cluster_that_is_full_takes_no_more() -> None:
    server = Server(SearchSettings(quota=3))
    server.create("a", "b")
    code, message = refusal(lambda: server.create("c", "d"))
    assert (code, "maximum number" in message) == (20, True)
    server.drop("a")
    server.create("c", "d")


def test_a_local_server_of_8_0_cannot_update_a_vector_index() -> None:
    server = Server(SearchSettings(dialect=Dialect.ATLAS_LOCAL, vector_updates=False))
    server.create("v", definition=VECTOR, kind="vectorSearch")
    assert refusal(lambda: server.update("v", VECTOR)) == (125, '"mappings" is required')
    assert refusal(lambda: server.update("v", VECTOR, type="vectorSearch"))[0] == 40415


# -- listings


def test_the_listing_of_atlas() -> None:
    server = Server()
    (key,) = server.create("v", definition=VECTOR, kind="vectorSearch")
    server.clock.advance(1)
    version = {"version": 0, "createdAt": START}
    main = {"status": "READY", "queryable": True, "definitionVersion": version, "definition": VECTOR}
    (listed,) = server.listing()
    assert listed == {
        "id": key,
        "name": "v",
        "type": "vectorSearch",
        "status": "READY",
        "queryable": True,
        "latestDefinitionVersion": version,
        "latestDefinition": VECTOR,
        "statusDetail": [{"hostname": "local-shard-00-00", "status": "READY", "queryable": True, "mainIndex": main}],
    }


@pytest.mark.parametrize(
    ("dialect", "keys"),
    [
        pytest.param(
            Dialect.SELF_MANAGED,
            "id name status queryable latestDefinitionVersion latestDefinition statusDetail",
            id="self-managed",
        ),
        pytest.param(
            Dialect.ATLAS_LOCAL, "id name type status queryable latestVersion latestDefinition", id="atlas-local"
        ),
    ],
)
def test_the_listing_of_other_servers_has_other_keys(dialect: Dialect, keys: str) -> None:
    server = Server(SearchSettings(dialect=dialect))
    server.create("a")
    assert " ".join(server.listing()[0]) == keys


def test_the_listing_can_show_definitions_with_the_servers_defaults() -> None:
    server = Server(SearchSettings(fill_defaults=True))
    server.create("v", definition=VECTOR, kind="vectorSearch")
    field = server.listing()[0]["latestDefinition"]["fields"][0]
    assert (field["quantization"], field["path"]) == ("none", "v")


def test_a_listing_that_is_too_large_is_refused_unless_it_is_narrowed() -> None:
    server = Server(SearchSettings(listing_too_large=True))
    server.create("a")
    assert refusal(server.listing)[0] == 396
    assert [one["name"] for one in server.listing("a")] == ["a"]


@pytest.mark.parametrize(
    ("selector", "code"),
    [({"name": "a", "id": "b"}, 72), ({"status": "READY"}, 40415), ({"$x": 1}, 40415), ({"name": 1}, 14)],
    ids=["both", "unknown field", "unknown operator", "a name that is a number"],
)
def test_a_bad_selector_is_refused(selector: dict[str, Any], code: int) -> None:
    assert refusal(lambda: Server().catalogue.list("db", "docs", UUID, selector))[0] == code


# -- no search here


@pytest.mark.parametrize(
    ("generation", "command", "listing"),
    [
        pytest.param(Generation.CURRENT, 31082, 31082, id="8.x"),
        pytest.param(Generation.COMMAND_115, 115, 6047401, id="7.0"),
        pytest.param(Generation.EMPTY, 115, None, id="empty listing"),
        pytest.param(Generation.UNKNOWN, 59, 40324, id="older"),
    ],
)
def test_a_server_without_search_says_so_before_it_reads_the_command(
    generation: Generation, command: int, listing: int | None
) -> None:
    catalogue = Server(SearchSettings(enabled=False, generation=generation)).catalogue
    for call in (catalogue.create, catalogue.update, catalogue.drop):
        assert refusal(lambda call=call: call("db", "docs", None, {"bad": 1}))[0] == command  # type: ignore[misc]  # a default binds the loop's value
    if listing is None:
        assert catalogue.list("db", "docs", UUID, {}) == []
    else:
        assert refusal(lambda: catalogue.list("db", "docs", UUID, {}))[0] == listing


def test_while_the_search_process_starts_or_restarts_nothing_works() -> None:
    server = Server(SearchSettings(starting_seconds=10))
    expected = (125, "Error connecting to Search Index Management service.")
    assert refusal(lambda: server.create("a")) == expected
    server.clock.advance(10)
    server.create("a")
    server.catalogue.unreachable(5)
    assert (
        refusal(server.listing) == refusal(lambda: server.drop("a")) == refusal(lambda: server.update("a")) == expected
    )
    server.clock.advance(5)
    assert server.look() == ("READY", True, 0)
