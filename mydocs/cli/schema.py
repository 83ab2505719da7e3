"""Define the JSON Schema of the `--output json` object. Pure."""

from collections.abc import Iterable
from enum import Enum
from typing import Any

from mydocs.cli.errors import EXIT_CODES
from mydocs.migrations.model import IndexState, IndexType, MigrationState, ScriptKind
from mydocs.migrations.reporting.plan_report import EffectKind
from mydocs.migrations.reporting.report import Outcome

DIALECT = "https://json-schema.org/draft/2020-12/schema"
VERSION = r"^([0-9]{3,}|standard)$"  # the standard indexes are a step of a run without a script

VERSION_OR_NONE = r"^([0-9]*|standard)$"  # `import` shows another tool's migrations with any name

Schema = dict[str, Any]


def schema() -> Schema:
    """Return the schema. It is valid for every command and every ending."""
    document = _object(
        {
            "outcome": {**_enum(Outcome), "description": "how the command ended"},
            "database": _nullable("string", "null if no database was used"),
            "migrations": {"type": "array", "items": _migration(), "description": "in the order of their numbers"},
            "indexes": {"type": "array", "items": _index()},
            "seconds": _seconds("of the whole command, connecting apart"),
            "error": {"oneOf": [{"type": "null"}, _command_error()], "description": "null if nothing went wrong"},
        },
        optional={
            "history": {"type": "array", "items": _attempt(), "description": "of `status --history`"},
            "aliases": {
                "type": "array",
                "items": _alias(),
                "description": "of `status` and `check`; of other commands if a script has switched one",
            },
            "steps": {"type": "array", "items": _step(), "description": "of `plan`: what each pending script would do"},
            "differences": {
                "type": "array",
                "items": {"type": "string"},
                "description": "of `pull --diff`: a line for each index or key in which scripts and database differ",
            },
            "lease": {"oneOf": [{"type": "null"}, _lease()], "description": "of `unlock`: the lease that was removed"},
        },
    )
    # A reader of the outcome and a reader of the error must come to the same conclusion.
    went_well = {"properties": {"outcome": {"enum": [Outcome.OK.value, Outcome.PLANNED.value]}}}
    no_error, an_error = ({"properties": {"error": {"type": kind}}} for kind in ("null", "object"))
    return {
        "$schema": DIALECT,
        "title": "What a command of `mydocs migrate` says with --output json",
        **document,
        "if": went_well,
        "then": no_error,
        "else": an_error,
    }


def _migration() -> Schema:
    return _object(
        {
            "version": {"type": "string", "pattern": VERSION_OR_NONE},
            "name": {"type": "string"},
            "script": _nullable("string", "file name; null if there is no file"),
            "state": {
                "enum": [*_values(MigrationState), None],
                "description": "null if no ledger was read (`list`, `new`)",
            },
            "seconds": _seconds("that the last attempt took", nullable=True),
            "error": {"oneOf": [{"type": "null"}, _stored_error()]},
        },
        optional={
            "verified": {"type": "boolean", "description": "the result of its `verify`, if it was called"},
            "data": {
                "type": "array",
                "description": "what the helpers for data changes did",
                "items": _object(
                    {
                        "collection": {"type": "string"},
                        "changed": {"type": "integer", "minimum": 0, "description": "documents"},
                        "still_matching": _nullable(
                            "integer",
                            "documents that still match the filter; null if it matches all",
                        ),
                    }
                ),
            },
            "kind": {"enum": [*_values(ScriptKind), None], "description": "null if there is no file"},
            "reversible": _nullable("boolean", "null if there is no file"),
            "checksum": _nullable("string", "sha256: and 64 digits", pattern="^sha256:[0-9a-f]{64}$"),
            "applied_at": _time("of a migration that is applied", nullable=True),
            "path": {"type": "string", "description": "of `new` and `pull`: the file that was written"},
            "later": {"type": "string", "description": "of `new --kind embedding`: the file for a later release"},
        },
    )


def _index() -> Schema:
    return _object(
        {
            "collection": {"type": "string"},
            "name": {"type": "string"},
            "type": _enum(IndexType),
            "state": _enum(IndexState),
            "queryable": _nullable(
                "boolean", "with any definition, also the one before an update; null if it was not read"
            ),
            "seconds": _seconds("from the request until it was ready or had failed", nullable=True),
            "reason": _nullable("string", "the server's words, or why nothing more is known"),
        }
    )


def _alias() -> Schema:
    return _object(
        {
            "alias": {"type": "string"},
            "collection": {"type": "string"},
            "index": {"type": "string", "description": "the search index that it names"},
            "previous": _nullable("string", "the index that it named before"),
            "switched_at": _time("UTC; null if it was not read", nullable=True),
            "state": {"enum": [*_values(IndexState), None], "description": "of the index; null if it was not read"},
            "reason": _nullable("string", "why the index is not ready"),
        }
    )


def _step() -> Schema:
    return _object(
        {
            "version": {"type": "string", "pattern": VERSION},
            "name": {"type": "string"},
            "effects": {"type": "array", "items": _effect()},
            "unknown": {
                "type": "array",
                "items": {"type": "string"},
                "description": "what could not be foreseen, one sentence each",
            },
            "error": {
                "oneOf": [{"type": "null"}, _stored_error()],
                "description": "the error of the script on the copy; null if it reached its end",
            },
        }
    )


def _effect() -> Schema:
    documents = {"type": "array", "items": {"type": "object"}}
    return _object(
        {
            "kind": _enum(EffectKind),
            "collection": {"type": "string"},
            "name": _nullable("string", "of the index or the alias; the new one of a collection"),
            "type": {"enum": [*_values(IndexType), None], "description": "null if it is not an index"},
            "detail": _nullable("string", "the filter, the options, or what differs by key"),
            "documents": _nullable("integer", "how many; null if unknown, or if it does not concern documents"),
            "answers_meanwhile": {"type": "boolean", "description": "false if queries find no index during the change"},
        },
        optional={"before": documents, "after": documents},
    )


def _attempt() -> Schema:
    return _object(
        {
            "version": {"type": "string", "pattern": VERSION},
            "direction": {"enum": ["up", "down"]},
            "outcome": _enum(MigrationState),
            "started_at": _time("UTC", nullable=True),
            "finished_at": _time("UTC", nullable=True),
            "host": _nullable("string", "on which it ran"),
            "error": {"oneOf": [{"type": "null"}, _stored_error()]},
        }
    )


def _lease() -> Schema:
    return _object(
        {
            "host": _nullable("string", "of the holder"),
            "pid": _nullable("integer", "of the holder"),
            "id": {"type": "string"},
            "term": {"type": "integer"},
            "acquired_at": _time("UTC", nullable=True),
            "live": {"type": "boolean"},
            "remaining": {"type": "number", "description": "seconds without a renewal; negative if it has expired"},
        }
    )


def _stored_error() -> Schema:
    return _object({"type": {"type": "string"}, "message": {"type": "string"}})


def _command_error() -> Schema:
    codes = [code for code in EXIT_CODES if code]
    return _object({"type": {"type": "string"}, "message": {"type": "string"}, "exit_code": {"enum": codes}})


def _object(required: Schema, *, optional: Schema | None = None) -> Schema:
    return {
        "type": "object",
        "properties": {**required, **(optional or {})},
        "required": list(required),
        "additionalProperties": False,
    }


def _values(kind: Iterable[Enum]) -> list[Any]:
    return [member.value for member in kind]


def _enum(kind: Iterable[Enum]) -> Schema:
    return {"enum": _values(kind)}


def _nullable(kind: str, description: str, **more: Any) -> Schema:
    return {"type": [kind, "null"], "description": description, **more}


def _seconds(description: str, *, nullable: bool = False) -> Schema:
    kind: Any = ["number", "null"] if nullable else "number"
    return {"type": kind, "minimum": 0, "description": f"seconds {description}"}


def _time(description: str, *, nullable: bool = False) -> Schema:
    kind: Any = ["string", "null"] if nullable else "string"
    return {"type": kind, "format": "date-time", "description": description}
