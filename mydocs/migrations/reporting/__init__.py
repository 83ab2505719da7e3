"""What a run says: events while it goes, a report at its end, and sinks that take them."""
