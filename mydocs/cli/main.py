"""The program `mydocs`: run a command, then end the process without waiting for threads of a driver. I/O."""

import gc
import os
import sys
import threading

# New objects, less those that are gone, until Python looks for cycles. Its own 700 look nearly all of what is imported
# through again and again, which took a quarter of a short command's time; so many objects are 5 MB.
COLLECT_AT = 50_000
LEAVE_SECONDS = 2.0  # for threads that still hang on a server


def main() -> None:
    """Be the program `mydocs`."""
    _open_missing_descriptors()
    gc.set_threshold(COLLECT_AT)
    from mydocs.cli.app import app  # after that, as it is most of what is imported

    code: object = 1
    try:
        app(prog_name="mydocs", own_process=True)
    except SystemExit as end:
        code = end.code
    if "pymongo.synchronous.monitor" in sys.modules:
        from mydocs.migrations.operations.connection import is_waiting_for_the_server, leave_quickly

        leave_quickly()
        if code or is_waiting_for_the_server():
            # The exit would wait for a thread of the driver that waits for an answer, which may never come.
            timer = threading.Timer(LEAVE_SECONDS, os._exit, [code if isinstance(code, int) else int(code is not None)])
            timer.daemon = True
            timer.start()
    # The interpreter looks for cycles among all objects before it ends, which takes a fifth of a short command's time.
    gc.freeze()
    sys.exit(code)  # type: ignore[arg-type]  # what SystemExit carried


def _open_missing_descriptors() -> None:
    """Open what was closed of stdin, stdout and stderr, or the next file that is opened would take its place."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
