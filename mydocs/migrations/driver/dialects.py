"""
What each kind of server says about search indexes, and what it means. Pure.

One place to add a dialect: its rows here. An error's code alone says little (20, 59, 125 and 8000 have several meanings
each), so a row may ask for a text as well. How a dialect lists its indexes is read in
:func:`mydocs.migrations.indexes.readiness.parse`, which takes every field for optional.
"""

import re
from collections.abc import Collection
from enum import StrEnum

from mydocs.migrations.values import value


class Meaning(StrEnum):
    """What an error says of a search index, or of all of them."""

    NO_SEARCH = "no search"  # this server has no search indexes
    UNKNOWN = "unknown"  # this server knows no such command or stage
    STARTING = "starting"  # the search process behind the server does not answer at the moment
    NO_ROOM = "no room"  # there are as many indexes as there may be
    NAME_TAKEN = "name taken"  # an index of that name is there, perhaps one that is being deleted
    GONE = "gone"  # there is no such index, or there soon is none
    NOT_BY_UPDATE = "not by update"  # a definition that is right and that no update leads to
    READ_AS_SEARCH = "read as search"  # the definition of a vector index was taken for one of a search index


@value
class Words:
    """
    One way in which a server says something.

    :param codes: of the error; none for any
    :param text: what its message holds, in lower or upper case; nothing for any
    """

    meaning: Meaning
    codes: Collection[int] = ()
    text: str = ""


DIALECTS: dict[str, tuple[Words, ...]] = {
    "mongod": (
        Words(meaning=Meaning.NO_SEARCH, codes=(31082, 115, 6047401)),
        Words(meaning=Meaning.NO_SEARCH, codes=(59, 40324), text="SearchIndex"),
        Words(meaning=Meaning.UNKNOWN, codes=(59, 40324)),
        # On purpose without a retryable label (search_index_common.cpp).
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
    """Whether an error says this, in the words of whichever server."""
    return any(
        words.meaning is meaning
        and (not words.codes or code in words.codes)
        and re.search(words.text, text, re.IGNORECASE | re.DOTALL) is not None
        for dialect in DIALECTS.values()
        for words in dialect
    )
