"""Search and standard indexes: definitions, readiness, the wait, and what scripts call."""
