"""Define what a plan foresees, as values. Exit code, text and JSON are computed from these. Pure."""

import json
from enum import StrEnum
from typing import Any

from mydocs.migrations.model import IndexType, StoredError
from mydocs.migrations.values import value


class EffectKind(StrEnum):
    """The kind of an effect on a database."""

    CREATE_INDEX = "create_index"
    UPDATE_INDEX = "update_index"
    REPLACE_INDEX = "replace_index"
    DROP_INDEX = "drop_index"
    CREATE_COLLECTION = "create_collection"
    DROP_COLLECTION = "drop_collection"
    RENAME_COLLECTION = "rename_collection"
    INSERT = "insert"
    UPDATE = "update"
    DELETE = "delete"
    ALIAS = "alias"


# Effects that take an index or a collection away. They are to stop a pull request.
TAKES_AWAY = frozenset({EffectKind.REPLACE_INDEX, EffectKind.DROP_INDEX, EffectKind.DROP_COLLECTION})


@value
class Effect:
    """
    One effect of a script.

    :param name: of the index or the alias, or the collection's new name
    :param documents: how many; ``None`` if the number is unknown, or the effect does not concern documents
    :param answers_meanwhile: whether queries are answered during the change
    :param before: documents before the change, and ``after`` it, as JSON, as many as were asked for
    """

    kind: EffectKind
    collection: str
    name: str | None = None
    type: IndexType | None = None
    detail: str | None = None
    documents: int | None = None
    answers_meanwhile: bool = True
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()


@value
class PlannedStep:
    """
    The effects of one pending script.

    :param unknown: what could not be foreseen, one sentence each
    :param error: the error that the script raised on the copy
    """

    version: str
    name: str
    effects: tuple[Effect, ...] = ()
    unknown: tuple[str, ...] = ()
    error: StoredError | None = None


@value
class PlanReport:
    """The effects of a run on a database, step by step."""

    database: str
    steps: tuple[PlannedStep, ...] = ()
    seconds: float = 0.0

    @property
    def exit_code(self) -> int:
        """Return 1 if a script fails on the copy, 8 if something is taken away, else 0."""
        if any(step.error is not None for step in self.steps):
            return 1
        effects = [effect for step in self.steps for effect in step.effects]
        return 8 if any(effect.kind in TAKES_AWAY for effect in effects) else 0


def step_json(step: PlannedStep) -> dict[str, Any]:
    """Convert a step of a plan to plain values."""
    return {
        "version": step.version,
        "name": step.name,
        "effects": [_effect(effect) for effect in step.effects],
        "unknown": list(step.unknown),
        "error": None if step.error is None else {"type": step.error.type, "message": step.error.message},
    }


def _effect(effect: Effect) -> dict[str, Any]:
    document: dict[str, Any] = {
        "kind": effect.kind.value,
        "collection": effect.collection,
        "name": effect.name,
        "type": None if effect.type is None else effect.type.value,
        "detail": effect.detail,
        "documents": effect.documents,
        "answers_meanwhile": effect.answers_meanwhile,
    }
    if effect.before or effect.after:
        document |= {key: [json.loads(text) for text in getattr(effect, key)] for key in ("before", "after")}
    return document
