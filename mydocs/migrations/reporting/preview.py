"""What a plan foresees, as values; exit code, text and JSON are reductions of these. Pure."""

import json
from enum import StrEnum
from typing import Any

from mydocs.migrations.model import IndexType, StoredError
from mydocs.migrations.values import value


class EffectKind(StrEnum):
    """What happens to a database."""

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


# What takes an index or a collection away, so that a pull request is to stop.
TAKES_AWAY = frozenset({EffectKind.REPLACE_INDEX, EffectKind.DROP_INDEX, EffectKind.DROP_COLLECTION})


@value
class Effect:
    """
    One thing that a script does.

    :param name: of the index, the alias, or the collection's new name
    :param documents: how many; ``None`` where nobody can say, or the effect is none on documents
    :param answers_meanwhile: whether queries are answered while it is under way
    :param before: documents before and ``after`` it, as JSON, as far as they were asked for
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
    What one pending script would do.

    :param unknown: what could not be foreseen, a sentence each
    :param error: what the script raised on the copy
    """

    version: str
    name: str
    effects: tuple[Effect, ...] = ()
    unknown: tuple[str, ...] = ()
    error: StoredError | None = None


@value
class PlanReport:
    """What a run would do to a database, step by step."""

    database: str
    steps: tuple[PlannedStep, ...] = ()
    seconds: float = 0.0

    @property
    def exit_code(self) -> int:
        """1 where a script fails on the copy, 8 where something is taken away, else 0."""
        if any(step.error is not None for step in self.steps):
            return 1
        effects = [effect for step in self.steps for effect in step.effects]
        return 8 if any(effect.kind in TAKES_AWAY for effect in effects) else 0


def step_json(step: PlannedStep) -> dict[str, Any]:
    """Turn a step of a plan into plain values."""
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
