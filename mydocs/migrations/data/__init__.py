"""Change documents, for scripts."""
