"""
Compute the checksum and the names of the application's list of standard indexes. Pure.

Separate from the module that creates them, since a run with nothing to do needs only this.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from pymongo import IndexModel

IndexModels: TypeAlias = Mapping[str, Sequence[IndexModel]]


def standard_checksum(models: IndexModels) -> str:
    """Return the checksum of a list of standard indexes. The order of the collections does not count."""
    documents = {
        name: [
            {key: list(value.items()) if key == "key" else value for key, value in model.document.items()}
            for model in of
        ]
        for name, of in models.items()
    }
    text = json.dumps(documents, sort_keys=True, default=repr)
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def standard_names(models: IndexModels) -> list[tuple[str, str]]:
    """Return (collection, name) of each standard index."""
    return [(collection, model.document["name"]) for collection, of in models.items() for model in of]
