"""Collections, their indexes, and where both are stored."""
