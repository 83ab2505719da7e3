"""Give tests control: over the time, the record of commands, and faults."""
