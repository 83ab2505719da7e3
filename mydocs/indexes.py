"""List the application's standard indexes, which a run creates before the scripts. Pure."""

from collections.abc import Mapping, Sequence

from pymongo import ASCENDING, DESCENDING, IndexModel

STANDARD_INDEXES: Mapping[str, Sequence[IndexModel]] = {
    "documents": (
        IndexModel([("status", ASCENDING)]),
        IndexModel([("tags", ASCENDING)]),
        IndexModel([("file_type", ASCENDING)]),
        IndexModel([("created_at", DESCENDING)]),
        IndexModel([("file_metadata.sha256", ASCENDING)]),
    ),
    "pages": (
        IndexModel([("document_id", ASCENDING), ("page_number", ASCENDING)]),
        IndexModel([("document_id", ASCENDING)]),
    ),
}
