"""Ranks of weights have the values of their definitions, and their cost is bounded."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from holdfast.optim.rewarming.layers import layers_of
from holdfast.probes.plasticity import metrics
from holdfast.probes.watch.ranks import SIDE, WeightRanks, effective_rank, stable_rank


@pytest.mark.parametrize("shape", [(12, 40), (40, 12), (16, 5000), (1, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_they_are_those_of_a_decomposition(shape: tuple[int, int], dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    matrix = (torch.randn(shape) * torch.logspace(0, -6, shape[1])).to(dtype)
    # Singular values below 1e-6 of the largest may be lost: fewer than 40, each with a share of less than 1e-6.
    assert effective_rank(matrix) == pytest.approx(metrics.effective_rank(matrix), rel=1e-3)
    assert stable_rank(matrix) == pytest.approx(metrics.stable_rank(matrix), rel=1e-9)


def test_what_rounding_makes_is_no_rank() -> None:
    torch.manual_seed(0)
    low = torch.randn(200, 3, dtype=torch.float64) @ torch.randn(3, 200, dtype=torch.float64)
    assert effective_rank(low) == pytest.approx(metrics.effective_rank(low), rel=1e-6)
    assert effective_rank(low) <= 3
    assert stable_rank(torch.eye(7)) == pytest.approx(7)
    for rank in (effective_rank, stable_rank):
        assert rank(torch.zeros(3, 4)) == 0
        assert math.isnan(rank(torch.full((3, 4), math.inf)))


@pytest.mark.parametrize("seed", range(3))
def test_a_large_matrix_has_a_stable_rank_from_above(seed: int) -> None:
    torch.manual_seed(seed)
    matrix = torch.randn(SIDE + 100, 2 * SIDE)
    exact = metrics.stable_rank(matrix)
    assert exact * (1 - 1e-5) <= stable_rank(matrix) <= 1.01 * exact
    matrix += 3 * torch.randn(len(matrix), 1) @ torch.randn(1, matrix.shape[1])  # one value far above the others
    assert stable_rank(matrix) == pytest.approx(metrics.stable_rank(matrix), rel=1e-5)
    low = torch.randn(len(matrix), 2) @ torch.randn(2, matrix.shape[1])  # Lanczos' method ends at the second step
    assert stable_rank(low) == pytest.approx(metrics.stable_rank(low), rel=1e-5)
    for large, expected in ((torch.zeros(SIDE + 1, SIDE + 1), 0.0), (matrix * math.nan, math.nan)):
        assert stable_rank(large) == pytest.approx(expected, nan_ok=True)


def test_small_matrices_take_turns_and_frozen_ones_none() -> None:
    model = nn.Sequential(*(nn.Linear(SIDE, SIDE) for _ in range(6)), nn.Linear(SIDE + 1, SIDE + 1), nn.LayerNorm(4))
    model[0].requires_grad_(False)
    model.append(nn.Conv2d(3, 5, 3))
    ranks = WeightRanks(layers_of(model))
    told = [ranks.measure(turn) for turn in range(5, 9)]
    names = [{name for name in numbers if name.startswith("weight_rank/")} for numbers in told]
    assert set.union(*names) == {f"weight_rank/{place}" for place in (1, 2, 3, 4, 5, 8)}
    assert all(0 < len(some) < 6 for some in names)
    assert all("weight_stable_rank/6" in numbers and "weight_rank/6" not in numbers for numbers in told)
    turns = len(ranks._turns)
    assert ranks.measure(5 + turns) == told[0]  # a training that resumes goes on in turn
    assert WeightRanks([]).measure(3) == {}
    kernel = model[8].weight.detach().flatten(1)
    found = next(numbers for numbers in told if "weight_rank/8" in numbers)
    assert found["weight_rank/8"] == pytest.approx(metrics.effective_rank(kernel), rel=1e-6)
