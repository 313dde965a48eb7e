"""The map θ = φ|φ|^(α−1) on tensors."""

from __future__ import annotations

import pytest
import torch

from holdfast.optim.power_propagation.powers import PIECE, factor, pieces, power, preconditioner, root

ALPHAS = (1.5, 2.0, 3.0, 4.0, 5.0)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_power_root_and_slope_belong_together(alpha):
    value = torch.tensor([-1.7, -0.3, 0.0, 1e-3, 0.9], dtype=torch.float64, requires_grad=True)
    weight = value * value.abs() ** (alpha - 1)
    (derivative,) = torch.autograd.grad(weight.sum(), value)
    found = value.detach()
    assert torch.allclose(power(found, alpha), weight.detach(), rtol=1e-14)
    assert torch.allclose(root(weight.detach(), alpha), found, rtol=1e-13)
    nonzero = found != 0  # where autograd knows the slope of |φ|^(α−1)
    assert torch.allclose(alpha * factor(found, alpha)[nonzero], derivative[nonzero], rtol=1e-13)
    assert torch.allclose(preconditioner(weight.detach(), alpha)[nonzero], derivative[nonzero] ** 2, rtol=1e-12)
    assert torch.equal(found, value.detach())  # no map writes to what it is given


def test_a_floor_moves_a_weight_of_zero():
    assert preconditioner(torch.zeros(1), 2.0).item() == 0
    assert preconditioner(torch.zeros(1), 3.0, 1e-3).item() == pytest.approx(9 * 1e-3 ** (4 / 3))


@pytest.mark.parametrize("shape", [(7,), (PIECE + 1,), (3, PIECE)])
def test_pieces_cover_every_element_once(shape):
    tensor = torch.zeros(shape)
    for part, same in pieces(tensor, tensor):
        assert part.numel() <= PIECE
        part += 1
        same += 1
    assert torch.equal(tensor, torch.full(shape, 2.0))


def test_other_layouts_are_worked_on_whole():
    tensor = torch.zeros(2, 3, 4, 5).to(memory_format=torch.channels_last)
    assert [parts[0] is tensor for parts in pieces(tensor)] == [True]
