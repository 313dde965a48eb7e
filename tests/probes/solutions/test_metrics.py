"""Values that can be worked out by hand, and what is said of a network without any."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss

from holdfast.probes.plasticity import effective_rank, stable_rank
from holdfast.probes.solutions import (
    class_cosines,
    class_means,
    column_drift,
    delta_participation,
    hoyer,
    largest_eigenvalue,
    mean_off_diagonal,
    nc0,
    near_zero,
    participation_ratio,
    ridge_probe,
    sharpness,
    treves_rolls,
    unit_overlap,
)

ZERO = torch.zeros(3, 4)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_ranks_of_singular_values_three_and_one():
    rotation, other = (torch.linalg.qr(normal(2, 2, seed=seed))[0] for seed in (1, 2))
    f = rotation @ torch.diag(torch.tensor([3.0, 1.0], dtype=torch.float64)) @ other
    assert effective_rank(f) == pytest.approx(1.75477, abs=1e-5)
    assert participation_ratio(f) == pytest.approx(100 / 82, abs=1e-9)
    assert participation_ratio(torch.cat([f, 0 * f])) == pytest.approx(100 / 82, abs=1e-9)
    assert stable_rank(f) == pytest.approx(10 / 9, abs=1e-9)


@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30])
def test_participation_has_no_scale(size: float):
    assert participation_ratio(size * torch.eye(5)) == pytest.approx(5, abs=1e-9)
    assert delta_participation(size * torch.eye(5)) == pytest.approx(1 / 5, abs=1e-9)


def test_zeros_and_what_is_not_finite():
    assert participation_ratio(ZERO) == 0
    assert near_zero(ZERO) == 1
    assert math.isnan(hoyer(ZERO))
    assert math.isnan(delta_participation(ZERO))
    broken = torch.full((2, 2), math.nan)
    assert all(math.isnan(measure(broken)) for measure in (participation_ratio, near_zero, hoyer, delta_participation))


def test_sparsity_of_weights():
    assert hoyer(torch.full((7,), -2.0)) == pytest.approx(0, abs=1e-9)
    assert hoyer(torch.eye(1, 7)) == pytest.approx(1, abs=1e-9)
    assert hoyer(torch.tensor([3.0, 4.0, 0.0, 0.0])) == pytest.approx(2 - 7 / 5, abs=1e-9)
    # The root mean square is 1: one weight is below 10⁻³ of it, and one above.
    assert near_zero(torch.tensor([1.0, 1.0, 3**0.5, 0.0009, 0.0011])) == pytest.approx(1 / 5)
    assert delta_participation(torch.tensor([1.0, -1.0, 0.0, 0.0])) == pytest.approx(1 / 2)


def test_similarity_of_classes_is_that_of_means_that_are_not_centred():
    h = torch.tensor([[2.0, 0.0], [4.0, 0.0], [1.0, 1.0], [0.0, 5.0], [0.0, 0.0]])
    means, present = class_means(h, torch.tensor([0, 0, 2, 3, 7]))
    assert present.tolist() == [0, 2, 3, 7]
    assert means[0].tolist() == [3, 0]
    cosines = class_cosines(means)
    half = 0.5**0.5
    torch.testing.assert_close(cosines[0, :3], torch.tensor([1.0, half, 0.0], dtype=torch.float64))
    # A class without any activity has no direction, and takes none from the others.
    assert cosines[3].isnan().all()
    assert mean_off_diagonal(cosines) == pytest.approx(2 * half / 3)
    assert math.isnan(mean_off_diagonal(cosines[:1, :1]))


def test_treves_rolls_over_examples_and_over_units():
    # Unit 0 answers one example of four, unit 1 all alike, unit 2 none.
    h = torch.tensor([[1.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 1.0, 0.0]])
    lifetime, population = treves_rolls(h)
    assert lifetime == pytest.approx((3 / 4 + 0) / 2)
    assert population == pytest.approx((1 / 3 + 3 * 2 / 3) / 4)
    assert all(math.isnan(value) for value in treves_rolls(h - 0.1))


def test_overlap_of_units():
    one, other = torch.tensor([1.0, 1.0, 0.0]), torch.tensor([0.0, 3.0, 1.0])
    assert unit_overlap(one, 9 * one) == pytest.approx(1)
    assert unit_overlap(one, other) == pytest.approx(1 / 2)
    assert math.isnan(unit_overlap(one, 0 * one))


def test_a_linear_probe_tells_classes_that_are_apart():
    centres = 10 * torch.eye(3, 6, dtype=torch.float64)
    y = torch.arange(3).repeat(20)
    x = centres[y] + normal(60, 6)
    assert (ridge_probe(x[:30], y[:30], x[30:], 3) == y[30:]).all()
    # Without any feature the most frequent class is all that is left.
    assert ridge_probe(torch.zeros(4, 6), torch.tensor([0, 2, 2, 1]), x[:2], 3).tolist() == [2, 2]


def head_after(steps: int, make, loss) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4, bias=False)).double()
    before = model[2].weight.detach().clone()
    optimizer = make(model.parameters())
    x, y = normal(40, 6), torch.arange(4).repeat(10)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(model(x), y).backward()
        optimizer.step()
    return before, model[2].weight.detach()


def test_column_sums_are_conserved_by_gradients_of_cross_entropy_alone():
    sgd = head_after(50, lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), cross_entropy)
    assert column_drift(*sgd)[0] < 1e-13
    assert nc0(sgd[0]) == pytest.approx(nc0(sgd[1]), rel=1e-12)
    smoothed = head_after(50, lambda p: torch.optim.SGD(p, lr=0.1), nn.CrossEntropyLoss(label_smoothing=0.1))
    assert column_drift(*smoothed)[0] < 1e-13
    assert column_drift(*head_after(50, lambda p: torch.optim.Adam(p, lr=0.01), cross_entropy))[0] > 0.01
    squares = head_after(50, lambda p: torch.optim.SGD(p, lr=0.1), lambda z, y: mse_loss(z, torch.eye(4)[y].double()))
    assert column_drift(*squares)[0] > 0.01


def test_decay_shrinks_column_sums_in_proportion():
    pair = head_after(50, lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=0.02), cross_entropy)
    drift, factor, rest = column_drift(*pair)
    assert drift > 1e-3
    assert factor == pytest.approx((1 - 0.1 * 0.02) ** 50, rel=1e-12)
    assert rest < 1e-13


def test_column_sums_by_hand():
    before, after = torch.zeros(2, 2), torch.tensor([[3.0, 1.0], [1.0, -1.0]])
    # Sums (4, 0); K = 2 and ‖ΔW‖ = √12.
    assert column_drift(before, after)[0] == pytest.approx(4 / (2 * 12) ** 0.5)
    assert math.isnan(column_drift(before, after)[2])
    assert nc0(after) == pytest.approx(16 / 2)
    assert all(math.isnan(value) for value in column_drift(after, after))


def test_the_largest_eigenvalue_of_a_quadratic():
    found = sharpness(lambda w: 0.5 * (w[0] ** 2 + 5 * w[1] ** 2), [torch.tensor(3.0), torch.tensor(4.0)], seed=0)
    assert found.largest_eigenvalue == pytest.approx(5, abs=1e-3)
    assert found.residual < 1e-3
    # Along the gradient (3, 20): g · r + ½ r² gᵀHg / ‖g‖².
    rise = 0.05 * 409**0.5 + 0.5 * 0.05**2 * (9 + 5 * 400) / 409
    assert found.ball == pytest.approx(rise, rel=1e-4)


def test_a_line_is_flat():
    found = sharpness(lambda w: 2 * w[0].sum(), [torch.ones(5)], seed=0)
    assert (found.largest_eigenvalue, found.residual) == (0, 0)


def test_lanczos_finds_the_top_and_not_the_largest_in_size():
    rotation = torch.linalg.qr(normal(60, 60))[0]
    values = torch.linspace(-9, 4, 60, dtype=torch.float64)
    matrix = rotation @ torch.diag(values) @ rotation.mT
    value, residual, iterations = largest_eigenvalue(lambda v: matrix @ v, normal(60, seed=5))
    assert iterations >= 30
    assert residual <= 1e-3
    assert value == pytest.approx(4, abs=4e-3)
    assert math.isnan(largest_eigenvalue(lambda v: v * math.nan, normal(60))[0])
