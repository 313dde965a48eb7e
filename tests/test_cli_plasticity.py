"""`holdfast probe plasticity`, as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.command_line import ask

USER = """
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

def net():
    return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))

def other():
    return nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 4))

def data():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(64, 16, generator=generator), torch.randint(4, (64,), generator=generator)
    return DataLoader(TensorDataset(x, y), batch_size=32)

def wide():
    return torch.randn(64, 17), torch.randint(4, (64,))

def broken():
    raise RuntimeError("no disk")

def loss(output, targets):
    return nn.functional.cross_entropy(output, targets, label_smoothing=0.1)

def adam(parameters):
    return torch.optim.Adam(parameters, lr=0.02)
"""

SHORT = ("--steps", 60, "--examples", 64, "--batch", 32, "--draws", 2, "--twins", 2)
OWN = ("probe", "plasticity", "mine.py:net", "--checkpoint", "w.pt", "--data", "mine.py:data")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(USER, encoding="utf-8")
    torch.manual_seed(11)
    model = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.ReLU(), torch.nn.Linear(32, 4))
    with torch.no_grad():
        model[0].bias.fill_(-50)  # all units are dead
    torch.save({"step": 9, "state_dict": {f"module.{k}": v for k, v in model.state_dict().items()}}, tmp_path / "w.pt")
    return tmp_path


def test_a_checkpoint_of_one_s_own_gives_table_json_and_picture(folder: Path) -> None:
    status, out, err = ask(*OWN, "--peak", 0.02, *SHORT, "--explain", "--plot", "out.png", cwd=folder)
    assert status == 0, err
    assert out.startswith("Plasticity is lost: it learns at 0.0")
    assert "ReDo" in out
    assert "effective" not in err
    assert "1 (relu)" in out
    assert "share of units that are active for no example" in out
    assert (folder / "out.png").stat().st_size > 5000
    status, out, err = ask(*OWN, "--optimizer", "mine.py:adam", "--loss", "mine.py:loss", *SHORT, "--json", cwd=folder)
    assert status == 0, err
    plain = json.loads(out)
    assert plain["remedy"] == "reset"
    assert plain["peak"]["rate"] == 0.02
    assert plain["activations"]["1"]["now"]["dead"] == 1


def test_the_demonstration_needs_nothing(tmp_path: Path) -> None:
    status, out, err = ask("probe", "plasticity", "demo", "--draws", 2, "--twins", 2, cwd=tmp_path)
    assert status == 0, err
    assert "Plasticity is lost" in out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((*OWN,), "--peak: expected the highest learning rate of its training, for a network of"),
        (("probe", "plasticity", "mine.py:net", "--peak", 1), "--checkpoint: expected a file with its weights"),
        ((*OWN, "--peak", 1, "--steps", 3), "--steps: expected a whole number of at least 25"),
        ((*OWN, "--peak", -1), "--peak: expected a learning rate"),
        ((*OWN, "--peak", 1, "--optimizer", "lion"), "--optimizer: expected one of adam, adamw, sgd, rmsprop"),
        ((*OWN, "--peak", 1, "--device", "abacus"), "--device: expected a device of PyTorch"),
        ((*OWN, "--peak", 1, "--loss", "mine.py:lost"), "--loss: expected a function lost in mine.py"),
        ((*OWN[:6], "mine.py:broken", "--peak", 1), "--data: expected a function without arguments that"),
        ((*OWN[:6], "mine.py:wide", "--peak", 1, *SHORT), "TARGET: expected a network that learns from --data"),
        ((*OWN[:2], "mine.py:other", *OWN[3:], "--peak", 1), "--checkpoint: expected weights of Sequential"),
        ((*OWN[:2], "mine.py:broken", *OWN[3:], "--peak", 1), "TARGET: expected a function without arguments that"),
        ((*OWN[:2], "mine.py:data", *OWN[3:], "--peak", 1), "TARGET: expected a function that returns a torch.nn"),
        (("probe", "plasticity", "demo", "--peak", 1), "--peak: expected a network of your own"),
        ((*OWN, "--peak", 1, "--json", "--explain"), "--explain: expected a report for people"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(folder: Path, words: tuple[object, ...], message: str) -> None:
    status, out, err = ask(*words, cwd=folder)
    assert (status, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
