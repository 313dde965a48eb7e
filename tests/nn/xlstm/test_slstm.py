"""The sLSTM: its core against published values and plain loops, and what its layer begins with."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch

from holdfast.errors import ArgumentError
from holdfast.nn import SLSTM
from holdfast.nn.xlstm.slstm import slstm
from holdfast.nn.xlstm.slstm_reference import SLSTMMemory, slstm_steps
from tests.nn.rounding import rounding

FORMS = pytest.mark.parametrize("form", [slstm, slstm_steps])
DOUBLE = torch.float64


def start(heads: int = 1, batch: int = 1, dim: int = 1, dtype: torch.dtype = DOUBLE) -> SLSTMMemory:
    zero = torch.zeros(heads, batch, dim, dtype=dtype)
    return SLSTMMemory(zero, zero, zero, torch.full_like(zero, -math.inf))


def gates(*values: float) -> torch.Tensor:
    """Of one unit, so that the published values are told with gradients on, as `slstm` has two ways."""
    return torch.tensor(values, dtype=DOUBLE).view(-1, 1, 1, 4).requires_grad_()


@FORMS
def test_published_values(form):
    log3, atanh = math.log(3), math.atanh
    inputs = gates(0, 0, atanh(0.5), 0, 1, log3, atanh(-0.25), log3, -2, -1, atanh(0.9), 0)
    memory = form(inputs, torch.zeros(1, 1, 4, dtype=DOUBLE), start())
    expected = {
        "hidden": [0.25, -0.06586196, 0.01867341],
        "cell": [0.5, -0.11204521, None],
        "normaliser": [1.0, 1.27590958, None],
        "stabiliser": [0.0, 1.0, -0.31326169],
    }
    for name, values in expected.items():
        for value, got in zip(values, getattr(memory, name).flatten().tolist(), strict=True):
            assert value is None or abs(value - got) < 1e-8


@FORMS
def test_a_row_that_begins_beside_others_is_finite_whatever_its_gate(form):
    """With a start at m = 0, n = 0 and n >= exp(-120) it would divide by nothing in float32."""
    dtype, dim = torch.float32, 3
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(2, 1, 2, 4 * dim, generator=generator)
    inputs[:, :, 1, :dim] = -120.0
    inputs.requires_grad_()
    recurrent = torch.randn(1, dim, 4 * dim, generator=generator)
    first = form(inputs[:1], recurrent, start(1, 2, dim, dtype))
    fresh = start(1, 2, dim, dtype)
    mixed = SLSTMMemory(*(torch.cat([old[0, :, :1], new[:, 1:]], 1) for old, new in zip(first, fresh, strict=True)))
    after = form(inputs[1:], recurrent, mixed)
    z, o = inputs[1, :, 1].chunk(4, -1)[2:]
    torch.testing.assert_close(after.hidden[0, :, 1], torch.sigmoid(o) * torch.tanh(z), **rounding(dtype, 1))
    torch.testing.assert_close(after.stabiliser[0, :, 1], torch.full((1, dim), -120.0), rtol=0, atol=0)
    after.hidden.sum().backward()
    assert inputs.grad.isfinite().all()


def naive(inputs: torch.Tensor, recurrent: torch.Tensor) -> torch.Tensor:
    """The equations as they are written before anything is stabilised."""
    dim = recurrent.shape[1]
    hidden = cell = normaliser = inputs.new_zeros(*inputs.shape[1:3], dim)
    outputs = []
    for entry in inputs:
        i, f, z, o = (entry + hidden @ recurrent).chunk(4, -1)
        cell = torch.sigmoid(f) * cell + torch.exp(i) * torch.tanh(z)
        normaliser = torch.sigmoid(f) * normaliser + torch.exp(i)
        hidden = torch.sigmoid(o) * cell / normaliser
        outputs.append(hidden)
    return torch.stack(outputs)


@FORMS
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 3, 1, 5), (17, 2, 3, 7)], ids=str)
def test_values_and_gradients_of_the_equations(form, shape):
    time, heads, batch, dim = shape
    generator = torch.Generator().manual_seed(0)
    inputs = 3 * torch.randn(time, heads, batch, 4 * dim, generator=generator, dtype=DOUBLE)
    recurrent = torch.randn(heads, dim, 4 * dim, generator=generator, dtype=DOUBLE)
    weights = torch.randn(time, heads, batch, dim, generator=generator, dtype=DOUBLE)
    results = []
    for run in (naive, lambda *given: form(*given, start(heads, batch, dim)).hidden):
        leaves = [inputs.clone().requires_grad_(), recurrent.clone().requires_grad_()]
        output = run(*leaves)
        results.append([output, *torch.autograd.grad((output * weights).sum(), leaves)])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("read", [("hidden",), ("cell",), ("normaliser", "hidden"), ("cell", "normaliser", "hidden")])
def test_the_written_backward_pass_is_that_of_autograd(read):
    """From any memory, and with gradients from whatever of the memory is read at any token."""
    time, heads, batch, dim = 11, 2, 3, 5
    generator = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=DOUBLE)

    given = [
        draw(time, heads, batch, 4 * dim) * 4,
        draw(heads, dim, 4 * dim),
        draw(heads, batch, dim),
        1 + draw(heads, batch, dim).abs(),
        draw(heads, batch, dim),
    ]
    stabiliser, weights = draw(heads, batch, dim), {name: draw(time, heads, batch, dim) for name in read}
    results = []
    for form in (slstm, slstm_steps):
        leaves = [tensor.clone().requires_grad_() for tensor in given]
        memory = form(leaves[0], leaves[1], SLSTMMemory(*leaves[2:], stabiliser))
        total = sum((getattr(memory, name) * weights[name]).sum() for name in read)
        results.append([*memory, *torch.autograd.grad(total, leaves)])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


@FORMS
def test_extreme_gates_neither_overflow_nor_divide_by_nothing(form):
    time, dim = 200, 8
    generator = torch.Generator().manual_seed(2)
    inputs = torch.randn(time, 1, 2, 4 * dim, generator=generator)
    scale = torch.tensor([1e4, 1e5, 1.0, 1.0]).repeat_interleave(dim)
    inputs = (inputs * scale).requires_grad_()
    memory = form(inputs, torch.randn(1, dim, 4 * dim, generator=generator), start(1, 2, dim, torch.float32))
    assert (memory.normaliser >= 1).all()
    assert (memory.cell.abs() <= memory.normaliser * (1 + 1e-5)).all()
    memory.hidden.square().sum().backward()
    assert inputs.grad.isfinite().all()
    exact = form(inputs.detach().double(), torch.zeros(1, dim, 4 * dim, dtype=DOUBLE), start(1, 2, dim))
    alone = form(inputs, torch.zeros(1, dim, 4 * dim), start(1, 2, dim, torch.float32))
    # Stabilisers of size 1e5 are known to eps x 1e5, of which exponentials are taken.
    torch.testing.assert_close(alone.hidden.double(), exact.hidden, **rounding(torch.float32, time, logit=1e5))


def test_the_plain_loop_can_be_forced(monkeypatch):
    inputs, recurrent = gates(0, 0, 1, 0), torch.zeros(1, 1, 4, dtype=DOUBLE)
    names = []
    for kernels in ("auto", "reference"):
        monkeypatch.setenv("HOLDFAST_KERNELS", kernels)
        names.append(slstm(inputs, recurrent, start()).hidden.grad_fn.name())
    assert names == ["_SLSTMBackward", "StackBackward0"]


def test_gradients_of_gradients_are_refused_but_where_the_plain_loop_is_forced(monkeypatch):
    inputs = gates(0, 0, 1, 0)
    output = slstm(inputs, torch.zeros(1, 1, 4, dtype=DOUBLE), start()).hidden
    with pytest.raises(ArgumentError, match="create_graph: expected HOLDFAST_KERNELS=reference"):
        torch.autograd.grad(output.sum(), inputs, create_graph=True)
    monkeypatch.setenv("HOLDFAST_KERNELS", "reference")
    output = slstm(inputs, torch.zeros(1, 1, 4, dtype=DOUBLE), start()).hidden
    (gradient,) = torch.autograd.grad(output.sum(), inputs, create_graph=True)
    of_z = torch.autograd.grad(gradient.sum(), inputs)[0].flatten()[2]
    # h = sigmoid(o) tanh(z), of which the gradient's sum has o's part too.
    tanh = math.tanh(1)
    assert abs(of_z.item() - (0.25 * (1 - tanh**2) - tanh * (1 - tanh**2))) < 1e-12


def test_forget_gates_begin_by_a_power_law_of_the_place():
    for block, power in ((0, 0.3), (2, 0.95), (4, 1.6)):
        layer = SLSTM(12, 2, block=block, blocks=5)
        expected = torch.tensor([5 - 12 * (unit / 5) ** power for unit in range(6)])
        torch.testing.assert_close(layer.bias[:, 1], expected.expand(2, 6))
        assert not layer.bias[:, [0, 2, 3]].any()
        assert not layer.recurrent.any()
    assert SLSTM(3, 3).bias[:, 1].tolist() == [[5.0]] * 3


def test_projections_begin_with_the_stated_spread():
    torch.manual_seed(0)
    gates = SLSTM(128, 2).gates
    expected = math.sqrt(2 / (5 * 128))
    assert abs(gates.std().item() / expected - 1) < 5 / math.sqrt(2 * gates.numel())


def test_a_state_has_the_stated_size_at_any_length():
    layer = SLSTM(24, 3)
    assert layer.init_state(5).nbytes == 5 * 4 * (4 + 3) * 24
    assert layer(torch.randn(5, 9, 24))[1].nbytes == 5 * 4 * (4 + 3) * 24
    assert layer.double().init_state(5).nbytes == 5 * 8 * (4 + 3) * 24


def test_a_state_holds_no_memory_of_the_tokens_before():
    layer = SLSTM(8, 2)
    with torch.no_grad():
        _, state = layer(torch.randn(2, 50, 8))
    for part in (state.cell, state.normaliser, state.hidden, state.stabiliser):
        assert part.untyped_storage().nbytes() == part.nbytes


def test_no_value_decides_what_is_computed():
    """So that no accelerator is waited for: on the device `meta` there is none to look at."""
    with torch.device("meta"):
        layer, x = SLSTM(8, 2), torch.empty(3, 5, 8)
        output, state = layer(x)
        layer(x[:, :1], state)[0].sum().backward()
        assert output.shape == x.shape


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dim": 6, "heads": 4}, "dim: expected a multiple of the 4 heads, got 6"),
        ({"dim": 0, "heads": 1}, "dim: expected a whole number of at least 1, got 0"),
        ({"dim": 4, "heads": 2, "block": 3, "blocks": 3}, "block: expected less than the 3 blocks, got 3"),
    ],
)
def test_what_cannot_be_is_refused(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        SLSTM(**arguments)


def test_the_state_of_another_shape_is_refused():
    with pytest.raises(ArgumentError, match=r"state: expected heads and head width of \(2, 4\), got of \(4, 2\)"):
        SLSTM(8, 2)(torch.randn(1, 3, 8), SLSTM(8, 4).init_state(1))


COMPILED = """
import torch
from holdfast.nn import SLSTM

torch.manual_seed(0)
layer = SLSTM(8, 2).double()
torch.nn.init.normal_(layer.recurrent)
once = torch.compile(layer, backend="eager", fullgraph=True)
x = torch.randn(2, 5, 8, dtype=torch.float64, requires_grad=True)
answers = once(x), layer(x)
torch.testing.assert_close(answers[0][0], answers[1][0], atol=1e-12, rtol=1e-12)
gradients = [torch.autograd.grad(output.square().sum(), [x, *layer.parameters()]) for output, _ in answers]
torch.testing.assert_close(*gradients, atol=1e-12, rtol=1e-12)
with torch.no_grad():
    steps = once(x[:, :1], answers[0][1]), layer(x[:, :1], answers[1][1])
torch.testing.assert_close(steps[0][0], steps[1][0], atol=1e-12, rtol=1e-12)
"""


def test_compilers_follow_without_a_break():
    """In an interpreter without run-time checks of shapes, which compilers cannot follow."""
    answer = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", COMPILED], capture_output=True, text=True, check=False, timeout=200
    )
    assert answer.returncode == 0, answer.stderr
