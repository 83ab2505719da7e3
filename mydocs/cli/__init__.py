"""Run the command line: parse, make one call, render."""
