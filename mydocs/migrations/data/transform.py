"""Change the documents of a collection with a function in Python: `transform`. I/O."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from mydocs.migrations.data.cluster import shard_key
from mydocs.migrations.data.function_calls import Function
from mydocs.migrations.data.job import Job
from mydocs.migrations.data.statements import encoded, paths
from mydocs.migrations.data.walk import call_key
from mydocs.migrations.data.workers import run_job
from mydocs.migrations.driver.client import Collection, database_of
from mydocs.migrations.errors import NotPossible
from mydocs.migrations.scripts.script_context import context

IN_BATCHES = (
    "it writes in batches of its own, which a rollback of the transaction does not undo; use "
    "collection.update_many(…, session=session), or take TRANSACTIONAL out"
)


async def transform(
    collection: Collection,
    filter: Mapping[str, Any],  # noqa: A002  # as the drivers call it
    function: Function,
    *,
    batch_size: int = 1000,
    batch: bool = False,
    concurrency: int = 1,
    fields: Sequence[str] | None = None,
    pause: float = 0.0,
) -> int:
    """
    Change every document that matches, in the order of `_id`, by the result of ``function(document)``.

    ``function`` may be async. It returns an update document (``{"$set": …}``), a pipeline, a replacement, or ``None``
    to leave the document as it is. **For a document that is already changed it must return** ``None`` **or the same
    change**: after a kill, a lost reply or a concurrent change it is called again. It may raise :class:`RetryLater` to
    be called later.

    A document is written only if it is still as it was read; otherwise it is read again. One that was deleted is left
    out. Numbers that differ only in type count as equal there, and so do texts that are equal under the collection's
    collation.

    :param batch_size: the most documents that one command reads or writes; fewer while the server is slow
    :param batch: the function gets a list of documents and returns a list of the same length
    :param concurrency: number of calls of an async function at the same time
    :param fields: the fields that the function reads. Only these and `_id` are read, and only these and the filter are
        compared when a change is written; by default it is the whole document
    :param pause: seconds between two batches
    :return: number of changed documents, including those of earlier attempts of the same script
    :raises ChangeInvalid: names the document for which ``function`` returned something else
    :raises NotPossible: in a script with ``TRANSACTIONAL = True``; if options are not valid
    """
    context().refuse_in_transaction("transform", IN_BATCHES)
    if concurrency < 1:
        raise NotPossible(f"concurrency is {concurrency} and must be 1 or more")
    if batch_size < 1:
        raise NotPossible(f"batch_size is {batch_size} and must be 1 or more")
    if not 0 <= pause < math.inf:
        raise NotPossible(f"pause is {pause} and must be a number of seconds, 0 or more")
    db, wanted = database_of(collection), encoded(filter, collection.codec_options)
    job = Job(
        name=collection.name,
        wanted=wanted,
        function=function,
        options=collection.codec_options,
        batch_size=batch_size,
        batch=batch,
        concurrency=concurrency,
        fields=paths(fields),
        pause=pause,
        shard_key=await shard_key(db, collection.name),
        max_lag=context().max_lag,
    )
    checkpoint = context().checkpoint(call_key("transform", job.name, wanted.raw, *_name_of(function)))
    return await run_job(db, job, checkpoint)


def _name_of(function: Function) -> tuple[str, int]:
    """Return a name that distinguishes the functions of one script, even two lambdas."""
    code = getattr(function, "__code__", None)
    return getattr(function, "__qualname__", type(function).__name__), getattr(code, "co_firstlineno", 0)
