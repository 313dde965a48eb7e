"""The penalty against its definition in loops, with masks, in half precision, and where it should not see anything."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from holdfast.errors import ArgumentError
from holdfast.rl import SimilarityMatrix, SimilarityWarning, check_strength, masp_penalty

A = torch.tensor([[0.5, 0.5, 0.0], [0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
B = torch.tensor([[0.75, 0.25], [0.25, 0.75]])


def by_definition(q: Tensor, sigma: Tensor, form: str, reduction: str, mask: Tensor | None = None) -> float:
    """In loops: over states, and over legal actions alone, with rows that keep their sums."""
    total = 0.0
    for state in range(len(q)):
        legal = range(q.shape[1]) if mask is None else mask[state].nonzero().flatten().tolist()
        term = 0.0
        for i in legal:
            mass = sum(float(sigma[i, j]) for j in legal)
            if mass == 0:
                continue
            row = {j: float(sigma[i, j]) / mass * float(sigma[i].sum()) for j in legal}
            if form == "residual":
                term += (float(q[state, i]) - sum(row[j] * float(q[state, j]) for j in legal)) ** 2
            else:
                term += sum(row[j] * (float(q[state, i]) - float(q[state, j])) ** 2 for j in legal) / 2
        total += term / max(len(legal), 1) if reduction == "mean" else term
    return total / len(q)


def test_worked_examples():
    q = torch.tensor([[1.0, 3.0, 2.0]], requires_grad=True)
    penalty = masp_penalty(q, A)
    penalty.backward()
    assert float(penalty.detach()) == pytest.approx(2.0, abs=1e-6)
    torch.testing.assert_close(q.grad, torch.tensor([[-2.0, 2.0, 0.0]]))
    assert float(masp_penalty(q.detach(), A, form="pairwise")) == pytest.approx(2.0, abs=1e-6)
    q = torch.tensor([[0.0, 4.0]])
    assert float(masp_penalty(q, B)) == pytest.approx(2.0, abs=1e-6)
    assert float(masp_penalty(q, B, form="pairwise")) == pytest.approx(4.0, abs=1e-6)


@pytest.mark.parametrize("form", ["residual", "pairwise"])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_it_is_its_definition_with_and_without_masks(form, reduction):
    generator = torch.Generator().manual_seed(100)
    q = torch.randn(6, 5, dtype=torch.float64, generator=generator) + 3
    sigma = torch.rand(5, 5, dtype=torch.float64, generator=generator)
    sigma[4] = torch.tensor([0.7, 0.0, 0.0, 0.0, 0.0])  # similar to action 0 alone
    mask = torch.rand(6, 5, generator=generator) < 0.6
    mask[0], mask[1] = False, torch.tensor([False, True, False, False, True])
    for legal in (None, mask, torch.ones_like(mask)):
        penalty = masp_penalty(q, sigma, form=form, reduction=reduction, mask=legal)
        assert float(penalty) == pytest.approx(by_definition(q, sigma, form, reduction, legal), rel=1e-10)


@pytest.mark.parametrize("form", ["residual", "pairwise"])
@pytest.mark.parametrize("poison", [float("nan"), float("inf"), float("-inf")])
def test_illegal_values_are_not_read_and_get_no_gradient(form, poison):
    torch.manual_seed(101)
    q, mask = torch.randn(4, 6), torch.rand(4, 6) < 0.5
    mask[:, 2] = True
    sigma = SimilarityMatrix(6).matrix().detach()
    poisoned = q.masked_fill(~mask, poison).requires_grad_()
    penalty = masp_penalty(poisoned, sigma, form=form, mask=mask)
    penalty.backward()
    torch.testing.assert_close(penalty.detach(), masp_penalty(q, sigma, form=form, mask=mask))
    assert torch.isfinite(poisoned.grad).all()
    assert not poisoned.grad[~mask].any()
    assert poisoned.grad[mask].any()


@pytest.mark.parametrize("kind", ["sinkhorn", "cluster"])
@pytest.mark.parametrize("form", ["residual", "pairwise"])
def test_a_constant_changes_nothing_where_rows_sum_to_one(kind, form):
    torch.manual_seed(102)
    clusters = [0, 0, 1, 1, 1, 2, 3, 3] if kind == "cluster" else None
    sigma = SimilarityMatrix(8, kind=kind, clusters=clusters, iterations=3).matrix().detach()
    q = torch.randn(16, 8)
    for constant in (1.0, 10.0, -1000.0):
        moved = masp_penalty(q.double() + constant, sigma, form=form)
        torch.testing.assert_close(moved, masp_penalty(q.double(), sigma, form=form), rtol=1e-9, atol=0)
        far = q + constant  # rounded, and no more digits are lost than that
        torch.testing.assert_close(
            masp_penalty(far, sigma, form=form), masp_penalty(far.double(), sigma, form=form).float(), rtol=1e-5, atol=0
        )
        mask = torch.rand(16, 8) < 0.7
        torch.testing.assert_close(
            masp_penalty(q.double() + constant, sigma, form=form, mask=mask),
            masp_penalty(q.double(), sigma, form=form, mask=mask),
            rtol=1e-9,
            atol=0,
        )


def test_rows_that_do_not_sum_to_one_shrink_state_values():
    sigma = 0.9 * torch.eye(7)
    assert float(masp_penalty(torch.full((3, 7), 5.0), sigma)) == pytest.approx(7 * 0.5**2, rel=1e-5)
    assert float(masp_penalty(torch.full((3, 7), 5.0), sigma, form="pairwise")) == 0


def test_the_value_stream_of_a_dueling_network_gets_no_gradient():
    torch.manual_seed(103)
    trunk, value, advantage = nn.Linear(4, 16).double(), nn.Linear(16, 1).double(), nn.Linear(16, 6).double()
    features = trunk(torch.randn(9, 4, dtype=torch.float64))
    q = value(features) + advantage(features) - advantage(features).mean(1, keepdim=True)
    masp_penalty(q, SimilarityMatrix(6).matrix().detach()).backward()
    assert value.weight.grad.abs().max() < 1e-6 * advantage.weight.grad.abs().max()  # as Σ is of float32


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32_autocast_or_not(dtype):
    torch.manual_seed(104)
    q, sigma = (torch.randn(5, 6) * 300).to(dtype), SimilarityMatrix(6, kind="raw").matrix().detach()
    expected = masp_penalty(q.float(), sigma)
    assert expected > torch.finfo(torch.float16).max
    with torch.autocast("cpu", dtype=torch.bfloat16):
        penalty = masp_penalty(q.requires_grad_(), sigma)
    assert penalty.dtype == torch.float32
    torch.testing.assert_close(penalty.detach(), expected)
    penalty.backward()
    assert q.grad.dtype == dtype
    assert torch.isfinite(q.grad.float()).all()


def test_gradients_against_finite_differences():
    torch.manual_seed(105)
    q = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    sigma = torch.rand(4, 4, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[True, True, False, True], [True] * 4, [False, True, True, False]])
    for form in ("residual", "pairwise"):
        for legal in (None, mask):
            assert torch.autograd.gradcheck(
                lambda q, s, f=form, m=legal: masp_penalty(q, s, form=f, mask=m), (q, sigma)
            )


def test_a_matrix_of_another_size_is_refused():
    for shape in ((3, 3), (4, 3)):
        with pytest.raises(
            ArgumentError, match=rf"sigma: expected shape \(4, 4\), since q has 4 actions, got .*\({shape[0]}, 3\)"
        ):
            masp_penalty(torch.zeros(2, 4), torch.zeros(shape))


def test_the_strength_is_checked():
    assert check_strength(0.0) == 0.0
    for eta in (-0.1, float("nan"), float("inf")):
        with pytest.raises(ArgumentError, match="eta: expected 0 or a positive finite number"):
            check_strength(eta)
    check_strength(0.5, lr=0.49)
    with pytest.warns(SimilarityWarning, match="diverge on a table of Q values from 0.25 on"):
        check_strength(0.5, lr=0.5)


@pytest.mark.parametrize(("share", "diverges"), [(0.9, False), (1.1, True)])
def test_the_bound_on_the_strength_is_where_descent_diverges(share, diverges):
    sigma = torch.tensor([[0.2, 0.8], [0.8, 0.2]])  # ‖I - Σ‖ = 1.6
    lr = share / 1.6**2
    if diverges:
        with pytest.warns(SimilarityWarning):
            check_strength(1.0, lr=lr, sigma=sigma)
    else:
        check_strength(1.0, lr=lr, sigma=sigma)
    q = torch.tensor([[1.0, -1.0]], requires_grad=True)
    for _ in range(50):
        (gradient,) = torch.autograd.grad(masp_penalty(q, sigma), q)
        q = (q - lr * gradient).detach().requires_grad_()
    assert (q.detach().abs().max() > 1) == diverges
