"""Delete documents that have expired by a TTL index. I/O through the store only."""

from datetime import datetime, timedelta

from mydocs.localserver.catalogue.collection import Index
from mydocs.localserver.catalogue.storage import Store
from mydocs.localserver.query.values import lookup

# Seconds between two passes; `ttlMonitorSleepSecs` of a MongoDB server. A pass runs with the next command, so no
# background task is needed: a command never sees a document that a pass would have deleted.
PASS_SECONDS = 60.0


def delete_expired(store: Store, now: datetime) -> None:
    """Make one pass over the collections that have a TTL index."""
    for collection in list(store.collections.values()):
        for index in collection.indexes:
            if "expireAfterSeconds" in index.spec:
                _sweep(store, (collection.database, collection.name), index, now)
        if "expireAfterSeconds" in collection.options:
            key = {collection.options["timeseries"]["timeField"]: 1}
            index = Index({"key": key, "name": "", "expireAfterSeconds": collection.options["expireAfterSeconds"]})
            _sweep(store, (collection.database, collection.name), index, now)


def _sweep(store: Store, name: tuple[str, str], index: Index, now: datetime) -> None:
    collection = store.collections[name]
    oldest = now - timedelta(seconds=float(str(index.spec["expireAfterSeconds"])))
    path = next(iter(index.key))
    for document in store.scan(collection):
        # Of several dates in an array the earliest counts. A value that is not a date never expires.
        dates = [value for value in lookup(document, path) if isinstance(value, datetime)]
        if dates and min(dates) < oldest and index.covers(document):
            store.delete(collection, document)
