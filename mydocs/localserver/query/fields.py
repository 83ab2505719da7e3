"""Check the fields of commands and their documents: names and types. Pure."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from mydocs.localserver.errors import CommandError
from mydocs.localserver.query.values import is_number, type_name

Document = dict[str, Any]

KINDS: Mapping[str, Callable[[Any], bool]] = {
    "object": lambda value: isinstance(value, Mapping),
    "objects": lambda value: isinstance(value, list) and all(isinstance(part, Mapping) for part in value),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "bool": lambda value: isinstance(value, bool | int | float),
    "number": is_number,
    "change": lambda value: isinstance(value, Mapping | list),
    "any": lambda _: True,
}


# The usual types of decoded values. Tested first, since a test for `Mapping` takes several times as long.
USUAL: Mapping[str, type] = {"object": dict, "change": dict, "array": list, "string": str, "bool": bool}


def fields(text: str) -> dict[str, str]:
    """
    Return the kinds of fields. A kind with ``!`` is required.

    >>> fields("q:object! multi:bool")
    {'q': 'object!', 'multi': 'bool'}
    """
    return {name: kind for name, _, kind in (part.partition(":") for part in text.split())}


def checked(where: str, document: Mapping[str, Any], known: Mapping[str, str]) -> Document:
    """
    Return the fields of a document that are set. As in a server, null means "not set" here.

    :raises CommandError: code 40415, 40414 or 14 for a field that is unknown, missing or of a wrong type
    """
    given: Document = {}
    for field, value in document.items():
        if field not in known:
            raise CommandError(40415, f"BSON field '{where}.{field}' is an unknown field.")
        if value is not None:
            kind = known[field].rstrip("!")
            if type(value) is not USUAL.get(kind):
                _check_kind(f"{where}.{field}", kind, value)
            given[field] = value
    for field, kind in known.items():
        if kind[-1] == "!" and field not in given:
            raise CommandError(40414, f"BSON field '{where}.{field}' is missing but a required field")
    return given


def checked_alike(where: str, documents: Iterable[Mapping[str, Any]], known: Mapping[str, str]) -> Iterator[Document]:
    """
    Check many documents as :func:`checked` does. Consecutive documents of one form are checked only once.

    Only for kinds that are decided by a value's type, so not for ``objects``.
    """
    form = None
    for document in documents:
        own = (*document, *map(type, document.values()))
        if own == form:
            yield dict(document)
            continue
        given = checked(where, document, known)
        form = own if len(given) == len(document) else None
        yield given


def _check_kind(where: str, kind: str, value: Any) -> None:
    if KINDS[kind](value):
        return
    if kind == "change":
        raise CommandError(9, "Update argument must be either an object or an array")
    raise CommandError(14, f"BSON field '{where}' is the wrong type '{type_name(value)}', expected type '{kind}'")
