"""
Find mistakes in a script's syntax tree that would otherwise pass as success. Pure.

A false alarm is worse than a miss here: code that may have an effect counts as code that has one.
"""

import ast
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence, Set

# Calls that only create a value, by their last name. A line with only these calls is a constant.
MAKES_A_VALUE = frozenset(
    {"getLogger", "compile", "SearchIndexModel", "IndexModel", "TypeVar", "namedtuple", "NewType", "Path", "ObjectId"}
    | {"timedelta", "datetime", "date", "Decimal", "SON", "frozenset", "set", "dict", "list", "tuple", "str", "int"}
    | {"float", "bool", "range", "len", "sorted", "getenv", "field", "Field", "ConfigDict", "MappingProxyType", "auto"}
)
HARMLESS_DECORATORS = frozenset({"dataclass", "cache", "lru_cache", "total_ordering", "unique", "final", "override"})

# Methods of Motor's and PyMongo's asynchronous databases and collections that act only if awaited or iterated.
DATABASE_CALLS = frozenset(
    {"insert_one", "insert_many", "update_one", "update_many", "replace_one", "delete_one", "delete_many", "bulk_write"}
    | {
        "find_one",
        "find_one_and_update",
        "find_one_and_replace",
        "find_one_and_delete",
        "find",
        "aggregate",
        "distinct",
    }
    | {"count_documents", "estimated_document_count", "create_index", "create_indexes", "drop_index", "drop_indexes"}
    | {"create_search_index", "create_search_indexes", "update_search_index", "drop_search_index", "drop", "rename"}
    | {"create_collection", "drop_collection", "command", "drop_database"}
)

_YIELDS = (ast.Yield, ast.YieldFrom)
_CONDITIONS = (ast.Assert, ast.If, ast.While)
# The coroutines of mydocs.migrations that scripts call.
HELPERS = frozenset(
    {"ensure_indexes", "ensure_search_indexes", "drop_search_indexes", "wait_until_ready", "transform", "rename_field"}
    | {"unset_field", "update_in_batches", "switch_search_alias", "check_vectors"}
)


def problems_of(tree: ast.Module, *, is_async: bool) -> tuple[tuple[int, str], ...]:
    """Return line and sentence for each part of a script that would silently not run."""
    functions = {node.name: node for node in tree.body if isinstance(node, ast.AsyncFunctionDef)}
    nodes = [*ast.walk(tree)]
    problems = []
    if is_async and any(isinstance(node, _YIELDS) for node in nodes):
        for name in ("up", "down", "verify"):
            place = yields(functions[name]) if name in functions else None
            if place is not None:
                problems.append((place, f"`{name}` yields, so calling it runs nothing; remove the `yield`"))
    if not is_async and does_nothing(tree):
        line, defines = first_definition(tree)
        defined = f": it defines `{defines}` and never calls it" if defines else ""
        problems.append(
            (line, f"does nothing when it is run{defined}; define `async def up(db)`, or call the function")
        )
    entries = [functions[name] for name in ("up", "down", "verify") if is_async and name in functions]
    given = {name for name in map(_first_parameter, entries) if name is not None}
    remedy = "put `await` before it" if is_async else "hand it to `asyncio.run`"
    problems += [
        (line, f"`{text}` is not awaited, so it may never run; {remedy}")
        for line, text in sorted(set(not_awaited(tree, nodes, given)))
    ]
    return tuple(problems)


def _first_parameter(function: ast.AsyncFunctionDef) -> str | None:
    parameters = [*function.args.posonlyargs, *function.args.args]
    return parameters[0].arg if parameters else None


def does_nothing(tree: ast.Module) -> bool:
    """Return whether running a file has no effect: it only imports and defines."""
    return not any(_acts(node) for node in tree.body)


def first_definition(tree: ast.Module) -> tuple[int, str | None]:
    """Return line and name of the function or class that the author probably meant to call."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            return node.lineno, node.name
    return 1, None


def yields(function: ast.AsyncFunctionDef | ast.FunctionDef) -> int | None:
    """Return the line of a function's ``yield``, which makes it a generator, or ``None``."""
    return next((node.lineno for node in _own(function) if isinstance(node, _YIELDS)), None)


def not_awaited(tree: ast.Module, nodes: Sequence[ast.AST], given: Set[str]) -> Iterator[tuple[int, str]]:
    """
    Yield line and text of each call that creates a coroutine and discards it, or only tests whether it is true.

    :param nodes: all nodes of the tree
    :param given: the names of the database parameter of `up`, `down` and `verify`; empty for a plain script, whose
        database is synchronous
    """
    lost = [*_calls_without_result(nodes)]
    if not lost:  # as in most scripts: then their names do not matter
        return
    helpers, modules = _imported_helpers(nodes)
    own = {node.name for node in tree.body if isinstance(node, ast.AsyncFunctionDef) and not node.decorator_list}
    bound = Counter(name for node in nodes for name in _names_bound(node))
    coroutines = {name for name in own | helpers if bound[name] <= 1}
    for call in lost:
        function = call.func
        of_module = isinstance(function, ast.Attribute) and ast.unparse(function.value) in modules
        if (isinstance(function, ast.Name) and function.id in coroutines) or (
            of_module and _last_name(function) in HELPERS
        ):
            yield call.lineno, f"{ast.unparse(function)}(…)"
    databases = _databases(nodes, given)
    # Only in async functions: elsewhere the same name may be a synchronous database.
    for scope in (node for node in nodes if isinstance(node, ast.AsyncFunctionDef)):
        for call in _calls_without_result(_own(scope)):
            if _last_name(call.func) in DATABASE_CALLS and _root(call.func) in databases:
                yield call.lineno, f"{ast.unparse(call.func)}(…)"


def _calls_without_result(nodes: Iterable[ast.AST]) -> Iterator[ast.Call]:
    """Yield the calls whose result is not used: statements of their own, and operands of a condition."""
    for node in nodes:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            yield node.value
        elif isinstance(node, _CONDITIONS):
            yield from _compared(node.test)


def _compared(test: ast.expr) -> Iterator[ast.Call]:
    match test:
        case ast.Call():
            yield test
        case ast.UnaryOp(operand=operand):
            yield from _compared(operand)
        case ast.BoolOp(values=parts):
            for part in parts:
                yield from _compared(part)
        case ast.Compare(left=left, comparators=others):
            for part in (left, *others):
                yield from _compared(part)
        case _:
            pass


def _acts(node: ast.stmt) -> bool:
    match node:
        case ast.Import() | ast.ImportFrom() | ast.Pass() | ast.Global() | ast.Nonlocal():
            return False
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            return not all(_is_harmless(each) for each in node.decorator_list)
        case ast.ClassDef():
            return (
                bool(node.keywords)
                or not all(_is_harmless(each) for each in node.decorator_list)
                or any(_acts(each) for each in node.body if not _is_method(each))
            )
        case ast.Expr(value=ast.Constant() | ast.Name() | ast.Attribute()):
            return False
        case ast.Expr(value=value) if not isinstance(value, ast.Call):
            return True  # an operator may be overloaded, and may raise
        case ast.Assign(targets=targets) if not all(isinstance(each, ast.Name | ast.Tuple) for each in targets):
            return True  # it changes an object that other code may share
        case ast.Assign() | ast.AnnAssign() | ast.AugAssign() | ast.Expr():
            return any(_calls(each) for each in ast.walk(node))
        case ast.If():
            return any(_calls(each) for each in ast.walk(node.test)) or any(map(_acts, [*node.body, *node.orelse]))
        case ast.Try():
            handlers = [each for handler in node.handlers for each in handler.body]
            return any(map(_acts, [*node.body, *handlers, *node.orelse, *node.finalbody]))
        case _:
            return True


def _is_method(node: ast.stmt) -> bool:
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)  # a decorated function counts as a method, too


def _is_harmless(decorator: ast.expr) -> bool:
    return _last_name(decorator.func if isinstance(decorator, ast.Call) else decorator) in HARMLESS_DECORATORS


def _calls(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        text = ast.unparse(node.func)
        return _last_name(node.func) not in MAKES_A_VALUE and text not in {"os.environ.get", "environ.get"}
    return isinstance(node, ast.Await | ast.Yield | ast.YieldFrom)


def _last_name(node: ast.expr) -> str | None:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else None


def _root(node: ast.expr) -> str | None:
    """Return the name that a chain of attributes, items and calls begins with."""
    while True:
        match node:
            case ast.Attribute() | ast.Subscript():
                node = node.value
            case ast.Call():
                node = node.func
            case ast.Name():
                return node.id
            case _:
                return None


def _databases(nodes: Sequence[ast.AST], given: Set[str]) -> frozenset[str]:
    """Return the names that mean the run's database or one of its collections, anywhere in the file."""
    assigned = [node for node in nodes if isinstance(node, ast.Assign)]
    rebound = [name for node in nodes if not isinstance(node, ast.arg) for name in _names_bound(node)]
    names = set(given) - set(rebound)
    for node in assigned:
        target, value = node.targets[0], node.value
        if (
            len(node.targets) == 1
            and isinstance(target, ast.Name)
            and rebound.count(target.id) == 1
            and isinstance(value, ast.Attribute | ast.Subscript)
            and not any(isinstance(each, ast.Call) for each in ast.walk(value))
            and _root(value) in names
        ):
            names.add(target.id)
    return frozenset(names)


def _imported_helpers(nodes: Iterable[ast.AST]) -> tuple[set[str], set[str]]:
    """Return the names that a file uses for the helpers of mydocs.migrations, and for that package itself."""
    helpers, modules = set(), set()
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module == "mydocs.migrations":
            helpers |= {alias.asname or alias.name for alias in node.names if alias.name in HELPERS}
        elif isinstance(node, ast.ImportFrom) and node.module == "mydocs":
            modules |= {alias.asname or alias.name for alias in node.names if alias.name == "migrations"}
        elif isinstance(node, ast.Import):
            modules |= {alias.asname or alias.name for alias in node.names if alias.name == "mydocs.migrations"}
    return helpers, modules


def _names_bound(node: ast.AST) -> Iterable[str]:
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            yield node.name
        case ast.Name(ctx=ast.Store() | ast.Del()):
            yield node.id
        case ast.arg():
            yield node.arg
        case ast.alias():
            yield (node.asname or node.name).partition(".")[0]
        case ast.ExceptHandler(name=str(name)):
            yield name
        case _:
            pass


def _own(function: ast.AsyncFunctionDef | ast.FunctionDef) -> Iterator[ast.AST]:
    """Walk a function's own code, without the functions and classes defined in it."""
    nodes: list[ast.AST] = [*function.body]
    while nodes:
        node = nodes.pop()
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
            nodes += ast.iter_child_nodes(node)
