"""Open the executors that share the data changes of a run: local processes, or a Dask cluster. I/O."""

from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from mydocs.migrations.data.processes import Processes
from mydocs.migrations.errors import SettingsInvalid

CONNECT_SECONDS = 10  # time limit for a scheduler to answer


@contextmanager
def processes(count: int) -> Iterator[Executor]:
    """Yield an executor with ``count`` processes of this machine. They end with the block."""
    pool = Processes(count)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def dask(address: str) -> Iterator[Executor]:
    """
    Yield the workers of a Dask cluster as an executor.

    :raises SettingsInvalid: if the extra is not installed, or no scheduler answers at the address
    """
    try:
        distributed: Any = import_module("distributed")
    except ImportError as error:
        raise SettingsInvalid("--dask needs Dask; install it with `pip install 'mydocs[dask]'`") from error
    try:
        client = distributed.Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        raise SettingsInvalid(f"--dask {address}: no scheduler answers there ({error})") from error
    with client:
        executor: Any = client.get_executor(pure=False, retries=0)
        executor.count = max(1, sum(client.nthreads().values()))
        try:
            yield executor
        finally:
            executor.shutdown(wait=False)
