"""Write values as in a server's messages. Pure."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from bson import Decimal128, Int64, ObjectId, Regex, Timestamp
from bson.binary import Binary

from mydocs.localserver.query.values import Missing, to_millis


def shown(value: Any) -> str:
    """Write a value as the server does in its messages."""
    match value:
        case Mapping():
            return "{ " + ", ".join(f"{name}: {shown(part)}" for name, part in value.items()) + " }" if value else "{}"
        case list() | tuple():
            return "[ " + ", ".join(shown(part) for part in value) + " ]" if value else "[]"
        case None:
            return "null"
        case Missing():
            return "undefined"
        case bool():
            return "true" if value else "false"
        case Int64() | int() | float():
            return repr(int(value)) if isinstance(value, int) else repr(value)
        case str():
            return f'"{value}"'
        case ObjectId():
            return f"ObjectId('{value}')"
        case datetime():
            return f"new Date({to_millis(value)})"
        case Decimal128():
            return str(value)
        case Timestamp():
            return f"Timestamp({value.time}, {value.inc})"
        case Binary() if value.subtype == 4 and len(value) == 16:
            return f'UUID("{value.as_uuid()}")'
        case bytes():
            return f"BinData({getattr(value, 'subtype', 0)}, {value.hex().upper()})"
        case Regex():
            return f"/{value.pattern}/"
        case _:
            return str(value)
