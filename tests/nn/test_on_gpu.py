"""Every mixer on a GPU does what it does on a CPU: values, gradients, pieces, padding, and at lower precision."""

from __future__ import annotations

import copy

import pytest
import torch

from holdfast.nn import Layout
from tests.nn.mixers import BUILD, DIM, mixer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
NAMES = pytest.mark.parametrize("name", BUILD)
CLOSE = {"rtol": 1e-9, "atol": 1e-9}


def numbers(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@NAMES
def test_values_and_gradients_are_those_of_the_cpu(name):
    x, weights = numbers(2, 37, DIM), numbers(2, 37, DIM, seed=2)
    found = []
    for device in ("cpu", "cuda"):
        module = mixer(name).to(device)
        leaf = x.to(device, copy=True).requires_grad_()
        output, _ = module(leaf)
        (output * weights.to(device)).sum().backward()
        gradients = [parameter.grad.cpu() for parameter in module.parameters()]
        found.append([output.detach().cpu(), leaf.grad.cpu(), *gradients])
    for here, there in zip(*found, strict=True):
        torch.testing.assert_close(there, here, rtol=1e-8, atol=1e-8)


@NAMES
@pytest.mark.parametrize("limit", [None, 40])
def test_pieces_and_padding_are_those_of_the_whole(name, limit):
    module, x = mixer(name).cuda(), numbers(3, 21, DIM).cuda()
    live = torch.ones(3, 9, dtype=torch.bool, device="cuda")
    live[1, :4] = live[2] = False
    x[:, :9][~live] = torch.nan
    with torch.no_grad():
        state = None if limit is None else module.init_state(3, limit=limit)
        first, state = module(x[:, :9], state, Layout.of_mask(live))
        outputs = [first]
        for step in range(9, 21):
            output, state = module(x[:, step : step + 1], state)
            outputs.append(output)
        found = torch.cat(outputs, 1)
        for row, begin in enumerate((0, 4, 9)):
            whole, _ = module(x[row : row + 1, begin:])
            torch.testing.assert_close(found[row : row + 1, begin:], whole, **CLOSE)


@NAMES
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_near_and_finite(name, dtype):
    exact = mixer(name).cuda()
    module, x = copy.deepcopy(exact).to(dtype), numbers(2, 37, DIM).cuda()
    output, _ = module(x.to(dtype))
    with torch.no_grad():
        wanted, _ = exact(x)
    assert output.dtype == dtype
    error = (output.double() - wanted).norm() / wanted.norm()
    assert error < 32 * torch.finfo(dtype).eps, error
    output.float().square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in module.parameters())
