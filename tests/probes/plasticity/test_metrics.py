"""Values that can be worked out by hand, and the invariances that the definitions have."""

from __future__ import annotations

import math

import pytest
import torch

from holdfast.errors import ArgumentError
from holdfast.probes.plasticity import (
    activation_change,
    activation_change_share,
    dead_ratio,
    dormancy_scores,
    dormant_ratio,
    effective_rank,
    feature_kernel,
    kernel_change,
    srank,
    stable_rank,
)

ZERO = torch.zeros(5, 3)


def features(seed: int = 0, rows: int = 12, columns: int = 7) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_kernel_is_blind_to_rotation_and_scale():
    f = features()
    rotation = torch.linalg.qr(features(1, 7, 7))[0]
    assert float(feature_kernel(f).trace()) == pytest.approx(1, abs=1e-12)
    assert kernel_change(f, f @ rotation) < 1e-12
    assert kernel_change(f, -300 * f) < 1e-12
    assert kernel_change(f, features(2)) > 0.1


def test_orthogonal_features_of_rank_one_are_as_far_apart_as_can_be():
    first, second = torch.eye(4)[:, :1], torch.eye(4)[:, 1:2]
    assert kernel_change(first, second) == pytest.approx(math.sqrt(2), abs=1e-12)


@pytest.mark.parametrize("pair", [(ZERO, features(0, 5, 3)), (features(0, 5, 3), ZERO), (torch.ones(1, 3),) * 2])
def test_a_kernel_that_says_nothing_gives_no_number(pair):
    assert math.isnan(kernel_change(*pair))


def test_kernels_of_other_examples_are_refused():
    with pytest.raises(ArgumentError, match="after: expected features of the same 12 examples, got 3 examples"):
        kernel_change(features(), features(0, 3))


def test_activations_that_switch_are_counted():
    before = torch.tensor([[True, False, True, True], [False, False, True, True]])
    after = before.clone()
    after[0, :2] = torch.tensor([False, True])
    assert activation_change(before, after) == pytest.approx(math.sqrt(2))
    assert activation_change_share(before, after) == 0.25
    with pytest.raises(ArgumentError, match="after"):
        activation_change(before, after[:1])


def test_dormant_units_are_those_far_below_the_mean():
    # Scores in proportion 1 : 1 : 1 : 0.01, with the sign and the place left to chance.
    outputs = torch.tensor([1.0, -1.0, 1.0, 0.01]).expand(6, 2, 4)
    assert dormancy_scores(outputs).tolist() == pytest.approx([4 / 3.01] * 3 + [0.04 / 3.01])
    assert dormant_ratio(outputs, 0.025) == 0.25
    assert dormant_ratio(outputs, 0.01) == 0
    assert dormant_ratio(torch.zeros(6, 2, 4)) == 1
    assert math.isnan(dormant_ratio(torch.full((6, 2, 4), torch.nan)))


def test_a_dead_unit_is_active_nowhere():
    active = torch.zeros(3, 2, 4, dtype=torch.bool)
    active[1, 1, 0] = active[2, 0, 3] = True
    assert dead_ratio(active) == 0.5


@pytest.mark.parametrize(
    ("matrix", "effective", "stable", "small"),
    [
        (torch.diag(torch.tensor([3.0, 1, 0, 0])), 1.75477, 1.11111, 2),
        (torch.eye(4), 4, 4, 4),
        (torch.ones(1, 6), 1, 1, 1),
        (ZERO, 0, 0, 0),
    ],
)
def test_ranks(matrix, effective, stable, small):
    assert effective_rank(matrix) == pytest.approx(effective, abs=1e-5)
    assert stable_rank(matrix) == pytest.approx(stable, abs=1e-5)
    assert srank(matrix) == small


def test_srank_takes_as_many_values_as_the_share_needs():
    matrix = torch.diag(torch.tensor([97.0, 2.0, 1.0]))
    assert [srank(matrix, delta) for delta in (0.0, 0.01, 0.02, 0.03, 0.05)] == [3, 2, 2, 1, 1]


def test_a_broken_layer_has_no_rank():
    broken = features()
    broken[0, 0] = math.inf
    assert all(math.isnan(rank(broken)) for rank in (srank, effective_rank, stable_rank))
