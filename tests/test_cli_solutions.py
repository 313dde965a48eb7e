"""`holdfast probe solutions`, as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.command_line import ask

USER = """
import torch
from torch import nn

def net():
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4, bias=False))

def data():
    x = torch.randn(40, 8, generator=torch.Generator().manual_seed(0))
    return x, torch.arange(4).repeat(10)

def tasks():
    x, y = data()
    return [(x[y < 2], y[y < 2]), (x[y >= 2], y[y >= 2])]

def numbers():
    return torch.randn(40, 8), torch.randn(40)

def loss(output, targets):
    return nn.functional.cross_entropy(output, targets, label_smoothing=0.1)
"""

OWN = ("probe", "solutions", "mine.py:net", "--checkpoint", "2.pt", "--data", "mine.py:data")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(USER, encoding="utf-8")
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4, bias=False))
    for number in range(3):
        torch.save(model.state_dict(), tmp_path / f"{number}.pt")
        with torch.no_grad():
            model[0].weight.add_(0.3 * torch.randn(16, 8))
    return tmp_path


def test_a_network_of_one_s_own_gives_table_json_and_picture(folder: Path) -> None:
    words = ("--initial", "0.pt", "--snapshots", "1.pt", "2.pt", "--tasks", "mine.py:tasks", "--loss", "mine.py:loss")
    status, out, err = ask(*OWN, *words, "--explain", "--plot", "out.png", cwd=folder)
    assert status == 0, err
    assert out.startswith("This solution has an accuracy of")
    assert "backward transfer" in out
    assert "the loss was one of your own" in out
    assert "0 is necessary for neural collapse" in out
    assert (folder / "out.png").stat().st_size > 5000
    noted = ("--optimizer", "SGD", "--setting", "lr=0.1", "nesterov=yes", "--run-seed", 3, "--no-sharpness")
    status, out, err = ask(*OWN, *noted, "--json", cwd=folder)
    assert status == 0, err
    plain = json.loads(out)
    assert plain["provenance"]["settings"] == [{"lr": 0.1, "nesterov": "yes"}]
    assert plain["provenance"]["seed"] == 3
    assert plain["sharpness"] is None
    for name in ("a", "b"):
        (folder / name).mkdir()
        for seed in (1, 2):
            content = {**plain, "provenance": {**plain["provenance"], "seed": seed}}
            (folder / name / f"{seed}.json").write_text(json.dumps(content), encoding="utf-8")
    status, out, err = ask("probe", "solutions", "--compare", "a", "b", "--plot", "both.svg", cwd=folder)
    assert status == 0, err
    assert out.startswith("In 2 seeds no number of SGD (A) and SGD (B) differs")
    assert (folder / "both.svg").stat().st_size > 5000


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("probe", "solutions"), "TARGET: expected file.py:name or module:name, demo, or --compare A B, got none"),
        ((*OWN, "--compare", "a", "b"), "TARGET: expected nothing beside --compare"),
        (("probe", "solutions", "--compare", "mine.py", "mine.py"), "--compare: expected a whole file of JSON"),
        (("probe", "solutions", "--compare", ".", "."), "--compare: expected a folder with files that end in .json"),
        (("probe", "solutions", "demo", "--head", "2"), "--head: expected a network of your own"),
        (
            ("probe", "solutions", "mine.py:net", "--checkpoint", "2.pt"),
            "--data: expected a function that returns a loader",
        ),
        ((*OWN, "--snapshots", "2.pt"), "--initial: expected the weights before the first task"),
        ((*OWN, "--tasks", "mine.py:tasks"), "--snapshots: expected the weights after each task"),
        (
            (*OWN, "--initial", "0.pt", "--snapshots", "1.pt"),
            "--snapshots: expected the weights of the model as the last",
        ),
        ((*OWN, "--initial", "9.pt"), "--initial: expected a file, got 9.pt"),
        ((*OWN, "--setting", "lr=1"), "--optimizer: expected given"),
        ((*OWN, "--head", "1"), "--head: expected the name of a linear output layer"),
        ((*OWN[:-1], "mine.py:numbers"), "--data: expected classes as whole numbers"),
        ((*OWN, "--examples", "1"), "--examples: expected a whole number of at least 2"),
    ],
)
def test_mistakes_are_one_line(folder: Path, words: tuple[str, ...], message: str) -> None:
    status, out, err = ask(*words, cwd=folder)
    assert (status, out) == (2, "")
    assert message in err
    assert len(err.strip().splitlines()) == 1


def test_the_demonstration_needs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn")
    monkeypatch.setattr("holdfast.probes.solutions.demonstration.STEPS", 30)
    status, out, err = ask("probe", "solutions", "demo", cwd=tmp_path)
    assert status == 0, err
    assert "column sums of the output layer: conserved" in out
    assert "of accuracy on old tasks is forgotten" in out
    assert list(tmp_path.iterdir()) == []
