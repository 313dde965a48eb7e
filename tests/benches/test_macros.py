"""The bench of Rainbow: a twin that learns the same, and a summary that says what was missed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from holdfast.benches.macros import rainbow
from holdfast.benches.macros.twin import LoopTree, Ours, Twin, project_by_row
from holdfast.rl.rainbow.networks import NoisyLinear
from holdfast.rl.rainbow.projection import project


def test_the_twins_projection_is_the_same() -> None:
    generator = torch.Generator().manual_seed(0)
    support = torch.linspace(-10, 10, 51, dtype=torch.float64)
    probabilities = torch.randn(32, 51, generator=generator, dtype=torch.float64).softmax(-1)
    returns = torch.randn(32, generator=generator, dtype=torch.float64) * 8
    discounts = torch.rand(32, generator=generator, dtype=torch.float64)
    ours, theirs = (f(probabilities, returns, discounts, support) for f in (project, project_by_row))
    torch.testing.assert_close(ours, theirs)


def test_the_twins_tree_finds_the_same() -> None:
    rng = np.random.default_rng(0)
    priorities = rng.integers(0, 5, 100).astype(np.float64)
    tree = LoopTree(priorities)
    tree.update(7, 9.0)
    priorities[7] = 9
    assert tree.sums[1] == priorities.sum()
    masses = rng.random(300) * priorities.sum()
    found = [tree.find(mass) for mass in masses]
    assert found == np.searchsorted(priorities.cumsum(), masses).tolist()


def test_a_twin_with_all_of_ours_makes_the_same_update() -> None:
    options = replace(rainbow.TOY, device="cpu")
    agents = [rainbow.agent_of(options, 3, {}) for _ in range(2)]
    replays = [rainbow.replay_of(options, 3) for _ in range(2)]
    twin = Twin(agents[1].network, replays[1], agents[1].settings, Ours(loops=True, noise=True, adam=True))
    twin.noise.set_state(agents[0].noise.get_state())
    for _ in range(3):
        mine, other = agents[0].update(replays[0], 0.5).loss, twin.update(0.5)
        assert torch.equal(mine, other)
    plain = Twin(agents[1].network, replays[1], agents[1].settings, Ours())
    assert not any(isinstance(layer, NoisyLinear) for layer in plain.network.modules())
    sizes = [sum(part.numel() for part in network.parameters()) for network in (plain.network, agents[0].network)]
    assert sizes[0] == sizes[1]
    assert torch.isfinite(plain.update(0.5))


def test_the_toy_times_every_arm() -> None:
    report = rainbow.run(rainbow.TOY, lambda row: None)
    assert [row["arm"] for row in report.rows if row["arm"] != "tianshou"] == [
        *("base", "penalty", "meta every 10", "meta, forward mode", "meta, two backward passes"),
        *rainbow.TWINS,
    ]
    assert all(row["ms"] > 0 and row["rounds"] == 1 for row in report.rows)
    assert report.ratio is not None
    assert "aim" not in report.headline, "the toy is no measurement"


def test_what_is_missed_is_said() -> None:
    times = {
        "base": [10.0],
        "penalty": [10.5],
        "meta every 10": [13.0],
        "meta, forward mode": [20.0],
        "meta, two backward passes": [26.0],
        "twin": [16.0],
        "twin, vectorised loops": [15.0],
        "twin, factorised noise": [12.0],
        "twin, fused Adam": [14.0],
    }
    words, ratio = rainbow.summary(rainbow.rows_of(times | {"tianshou": [12.5]}, 6), aims=True)
    assert "1.25 x those of Tianshou" in words
    assert "Tianshou" not in rainbow.summary(rainbow.rows_of(times, 6), aims=True)[0]
    assert ratio == pytest.approx(10 / 16)
    assert "1.60 x the updates a second of a plain twin (aim 1.4);" in words
    assert "factorised noise 1.33 x" in words
    assert "penalty takes 1.05 x the time (aim 1.08);" in words
    assert "meta every 10 takes 1.30 x the time (aim 1.2, missed)" in words
    assert "forward mode 1.30 x as fast as two backward passes, 6 actions (aim 1.2)" in words
