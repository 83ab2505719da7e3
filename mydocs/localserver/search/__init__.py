"""Keep search and vector indexes as catalogue entries with a life. Nothing is searched."""

from mydocs.localserver.search.settings import MONGOT, Dialect, Generation, IndexOutcome, SearchSettings

__all__ = ["MONGOT", "Dialect", "Generation", "IndexOutcome", "SearchSettings"]
