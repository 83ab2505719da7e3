"""Search and vector indexes as entries with a life; nothing is searched. Here: what a test sets."""

from mydocs.localserver.search.settings import MONGOT, Dialect, Generation, IndexOutcome, SearchSettings

__all__ = ["MONGOT", "Dialect", "Generation", "IndexOutcome", "SearchSettings"]
