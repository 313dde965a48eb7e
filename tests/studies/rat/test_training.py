"""Training: the schedule, batches in pieces, and a killed run that goes on as if nothing had been."""

from __future__ import annotations

import dataclasses
import shutil
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from holdfast.lab import progress
from holdfast.studies.rat.training import IGNORED, Recipe, train

RECIPE = Recipe(steps=7, batch=6, warmup=2, learning_rate=0.1, last_rate=0.01, curve_every=3, checkpoint_every=3)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.embedding, self.head = nn.Embedding(5, 4), nn.Linear(4, 5)
        for tensor in self.parameters():
            nn.init.normal_(tensor, generator=generator)

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.head(self.embedding(tokens))
        return logits


def batches(step: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(step)
    inputs, targets = torch.randint(0, 5, (2, 6, 3), generator=generator)
    return inputs, targets.masked_fill(inputs == 0, IGNORED)


class Kept:
    """Checkpoints in a folder, as the lab keeps them."""

    def __init__(self, folder: Path, stop_after: int = 99) -> None:
        self.folder, self.count, self.stop_after = folder, 0, stop_after

    def keep(self, path: Path) -> None:
        shutil.move(path, self.folder / "state.pt")
        self.count += 1
        if self.count == self.stop_after:
            raise KeyboardInterrupt

    def last(self) -> Path | None:
        path = self.folder / "state.pt"
        return path if path.exists() else None


def test_the_rate_rises_and_falls() -> None:
    rates = [RECIPE.rate(step) for step in range(RECIPE.steps)]
    assert rates[:3] == pytest.approx([0.05, 0.1, 0.1])
    assert all(later < earlier for earlier, later in pairwise(rates[2:]))
    assert RECIPE.rate(RECIPE.steps) == pytest.approx(0.01)


def test_a_batch_in_pieces_is_the_same_batch() -> None:
    nets = [Net().double(), Net().double()]
    for net, size in zip(nets, (0, 4), strict=True):
        train(net, dataclasses.replace(RECIPE, micro_batch=size), batches)
    for whole, pieces in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        assert torch.allclose(whole, pieces, rtol=0, atol=1e-4), "losses are in float32"


def test_a_killed_run_goes_on(tmp_path: Path) -> None:
    whole = Net()
    curve = train(whole, RECIPE, batches)
    try:
        progress.listen(None, Kept(tmp_path, stop_after=2))  # type: ignore[arg-type]
        with pytest.raises(KeyboardInterrupt):
            train(Net(), RECIPE, batches)
        read: list[int] = []

        def rest(step: int) -> tuple[Tensor, Tensor]:
            read.append(step)
            return batches(step)

        progress.listen(None, Kept(tmp_path))  # type: ignore[arg-type]
        resumed = Net()
        again = train(resumed, RECIPE, rest)
    finally:
        progress.listen(None)
    assert read == [6]
    assert again == curve
    assert [point["step"] for point in curve] == [3, 6, 7]
    assert all(map(torch.equal, resumed.parameters(), whole.parameters()))


@pytest.mark.parametrize("everything", [False, True])
def test_what_decays(everything: bool) -> None:
    net = Net()
    nothing = dataclasses.replace(RECIPE, learning_rate=0.0, last_rate=0.0, decay_all=everything, weight_decay=0.5)
    before = [tensor.clone() for tensor in net.parameters()]
    train(net, nothing, batches)
    assert all(map(torch.equal, net.parameters(), before)), "decay is in proportion to the rate"
    train(
        net, dataclasses.replace(nothing, learning_rate=1e-3, clip=1e-12, steps=1, warmup=0, weight_decay=99.0), batches
    )
    shrunk = (net.head.bias.norm() / before[-1].norm()).item()
    assert (shrunk < 0.95) == everything
    assert (net.head.weight.norm() / before[1].norm()).item() < 0.95
