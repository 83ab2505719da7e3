"""What the search half of the server plays: which kind of server, how long builds take, what goes wrong. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from math import inf


class Dialect(StrEnum):
    """Which kind of server the search commands and the listing are those of."""

    ATLAS = "atlas"
    SELF_MANAGED = "self-managed"  # mongod with a mongot of its own
    ATLAS_LOCAL = "atlas-local"  # the image mongodb/mongodb-atlas-local


class Generation(StrEnum):
    """How a server without search says so."""

    CURRENT = "current"  # 8.x without mongot: 31082 for everything
    COMMAND_115 = "7.0"  # 115 for the commands, 6047401 for the stage
    EMPTY = "empty"  # 115 for the commands, an empty listing
    UNKNOWN = "old"  # knows neither: 59 and 40324


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexOutcome:
    """
    How the builds of one index go. Every time is in seconds; ``None`` takes the settings' value.

    :param pending_seconds: from the command to the start of the build
    :param build_seconds: from the start to the end; ``math.inf`` for a build that does not end
    :param fails: the host's message, where the build ends with an error instead of an index
    :param recovers_after: from the failure to a second build, which succeeds
    :param appears_after: from the create command until the listing shows the index at all
    :param vanishes_after: from the create command until somebody else has dropped it
    :param stale_after: from the end of the build until the index no longer follows the collection
    :param stale_seconds: how long it stays so
    :param stale_message: what the host says meanwhile
    :param hosts: the search hosts' names
    :param lags: for each host how much later everything happens there; missing ones are 0
    :param old_seconds: for how long after an update the listing still shows the old version as ready
    :param old_looks: for how many looks after an update it does
    :param delete_seconds: from the drop command until the listing forgets the index
    """

    pending_seconds: float | None = None
    build_seconds: float | None = None
    fails: str | None = None
    recovers_after: float = inf
    appears_after: float = 0.0
    vanishes_after: float = inf
    stale_after: float = inf
    stale_seconds: float = inf
    stale_message: str = "Replication failed: the change stream was lost"
    hosts: tuple[str, ...] | None = None
    lags: tuple[float, ...] = ()
    old_seconds: float = 0.0
    old_looks: int = 0
    delete_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSettings:
    """
    What holds for all indexes of a server. Every time is in seconds.

    :param max_building: builds at one time, the others stay pending; ``None`` for no limit. mongot has 2
    :param publish_seconds: how often hosts report what the listing shows; 0 for at once. mongot has 30
    :param quota: how many indexes a cluster may have
    :param enabled: whether there is search at all; where not, ``generation`` says how that is answered
    :param starting_seconds: from the server's start until the search process answers
    :param fill_defaults: whether the listing shows definitions with the defaults that a server puts in
    :param listing_too_large: refuse a listing of a whole collection, as a server does beyond 16 MB
    :param vector_updates: whether a vector index can be updated; local servers of 8.0 take each update for a search one
    :param outcomes: what differs for single indexes, by name or by (collection, name)
    """

    dialect: Dialect = Dialect.ATLAS
    pending_seconds: float = 0.1
    build_seconds: float = 0.5
    delete_seconds: float = 0.5  # Atlas only: elsewhere a dropped index is gone with the reply
    hosts: tuple[str, ...] = ("local-shard-00-00",)
    max_building: int | None = None
    publish_seconds: float = 0.0
    quota: int | None = None
    enabled: bool = True
    generation: Generation = Generation.CURRENT
    starting_seconds: float = 0.0
    fill_defaults: bool = False
    listing_too_large: bool = False
    vector_updates: bool = True
    outcomes: Mapping[str | tuple[str, str], IndexOutcome] = field(default_factory=dict)


MONGOT = SearchSettings(dialect=Dialect.SELF_MANAGED, max_building=2, publish_seconds=30.0)
"""A self-managed server with mongot's own numbers: two initial syncs at a time, statistics each 30 s."""
