"""A document-processing application on MongoDB Atlas; its migrations live in :mod:`mydocs.migrations`."""

__version__ = "0.1.0"
