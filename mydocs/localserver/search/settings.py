"""Set what the search half imitates: the kind of server, the times of builds, the faults. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from math import inf


class Dialect(StrEnum):
    """The kind of server that the search commands and the listing imitate."""

    ATLAS = "atlas"
    SELF_MANAGED = "self-managed"  # mongod with its own mongot
    ATLAS_LOCAL = "atlas-local"  # the image mongodb/mongodb-atlas-local


class Generation(StrEnum):
    """The answers of a server without search."""

    CURRENT = "current"  # 8.x without mongot: 31082 for everything
    COMMAND_115 = "7.0"  # 115 for the commands, 6047401 for the stage
    EMPTY = "empty"  # 115 for the commands, an empty listing
    UNKNOWN = "old"  # knows neither: 59 and 40324


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexOutcome:
    """
    The course of one index's builds. Every time is in seconds; ``None`` takes the settings' value.

    :param pending_seconds: from the command to the start of the build
    :param build_seconds: from the start to the end; ``math.inf`` for a build that does not end
    :param fails: the host's message, if the build ends with an error
    :param recovers_after: from the failure to a second build, which succeeds
    :param appears_after: from the create command until the listing shows the index
    :param vanishes_after: from the create command until the index vanishes, as if dropped by another client
    :param stale_after: from the end of the build until the index no longer follows the collection
    :param stale_seconds: how long it stays stale
    :param stale_message: the host's message in this time
    :param hosts: the search hosts' names
    :param lags: for each host, how much later everything happens there; 0 if absent
    :param old_seconds: how long after an update the listing still shows the old version as ready
    :param old_looks: how many listings after an update still show it
    :param delete_seconds: from the drop command until the listing no longer shows the index
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
    The settings of all indexes of a server. Every time is in seconds.

    :param max_building: builds at the same time, the others stay pending; ``None`` for no limit. mongot has 2
    :param publish_seconds: how often hosts report what the listing shows; 0 for at once. mongot has 30
    :param quota: how many indexes a cluster may have
    :param enabled: whether the server has search; if not, ``generation`` decides the answers
    :param starting_seconds: from the server's start until the search process answers
    :param fill_defaults: whether the listing shows definitions with the defaults that a server adds
    :param listing_too_large: refuse a listing of a whole collection, as a server does beyond 16 MB
    :param vector_updates: whether a vector index can be updated; local 8.0 servers read each update as a search index
    :param outcomes: the differences of single indexes, by name or by (collection, name)
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
"""A self-managed server with mongot's own numbers: two initial syncs at the same time, statistics every 30 s."""
