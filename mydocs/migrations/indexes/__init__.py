"""Manage search and standard indexes: definitions, readiness, the wait, and the helpers for scripts."""
