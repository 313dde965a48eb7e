"""What of a file a trial needs: in a file that declares a study, claims and figures are for the driver alone.

A worker runs the tree that `prune` leaves, and a result is bound to the hash of that tree: so that what was left out
can have had no part in it, whatever `prune` judges. A name that was left out and is asked for after all makes the
worker run the whole file.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Callable, Iterator

_DECLARES = {"Study", "Part", "Claim", "Figure"}
_LAB = "holdfast.lab"
_DYNAMIC = {
    "globals",
    "vars",
    "locals",
    "eval",
    "exec",
    "dir",
    "getmembers",
    "__dict__",
    "__globals__",
    "f_globals",
}
"""Who names one of these may reach any name of the module."""


def digest(tree: ast.Module) -> str:
    """Sixteen hexadecimal digits of a syntax tree: of what is computed, not of comments and formatting."""
    words: list[str] = []
    _write(tree, words)
    return hashlib.sha256("\n".join(words).encode(errors="surrogatepass")).hexdigest()[:16]


def _write(node: object, words: list[str]) -> None:
    if isinstance(node, ast.AST):
        words.append(type(node).__name__)
        for name in node._fields:
            _write(getattr(node, name, None), words)
        words.append(")")
    elif isinstance(node, list):
        words.append("[")
        for item in node:
            _write(item, words)
        words.append("]")
    else:
        words.append(repr(node))


def declares(tree: ast.Module) -> bool:
    """Whether a file declares a study, a part, claims or figures."""
    names = _declaring(tree)
    return bool(names) and any(_binds(statement) and _calls(statement) & names for statement in tree.body)


def prune(
    tree: ast.Module, run: str | None, of_claims: Callable[[ast.ImportFrom], bool] = lambda statement: False
) -> tuple[ast.Module, frozenset[str]]:
    """Leave out of a file what only its claims, figures and study need.

    What may have an effect besides binding a name stays: classes, imports, decorated functions, and all statements but
    undecorated functions and plain assignments. An assignment that calls something is left out only if a claim, a
    figure or a study leads to it.

    Arguments:
        tree: the file.
        run: the function that computes a trial, if it is in this file: then functions and plain assignments that
            nothing names are left out, too.
        of_claims: whether an import is from a file that declares something: it is left out with what is declared here.

    Returns:
        What to execute, and the names that it does not bind. A file that declares nothing, or that may reach its own
        names otherwise than by naming them, stays whole.
    """
    if not declares(tree):
        return tree, frozenset()
    body = [piece for statement in tree.body for piece in _pieces(statement)]
    names = [_names(statement) for statement in body]
    binds = [_binds(statement) for statement in body]
    calls = [_calls(statement) for statement in body]
    declaring = _declaring(tree)
    imports = {i: s for i, s in enumerate(body) if isinstance(s, ast.ImportFrom) and not binds[i]}
    for i, statement in imports.items():
        binds[i] = {alias.asname or alias.name for alias in statement.names} - {"*"}
    below = _reach({i for i in range(len(body)) if binds[i] and calls[i] & declaring}, names, binds)
    spare = set()
    for i, bound in enumerate(binds):
        if bound and run not in bound:
            if i in imports:
                idle = i in below and of_claims(imports[i])
            else:
                idle = i in below or (run is not None and not calls[i])
            spare |= {i} if idle else set()
    kept = _reach(set(range(len(body))) - spare, names, binds)
    if any(names[i] & _DYNAMIC for i in kept):
        return tree, frozenset()
    left = frozenset(name for i, bound in enumerate(binds) if i not in kept for name in bound)
    left -= {name for i in kept for name in binds[i]}
    return ast.Module([body[i] for i in sorted(kept)], tree.type_ignores), left


def _reach(start: set[int], names: list[set[str]], binds: list[set[str]]) -> set[int]:
    """The statements that bind what the given ones name, and so on."""
    where: dict[str, list[int]] = {}
    for i, bound in enumerate(binds):
        for name in bound:
            where.setdefault(name, []).append(i)
    reached, queue = set(start), list(start)
    while queue:
        for name in names[queue.pop()]:
            fresh = set(where.get(name, ())) - reached
            reached |= fresh
            queue += fresh
    return reached


def _pieces(statement: ast.stmt) -> Iterator[ast.stmt]:
    """A statement as what can be kept or left out by itself; nothing where it has no effect in a worker."""
    if isinstance(statement, ast.If) and not statement.orelse and _never(statement.test):
        return
    if isinstance(statement, ast.ImportFrom) and _of_the_lab(statement):
        for alias in statement.names:
            yield ast.copy_location(ast.ImportFrom(statement.module, [alias], 0), statement)
    else:
        yield statement


def _never(test: ast.expr) -> bool:
    return ast.unparse(test) in ("__name__ == '__main__'", "TYPE_CHECKING", "typing.TYPE_CHECKING")


def _of_the_lab(statement: ast.stmt) -> bool:
    """Whether it imports names from the lab, which a worker has loaded already, so that this does no more than bind."""
    return (
        isinstance(statement, ast.ImportFrom)
        and statement.level == 0
        and f"{statement.module}.".startswith(f"{_LAB}.")
        and statement.names[0].name != "*"
    )


def _binds(statement: ast.stmt) -> set[str]:
    """Names that a statement binds, if it does no more than that."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
        return set() if statement.decorator_list else {statement.name}
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
        return {"__doc__"}
    if isinstance(statement, ast.ImportFrom) and _of_the_lab(statement):
        return {statement.names[0].asname or statement.names[0].name}
    if isinstance(statement, ast.Assign | ast.AnnAssign):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        parts = [part for target in targets for part in (target.elts if isinstance(target, ast.Tuple) else [target])]
        plain = all(isinstance(part, ast.Name) for part in parts)
        if plain and not any(isinstance(node, ast.NamedExpr) for node in ast.walk(statement)):
            return {part.id for part in parts if isinstance(part, ast.Name)}
    return set()


def _names(statement: ast.stmt) -> set[str]:
    """Names that a statement may use, also as text: a superset."""
    names = set()
    for node in ast.walk(statement):
        if isinstance(node, ast.Name):
            names.add(node.id)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names.add(node.value)
        elif isinstance(node, ast.Global):
            names.update(node.names)
        elif isinstance(node, ast.Attribute) and node.attr in _DYNAMIC:
            names.add(node.attr)
    return names


def _calls(statement: ast.stmt) -> set[str]:
    """What a statement calls as it is executed, by the last part of its name; `()` for what has none."""
    calls: set[str] = set()
    inside = isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef)
    queue: list[ast.AST] = [statement.args] if inside else [statement]  # type: ignore[attr-defined]
    while queue:
        node = queue.pop()
        if isinstance(node, ast.Lambda | ast.FunctionDef | ast.AsyncFunctionDef):
            queue.append(node.args)
            continue
        if isinstance(node, ast.Call):
            function = node.func
            calls.add(getattr(function, "id", None) or getattr(function, "attr", None) or "()")
        queue += ast.iter_child_nodes(node)
    return calls


def _declaring(tree: ast.Module) -> set[str]:
    """What `Study`, `Part`, `Claim` and `Figure` are called in a file that imports the lab; otherwise nothing."""
    names = set()
    for node in tree.body:
        if isinstance(node, ast.Import) and any(alias.name.startswith(_LAB) for alias in node.names):
            names |= _DECLARES
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module is not None:
            if node.module == "holdfast" and any(alias.name == "lab" for alias in node.names):
                names |= _DECLARES
            elif f"{node.module}.".startswith(f"{_LAB}."):
                names |= {alias.asname or alias.name for alias in node.names if alias.name in _DECLARES}
                names |= _DECLARES if node.names[0].name == "*" else set()
    return names
