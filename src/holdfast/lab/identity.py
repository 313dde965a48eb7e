"""What a stored result belongs to: the trial, and the version of the code that computed it.

The code version is a hash of the code that a part's trials run, and of nothing else: the `run` function, what it uses
in its own module, and every module of the same top-level package that is imported on the way. Comments, docstrings,
formatting, claims and figures are left out, so that polishing a report never throws results away. The lab itself (but
for its random numbers) and other packages are left out too; their versions stand in each trial's environment.
"""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import importlib.util
import json
import symtable
from collections.abc import Iterator, Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from holdfast.lab.documents import to_json
from holdfast.lab.locate import FunctionRef, LocateError
from holdfast.lab.trial import Config, Trial

FORMAT = 1
"""Of a trial's stored documents; another number makes all results strangers."""

_NOT_PART_OF_A_RESULT = ("holdfast.lab", "holdfast.errors", "holdfast.typing")
_SEEDS = "holdfast.lab.seeds"


def identity(study: str, trial: Trial[Any], version: str) -> dict[str, Any]:
    """Everything that a trial's result depends on, as JSON data. The part is among the labels.

    Arguments:
        study: name of the study.
        trial: the trial.
        version: of its code.

    Errors:
        ArgumentError: a setting or label is not JSON data.
    """
    config = trial.config
    settings = {
        field.name: to_json(getattr(config, field.name), f"config.{field.name}")
        for field in dataclasses.fields(config)
        if not (isinstance(config, Config) and field.name in ("seeds", "first_seed"))
    }
    return {
        "format": FORMAT,
        "study": study,
        "code_version": version,
        "config_type": type(config).__qualname__,
        "config": settings,
        "labels": to_json(dict(trial.labels), "labels"),
        "seed": list(trial.seed) if isinstance(trial.seed, tuple) else trial.seed,
    }


def key_of(document: Mapping[str, Any]) -> str:
    """Content address of a trial: 24 hexadecimal digits of SHA-256 over its identity."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def code_version(run: FunctionRef) -> str:
    """Sixteen hexadecimal digits that change when the code behind a trial's result may have changed.

    Errors:
        LocateError: the source cannot be read.
    """
    package = run.module.partition(".")[0]
    path = Path(run.file) if run.file is not None else _path(run.module)
    if path is None:
        raise LocateError(f"{run.module}: its source cannot be found")
    tree = _parse(path)
    pieces = {f"{run.module}:{name}": ast.unparse(node) for name, node in _reachable(tree, run.name).items()}
    modules: dict[str, str] = {}
    queue = [
        module
        for node in _reachable(tree, run.name).values()
        for module in _imports(node, run.module, path.name == "__init__.py")
    ]
    while queue:
        module = queue.pop()
        if module in modules or module.partition(".")[0] != package:
            continue
        if module == run.module or (module.startswith(_NOT_PART_OF_A_RESULT) and module != _SEEDS):
            continue
        source = _path(module)
        if source is None:
            continue
        body = _parse(source)
        modules[module] = ast.unparse(body)
        queue.extend(_imports(body, module, source.name == "__init__.py"))
    digest = hashlib.sha256()
    for name, text in sorted({**pieces, **modules}.items()):
        digest.update(f"{name}\n{text}\n".encode())
    return digest.hexdigest()[:16]


def _reachable(tree: ast.Module, start: str) -> dict[str, ast.stmt]:
    """Top-level statements that a function leads to, keyed by the name (or import) they bind."""
    bound: dict[str, list[ast.stmt]] = {}
    for whole in tree.body:
        for statement in _one_import_each(whole):
            for name in _bound_names(statement):
                bound.setdefault(name, []).append(statement)
    found: dict[str, ast.stmt] = {}
    queue = [start, "*"]
    seen = set()
    while queue:
        name = queue.pop()
        if name in seen:
            continue
        seen.add(name)
        for i, statement in enumerate(bound.get(name, [])):
            found[f"{name}#{i}"] = statement
            queue.extend(_used_names(statement))
    return found


def _one_import_each(statement: ast.stmt) -> Iterator[ast.stmt]:
    """An import of several names as several imports: what a claim imports is no concern of `run`."""
    if isinstance(statement, ast.If) and ast.unparse(statement.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
        yield from statement.orelse  # types are for readers
    elif isinstance(statement, ast.Import):
        yield from (ast.Import([alias]) for alias in statement.names)
    elif isinstance(statement, ast.ImportFrom):
        yield from (ast.ImportFrom(statement.module, [alias], statement.level) for alias in statement.names)
    else:
        yield statement


def _bound_names(statement: ast.stmt) -> Iterator[str]:
    """Names that a top-level statement binds or changes; `.name` for a method, `*` for an import of everything."""
    for symbol in _table(statement).get_symbols():
        if symbol.is_assigned() or symbol.is_imported():
            yield symbol.get_name()
    if isinstance(statement, ast.ClassDef):  # `trial.config.method()` does not name the class
        yield from (f".{item.name}" for item in statement.body if isinstance(item, ast.FunctionDef))
    elif isinstance(statement, ast.ImportFrom):
        yield from (alias.name for alias in statement.names if alias.name == "*")
    elif not isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
        for node in ast.walk(statement):
            if isinstance(node, ast.Expr):
                yield from _root(node.value)  # TABLE.update(...), torch.set_default_dtype(...)
            elif isinstance(node, ast.Attribute | ast.Subscript) and not isinstance(node.ctx, ast.Load):
                yield from _root(node)  # TABLE["x"] = ...


def _used_names(statement: ast.stmt) -> Iterator[str]:
    """Module-level names that a statement reads, local variables left out; `.name` for an attribute."""
    tables = [_table(statement)]
    while tables:
        table = tables.pop()
        tables.extend(table.get_children())
        for symbol in table.get_symbols():
            if symbol.is_global() or (table.get_type() == "module" and symbol.is_referenced()):
                yield symbol.get_name()
    yield from (f".{node.attr}" for node in ast.walk(statement) if isinstance(node, ast.Attribute))


def _table(statement: ast.stmt) -> symtable.SymbolTable:
    return symtable.symtable(ast.unparse(statement), "<statement>", "exec")


def _root(node: ast.expr) -> Iterator[str]:
    """The name at the root of `name.attribute[index](...)`, if anything follows it."""
    start = node
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Call):
        node = node.func if isinstance(node, ast.Call) else node.value
    if isinstance(node, ast.Name) and node is not start:
        yield node.id


def _imports(node: ast.AST, module: str, is_package: bool) -> Iterator[str]:
    """Dotted names of the modules that a piece of code imports, re-exports followed to where a name is defined."""
    for child in ast.walk(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield alias.name
        elif isinstance(child, ast.ImportFrom):
            base = _base(child, module, is_package)
            for alias in child.names:
                yield _defining_module(base, alias.name)


def _base(statement: ast.ImportFrom, module: str, is_package: bool) -> str:
    """What stands between `from` and `import`, with leading dots resolved."""
    base = [statement.module] if statement.module else []
    parts = module.split(".")
    return ".".join([*parts[: len(parts) - statement.level + is_package], *base] if statement.level else base)


def _defining_module(module: str, name: str) -> str:
    if _path(f"{module}.{name}") is not None:
        return f"{module}.{name}"
    path = _path(module)
    if path is not None and path.name == "__init__.py":
        for statement in _parse(path).body:
            if isinstance(statement, ast.ImportFrom):
                base = _base(statement, module, True)
                for alias in statement.names:
                    if (alias.asname or alias.name) == name and base != module:
                        return _defining_module(base, alias.name)
    return module


@cache
def _path(module: str) -> Path | None:
    """Source of a module, found without importing its parents (they may load torch)."""
    top, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if not rest:
        return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None
    for location in spec.submodule_search_locations or ():
        stem = Path(location).joinpath(*rest)
        for candidate in (stem / "__init__.py", stem.with_suffix(".py")):
            if candidate.is_file():
                return candidate
    return None


def _parse(path: Path) -> ast.Module:
    """Syntax tree without docstrings; comments and formatting are gone already."""
    try:
        return _parse_text(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError) as error:
        raise LocateError(f"{path}: cannot be read as Python source: {error}") from error


@lru_cache(maxsize=256)
def _parse_text(text: str) -> ast.Module:
    tree: ast.Module = _WithoutText().visit(ast.parse(text))
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.body:
            node.body = [ast.Pass()]
    return tree


class _WithoutText(ast.NodeTransformer):
    """Drops strings that stand alone: docstrings, and the help below a setting."""

    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        alone = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if alone else node
