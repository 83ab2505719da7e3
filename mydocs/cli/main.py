"""Run the program `mydocs`, and end the process without waiting for threads of a driver. I/O."""

import gc
import os
import sys
import threading

# Number of new objects, less those that are gone, after which Python searches for reference cycles. Its default of 700
# searches most imported objects again and again, which took a quarter of a short command's time. This many are 5 MB.
COLLECT_AT = 50_000
LEAVE_SECONDS = 2.0  # for threads that still wait for a server


def main() -> None:
    """Run the program `mydocs`."""
    _open_missing_descriptors()
    gc.set_threshold(COLLECT_AT)
    from mydocs.cli.app import app  # after that line, since it imports most modules

    code: object = 1
    try:
        app(prog_name="mydocs", own_process=True)
    except SystemExit as end:
        code = end.code
    if "pymongo.synchronous.monitor" in sys.modules:
        from mydocs.migrations.operations.connection import is_waiting_for_the_server, leave_quickly

        leave_quickly()
        if code or is_waiting_for_the_server():
            # A normal exit would wait for a driver's thread, whose answer may never come.
            timer = threading.Timer(LEAVE_SECONDS, os._exit, [code if isinstance(code, int) else int(code is not None)])
            timer.daemon = True
            timer.start()
    # The interpreter searches all objects for cycles before it ends, which takes a fifth of a short command's time.
    gc.freeze()
    sys.exit(code)  # type: ignore[arg-type]  # the code of SystemExit


def _open_missing_descriptors() -> None:
    """Open those of stdin, stdout and stderr that are closed, or the next opened file would get their descriptor."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
