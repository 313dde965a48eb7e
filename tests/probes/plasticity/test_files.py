"""A user's own checkpoints and loaders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from holdfast.errors import ArgumentError
from holdfast.probes.plasticity.files import gather, load_weights


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))


@pytest.mark.parametrize(
    ("wrap", "place"),
    [
        (lambda s: s, None),
        (lambda s: {"epoch": 3, "model_state_dict": s}, None),
        (lambda s: {"module." + k: v for k, v in s.items()}, None),
        (lambda s: {"state_dict": {"model._orig_mod." + k: v for k, v in s.items()} | {"ema": torch.ones(1)}}, None),
        (lambda s: {"agents": {"first": s}, "best": 0.5}, "agents.first"),
    ],
)
def test_weights_are_found_where_people_put_them(tmp_path: Path, wrap, place):
    source, target = net(), net()
    torch.save(wrap(source.state_dict()), tmp_path / "w.pt")
    load_weights(target, tmp_path / "w.pt", place)
    assert all(map(torch.equal, target.state_dict().values(), source.state_dict().values()))


def test_safetensors_are_read(tmp_path: Path):
    safetensors = pytest.importorskip("safetensors.torch")
    source, target = net(), net()
    safetensors.save_file(source.state_dict(), tmp_path / "w.safetensors")
    load_weights(target, tmp_path / "w.safetensors")
    assert torch.equal(target[0].weight, source[0].weight)


def test_other_files_are_refused_and_nothing_in_them_is_run(tmp_path: Path):
    with pytest.raises(ArgumentError, match=r"--checkpoint: expected a file, got .*nowhere.pt, which is not there"):
        load_weights(net(), tmp_path / "nowhere.pt")
    torch.save(net(), tmp_path / "object.pt")
    with pytest.raises(ArgumentError, match=r"--checkpoint: expected a file .* \(it holds an object of torch.nn.*\)$"):
        load_weights(net(), tmp_path / "object.pt")
    (tmp_path / "text.pt").write_text("import torch")
    with pytest.raises(ArgumentError, match=r"text.pt \(it is damaged, or something else than weights\)$"):
        load_weights(net(), tmp_path / "text.pt")
    torch.save({"agent": net().state_dict(), "step": 1}, tmp_path / "other.pt")
    with pytest.raises(ArgumentError, match=r"--weights: expected the place of the weights .* has: agent, step"):
        load_weights(net(), tmp_path / "other.pt")
    with pytest.raises(ArgumentError, match=r"--weights: expected a place in .* has: agent, step, got agents"):
        load_weights(net(), tmp_path / "other.pt", "agents")
    torch.save(nn.Linear(2, 3).state_dict(), tmp_path / "less.pt")
    with pytest.raises(ArgumentError, match=r"--checkpoint: expected weights of Sequential.*Missing"):
        load_weights(net(), tmp_path / "less.pt")


def test_batches_are_joined_until_there_are_enough():
    x, y = torch.randn(20, 2), torch.randint(3, (20,))
    inputs, targets = gather(DataLoader(TensorDataset(x, y), batch_size=6), 10)
    assert torch.equal(inputs, x[:12])
    assert torch.equal(targets, y[:12])
    assert gather((x, y), 5) == (x, y)
    inputs, targets = gather([{"a": x[:3], "labels": y[:3]}, {"a": x[3:5], "labels": y[3:5]}], 100)
    assert torch.equal(inputs["a"], x[:5])
    inputs, targets = gather([((x.numpy(), np.ones(20)), y.numpy())], 100)
    assert [len(part) for part in inputs] == [20, 20]
    assert torch.equal(targets, y)


UNLIKE = [(torch.ones(2, 2), torch.ones(2)), (torch.ones(2, 3), torch.ones(2))]


@pytest.mark.parametrize(
    ("batches", "found"), [([], "none"), (3, "int"), ([1, 2], "int"), ([("a", "b")], "str"), (UNLIKE, "Sizes")]
)
def test_what_is_no_data_is_refused(batches, found):
    with pytest.raises(ArgumentError, match=f"--data.*{found}"):
        gather(batches, 100)
