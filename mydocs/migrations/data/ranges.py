"""
Cut the `_id`s of a collection into ranges for separate walks. Pure.

The ranges cover every possible `_id`, and each `_id` belongs to one range: the first has no lower bound, the last no
upper one. A bound is an index bound, so no value is lost because of its type.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import bson
from bson.binary import Binary
from bson.code import Code
from bson.datetime_ms import DatetimeMS
from bson.max_key import MaxKey
from bson.objectid import ObjectId
from bson.regex import Regex
from bson.timestamp import Timestamp

from mydocs.migrations.data.order import BINARY, DATE, DOCUMENT, NUMBER, OBJECT_ID, TEXT, rank
from mydocs.migrations.data.statements import RAW
from mydocs.migrations.values import value

# The smallest value of each group of types, in the order of a server. MinKey comes before all of them.
LOWEST: dict[int, Any] = {
    5: None,
    NUMBER: float("nan"),
    TEXT: "",
    DOCUMENT: {},
    BINARY: Binary(b"", 0),
    OBJECT_ID: ObjectId(b"\0" * 12),
    40: False,
    DATE: DatetimeMS(-(2**63)),
    47: Timestamp(0, 0),
    50: Regex(""),
    60: Code(""),
    127: MaxKey(),
}
RANGES_A_LANE = 8  # so that no lane waits long for the last one, and little is repeated when one dies
LEAST_DOCUMENTS = 10  # of a range, on average
MOST_RANGES = 512  # their places are in one document of the ledger, 200 bytes each
SAMPLES_A_RANGE = 20  # documents that are read for each bound


@value
class Range:
    """``low`` is the first possible `_id`, ``high`` the first one after the range; as BSON, ``None`` for no bound."""

    low: bytes | None = None
    high: bytes | None = None


def number_of_ranges(lanes: int, documents: int) -> int:
    """Return the number of ranges for a number of documents."""
    return max(1, min(lanes * RANGES_A_LANE, documents // LEAST_DOCUMENTS, MOST_RANGES))


def next_group(identity: object) -> bytes | None:
    """Return where the next group of types after that of an `_id` begins, or ``None`` if there is none."""
    above = [value for place, value in LOWEST.items() if place > rank(identity)]
    return place(above[0]) if above else None


def cut(sample: Sequence[Any], firsts: Iterable[Any], wanted: int, after: Any = None) -> tuple[Range, ...]:
    """
    Cut into approximately this many ranges of equal numbers of documents, with one group of types in each.

    :param sample: `_id`s in the order of the server
    :param firsts: the first `_id` of each existing group of types, in order
    :param after: leave out everything up to this bound, as BSON
    """
    groups: dict[int, list[Any]] = {rank(first): [] for first in firsts}
    for identity in sample:
        groups.setdefault(rank(identity), []).append(identity)
    bounds: list[bytes] = []
    step = max(1.0, len(sample) / wanted)
    for number, group in enumerate(sorted(groups)):
        found = groups[group]
        if number:
            bounds.append(place(LOWEST[group]))
        pieces = max(1, round(len(found) / step))
        chosen = [found[len(found) * piece // pieces] for piece in range(1, pieces)]
        bounds += [place(identity) for identity in chosen]
    bounds = list(dict.fromkeys(bounds))
    return tuple(Range(low=low, high=high) for low, high in zip([after, *bounds], [*bounds, None], strict=True))


def place(identity: object) -> bytes:
    """Return ``{_id: …}`` as BSON."""
    return bson.encode({"_id": identity}, codec_options=RAW)
