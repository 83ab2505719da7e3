"""Compile a projection, or the fields of a $project or $set stage, to a function of documents. Pure."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

from mydocs.localserver.errors import CommandError, NotKnown
from mydocs.localserver.query.expressions import compile_expression
from mydocs.localserver.query.match import compile_filter, find_positional
from mydocs.localserver.query.values import MISSING, Document, as_document, is_number, split_path, to_decimal, to_int

Tree: TypeAlias = dict[str, Any]
"""Field names to further trees or to leaves: ``True`` includes a field, ``False`` excludes it, others are below."""


@dataclass(frozen=True, slots=True)
class Computed:
    """A field whose value is an expression."""

    evaluate: Callable[[Document, Mapping[str, Any]], Any]


@dataclass(frozen=True, slots=True)
class Reshaped:
    """A field whose array is cut; ``MISSING`` leaves it out."""

    change: Callable[[Document, Any], Any]


def _plant(tree: Tree, path: str, leaf: Any) -> None:
    *above, last = split_path(path)
    node = tree
    for part in above:
        child = node.setdefault(part, {})
        if not isinstance(child, dict):
            raise CommandError(31249, f"Path collision at {path}")
        node = child
    if last in node:
        raise CommandError(31250, f"Path collision at {path}")
    node[last] = leaf


def _check_path(path: str) -> None:
    for part in split_path(path):
        if not part:
            raise CommandError(40353, f"FieldPath must not end with a '.' or hold an empty name: '{path}'")
        if part.startswith("$"):
            raise CommandError(16410, f"FieldPath field names may not start with '$'. Given '{part}'.")


class _Parser:
    def __init__(
        self,
        *,
        find: bool,
        now: datetime | None,
        names: Iterable[str],
        filter: Any,  # noqa: A002  # the command's word
    ) -> None:
        self._find, self._now, self._names, self._filter = find, now, frozenset(names), filter
        self.tree: Tree = {}
        self.leaves: list[tuple[str, Any]] = []
        self.positional = False
        self.elem_match = False

    def fields(self, spec: Mapping[str, Any], prefix: str = "") -> None:
        for key, value in spec.items():
            self._field(prefix + key, value)

    def _field(self, path: str, value: Any) -> None:
        if self._find and path.endswith(".$"):
            self._add_positional(path[:-2], value)
            return
        _check_path(path)
        document = as_document(value)
        if isinstance(value, bool) or is_number(value):
            self._add(path, value is True or (value is not False and to_decimal(value) != 0))
        elif document is None:
            self._add_computed(path, value)
        elif not document:
            raise CommandError(
                51270, f"An empty sub-projection is not a valid value. Found empty object at path {path}"
            )
        elif not next(iter(document)).startswith("$"):
            self.fields(document, f"{path}.")
        elif "$meta" in document:
            raise NotKnown("$meta in a projection")
        elif self._find and "$elemMatch" in document:
            self._add_elem_match(path, document["$elemMatch"])
        elif self._find and "$slice" in document and _is_plain_slice(document["$slice"]):
            self._add(path, Reshaped(_slicer(document["$slice"])))
        else:
            self._add_computed(path, value)

    def _add(self, path: str, leaf: Any) -> None:
        _plant(self.tree, path, leaf)
        self.leaves.append((path, leaf))

    def _add_computed(self, path: str, value: Any) -> None:
        self._add(path, Computed(compile_expression(value, self._names)))

    def _add_elem_match(self, path: str, condition: Any) -> None:
        if "." in path:
            raise CommandError(31275, "Cannot use $elemMatch projection on a nested field")
        self.elem_match = True
        matches = compile_filter({"item": {"$elemMatch": condition}}, now=self._required_now())

        def change(_: Document, value: Any) -> Any:
            items = value if isinstance(value, list) else []
            return next(([item] for item in items if matches({"item": [item]})), MISSING)

        self._add(path, Reshaped(change))

    def _required_now(self) -> datetime:
        if self._now is None:
            raise CommandError(2, "a projection of a query needs the time")
        return self._now

    def _add_positional(self, path: str, value: Any) -> None:
        _check_path(path)
        if self.positional:
            raise CommandError(31276, "Cannot specify more than one positional projection per query.")
        if not (value is True or (is_number(value) and to_decimal(value) != 0)):
            raise CommandError(31395, "positional projection cannot be used with exclusion")
        self.positional = True
        query, now = self._filter or {}, self._now

        def change(document: Document, array: Any) -> Any:
            if not isinstance(array, list):
                return array
            index = find_positional(query, document, path, now=now)
            if index is None or index >= len(array):
                raise CommandError(51246, "positional operator '.$' couldn't find a matching element in the array")
            return [array[index]]

        self._add(path, Reshaped(change))


def _is_plain_slice(argument: Any) -> bool:
    return is_number(argument) or (isinstance(argument, list) and all(is_number(part) for part in argument))


def _slicer(argument: Any) -> Callable[[Document, Any], Any]:
    parts = [to_int(part) for part in (argument if isinstance(argument, list) else [argument])]
    if isinstance(argument, list) and len(parts) != 2:
        raise CommandError(28667, "Expression $slice takes at least 2 arguments, and at most 3")
    if any(part is None for part in parts):
        raise NotKnown("$slice in a projection by other than whole numbers")
    numbers = [part for part in parts if part is not None]
    if len(numbers) == 2 and numbers[1] <= 0:
        raise CommandError(28724, "First argument to $slice must be an array")

    def change(_: Document, value: Any) -> Any:
        if not isinstance(value, list):
            return value
        if len(numbers) == 1:
            return value[: numbers[0]] if numbers[0] >= 0 else value[numbers[0] :]
        start = numbers[0] if numbers[0] >= 0 else max(0, len(value) + numbers[0])
        return value[start : start + numbers[1]]

    return change


def _is_inclusion(parser: _Parser) -> bool:
    """Return whether a projection includes or excludes. Refuse a mixture, except for ``_id``."""
    kind: bool | None = None
    for path, leaf in parser.leaves:
        if isinstance(leaf, Reshaped) or (path == "_id" and isinstance(leaf, bool)):
            continue
        including = leaf is not False
        if kind is None:
            kind = including
        elif kind is not including:
            if isinstance(leaf, Computed):
                raise CommandError(31252, "Cannot use an expression in an exclusion projection")
            if including:
                raise CommandError(31253, f"Cannot do inclusion on field {path} in exclusion projection")
            raise CommandError(31254, f"Cannot do exclusion on field {path} in inclusion projection")
    if kind is None:
        kind = parser.elem_match or parser.positional or parser.tree.get("_id") is True
    if parser.positional and not kind:
        raise CommandError(31395, "positional projection cannot be used with exclusion")
    return kind


def compile_projection(
    projection: Mapping[str, Any],
    *,
    now: datetime,
    filter: Any = None,  # noqa: A002  # the command's own word
    variables: Mapping[str, Any] | None = None,
    find: bool = True,
) -> Callable[[Document], Document]:
    """
    Return a function that projects a document.

    :param filter: the query, for the positional ``$``
    :param find: use the rules of ``find``; ``$project`` has no positional ``$``, and its ``$slice`` is an expression
    """
    scope = {"NOW": now, **(variables or {})}
    if not projection:
        if find:
            return dict
        raise CommandError(
            51272, "Invalid $project :: caused by :: projection specification must have at least one field"
        )
    parser = _Parser(find=find, now=now, names=scope, filter=filter)
    parser.fields(projection)
    inclusion = _is_inclusion(parser)
    tree = parser.tree
    if inclusion:
        tree.setdefault("_id", True)
    computed = _only_computed(tree)
    select = _include if inclusion else _exclude

    def project(document: Document) -> Document:
        selected = select(document, tree, document)
        return _add(selected, computed, document, scope) if computed else selected

    return project


def _include(document: Mapping[str, Any], tree: Tree, root: Document) -> Document:
    found: Document = {}
    for key, value in document.items():
        leaf = tree.get(key)
        if leaf is True:
            found[key] = value
        elif isinstance(leaf, dict):
            if (inner := _include_value(value, leaf, root)) is not MISSING:
                found[key] = inner
        elif isinstance(leaf, Reshaped) and (changed := leaf.change(root, value)) is not MISSING:
            found[key] = changed
    return found


def _include_value(value: Any, tree: Tree, root: Document) -> Any:
    if isinstance(value, list):
        found = (_include_value(item, tree, root) for item in value)
        if _only_computed(tree):
            # A computed field replaces an element that is not a document.
            return [{} if item is MISSING else item for item in found]
        return [item for item in found if item is not MISSING]
    document = as_document(value)
    return MISSING if document is None else _include(document, tree, root)


def _exclude(document: Mapping[str, Any], tree: Tree, root: Document) -> Document:
    found: Document = {}
    for key, value in document.items():
        leaf = tree.get(key, True)
        if leaf is False:
            continue
        if isinstance(leaf, dict):
            value = _exclude_value(value, leaf, root)
        elif isinstance(leaf, Reshaped):
            value = leaf.change(root, value)
        if value is not MISSING:
            found[key] = value
    return found


def _exclude_value(value: Any, tree: Tree, root: Document) -> Any:
    if isinstance(value, list):
        return [_exclude_value(item, tree, root) for item in value]
    document = as_document(value)
    return value if document is None else _exclude(document, tree, root)


def _only_computed(tree: Tree) -> Tree:
    found: Tree = {}
    for key, leaf in tree.items():
        if isinstance(leaf, Computed):
            found[key] = leaf
        elif isinstance(leaf, dict) and (inner := _only_computed(leaf)):
            found[key] = inner
    return found


def _add(document: Mapping[str, Any], tree: Tree, root: Document, scope: Mapping[str, Any]) -> Document:
    found = dict(document)
    for key, leaf in tree.items():
        if isinstance(leaf, Computed):
            value = leaf.evaluate(root, scope)
            if value is MISSING:
                found.pop(key, None)
            else:
                found[key] = value
        else:
            found[key] = _add_value(found.get(key, MISSING), leaf, root, scope)
    return found


def _add_value(value: Any, tree: Tree, root: Document, scope: Mapping[str, Any]) -> Any:
    if isinstance(value, list):
        return [_add_value(item, tree, root, scope) for item in value]
    # A new document replaces a value that is not one.
    return _add(as_document(value) or {}, tree, root, scope)


def compile_add_fields(
    spec: Any, *, now: datetime, variables: Mapping[str, Any] | None = None, stage: str = "$addFields"
) -> Callable[[Document], Document]:
    """Return the function of an ``$addFields`` or ``$set`` stage."""
    fields = as_document(spec)
    if fields is None:
        raise CommandError(40272, f"{stage} specification stage must be an object, got {type(spec).__name__}")
    if not fields:
        raise CommandError(40177, f"Invalid {stage} :: caused by :: specification must have at least one field")
    scope = {"NOW": now, **(variables or {})}
    tree: Tree = {}

    def plant(fields: Mapping[str, Any], prefix: str) -> None:
        for key, value in fields.items():
            path = prefix + key
            _check_path(path)
            inner = as_document(value)
            if inner and not next(iter(inner)).startswith("$"):
                plant(inner, f"{path}.")
            else:
                _plant(tree, path, Computed(compile_expression(value, scope)))

    plant(fields, "")
    return lambda document: _add(document, tree, document, scope)


def compile_unset(spec: Any) -> Callable[[Document], Document]:
    """Return the function of an ``$unset`` stage."""
    paths = spec if isinstance(spec, list) else [spec]
    if not paths:
        raise CommandError(31119, "$unset specification must be a string or an array with at least one field")
    if not all(isinstance(path, str) and path for path in paths):
        raise CommandError(31002, "$unset specification must be a string or an array containing only string values")
    tree: Tree = {}
    for path in paths:
        _check_path(path)
        _plant(tree, path, False)
    return lambda document: _exclude(document, tree, document)


def compile_replace(
    spec: Any, *, now: datetime, variables: Mapping[str, Any] | None = None
) -> Callable[[Document], Document]:
    """Return the function of a ``$replaceWith`` stage."""
    scope = {"NOW": now, **(variables or {})}
    evaluate = compile_expression(spec, scope)

    def replace(document: Document) -> Document:
        found = as_document(evaluate(document, scope))
        if found is None:
            raise CommandError(40228, "'newRoot' expression must evaluate to an object")
        return dict(found)

    return replace


def compile_update_stage(
    stage: str, spec: Any, *, now: datetime, variables: Mapping[str, Any] | None = None
) -> Callable[[Document], Document] | None:
    """Return the function of a stage that maps one document to one, or ``None`` for other stages."""
    match stage:
        case "$set" | "$addFields":
            return compile_add_fields(spec, now=now, variables=variables, stage=stage)
        case "$unset":
            return compile_unset(spec)
        case "$project":
            fields = as_document(spec)
            if fields is None:
                raise CommandError(15969, "$project specification must be an object")
            return compile_projection(fields, now=now, variables=variables, find=False)
        case "$replaceWith":
            return compile_replace(spec, now=now, variables=variables)
        case "$replaceRoot":
            if not isinstance(spec, Mapping) or set(spec) != {"newRoot"}:
                raise CommandError(
                    40229, "expected an object with the field 'newRoot' as specification for $replaceRoot"
                )
            return compile_replace(spec["newRoot"], now=now, variables=variables)
        case _:
            return None
