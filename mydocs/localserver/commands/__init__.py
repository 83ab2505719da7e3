"""Implement the commands."""
