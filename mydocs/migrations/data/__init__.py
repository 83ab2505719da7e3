"""What scripts call to change documents."""
