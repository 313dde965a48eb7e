"""The house can be held in one head: no circles, no long files, no doors with a dozen handles, no hidden rooms."""

from __future__ import annotations

import ast
from pathlib import Path

import networkx
import pytest

from tests.source_tree import HOUSE, imports, sources

LONGEST_FILE = 600
MOST_PARAMETERS = 12


def circles(house: Path, package: str = "holdfast") -> list[list[str]]:
    """Modules that import each other, imports inside functions included.

    An import for type checkers counts where it leaves the room; within one, folders in it included, it may point back.
    """
    modules = sources(house)
    graph = networkx.DiGraph()
    for name, path in modules.items():
        for entry in imports(path, house, package):
            target = entry.target
            while target and target not in modules:  # a function or a class: what it is imported from
                target = target.rpartition(".")[0]
            room = modules[target].parent
            floor = len(room.relative_to(house).parts) < 2
            within = path.parent == room if floor else path.is_relative_to(room)
            if target != name and not (entry.for_types and within):
                graph.add_edge(name, target)
    return sorted(sorted(loop) for loop in networkx.strongly_connected_components(graph) if len(loop) > 1)


def test_no_file_waits_for_another_that_waits_for_it() -> None:
    assert len(sources(HOUSE)) > 80
    assert circles(HOUSE) == []


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"nn/a.py": "from holdfast.nn import b", "nn/b.py": "import holdfast.nn.a"}, [["nn.a", "nn.b"]]),
        ({"nn/a.py": "def f():\n    from .b import x", "nn/b.py": "from .a import y"}, [["nn.a", "nn.b"]]),
        ({"nn/__init__.py": "from holdfast.nn.a import x", "nn/a.py": "from holdfast.nn import y"}, [["nn", "nn.a"]]),
        ({"a/x.py": "if TYPE_CHECKING:\n    from ..b.y import Y", "b/y.py": "from ..a.x import X"}, [["a.x", "b.y"]]),
        ({"a/x.py": "if typing.TYPE_CHECKING:\n    from .y import Y", "a/y.py": "from .x import X"}, []),
        ({"a/r/x/z.py": "if TYPE_CHECKING:\n    from ..y import Y", "a/r/y.py": "import holdfast.a.r.x.z"}, []),
        ({"a/r/x.py": "if TYPE_CHECKING:\n    from ..y import Y", "a/y.py": "from .r.x import X"}, [["a.r.x", "a.y"]]),
        ({"a/x.py": "from . import y", "a/y.py": "from . import z", "a/z.py": "import holdfast.b"}, []),
    ],
)
def test_circles_are_seen(tmp_path: Path, files: dict[str, str], expected: list[list[str]]) -> None:
    for file, text in {"__init__.py": "", "b/__init__.py": "", **files}.items():
        (tmp_path / file).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / file).write_text(text)
    for folder in ("a", "nn"):
        if (tmp_path / folder).is_dir():
            (tmp_path / folder / "__init__.py").touch()
    assert circles(tmp_path) == expected


@pytest.mark.parametrize("name", sources(HOUSE))
def test_a_file_is_read_in_one_sitting(name: str) -> None:
    assert len(sources(HOUSE)[name].read_text(encoding="utf-8").splitlines()) <= LONGEST_FILE


def functions(tree: ast.AST) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    """All functions but the kernels of Triton, which have no objects to take."""
    every = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return [node for node in every if not any(ast.unparse(mark).endswith("jit") for mark in node.decorator_list)]


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """Names of all parameters but `self` and `cls`."""
    arguments = function.args
    rest = [name for name in (arguments.vararg, arguments.kwarg) if name is not None]
    every = [entry.arg for entry in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, *rest)]
    return [name for name in every if name not in ("self", "cls")]


def test_no_function_takes_more_than_an_object_could_hold() -> None:
    seen, too_many = 0, []
    for path in sources(HOUSE).values():
        for function in functions(ast.parse(path.read_text(encoding="utf-8"))):
            seen += 1
            if len(parameters(function)) > MOST_PARAMETERS:
                where = f"{path.relative_to(HOUSE)}:{function.lineno}"
                too_many.append(f"{where}: {function.name} has {len(parameters(function))} parameters")
    assert seen > 500
    assert too_many == []


def test_no_hidden_file_stands_beside_public_ones() -> None:
    last = {name: name.rpartition(".")[2] for name in sources(HOUSE)}
    assert [name for name, stem in last.items() if stem.startswith("_") and stem != "__main__"] == []
