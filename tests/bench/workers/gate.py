"""Worker: import a program, say so, wait for the end of stdin, and be that program. I/O."""

import sys
from contextlib import suppress
from importlib import import_module

module, _, function = sys.argv[1].partition(":")
program = getattr(import_module(module), function)
if module.startswith("mydocs"):
    # A command imports these when it is called; here everybody begins with everything imported.
    import_module("mydocs.cli.app")
    import_module("mydocs.cli.connect")
    import_module("mydocs.migrations.operations.migrate")
sys.argv = [module, *sys.argv[2:]]
with suppress(BrokenPipeError):
    print("ready", flush=True)
sys.stdin.read()
program()
