"""Worker: import all of an installed program, say so, wait for the end of stdin, and be that program. I/O."""

import sys
from contextlib import suppress
from importlib.metadata import entry_points

from tests.bench.workers.imported import import_all

(found,) = entry_points(group="console_scripts", name=sys.argv[1])
program = found.load()
import_all(found.module.partition(".")[0])
sys.argv = sys.argv[1:]
with suppress(BrokenPipeError):
    print("ready", flush=True)
sys.stdin.read()
program()
