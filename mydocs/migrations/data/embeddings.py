"""
What lies beside an embedding, so that it is known what it was made of: model, dimensions, and a hash of the text. Pure.

The server hashes the text, in the filter that finds what has to be embedded and in the update that writes a vector. A
text that somebody edits needs no field of its own to say so, and no text travels to find it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

Pipeline = list[dict[str, Any]]


def stale_embeddings(field: str, text: str, *, model: str, dimensions: int) -> dict[str, Any]:
    """
    Give the filter for documents with a text, whose vector is absent or was made of another text or by another model.

    :param field: where the vector is
    :param text: the field that is embedded; documents without it, or with an empty text, have nothing to embed
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
    Give the update that writes a vector and its fingerprint, for a function of :func:`transform`.

    :raises ValueError: where the vector has not so many dimensions
    """
    if len(vector) != dimensions:
        raise ValueError(f"{model} gave a vector of {len(vector)} dimensions for {field}, which has {dimensions}")
    beside = fingerprint_field(field)
    return [
        {"$unset": [field, beside]},  # else the server would merge the old and the new
        {"$set": {field: {"$literal": list(vector)}, beside: _fingerprint(text, model, dimensions)}},
    ]


def fingerprint_field(field: str) -> str:
    """Name the field that tells what a vector was made of; it goes when the vector goes."""
    return f"{field}_fingerprint"


def _fingerprint(text: str, model: str, dimensions: int) -> Mapping[str, Any]:
    # $toHashedIndexKey: 64 bits of MD5, on every server since 5.0. A different text has the same once in 2^64.
    return {
        "model": {"$literal": model},
        "dimensions": {"$literal": dimensions},
        "text": {"$toHashedIndexKey": f"${text}"},
    }
