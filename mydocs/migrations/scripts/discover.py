"""
Find the scripts and classify them. I/O: reads files, runs none.

A plain script acts as soon as it is imported, so its kind is decided by its syntax tree alone.
"""

import ast
import logging
import os
import re
import sys
import threading
from collections.abc import Iterable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from mydocs.migrations.errors import DirectoryMissing, ScriptsInvalid
from mydocs.migrations.model import SCRIPT_NAME, Problem, Script, ScriptKind
from mydocs.migrations.scripts.checks import problems_of
from mydocs.migrations.scripts.source import checksum, decoded, read_source
from mydocs.migrations.values import value

logger = logging.getLogger(__name__)

# CPython keeps the parser's recursion depth in one place for all threads (python/cpython#106905), so two threads that
# parse at the same time can end in a SystemError.
_parser_lock = threading.Lock()

# Number of texts whose facts are cached, for a process that migrates many databases from one folder. If nothing is
# pending, parsing takes longer than all the rest. The same text always has the same facts.
REMEMBERED = 1_024

# An import within a function, as a rule, and what it may name without a chance of lightodm.
LATE_IMPORT = re.compile(r"^[ \t]+(?:from|import)[ \t]+(\w[\w.]*)", re.MULTILINE)
RUNNER = "mydocs.migrations"
WITHOUT_LIGHTODM = sys.stdlib_module_names | {"anyio", "bson", "motor", "pymongo"}

# Calls that a transaction cannot contain, by the names of the drivers and of our helpers. Without a session the
# drivers' calls would even succeed, outside of the transaction.
INDEX_CALLS = frozenset(
    {"create_index", "create_indexes", "drop_index", "drop_indexes", "ensure_indexes"}
    | {"create_search_index", "create_search_indexes", "update_search_index", "drop_search_index"}
    | {"ensure_search_indexes", "drop_search_indexes"}
)


@value
class Discovery:
    """The scripts in the order in which they run, and warnings about the folder."""

    scripts: tuple[Script, ...]
    warnings: tuple[str, ...] = ()


def discover(directory: Path) -> Discovery:
    """
    Read a folder of scripts.

    :raises DirectoryMissing: if the folder does not exist
    :raises ScriptsInvalid: lists every problem of every file, so that you can correct all of them at once
    """
    try:
        if not directory.is_dir():
            raise DirectoryMissing(directory)
    except OSError as error:  # a parent folder without permission, or a name that is too long
        raise DirectoryMissing(directory, error.strerror) from error
    scripts: list[Script] = []
    problems: list[Problem] = []
    warnings: list[str] = []
    try:
        # Absolute, since a script may change the working directory.
        paths = sorted(directory.absolute().iterdir())
    except OSError as error:
        raise DirectoryMissing(directory, error.strerror) from error
    for path in paths:
        if path.name[0] not in "0123456789":
            continue
        if path.suffix.lower() != ".py":
            warnings.append(
                f"{path.name} is named like a migration, but its name does not end in .py, so it is ignored"
            )
            continue
        try:
            script, warning = _read(path, directory)
        except _Problem as problem:
            problems.append(Problem(text=str(problem), path=path, line=problem.line))
        else:
            scripts.append(script)
            warnings += [warning] if warning else []
    problems += [*_collisions(scripts), *_rivals(scripts)]
    if problems:
        raise ScriptsInvalid(problems)
    return Discovery(scripts=tuple(sorted(scripts, key=lambda script: script.number)), warnings=tuple(warnings))


def imports_of(folder: Path) -> set[str]:
    """Return the names of the modules that the files of a folder import, as far as parsing shows."""
    names: set[str] = set()
    for path in sorted(folder.glob("*.py")):
        with suppress(OSError, ValueError, SyntaxError, LookupError, RecursionError, MemoryError), _parser_lock:
            for node in ast.walk(ast.parse(read_source(path))):
                if isinstance(node, ast.Import):
                    names |= {alias.name.partition(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module is not None and not node.level:
                    names.add(node.module.partition(".")[0])
    return names


class _Problem(Exception):
    """One problem of a file, as a sentence, and the line where it is."""

    def __init__(self, text: str, line: int | None = None) -> None:
        self.line = line
        super().__init__(text)


def _read(path: Path, directory: Path) -> tuple[Script, str | None]:
    if SCRIPT_NAME.fullmatch(path.name) is None:
        raise _Problem(f"{path.name} is not named like a migration: {_naming_advice(path.name)}")
    if path.is_symlink():
        target = Path(os.path.realpath(path))  # Path.resolve() raises for a link to itself before Python 3.13
        if not target.is_relative_to(directory.resolve()):
            logger.info("%s is a link to a file outside the folder, %s", path.name, target)
    if not path.is_file():
        what = "a link to nothing" if path.is_symlink() and not path.exists() else "a directory"
        raise _Problem(f"{path.name} is {what if path.is_dir() or path.is_symlink() else 'not a file'}; remove it")
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise _Problem(f"{path.name} cannot be read: {error.strerror}; check its permissions") from error
    with _parser_lock:
        return _parsed(path, raw)


@lru_cache(maxsize=REMEMBERED)
def _parsed(path: Path, raw: bytes) -> tuple[Script, str | None]:
    try:
        source = decoded(raw)
        tree = ast.parse(source, filename=str(path))
    except UnicodeDecodeError as error:
        raise _Problem(
            f"{path.name} is not {error.encoding} at byte {error.start}; save it as UTF-8 or declare its encoding in "
            "the first line"
        ) from error
    except SyntaxError as error:
        line = f", line {error.lineno}" if error.lineno else ""
        raise _Problem(f"{path.name}{line} is not valid Python: {error.msg}", error.lineno) from error
    except LookupError as error:  # `# coding: rot13` is a codec, but no text encoding
        raise _Problem(f"{path.name} is in an encoding that Python cannot read: {error}; save it as UTF-8") from error
    except (ValueError, RecursionError, MemoryError) as error:  # NUL bytes; nesting beyond the parser
        raise _Problem(f"{path.name} cannot be parsed: {error}") from error
    facts = _Facts(path.name, tree)
    match = SCRIPT_NAME.fullmatch(path.name)
    assert match is not None  # the name is checked before the text
    script = Script(
        number=int(match["version"]),
        version=match["version"],
        name=match["name"],
        path=path,
        checksum=checksum(source),
        kind=facts.kind,
        source=source,
        reversible=facts.reversible,
        verifies=facts.verifies,
        idempotent=facts.constant("IDEMPOTENT", default=True),
        transactional=facts.constant("TRANSACTIONAL", default=False),
        may_use_lightodm=_may_use_lightodm(source),
        problems=tuple(
            Problem(text=f"{path.name}, line {line}: {text}", path=path, line=line)
            for line, text in problems_of(tree, is_async=facts.kind is ScriptKind.ASYNC)
        ),
        replaces=facts.replaces(int(match["version"])),
        unfinished=facts.unfinished,
    )
    return script, facts.warning


def _may_use_lightodm(source: str) -> bool:
    """Return whether a text names lightodm, or imports a module late, which may use it; see `execution/steps.py`."""
    late = {module.partition(".")[0] for module in LATE_IMPORT.findall(source) if not module.startswith(RUNNER)}
    return "lightodm" in source or not late <= WITHOUT_LIGHTODM


class _Facts:
    """The facts about a migration from its module's top level."""

    def __init__(self, file_name: str, tree: ast.Module) -> None:
        self.file_name = file_name
        self.bound = frozenset(_bound(tree.body))
        self.functions = {
            node.name: node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        }
        self.constants = dict(_constants(tree.body))
        self.kind = ScriptKind.ASYNC if "up" in self.functions else ScriptKind.PLAIN
        if self.kind is ScriptKind.PLAIN and isinstance(self.functions.get("down"), ast.AsyncFunctionDef):
            raise _Problem(f"{file_name} defines `async def down` and no `async def up(db)`")
        for name in ("up", "down") if self.kind is ScriptKind.ASYNC else ():
            if isinstance(self.functions.get(name), ast.FunctionDef):
                line = self.functions[name].lineno
                raise _Problem(f"{file_name}, line {line}: `def {name}` must be `async def {name}(db)`", line)
        self.unfinished = _unfinished(self.functions.get("up"))
        self.reversible = self.kind is ScriptKind.ASYNC and "down" in self.functions
        self.verifies = self.kind is ScriptKind.ASYNC and self._is_verify()
        self.warning: str | None = None
        if self.kind is ScriptKind.PLAIN and "up" in self.bound:
            self.warning = (
                f"{file_name} has an `up` that is no `async def up(db)` at top level, so the file runs as a plain "
                "script"
            )
        transactional = self.constant("TRANSACTIONAL", default=False)
        if transactional and self.kind is ScriptKind.PLAIN:
            raise _Problem(f"{file_name} says TRANSACTIONAL = True, which needs `async def up(db, session)`")
        if transactional:
            self._refuse_index_calls(tree)
        for name in self.functions.keys() & {"up", "down"} if self.kind is ScriptKind.ASYNC else ():
            self._check_signature(name, ("db", "session") if transactional else ("db",))

    def _is_verify(self) -> bool:
        """Return whether there is a ``verify`` to call. One without a ``db`` is an unrelated function of the script."""
        verify = self.functions.get("verify")
        if isinstance(verify, ast.AsyncFunctionDef):
            self._check_signature("verify", ("db",))
            return True
        arguments = [] if verify is None else [*verify.args.posonlyargs, *verify.args.args]
        if verify is not None and [argument.arg for argument in arguments[:1]] == ["db"]:
            text = f"{self.file_name}, line {verify.lineno}: `def verify` must be `async def verify(db)`"
            raise _Problem(text, verify.lineno)
        return False

    def constant(self, name: str, *, default: bool) -> bool:
        if name not in self.constants:
            if name in self.bound:
                raise _Problem(f"{self.file_name}: {name} must be written as True or False, on a line of its own")
            return default
        node = self.constants[name]
        if not (isinstance(node, ast.Constant) and isinstance(node.value, bool)):
            text = f"{self.file_name}, line {node.lineno}: {name} must be written as True or False"
            raise _Problem(text, node.lineno)
        return node.value

    def replaces(self, number: int) -> tuple[str, ...]:
        """Return the versions that the script replaces. Each must come before it."""
        if "REPLACES" not in self.constants:
            if "REPLACES" in self.bound:
                raise _Problem(f'{self.file_name}: REPLACES must be written as ["001", "002"], on a line of its own')
            return ()
        node = self.constants["REPLACES"]
        where = f"{self.file_name}, line {node.lineno}: REPLACES"
        try:
            versions = ast.literal_eval(node)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            versions = None
        if (
            not isinstance(versions, list | tuple)
            or not versions
            or not all(isinstance(each, str) and each.isascii() and each.isdigit() for each in versions)
        ):
            text = f'{where} must be written as ["001", "002"], with the versions of earlier migrations'
            raise _Problem(text, node.lineno)
        late = [version for version in versions if int(version) >= number]
        if late:
            text = f"{where} names {', '.join(late)}, which does not come before it; give it a higher number"
            raise _Problem(text, node.lineno)
        if len({int(version) for version in versions}) < len(versions):
            raise _Problem(f"{where} names a version twice; remove one of them", node.lineno)
        return tuple(versions)

    def _refuse_index_calls(self, tree: ast.Module) -> None:
        calls = [call for call in _calls(tree) if call[1] in INDEX_CALLS]
        if calls:
            line, name = min(calls)
            raise _Problem(
                f"{self.file_name}, line {line}: {name} cannot be used in a script that says TRANSACTIONAL = True: a "
                "transaction builds and drops no indexes; do it in a migration of its own",
                line,
            )

    def _check_signature(self, name: str, given: tuple[str, ...]) -> None:
        arguments = self.functions[name].args
        positional = len(arguments.posonlyargs) + len(arguments.args)
        required = positional - len(arguments.defaults)
        keywords_required = sum(default is None for default in arguments.kw_defaults)
        fits = required <= len(given) and (positional >= len(given) or arguments.vararg is not None)
        if not fits or keywords_required:
            line = self.functions[name].lineno
            raise _Problem(
                f"{self.file_name}, line {line}: `{name}` is called as `{name}({', '.join(given)})`; its parameters do "
                "not fit that",
                line,
            )


def _unfinished(up: ast.FunctionDef | ast.AsyncFunctionDef | None) -> int | None:
    """Return the line on which an `up` begins with `raise NotImplementedError`, as templates do, or ``None``."""
    for node in up.body if up else ():
        if isinstance(node, ast.Raise):
            raised = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
            return node.lineno if isinstance(raised, ast.Name) and raised.id == "NotImplementedError" else None
        if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
            return None
    return None


def _calls(tree: ast.Module) -> Iterable[tuple[int, str]]:
    """Yield line and name of every function or method call."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            yield node.lineno, node.func.attr
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node.lineno, node.func.id


def _bound(nodes: Iterable[ast.AST]) -> Iterable[str]:
    """Yield the names that code binds in its own scope by definition, import or assignment, nested blocks included."""
    for node in nodes:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield node.name
            case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
                # These have a scope of their own, except for `:=`.
                yield from _bound(each.target for each in ast.walk(node) if isinstance(each, ast.NamedExpr))
            case ast.Lambda():
                pass
            case ast.AnnAssign(value=None):
                pass
            case ast.alias():
                yield node.asname or node.name
            case ast.Name(ctx=ast.Store()):
                yield node.id
            case _:
                yield from _bound(ast.iter_child_nodes(node))


def _constants(body: Iterable[ast.stmt]) -> Iterable[tuple[str, ast.expr]]:
    for node in body:
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    yield target.id, node.value
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            yield node.target.id, node.value


def _naming_advice(file_name: str) -> str:
    stem = file_name[: -len(".py")]
    number, name = re.match(r"([0-9]*)(.*)", stem, re.DOTALL).groups()  # type: ignore[union-attr]  # always matches
    if not file_name.endswith(".py"):
        return "its ending must be .py in small letters"
    description = re.sub(r"[^A-Za-z0-9_-]+", "_", name).strip("_-") or "description"
    return f"call it {number.zfill(3)}_{description}.py (three or more digits, `_`, letters, digits, `_` or `-`)"


def _collisions(scripts: list[Script]) -> list[Problem]:
    by_number: dict[int, list[Path]] = {}
    for script in scripts:
        by_number.setdefault(script.number, []).append(script.path)
    return [
        Problem(text=f"{_names(paths)} have one number; give one of them the next free number", path=paths[-1])
        for paths in by_number.values()
        if len(paths) > 1
    ]


def _rivals(scripts: list[Script]) -> list[Problem]:
    """Return a sentence for each pair of scripts that replace the same migration: a run could choose neither."""
    by_number: dict[int, list[Path]] = {}
    replaced = {int(version) for script in scripts for version in script.replaces}
    for script in scripts:
        if script.number not in replaced:  # if it is replaced itself, a later script replaces all of it
            for version in script.replaces:
                by_number.setdefault(int(version), []).append(script.path)
    return [
        Problem(text=f"{_names(paths)} both replace {number:03}; remove it from one of them", path=paths[-1])
        for number, paths in by_number.items()
        if len(paths) > 1
    ]


def _names(paths: list[Path]) -> str:
    return " and ".join(path.name for path in paths)
