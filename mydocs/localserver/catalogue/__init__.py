"""Manage collections and their indexes, and store both."""
