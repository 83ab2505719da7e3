"""Check the fields of commands and of the documents in them: which there are, and of which types. Pure."""

from collections.abc import Mapping
from typing import Any

from mydocs.localserver.errors import CommandError
from mydocs.localserver.values import is_number, type_name

Document = dict[str, Any]

KINDS: Mapping[str, tuple[type, ...]] = {
    "object": (Mapping,),
    "array": (list,),
    "string": (str,),
    "bool": (bool, int, float),
    "any": (object,),
}


def fields(text: str) -> dict[str, str]:
    """
    Return the kinds of fields; a kind with ``!`` is required.

    >>> fields("q:object! multi:bool")
    {'q': 'object!', 'multi': 'bool'}
    """
    return {name: kind for name, _, kind in (part.partition(":") for part in text.split())}


def checked(where: str, document: Mapping[str, Any], known: Mapping[str, str]) -> Document:
    """
    Return the fields of a document that are set; a server takes null for "not given" here.

    :raises CommandError: code 40415, 40414 or 14 for a field that is unknown, missing or of a wrong type
    """
    given: Document = {}
    for field, value in document.items():
        if field not in known:
            raise CommandError(40415, f"BSON field '{where}.{field}' is an unknown field.")
        if value is not None:
            _check_kind(f"{where}.{field}", known[field].rstrip("!"), value)
            given[field] = value
    for field, kind in known.items():
        if kind.endswith("!") and field not in given:
            raise CommandError(40414, f"BSON field '{where}.{field}' is missing but a required field")
    return given


def _check_kind(where: str, kind: str, value: Any) -> None:
    if kind == "change":
        if not isinstance(value, Mapping | list):
            raise CommandError(9, "Update argument must be either an object or an array")
        return
    fits = is_number(value) if kind == "number" else isinstance(value, KINDS[kind])
    if not fits:
        raise CommandError(14, f"BSON field '{where}' is the wrong type '{type_name(value)}', expected type '{kind}'")
