"""Worker: import an installed program, say so, wait for the end of stdin, and be that program. I/O."""

import sys
from contextlib import suppress
from importlib import import_module
from importlib.metadata import entry_points

(found,) = entry_points(group="console_scripts", name=sys.argv[1])
program = found.load()
if sys.argv[1] == "mydocs":
    # A command imports these when it is called; here everybody begins with everything imported.
    import_module("mydocs.cli.app")
    import_module("mydocs.cli.connect")
    import_module("mydocs.migrations").migrate  # noqa: B018  # imports what it needs
sys.argv = sys.argv[1:]
with suppress(BrokenPipeError):
    print("ready", flush=True)
sys.stdin.read()
program()
