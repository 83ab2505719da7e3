"""What a test has in its hands: the time, the record of commands, and faults."""
