"""Worker: import all of an installed program, say so, wait for the end of stdin, and be that program. I/O."""

import sys
from contextlib import suppress
from importlib import import_module
from importlib.metadata import entry_points
from pkgutil import walk_packages

(found,) = entry_points(group="console_scripts", name=sys.argv[1])
program = found.load()
package = found.module.partition(".")[0]
# A command imports some modules when it needs them; here everybody begins with everything imported.
names = [module.name for module in walk_packages(import_module(package).__path__, f"{package}.")]
for name in (*names, "anyio._backends._asyncio"):
    if not name.endswith("__main__"):
        with suppress(ImportError):  # of an extra that is not installed, or of a tool without anyio
            import_module(name)
sys.argv = sys.argv[1:]
with suppress(BrokenPipeError):
    print("ready", flush=True)
sys.stdin.read()
program()
