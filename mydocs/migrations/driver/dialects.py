"""
Define the words of each kind of server about search indexes, and their meanings. Pure.

To add a dialect, add its rows here. The code of an error alone says little (20, 59, 125 and 8000 have several meanings
each), so a row may also require a text. :func:`mydocs.migrations.indexes.readiness.parse` reads the listing of every
dialect; it treats each field as optional.
"""

import re
from collections.abc import Collection
from enum import StrEnum

from mydocs.migrations.values import value


class Meaning(StrEnum):
    """The meaning of an error for a search index, or for all of them."""

    NO_SEARCH = "no search"  # this server has no search indexes
    UNKNOWN = "unknown"  # this server does not know such a command or stage
    STARTING = "starting"  # the search process behind the server does not answer at the moment
    NO_ROOM = "no room"  # the limit for the number of indexes is reached
    NAME_TAKEN = "name taken"  # an index of that name exists, perhaps one that is being deleted
    GONE = "gone"  # the index does not exist, or is being deleted
    NOT_BY_UPDATE = "not by update"  # the definition is right, but an update cannot reach it
    READ_AS_SEARCH = "read as search"  # the definition of a vector index was read as that of a search index


@value
class Words:
    """
    One form in which a server says something.

    :param codes: of the error; none means any
    :param text: a pattern for its message, in lower or upper case; an empty one means any
    """

    meaning: Meaning
    codes: Collection[int] = ()
    text: str = ""


DIALECTS: dict[str, tuple[Words, ...]] = {
    "mongod": (
        Words(meaning=Meaning.NO_SEARCH, codes=(31082, 115, 6047401)),
        Words(meaning=Meaning.NO_SEARCH, codes=(59, 40324), text="SearchIndex"),
        Words(meaning=Meaning.UNKNOWN, codes=(59, 40324)),
        # Has no retryable label, on purpose (search_index_common.cpp).
        Words(meaning=Meaning.STARTING, codes=(125,), text="Search Index Management service|Error processing request"),
        Words(meaning=Meaning.GONE, codes=(26, 27)),  # no such collection, no such index
    ),
    "Atlas": (
        Words(meaning=Meaning.NO_SEARCH, codes=(8000,), text="SearchIndex.* is not allowed or the syntax"),
        # "indexes", not "index": a definition may exceed a limit, too. 20 in the free tier, 8000 elsewhere.
        Words(
            meaning=Meaning.NO_ROOM, text=r"(?=.*\b(maximum|limit|quota|exceed\w*|too many)\b).*\b(indexes|indices)\b"
        ),
        Words(meaning=Meaning.NAME_TAKEN, codes=(68,)),
        Words(meaning=Meaning.GONE, text="already requested to be deleted"),
    ),
    "mongot": (
        Words(meaning=Meaning.NAME_TAKEN, codes=(20,)),
        # AicUpdateSearchIndexCommand, AutoEmbeddingIndexValidator.
        Words(meaning=Meaning.NOT_BY_UPDATE, text="type cannot be changed|cannot (update|convert)|delete the index"),
    ),
    "Atlas local": (Words(meaning=Meaning.READ_AS_SEARCH, text='"mappings" is required'),),  # 8.0
}


def says(code: int | None, text: str, meaning: Meaning) -> bool:
    """Return whether an error has this meaning in the words of any server."""
    return any(
        words.meaning is meaning
        and (not words.codes or code in words.codes)
        and re.search(words.text, text, re.IGNORECASE | re.DOTALL) is not None
        for dialect in DIALECTS.values()
        for words in dialect
    )
