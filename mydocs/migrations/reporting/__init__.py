"""Report a run: events while it runs, a report at its end, and sinks that receive them."""
