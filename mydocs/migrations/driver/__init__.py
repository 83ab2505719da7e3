"""Adapt Motor and PyMongo Async: the one place that knows the drivers."""
