"""The forms of the mLSTM: values by hand, each other, and what closed gates must not do to precision."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys

import pytest
import torch

from holdfast.errors import ArgumentError
from holdfast.nn import mlstm
from holdfast.nn.xlstm import Memory, chunkwise, parallel, recurrent
from tests.nn.rounding import rounded_to

FORMS = ("recurrent", "parallel", "chunkwise")
NAMES = ("query", "key", "value", "input_gate", "forget_gate")
EXACT = {"rtol": 1e-10, "atol": 1e-10}


def tokens(batch, time, heads, dim, value_dim, *, seed=0, dtype=torch.float64, closed=-1e5, positive=False):
    """Inputs with gates far from 0, one forget gate in ten closed."""
    generator = torch.Generator().manual_seed(seed)

    def one(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    query, key, value = one(batch, time, heads, dim), one(batch, time, heads, dim), one(batch, time, heads, value_dim)
    if positive:  # denominators do not cancel, so that rounding is all that can go wrong
        query, key = query.abs() + 0.1, key.abs() + 0.1
    input_gate, forget_gate = 4 * one(batch, time, heads), 4 * one(batch, time, heads)
    shut = torch.rand(batch, time, heads, generator=generator) < 0.1
    return [tensor.to(dtype) for tensor in (query, key, value, input_gate, torch.where(shut, closed, forget_gate))]


def leaves(tensors):
    return [tensor.clone().requires_grad_() for tensor in tensors]


def results(inputs, state=None, **options):
    """Output, memory and the gradients of a product of both with fixed numbers."""
    output, memory = mlstm(*inputs, state, **options)
    generator = torch.Generator().manual_seed(9)
    parts = (output, memory.cell, memory.normaliser)
    total = sum((part * torch.randn(part.shape, generator=generator, dtype=part.dtype)).sum() for part in parts)
    asked = [tensor for tensor in inputs if tensor.requires_grad]
    return [*(part.detach() for part in parts), memory.stabiliser, *torch.autograd.grad(total, asked)]


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64).view(1, -1, 1, 1)


@pytest.mark.parametrize("chunk_size", [1, 2, 3, 4])
@pytest.mark.parametrize("form", FORMS)
def test_values_by_hand(form, chunk_size):
    """Four tokens of one channel: a gate that takes in twice as much, one that closes, a key that turns."""
    vectors = column(1, 1, 1, 0.1), column(1, 2, -1, -1), column(1, 3, 5, 5)
    gates = column(0, math.log(2), -1, -1)[..., 0], column(0, math.log(3), 0, 0)[..., 0]
    cells, normalisers, units = [1, 12.75, 4.53560279, 0.42840419], [1, 4.75, 2.00712056, 0.63568084], [0, 1, 0, -1]
    for stop in range(1, 5):
        inputs = [tensor[:, :stop] for tensor in (*vectors, *gates)]
        output, memory = mlstm(*inputs, eps=0.0, chunk_size=chunk_size, backend=form)
        expected = torch.tensor([1.0, 2.68421053, 2.25975603, 0.04284042], dtype=torch.float64)
        torch.testing.assert_close(output.flatten(), expected[:stop], rtol=0, atol=1e-6)
        unit = memory.stabiliser.exp().item()
        assert memory.stabiliser.item() == pytest.approx(units[stop - 1] * math.log(2), abs=1e-6)
        assert memory.cell.item() * unit == pytest.approx(cells[stop - 1], abs=1e-6)
        assert memory.normaliser.item() * unit == pytest.approx(normalisers[stop - 1], abs=1e-6)


def test_the_reference_is_the_equations_without_units():
    """Formula (1) of the paper as it stands, which overflows at larger gates."""
    inputs = leaves(tensor / 4 for tensor in tokens(2, 7, 2, 3, 4, closed=-20.0))
    query, key, value, input_gate, forget_gate = inputs
    cell, normaliser = torch.zeros(2, 2, 3, 4, dtype=torch.float64), torch.zeros(2, 2, 3, dtype=torch.float64)
    outputs = []
    for t in range(7):
        forget, take = forget_gate[:, t].sigmoid()[..., None], input_gate[:, t].exp()[..., None]
        cell = forget[..., None] * cell + (take * key[:, t])[..., None] * value[:, t, :, None]
        normaliser = forget * normaliser + take * key[:, t]
        read, norm = (query[:, t] / math.sqrt(3) * normaliser).sum(-1).abs(), torch.ones(())
        numerator = torch.einsum("bhd,bhdv->bhv", query[:, t] / math.sqrt(3), cell)
        outputs.append(numerator / torch.maximum(read, norm)[..., None])
    expected = torch.stack(outputs, 1)
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    gradients = torch.autograd.grad((expected * weights).sum(), inputs, retain_graph=True)
    output, memory = mlstm(*inputs, eps=0.0, backend="recurrent")
    torch.testing.assert_close(output, expected, **EXACT)
    torch.testing.assert_close(memory.cell * memory.stabiliser.exp()[..., None, None], cell, **EXACT)
    for ours, theirs in zip(torch.autograd.grad((output * weights).sum(), inputs), gradients, strict=True):
        torch.testing.assert_close(ours, theirs, **EXACT)


@pytest.mark.parametrize("chunk_size", [1, 3, 8, 64])
@pytest.mark.parametrize("shape", [(2, 75, 3, 5, 7), (1, 1, 1, 1, 1), (3, 8, 2, 4, 4)])
@pytest.mark.parametrize("form", FORMS[1:])
def test_forms_have_the_values_and_gradients_of_the_reference(form, shape, chunk_size):
    inputs = leaves(tokens(*shape))
    for ours, theirs in zip(
        results(inputs, backend=form, chunk_size=chunk_size), results(inputs, backend="recurrent"), strict=True
    ):
        torch.testing.assert_close(ours, theirs, **EXACT)


@pytest.mark.parametrize("cuts", [[1], [40], [3, 4, 40], [11, 22]])
@pytest.mark.parametrize("form", FORMS)
def test_any_split_has_the_values_and_gradients_of_the_whole(form, cuts):
    inputs = leaves(tokens(2, 41, 2, 3, 5))
    whole, memory = mlstm(*inputs, backend=form, chunk_size=7)
    state, outputs = None, []
    for start, stop in itertools.pairwise([0, *cuts, 41]):
        output, state = mlstm(*(tensor[:, start:stop] for tensor in inputs), state, backend=form, chunk_size=7)
        outputs.append(output)
    weights = torch.randn(whole.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    gradients = [
        torch.autograd.grad((output * weights).sum() + after.cell.sum() + after.normaliser.sum(), inputs)
        for output, after in ((whole, memory), (torch.cat(outputs, 1), state))
    ]
    torch.testing.assert_close(torch.cat(outputs, 1), whole, **EXACT)
    torch.testing.assert_close(vars(state), vars(memory), **EXACT)
    for split, once in zip(*reversed(gradients), strict=True):
        torch.testing.assert_close(split, once, **EXACT)


def difference_of_sums(log_forget):
    """The decay as the difference of two running sums: what the stable form is there to avoid."""
    sums = torch.nn.functional.pad(log_forget.cumsum(-1), (1, 0))
    return (sums[..., 1:, None] - sums[..., None, :]).tril()


@pytest.mark.parametrize("closed", [-15.0, -200.0, -1e3, -1e4, -1e5])
def test_closed_gates_cost_no_precision(closed, monkeypatch):
    """A difference of sums is wrong by the sums' rounding, 2**-24 of their size, which the tolerance would catch."""
    tolerance = 1e-5
    inputs = tokens(2, 256, 2, 8, 8, dtype=torch.float32, closed=closed, positive=True)
    exact, _ = mlstm(*(tensor.double() for tensor in inputs), backend="recurrent")

    def error(form, chunk_size=64):
        output, _ = mlstm(*inputs, backend=form, chunk_size=chunk_size)
        return ((output.double() - exact).abs() / exact.abs().amax(-1, keepdim=True)).max().item()

    assert max(error("recurrent"), error("parallel"), error("chunkwise"), error("chunkwise", 5)) < tolerance
    if closed < -15:
        monkeypatch.setattr(parallel, "faded", difference_of_sums)
        monkeypatch.setattr(chunkwise, "faded", difference_of_sums)
        assert min(error("parallel"), error("chunkwise")) > tolerance


@pytest.mark.parametrize("form", FORMS)
def test_gates_of_infinite_size(form):
    """Taking in nothing, forgetting all or nothing, and both at once: outputs and gradients are numbers."""
    inputs = tokens(1, 9, 2, 3, 3)
    input_gate, forget_gate = inputs[3:]
    forget_gate[0, 2], input_gate[0, 4], forget_gate[0, 4] = -math.inf, -math.inf, -math.inf
    input_gate[0, 6], forget_gate[0, 6] = -math.inf, math.inf
    input_gate[0, 7] = -700.0
    inputs = leaves(inputs)
    found = results(inputs, backend=form, chunk_size=4)
    assert all(part.isfinite().all() for part in found)
    output, _ = mlstm(*inputs, backend=form, chunk_size=4)
    assert not output[0, 4].any()
    before, _ = mlstm(*(tensor[:, :2] for tensor in inputs))
    alone, _ = mlstm(*(tensor[:, 2:4] for tensor in inputs))
    torch.testing.assert_close(output[:, :4], torch.cat([before, alone], 1), rtol=1e-5, atol=0)  # but for eps
    without = [torch.cat([tensor[:, :6], tensor[:, 7:]], 1) for tensor in inputs]
    torch.testing.assert_close(output[:, 7:], mlstm(*without, backend=form)[0][:, 6:], **EXACT)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("gate", [-3e4, 3e4])
def test_input_gates_beyond_the_range_of_their_exponentials(form, gate):
    """A common factor of all input gates cancels where they are large, and leaves nothing where they are small."""
    query, key, value, input_gate, forget_gate = tokens(1, 12, 2, 3, 3, dtype=torch.float32, closed=-5.0)
    forget_gate = forget_gate - 3e4 * (gate < 0)  # so that what came before is no more than the tokens
    inputs = leaves([query, key, value, input_gate + gate, forget_gate])
    assert all(part.isfinite().all() for part in results(inputs, backend=form, chunk_size=5))
    output, _ = mlstm(*inputs, backend=form, chunk_size=5)
    if gate < 0:
        assert not output.any()
    else:
        larger, _ = mlstm(query, key, value, input_gate + 2 * gate, forget_gate, backend=form, chunk_size=5)
        torch.testing.assert_close(larger, output, rtol=5e-2, atol=1e-3)  # 3e4 has steps of 2**-9 in float32


@pytest.mark.parametrize("form", FORMS)
def test_an_empty_memory_may_have_any_unit(form):
    """Zero is zero in the unit 1 and in one of nothing; but for eps, which is in that unit."""
    inputs = leaves(tokens(2, 9, 2, 3, 5))
    empty = Memory(
        cell=torch.zeros(2, 2, 3, 5, dtype=torch.float64),
        normaliser=torch.zeros(2, 2, 3, dtype=torch.float64),
        stabiliser=torch.full((2, 2), -math.inf, dtype=torch.float64),
    )
    found, expected = results(inputs, empty, backend=form, eps=0.0), results(inputs, backend=form, eps=0.0)
    torch.testing.assert_close(found[0], expected[0], **EXACT)
    for ours, theirs in zip(found[4:], expected[4:], strict=True):
        assert ours.isfinite().all()
        torch.testing.assert_close(ours.shape, theirs.shape)
    first, _ = mlstm(*(tensor[:, :1] for tensor in inputs), empty, backend=form)
    plain, _ = mlstm(*(tensor[:, :1] for tensor in inputs), backend=form)
    torch.testing.assert_close(first, plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    inputs = tokens(2, 70, 2, 4, 6, dtype=dtype, closed=-6e4, positive=True)
    exact, _ = mlstm(*(tensor.double() for tensor in inputs), backend="recurrent")
    for form in FORMS:
        output, memory = mlstm(*inputs, backend=form, chunk_size=16)
        assert output.dtype == dtype
        assert {tensor.dtype for tensor in vars(memory).values()} == {torch.float32}
        size = exact.abs().max().item()
        torch.testing.assert_close(output.double(), exact, **rounded_to(dtype, size))


@pytest.mark.parametrize("form", ["auto", *FORMS])
def test_no_token_and_no_row_are_sizes_too(form):
    inputs = leaves(tokens(2, 5, 2, 3, 4))
    _, state = mlstm(*inputs, backend=form)
    output, after = mlstm(*(tensor[:, :0] for tensor in inputs), state, backend=form)
    assert output.shape == (2, 0, 2, 4)
    torch.testing.assert_close(vars(after), vars(state), rtol=0, atol=0)
    output.sum().backward()
    output, after = mlstm(*(tensor[:0] for tensor in inputs), backend=form)
    assert output.shape == (0, 5, 2, 4)
    assert after.cell.shape == (0, 2, 3, 4)


@pytest.mark.parametrize("form", FORMS)
def test_a_memory_that_was_handed_out_never_changes_and_holds_no_more_than_itself(form):
    inputs = tokens(1, 40, 2, 4, 4)
    _, state = mlstm(*inputs, backend=form, chunk_size=4)
    kept = {name: tensor.clone() for name, tensor in vars(state).items()}
    mlstm(*inputs, state, backend=form, chunk_size=4)
    torch.testing.assert_close(vars(state), kept, rtol=0, atol=0)
    assert all(tensor.untyped_storage().nbytes() == tensor.nbytes for tensor in vars(state).values())


def test_forms_by_name_by_length_and_by_environment(monkeypatch):
    taken = []
    for module in (recurrent, parallel, chunkwise):
        compute = module.compute
        monkeypatch.setattr(
            module, "compute", lambda call, name=module.__name__, way=compute: taken.append(name) or way(call)
        )
    short, long = tokens(1, 8, 1, 2, 2), tokens(1, 9, 1, 2, 2)
    mlstm(*short, chunk_size=4)
    mlstm(*long, chunk_size=4)
    mlstm(*long, chunk_size=4, backend="parallel")
    monkeypatch.setenv("HOLDFAST_KERNELS", "reference")
    mlstm(*short, chunk_size=4)
    mlstm(*short, chunk_size=4, backend="chunkwise")
    expected = ["parallel", "chunkwise", "parallel", "recurrent", "chunkwise"]
    assert [name.rpartition(".")[2] for name in taken] == expected


def _unchecked(function, *arguments, **options):
    """A call without the check of shapes that the tests add, which would come first."""
    while hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    return function(*arguments, **options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"key": torch.zeros(1, 3, 2, 5).double()}, r"key: expected shape \(1, 3, 2, 4\), got shape \(1, 3, 2, 5\)"),
        ({"query": torch.zeros(1, 3, 4).double()}, "query: expected four dimensions"),
        ({"key": torch.zeros(1, 3, 2, 4)}, "key: expected the dtype of value, torch.float64, got torch.float32"),
        ({"input_gate": torch.zeros(1, 3, 1)}, r"input_gate: expected shape \(1, 3, 2\), got shape \(1, 3, 1\)"),
        ({"forget_gate": torch.zeros(1, 3, 2).int()}, "forget_gate: expected float16, bfloat16, float32 or float64"),
        ({"forget_gate": 0.0}, "forget_gate: expected a tensor, got float"),
        ({"chunk_size": 0}, "chunk_size: expected a whole number of at least 1, got 0"),
        ({"scale": 0.0}, "scale: expected a number above 0, got 0.0"),
        ({"eps": None}, "eps: expected a number, got None"),
        ({"backend": "fast"}, "backend: expected auto or one of .*, got fast"),
        ({"state": 3}, "state: expected a Memory, as mlstm returns it, or None, got int"),
    ],
)
def test_what_does_not_fit_is_named(change, message):
    given = dict(zip(NAMES, tokens(1, 3, 2, 4, 6), strict=True)) | change
    with pytest.raises(ArgumentError, match=message):
        _unchecked(mlstm, **given)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda tensor: tensor.float(),
            r"a cell of shape \(1, 2, 4, 6\) in torch.float64 on cpu, got one of .*float32",
        ),
        (lambda tensor: tensor[:0], r"a cell of shape \(1, 2, 4, 6\) .*, got one of shape \(0, 2, 4, 6\)"),
        (lambda tensor: tensor.to("meta"), "a cell of .* on cpu, got one of .* on meta"),
    ],
)
def test_a_memory_of_another_call_is_refused(change, message):
    inputs = tokens(1, 3, 2, 4, 6)
    _, state = mlstm(*inputs)
    with pytest.raises(ArgumentError, match=message):
        mlstm(*inputs, Memory(**{name: change(tensor) for name, tensor in vars(state).items()}))


TRACED = """
import torch
from holdfast.nn import MLSTM, Layout, mlstm

def core(query, key, value, input_gate, forget_gate):
    return 2 * mlstm(query, key, value, input_gate, forget_gate, chunk_size=4)[0]

torch.manual_seed(0)
compiled = torch.compile(core, backend="eager", fullgraph=True)
for time in (6, 29):
    shapes = [(2, time, 2, 3)] * 3 + [(2, time, 2)] * 2
    inputs = [torch.randn(*shape, dtype=torch.float64).requires_grad_() for shape in shapes]
    outputs = compiled(*inputs), core(*inputs)
    torch.testing.assert_close(*outputs, atol=1e-12, rtol=1e-12)
    gradients = (torch.autograd.grad(output.sum(), inputs) for output in outputs)
    torch.testing.assert_close(*gradients, atol=1e-12, rtol=1e-12)

layer = MLSTM(12, 4).double()
whole = torch.compile(layer, backend="eager", fullgraph=True)
x = torch.randn(2, 7, 12, dtype=torch.float64)
layout = Layout.of_mask(torch.arange(7) < torch.tensor([[7], [4]]))
with torch.no_grad():
    for given in (None, layout):
        output, state = whole(x, None, given)
        expected, before = layer(x, None, given)
        torch.testing.assert_close(output, expected, atol=1e-12, rtol=1e-12)
        for _ in range(2):
            output, state = whole(x[:, :3], state)
            expected, before = layer(x[:, :3], before)
            torch.testing.assert_close(output, expected, atol=1e-12, rtol=1e-12)
"""


def test_compiled_functions():
    """In an interpreter without run-time checks of shapes, which compilers cannot follow."""
    answer = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", TRACED], capture_output=True, text=True, check=False, timeout=200
    )
    assert answer.returncode == 0, answer.stderr
