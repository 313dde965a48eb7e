"""What a target is, from its name or from the thing itself; and one line for what is none."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from holdfast.card.target import Kind, recognise
from holdfast.errors import ArgumentError

FILE = """
import sys, torch
print("hello from the user's file")
def net():
    torch.manual_seed(0)
    return torch.nn.Linear(3, 2)
def double(xs):
    return [2 * x for x in xs]
def two(a, b):
    return a
def falls():
    raise ValueError("of <b>this</b>\\nand that")
def leaves():
    sys.exit(5)
def number():
    return 7
def policy():
    return (lambda observation: 0), [1.0]
value = 3
"""


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(FILE)
    return tmp_path


@pytest.mark.parametrize(
    ("place", "kind"),
    [
        ("mine.py:net", Kind.NETWORK),
        ("mine.py:double", Kind.FUNCTION),
        ("mine.py:policy", Kind.POLICY),
        ("builtins:sorted", Kind.FUNCTION),
        ("http://localhost:1/v1", Kind.ENDPOINT),
    ],
)
def test_names(file, place, kind):
    found = recognise(place)
    assert found.kind is kind
    assert found.identity


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("mine.py:two", "takes 2 arguments"),
        ("mine.py:falls", "ValueError: of <b>this</b> and that"),
        ("mine.py:leaves", "SystemExit: 5"),
        ("mine.py:number", "one that makes int"),
        ("mine.py:value", "a function value"),
        ("mine.py:nothing", "a function nothing"),
        ("mine.py:", "module:name"),
        ("other.py:net", "which is not there"),
        ("no.such.module:net", "ModuleNotFoundError"),
        ("./nowhere", "which is not there"),
        ("a b c", "which is not there"),
        ("mine.py", "expected the name of a function in it, as mine.py:name"),
        ("weights.pt", "weights alone need the function that makes their network"),
        ("table.csv", "expected a header with columns q0, q1"),
        (".", "without config.json"),
    ],
)
def test_what_is_no_target_is_one_line(file, place, said):
    torch.save(nn.Linear(2, 2).state_dict(), "weights.pt")
    (file / "table.csv").write_text("left,right\n0,1\n")
    with pytest.raises(ArgumentError) as caught:
        recognise(place)
    line = str(caught.value)
    assert "\n" not in line
    assert said in line
    assert line.startswith("target: ")


def test_a_file_that_leaves_is_one_line(file):
    (file / "leaves.py").write_text("import sys; sys.exit(3)")
    with pytest.raises(ArgumentError, match=r"target: expected leaves.py to load, got SystemExit: 3"):
        recognise("leaves.py:net")


def test_objects():
    assert recognise(nn.Linear(2, 2)).kind is Kind.NETWORK
    assert recognise(lambda xs: xs).kind is Kind.FUNCTION
    made = recognise(lambda: nn.Linear(2, 2))
    assert made.kind is Kind.NETWORK
    assert "factory" in made.parts
    with pytest.raises(ArgumentError, match="an object of int"):
        recognise(3)


def test_a_changed_network_or_file_is_another(file):
    one, two = nn.Linear(2, 2), nn.Linear(2, 2)
    two.load_state_dict(one.state_dict())
    assert recognise(one).identity == recognise(two).identity
    with torch.no_grad():
        two.bias[0] += 1e-6
    assert recognise(one).identity != recognise(two).identity
    before = recognise("mine.py:double").identity
    (file / "mine.py").write_text(FILE + "\n")
    assert recognise("mine.py:double").identity != before


def test_checkpoints(file):
    torch.manual_seed(1)
    paths = [file / f"step-{number}.pt" for number in (9, 10)]
    states = [nn.Linear(3, 2).state_dict() for _ in paths]
    for path, state in zip(paths, states, strict=True):
        torch.save(state, path)
    one = recognise("mine.py:net", checkpoints=paths[:1])
    assert one.kind is Kind.NETWORK
    assert torch.equal(one.subject.weight, states[0]["weight"])
    run = recognise("mine.py:net", checkpoints=paths)
    assert run.kind is Kind.RUN
    assert torch.equal(run.subject.weight, states[1]["weight"])
    folder = file / "run"
    folder.mkdir()
    for path in paths:
        path.rename(folder / path.name)
    found = recognise("run")
    assert found.kind is Kind.RUN
    assert [path.name for path in found.parts["checkpoints"]] == ["step-9.pt", "step-10.pt"]


class Trap:
    """Runs a command when it is unpickled without care."""

    def __reduce__(self):
        return Path.touch, (Path("sprung"),)


@pytest.mark.parametrize("save", [pickle.dump, torch.save])
def test_nothing_in_a_checkpoint_is_executed(file, save):
    with open("bad.pt", "wb") as stream:
        save({"weight": Trap()}, stream)
    for place, checkpoints in (("mine.py:net", ["bad.pt"]), ("bad.pt", [])):
        with pytest.raises(ArgumentError) as caught:
            recognise(place, checkpoints=checkpoints)
        assert "\n" not in str(caught.value)
    assert not (file / "sprung").exists()


@pytest.mark.parametrize("content", [b"", b"\0" * 64, b"\xff" * 8 + b"{}", b"PK\x03\x04broken"])
@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
def test_a_damaged_checkpoint_is_one_line(file, content, name):
    (file / name).write_bytes(content)
    with pytest.raises(ArgumentError) as caught:
        recognise("mine.py:net", checkpoints=[name])
    assert "\n" not in str(caught.value)


def test_a_drawn_network_with_the_weights_of_a_file_is_the_same_each_time(file, tmp_path):
    source = "from torch import nn\ndef make():\n    return nn.Linear(2, 2)\n"
    (tmp_path / "drawn.py").write_text(source)
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "a.pt")
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "b.pt")

    def identity(*paths, factory=None):
        place = f"{tmp_path}/drawn.py:make"
        return recognise(place, checkpoints=[tmp_path / path for path in paths], factory=factory).identity

    assert identity("a.pt") == identity("a.pt")
    assert len({identity("a.pt"), identity("b.pt"), identity("a.pt", "b.pt"), identity()}) == 4
    assert identity() != identity(), "drawn anew"


def test_logged_values(file):
    np.savez("log.npz", q=np.random.default_rng(0).normal(size=(40, 5)))
    assert recognise("log.npz").kind is Kind.VALUES
    (file / "log.csv").write_text("not,numbers\na,b\n")
    with pytest.raises(ArgumentError):
        recognise("log.csv")


def test_an_endpoints_password_is_not_in_its_name():
    found = recognise("http://me:secret@localhost:9/v1?key=hidden#small")
    assert "secret" not in found.name + found.identity
    assert "small" in found.name


def test_options_of_another_kind_are_refused(file):
    with pytest.raises(ArgumentError, match=r"^model: "):
        recognise("mine.py:net", model="x")
    with pytest.raises(ArgumentError, match=r"^factory: "):
        recognise("mine.py:double", factory=lambda: nn.Linear(2, 2))
    with pytest.raises(ArgumentError, match=r"^checkpoint: "):
        recognise("mine.py:double", checkpoints=["x.pt"])
