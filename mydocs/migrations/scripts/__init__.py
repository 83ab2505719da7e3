"""Turn files into scripts: find them, check them by parsing, load them, and write new ones."""
