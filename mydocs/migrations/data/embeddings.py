"""
Store beside an embedding how it was made: model, dimensions, and a hash of the text. Pure.

The server hashes the text, in the filter that finds stale embeddings and in the update that writes a vector. So an
edited text needs no field to mark it, and no text travels to find it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

Pipeline = list[dict[str, Any]]


def stale_embeddings(field: str, text: str, *, model: str, dimensions: int) -> dict[str, Any]:
    """
    Return the filter for documents with a text whose vector is absent, or was made from another text or model.

    :param field: of the vector
    :param text: the field to embed; documents without it, or with an empty text, have nothing to embed
    """
    fingerprint = _fingerprint(text, model, dimensions)
    return {
        text: {"$type": "string", "$ne": ""},
        "$or": [
            {field: {"$exists": False}},
            {"$expr": {"$ne": [f"${fingerprint_field(field)}", fingerprint]}},
        ],
    }


def new_embedding(vector: Sequence[float], field: str, text: str, *, model: str, dimensions: int) -> Pipeline:
    """
    Return the update that writes a vector and its fingerprint, as the result of a function of :func:`transform`.

    :raises ValueError: if the vector has another number of dimensions
    """
    if len(vector) != dimensions:
        raise ValueError(f"{model} gave a vector of {len(vector)} dimensions for {field}, which has {dimensions}")
    beside = fingerprint_field(field)
    return [
        {"$unset": [field, beside]},  # otherwise the server would merge the old and the new
        {"$set": {field: {"$literal": list(vector)}, beside: _fingerprint(text, model, dimensions)}},
    ]


def fingerprint_field(field: str) -> str:
    """Return the field with a vector's fingerprint. Remove it together with the vector."""
    return f"{field}_fingerprint"


def _fingerprint(text: str, model: str, dimensions: int) -> Mapping[str, Any]:
    # $toHashedIndexKey: 64 bits of MD5, on every server since 5.0. Two texts have the same hash once in 2^64.
    return {
        "model": {"$literal": model},
        "dimensions": {"$literal": dimensions},
        "text": {"$toHashedIndexKey": f"${text}"},
    }
