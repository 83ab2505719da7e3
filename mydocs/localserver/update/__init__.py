"""What updates do to documents. Pure."""
