"""Every registered bench keeps the contract, and reports at toy sizes."""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
from pathlib import Path

import pytest

import holdfast.benches
from holdfast.benches import BENCHES, Bench

HOUSE = Path(holdfast.benches.__file__).parent
ON_CPU = sorted(name for name, bench in BENCHES.items() if "cpu" in bench.devices and "sharpness" not in name)


def test_every_room_is_registered():
    registered = {bench.module for bench in BENCHES.values()}
    files = {
        f"holdfast.benches.{path.parent.name}.{path.stem}"
        for path in HOUSE.glob("*/*.py")
        if path.parent.name != "harness" and "class Options" in path.read_text(encoding="utf-8")
    }
    assert files == registered
    assert len(files) >= 5


@pytest.mark.parametrize("name", BENCHES)
def test_a_bench_has_options_and_loads_nothing_heavy(name):
    bench = BENCHES[name]
    module = bench.load()
    for options in (module.Options(), module.TOY):
        assert isinstance(options, module.Options)
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(options, dataclasses.fields(options)[0].name, 1)
    assert bench.name == name
    assert bench.line
    assert bench.limit_s > 0
    source = importlib.util.find_spec(bench.module).origin
    tree = ast.parse(Path(source).read_text(encoding="utf-8"))
    imported = {alias.name.split(".")[0] for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module.split(".")[0] for node in tree.body if isinstance(node, ast.ImportFrom)}
    assert not imported & {"torch", "numpy", "scipy"}


@pytest.mark.parametrize("name", ON_CPU)
def test_a_bench_reports_at_toy_sizes(name):
    bench = BENCHES[name]
    rows = []
    report = bench.run(bench.options("cpu", toy=True), rows.append)
    document = report.to_dict()
    assert document["bench"] == name
    assert document["rows"] == [dict(row) for row in rows]
    assert rows
    assert document["failures"] == []
    assert str(report).startswith(document["headline"].replace("; ", "\n"))
    assert {"machine", "versions", "commit", "settings"} <= set(document)


def test_a_missing_package_is_known_without_loading():
    bench = Bench("x", "", "no.such.module", 1, needs={"numpy": "numpy", "no_such_package": "holdfast[none]"})
    assert bench.missing == {"no_such_package": "holdfast[none]"}
