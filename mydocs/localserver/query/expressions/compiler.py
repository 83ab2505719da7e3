"""Compile an aggregation expression to a function of a document and its variables. Pure."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from mydocs.localserver.errors import CommandError
from mydocs.localserver.query.expressions.arrays import ARRAYS
from mydocs.localserver.query.expressions.core import Builder, Compiler, Evaluate, functions, truthy
from mydocs.localserver.query.expressions.dates import DATES
from mydocs.localserver.query.expressions.numbers import NUMBERS
from mydocs.localserver.query.expressions.strings import STRINGS
from mydocs.localserver.query.expressions.types import TYPES
from mydocs.localserver.query.values import MISSING, Document, compare, equal


def compile_expression(
    expression: Any, names: Iterable[str] | None = None
) -> Callable[[Document, Mapping[str, Any]], Any]:
    """
    Return a function of a document and the variables, such as ``NOW``. It may return ``MISSING``.

    :param names: the known variables; without them an unknown one is an error only at the evaluation
    :raises CommandError: if the expression is not valid
    :raises NotKnown: if it contains an operator that is not implemented
    """
    compiler = Compiler(OPERATORS, None if names is None else frozenset(names))
    evaluate = compiler.expression(expression)
    return lambda document, variables: evaluate({"ROOT": document, "CURRENT": document, **variables})


def _literal(_: str, argument: Any, compiler: Compiler) -> Evaluate:
    del compiler
    return lambda _: argument


def _cond(name: str, argument: Any, compiler: Compiler) -> Evaluate:
    if isinstance(argument, Mapping):
        for code, part in ((17080, "if"), (17081, "then"), (17082, "else")):
            if part not in argument:
                raise CommandError(code, f"Missing '{part}' parameter to $cond")
        if unknown := argument.keys() - {"if", "then", "else"}:
            raise CommandError(17083, f"Unrecognized parameter to $cond: {unknown.pop()}")
        parts = {key: compiler.expression(value) for key, value in argument.items()}
        condition, then, otherwise = parts["if"], parts["then"], parts["else"]
    else:
        condition, then, otherwise = compiler.arguments(name, argument, 3, 3)
    return lambda scope: then(scope) if truthy(condition(scope)) else otherwise(scope)


def _if_null(name: str, argument: Any, compiler: Compiler) -> Evaluate:
    if not isinstance(argument, list) or len(argument) < 2:
        raise CommandError(1257300, "$ifNull needs at least two arguments, had: " + str(_count(argument)))
    *first, last = compiler.arguments(name, argument, 2, None)

    def evaluate(scope: Mapping[str, Any]) -> Any:
        for part in first:
            value = part(scope)
            if value is not None and value is not MISSING:
                return value
        return last(scope)

    return evaluate


def _count(argument: Any) -> int:
    return len(argument) if isinstance(argument, list) else 1


def _switch(name: str, argument: Any, compiler: Compiler) -> Evaluate:
    if not isinstance(argument, Mapping):
        raise CommandError(40060, "$switch requires an object as an argument, found: " + type(argument).__name__)
    if unknown := [key for key in argument if key not in ("branches", "default")]:
        raise CommandError(40067, f"$switch found an unknown argument: {unknown[0]}")
    branches = argument.get("branches")
    if not isinstance(branches, list):
        raise CommandError(40061, "$switch expected an array for 'branches'")
    if not branches:
        raise CommandError(40068, "$switch requires at least one branch")
    compiled = []
    for branch in branches:
        if not isinstance(branch, Mapping):
            raise CommandError(40062, "$switch expected each branch to be an object")
        parts = compiler.named(name, branch, ("case", "then"))
        compiled.append((parts["case"], parts["then"]))
    default = compiler.expression(argument["default"]) if "default" in argument else None

    def evaluate(scope: Mapping[str, Any]) -> Any:
        for case, then in compiled:
            if truthy(case(scope)):
                return then(scope)
        if default is None:
            raise CommandError(
                40066, "$switch could not find a matching branch for an input, and no default was specified."
            )
        return default(scope)

    return evaluate


def _let(name: str, argument: Any, compiler: Compiler) -> Evaluate:
    if not isinstance(argument, Mapping) or set(argument) != {"vars", "in"}:
        raise CommandError(16874, f"{name} only supports an object with the fields 'vars' and 'in'")
    if not isinstance(argument["vars"], Mapping):
        raise CommandError(10065, "invalid parameter: expected an object (vars)")
    bound = {key: compiler.expression(value) for key, value in argument["vars"].items()}
    for key in bound:
        compiler.check_variable(key)
    inside = compiler.binding(*bound).expression(argument["in"])
    return lambda scope: inside({**scope, **{key: part(scope) for key, part in bound.items()}})


def _both(name: str, argument: Any, compiler: Compiler) -> Evaluate:
    parts = compiler.arguments(name, argument, 0, None)
    if name == "$and":
        return lambda scope: all(truthy(part(scope)) for part in parts)
    return lambda scope: any(truthy(part(scope)) for part in parts)


OPERATORS: dict[str, Builder] = {
    "$literal": _literal,
    "$const": _literal,
    "$cond": _cond,
    "$ifNull": _if_null,
    "$switch": _switch,
    "$let": _let,
    "$and": _both,
    "$or": _both,
    **functions(
        {
            "$not": (lambda a: not truthy(a), 1, 1),
            "$eq": (equal, 2, 2),
            "$ne": (lambda a, b: compare(a, b) != 0, 2, 2),
            "$gt": (lambda a, b: compare(a, b) > 0, 2, 2),
            "$gte": (lambda a, b: compare(a, b) >= 0, 2, 2),
            "$lt": (lambda a, b: compare(a, b) < 0, 2, 2),
            "$lte": (lambda a, b: compare(a, b) <= 0, 2, 2),
            "$cmp": (lambda a, b: max(-1, min(1, compare(a, b))), 2, 2),
        }
    ),
    **NUMBERS,
    **STRINGS,
    **ARRAYS,
    **DATES,
    **TYPES,
}
