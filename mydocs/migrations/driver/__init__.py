"""The one seam to Motor and PyMongo Async."""
