"""Change the documents of a collection with a function in Python: `transform`. I/O."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from mydocs.migrations.data.asking import Function
from mydocs.migrations.data.cluster import shard_key
from mydocs.migrations.data.job import Job
from mydocs.migrations.data.statements import encoded, paths
from mydocs.migrations.data.walk import call_key
from mydocs.migrations.data.workers import run_job
from mydocs.migrations.driver.client import Collection, database_of
from mydocs.migrations.errors import NotPossible
from mydocs.migrations.scripts.script_context import context

IN_BATCHES = (
    "it writes in batches of its own, which stay whatever becomes of the transaction; use "
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
    Change every document that matches, in the order of `_id`, with what ``function(document)`` says.

    ``function`` may be async. It returns an update document (``{"$set": …}``), a pipeline, a replacement, or ``None``
    to leave the document as it is. **For a document that is changed already it must return** ``None``, **or the same
    once more**: after a kill, a lost reply or a change by somebody else meanwhile it is asked again. It may raise
    :class:`RetryLater`, and is called again then.

    A document is written only if it is still what was read; else it is read again. One that vanishes is left out.
    Numbers that differ only in type count as equal there, and so do texts that the collection's collation does not tell
    apart.

    :param batch_size: documents that are read and written by one command at most; fewer while the server is slow
    :param batch: the function gets a list of documents and returns a list of the same length
    :param concurrency: calls of an async function at the same time
    :param fields: what the function looks at. Only these and `_id` are read, and only these are compared when a change
        is written, with the filter; without it that is the whole document
    :param pause: seconds between two batches
    :return: documents that were changed, by earlier attempts of the same script too
    :raises ChangeInvalid: names the document for which ``function`` returned something else
    :raises NotPossible: in a script that says ``TRANSACTIONAL = True``; where options make no sense
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
    """Tell functions of one script apart, two lambdas as well."""
    code = getattr(function, "__code__", None)
    return getattr(function, "__qualname__", type(function).__name__), getattr(code, "co_firstlineno", 0)
