"""RAT's core by PyTorch's own operations: the reference's numbers, gradients and causality, in bounded memory."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import fields, replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from holdfast.errors import ArgumentError
from holdfast.nn import LogN, Sparsemax, rat_attention
from holdfast.nn.normalisers import Adaptive, Llama4, SSMax, YaRN
from holdfast.nn.rat import blocked, decode, reference, windows
from holdfast.nn.rat.call import ChunkCall, Past
from holdfast.nn.rat.rat_attention import computed
from tests.nn.rounding import combined, rounded_to, rounding

EXACT = {"atol": 1e-12, "rtol": 1e-12}

SHAPES = [  # batch, time, heads, groups, dim
    (1, 1, 1, 1, 2),
    (3, 37, 4, 2, 6),
    (2, 65, 6, 3, 4),
]
CHUNK_SIZES = [1, 2, 4, 16, 64]


def make(shape, chunk_size, *, past=None, rope=True, dtype=torch.float64, grad=False, normaliser=None, seed=0):
    """A call; `past` is the number of closed states, of which rows have from none to all."""
    batch, time, heads, groups, dim = shape
    generator = torch.Generator().manual_seed(seed)

    def normal(*size):
        return torch.randn(*size, generator=generator, dtype=torch.float64).to(dtype).requires_grad_(grad)

    query, key = normal(batch, time, groups, dim), normal(batch, time, groups, dim)
    value, gate = normal(batch, time, heads, dim), normal(batch, time, heads, dim)
    before = None
    if past is not None:
        states = [normal(batch, heads, past, dim) for _ in range(2)]
        running = [normal(batch, heads, dim).detach().to(torch.promote_types(dtype, torch.float32)) for _ in range(2)]
        before = Past(
            keys=states[0],
            values=states[1],
            count=torch.arange(batch) * past // max(1, batch - 1),
            running_key=running[0].requires_grad_(grad),
            running_value=running[1].requires_grad_(grad),
        )
    options = {} if normaliser is None else {"normaliser": normaliser}
    return ChunkCall(
        query=query,
        key=key,
        value=value,
        gate=gate.detach().sigmoid().requires_grad_(grad),
        chunk_size=chunk_size,
        scale=dim**-0.5,
        rope_theta=100.0 if rope else None,
        past=before,
        **options,
    )


def tensors(call):
    """What a call can be differentiated in."""
    past = [] if call.past is None else [getattr(call.past, field.name) for field in fields(Past)]
    return [tensor for tensor in (call.query, call.key, call.value, call.gate, *past) if tensor.is_floating_point()]


def parts(answer):
    return answer.output, answer.key_ends, answer.value_ends


def gradients(backend, call):
    generator = torch.Generator().manual_seed(1)
    outputs = parts(backend.compute(call))
    asked = [torch.randn(o.shape, generator=generator, dtype=torch.float64).to(o.dtype) for o in outputs]
    return torch.autograd.grad(outputs, tensors(call), asked)


@pytest.mark.parametrize("rope", [False, True])
@pytest.mark.parametrize("past", [None, 0, 5])
@pytest.mark.parametrize("chunk_size", CHUNK_SIZES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_is_the_reference_in_values_and_gradients(shape, chunk_size, past, rope):
    call = make(shape, chunk_size, past=past, rope=rope, grad=True)
    assert blocked.refusal(call) is None
    expected = parts(reference.compute(call))
    with torch.no_grad():
        torch.testing.assert_close(parts(blocked.compute(call)), expected, **EXACT)
    torch.testing.assert_close(parts(blocked.compute(call)), expected, **EXACT)
    torch.testing.assert_close(gradients(blocked, call), gradients(reference, call), **EXACT)


@pytest.mark.parametrize("past", [None, 3])
def test_is_the_reference_in_many_windows_of_few_heads(monkeypatch, past):
    monkeypatch.setattr(windows, "ROWS", 8)
    monkeypatch.setattr(windows, "TABLE", 64)
    monkeypatch.setattr(blocked, "STATES", 256)
    call = make((5, 43, 4, 2, 4), 4, past=past, grad=True)
    torch.testing.assert_close(parts(blocked.compute(call)), parts(reference.compute(call)), **EXACT)
    torch.testing.assert_close(gradients(blocked, call), gradients(reference, call), **EXACT)


@pytest.mark.parametrize("normaliser", [LogN(4), SSMax(0.7), YaRN(8.0), Llama4(0.5, 3.0)], ids=str)
@pytest.mark.parametrize("time", [1, 19])
@pytest.mark.parametrize("past", [None, 4])
def test_factors_of_the_row(normaliser, time, past):
    call = make((3, time, 4, 2, 4), 4, past=past, grad=True, normaliser=normaliser)
    assert blocked.refusal(call) is None
    torch.testing.assert_close(parts(blocked.compute(call)), parts(reference.compute(call)), **EXACT)
    torch.testing.assert_close(gradients(blocked, call), gradients(reference, call), **EXACT)


@pytest.mark.parametrize("backend", [blocked, reference])
def test_free_slots_change_no_position(backend):
    """Of one row too, as in a cache of a fixed size."""
    call = make((1, 7, 2, 1, 4), 2, past=6, normaliser=Llama4(0.5, 3.0))
    free = replace(call, past=replace(call.past, count=torch.tensor([2])))
    none = replace(call, past=replace(free.past, keys=free.past.keys[:, :, :2], values=free.past.values[:, :, :2]))
    torch.testing.assert_close(parts(backend.compute(free)), parts(backend.compute(none)), **EXACT)


def test_leaves_other_normalisers_to_the_reference():
    for normaliser in (Adaptive(), Sparsemax(), SSMax((0.1, 0.2, 0.3, 0.4))):
        call = make((1, 9, 4, 2, 4), 2, normaliser=normaliser)
        assert blocked.refusal(call)
        torch.testing.assert_close(parts(computed(call)), parts(reference.compute(call)), atol=0, rtol=0)
        with pytest.raises(ArgumentError, match="backend"):
            computed(call, "torch")


def test_gradcheck():
    call = make((2, 7, 2, 1, 3 + 1), 3, past=2, grad=True)
    inputs = tensors(call)

    def run(query, key, value, gate, keys, values, running_key, running_value):
        past = Past(
            keys=keys, values=values, count=call.past.count, running_key=running_key, running_value=running_value
        )
        return parts(blocked.compute(replace(call, query=query, key=key, value=value, gate=gate, past=past)))

    assert torch.autograd.gradcheck(run, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(run, inputs, fast_mode=True)


def test_a_cache_may_be_written_to_before_the_backward_pass():
    call = make((2, 7, 2, 1, 4), 3, past=4, grad=True)
    past = replace(call.past, keys=call.past.keys.detach().clone(), values=call.past.values.detach().clone())
    call = replace(call, past=past)
    inputs = (call.query, call.key, call.value, call.gate)
    expected = torch.autograd.grad(blocked.compute(call).output.sum(), inputs)
    output = blocked.compute(call).output.sum()
    past.keys.fill_(math.nan)
    past.values.fill_(math.nan)
    torch.testing.assert_close(torch.autograd.grad(output, inputs, retain_graph=True), expected, **EXACT)
    of_query = torch.autograd.grad(output, call.query, create_graph=True)[0]
    torch.testing.assert_close(of_query, expected[0], **EXACT)


@pytest.mark.parametrize("time", [1, 9])
@pytest.mark.parametrize("poison", [math.nan, math.inf, 1e30])
def test_what_is_no_state_of_a_row_reaches_nothing(time, poison):
    call = make((3, time, 4, 2, 4), 4, past=6, dtype=torch.float32)
    hidden = (torch.arange(6) >= call.past.count[:, None])[:, None, :, None]
    poisoned = [states.masked_fill(hidden, poison) for states in (call.past.keys, call.past.values)]
    other = replace(call, past=replace(call.past, keys=poisoned[0], values=poisoned[1]))
    torch.testing.assert_close(parts(blocked.compute(other)), parts(blocked.compute(call)), atol=0, rtol=0)
    for half in (torch.bfloat16, torch.float16):
        narrow = replace(other, past=replace(other.past, keys=poisoned[0].to(half), values=poisoned[1].to(half)))
        assert all(part.isfinite().all() for part in parts(blocked.compute(narrow)))


@pytest.mark.parametrize("broken", ["query", "key", "value", "gate"])
@pytest.mark.parametrize("poison", [math.nan, math.inf])
@pytest.mark.parametrize("token", [7, 8, 20])
@pytest.mark.parametrize("chunk_size", [1, 4])
def test_what_is_not_finite_reaches_its_row_from_its_token_on(monkeypatch, broken, poison, token, chunk_size):
    monkeypatch.setattr(windows, "ROWS", 8)  # three windows of two chunks
    call = make((2, 22, 4, 2, 4), chunk_size, dtype=torch.float32)
    whole = blocked.compute(call).output
    tensor = getattr(call, broken).clone()
    tensor[1, token, 0, 1] = poison
    output = blocked.compute(replace(call, **{broken: tensor})).output
    torch.testing.assert_close(output[0], whole[0], atol=0, rtol=0)
    torch.testing.assert_close(output[1, :token], whole[1, :token], atol=0, rtol=0)
    assert not output[1, token].isfinite().all()


@pytest.mark.parametrize("chunk_size", [1, 4, 16])
def test_no_token_reaches_an_earlier_one(monkeypatch, chunk_size):
    monkeypatch.setattr(windows, "ROWS", 16)
    call = make((1, 33, 2, 1, 4), chunk_size, dtype=torch.float32, grad=True)
    names = ("query", "key", "value", "gate")
    whole = blocked.compute(call).output
    for token in (1, 3, 4, 15, 16, 17, 31, 32):
        changed = {name: getattr(call, name).detach().clone() for name in names}
        for tensor in changed.values():
            tensor[:, token] = 0.125
        output = blocked.compute(replace(call, **changed)).output
        torch.testing.assert_close(output[:, :token], whole[:, :token], atol=0, rtol=0)
        assert (output[:, token] != whole[:, token]).any()
        of_inputs = torch.autograd.grad(whole[:, token].sum(), [getattr(call, n) for n in names], retain_graph=True)
        assert all((gradient[:, token + 1 :] == 0).all() for gradient in of_inputs)
        assert of_inputs[2][:, token].all()


def test_by_hand():
    # One head of one channel; the first chunk ends with key 0.75 and value 1.25, where the third token has 0.5 and 1.5.
    ones, half = torch.ones(1, 4, 1, 1, dtype=torch.float64), torch.full((1, 4, 1, 1), 0.5, dtype=torch.float64)
    value = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64).view(1, 4, 1, 1)
    for query, third in ((0.0, 1.375), (1.0, 1.3594558747785506)):
        output = rat_attention(query * ones, ones, value, half, chunk_size=2, scale=1.0, backend="torch")
        torch.testing.assert_close(
            output.flatten(), torch.tensor([0.5, 1.25, third, 2.0], dtype=torch.float64), **EXACT
        )


@pytest.mark.parametrize("time", [1, 2])
def test_positions_by_hand(time):
    # The closed key is turned to position 0 and the query stands at 1, where its own key does: cos(1) / sqrt(2) and
    # 1 / sqrt(2) are the logits.
    unit = torch.tensor([1.0, 0.0], dtype=torch.float64).view(1, 1, 1, 2)
    past = Past(
        keys=unit,
        values=torch.zeros_like(unit),
        count=torch.ones(1, dtype=torch.long),
        running_key=torch.zeros(1, 1, 2, dtype=torch.float64),
        running_value=torch.zeros(1, 1, 2, dtype=torch.float64),
    )
    rows = unit.expand(1, time, 1, 2)
    call = ChunkCall(
        query=rows,
        key=rows,
        value=rows,
        gate=torch.zeros_like(rows),
        chunk_size=4,
        scale=2**-0.5,
        rope_theta=1e4,
        past=past,
    )
    share = 1 / (1 + math.exp((math.cos(1) - 1) / math.sqrt(2)))
    assert share == pytest.approx(0.5805558, abs=1e-7)
    output = blocked.compute(call).output
    torch.testing.assert_close(output[0, -1, 0], torch.tensor([share, 0.0], dtype=torch.float64), **EXACT)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("time", [1, 50])
def test_narrow_dtypes(dtype, time):
    call = make((2, time, 4, 2, 8), 4, past=7, dtype=dtype, grad=True)
    call = replace(call, gate=call.gate.detach().float().requires_grad_())  # which is never rounded
    exact = {name: getattr(call, name).detach().double().requires_grad_() for name in ("query", "key", "value", "gate")}
    past = {field.name: getattr(call.past, field.name) for field in fields(Past)}
    wide = {name: t.detach().double().requires_grad_() for name, t in past.items() if name != "count"}
    twin = replace(call, **exact, past=replace(call.past, **wide))
    in_float32 = rounding(torch.float32, 64, dim=8, logit=8.0, size=4.0)
    tolerance = in_float32 if dtype == torch.float32 else combined(in_float32, rounded_to(dtype, 4.0))
    expected = [part.detach() for part in parts(reference.compute(twin))]
    for answer in (blocked.compute(call), _without_gradient(call)):
        assert answer.output.dtype == dtype
        assert answer.key_ends.dtype == answer.value_ends.dtype == torch.float32
        for part, other in zip(parts(answer), expected, strict=True):
            torch.testing.assert_close(part.double(), other, **tolerance)
    for gradient, tensor, other in zip(
        gradients(blocked, call), tensors(call), gradients(reference, twin), strict=True
    ):
        assert gradient.dtype == tensor.dtype
        # The gradients that are handed in are rounded too, and some of them are summed over all tokens.
        size = 4.0 * float(other.abs().max())
        steps = combined(rounding(torch.float32, 64, dim=8, logit=8.0, size=size), rounded_to(dtype, 4 * size))
        torch.testing.assert_close(gradient.double(), other, **steps)


def _without_gradient(call):
    with torch.no_grad():
        return blocked.compute(call)


def test_extremes_stay_finite():
    call = make((1, 40, 2, 1, 4), 4, dtype=torch.float16)
    huge = replace(call, query=torch.full_like(call.query, 1e4), key=100 * call.key)
    for time in (40, 1):
        short = {name: getattr(huge, name)[:, :time] for name in ("query", "key", "value", "gate")}
        assert blocked.compute(replace(huge, **short)).output.isfinite().all()
    for fill in (0.0, 1.0):
        gate = torch.full_like(call.gate, fill)
        answer = blocked.compute(replace(call, gate=gate))
        assert all(part.isfinite().all() for part in parts(answer))
        assert bool((answer.output == 0).all()) == (fill == 1.0)


class Largest(TorchDispatchMode):
    """Records how many numbers the largest tensor that any operation made has, views and all behind them."""

    def __init__(self, *given):
        super().__init__()
        self.numbers = 0
        self.given = {tensor.untyped_storage().data_ptr() for tensor in given}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage().data_ptr() not in self.given:
                self.numbers = max(self.numbers, tensor.untyped_storage().nbytes() // tensor.element_size())
        return result


def test_memory_does_not_grow_with_the_product_of_tokens_and_chunks():
    call = make((1, 8192, 2, 1, 8), 4, dtype=torch.float32, rope=False, grad=True)
    bound = 3 * windows.ROWS * call.chunks + 4 * call.value.numel()
    assert bound < 2 * call.time * call.chunks / 8  # an eighth of all logits
    with Largest() as largest:
        output = blocked.compute(call).output
    assert 0 < largest.numbers <= bound
    with Largest() as largest:
        torch.autograd.grad(output, call.query, torch.ones_like(output))
    assert 0 < largest.numbers <= bound


def test_one_token_makes_no_copy_of_the_past(monkeypatch):
    call = make((2, 1, 4, 2, 8), 4, past=300, dtype=torch.float32)
    past = replace(call.past, count=torch.full((2,), 300))
    of_logits = 2 * 4 * 301
    with Largest(past.keys, past.values) as largest, torch.no_grad():
        blocked.compute(replace(call, past=past))
    assert 0 < largest.numbers <= of_logits
    monkeypatch.setattr(decode, "PIECE", 2 * 300 * 8)  # two heads at a time
    half = replace(past, keys=past.keys.bfloat16(), values=past.values.bfloat16())
    with Largest(half.keys, half.values) as largest, torch.no_grad():
        blocked.compute(replace(call, past=half))
    assert 0 < largest.numbers <= decode.PIECE < past.keys.numel()


TRACED = """
import torch
from holdfast.nn import RAT, Plain, rat_attention
from holdfast.nn.rat import blocked
from holdfast.nn.rat.call import ChunkCall, Past

plain = Plain()

def heads(time, *groups):
    return [torch.randn(2, time, number, 4, dtype=torch.float64, requires_grad=True) for number in groups]

def core(query, key, value, gate):
    return 2 * rat_attention(query, key, value, gate.sigmoid(), chunk_size=4, rope_theta=100.0)

compiled = torch.compile(core, backend="eager")
for time in (9, 14):
    inputs = heads(time, 2, 2, 4, 4)
    outputs = compiled(*inputs), core(*inputs)
    torch.testing.assert_close(*outputs, atol=0, rtol=0)
    torch.testing.assert_close(*(torch.autograd.grad(o.sum(), inputs) for o in outputs), atol=0, rtol=0)

def step(query, keys, values, running):
    past = Past(keys=keys, values=values, count=torch.tensor([2, 3]), running_key=running, running_value=running)
    return blocked.compute(ChunkCall(query=query, key=query, value=running[:, None], gate=running[:, None].sigmoid(),
                                     chunk_size=4, scale=0.5, rope_theta=100.0, past=past, normaliser=plain)).output

with torch.no_grad():
    inputs = [*heads(1, 2), *(torch.randn(2, 4, 3, 4, dtype=torch.float64) for _ in range(2)), heads(1, 4)[0][:, 0]]
    once = torch.compile(step, backend="eager", fullgraph=True)
    torch.testing.assert_close(once(*inputs), step(*inputs), atol=1e-12, rtol=1e-12)

class Output(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = RAT(16, 4, chunk_size=4).double()

    def forward(self, x):
        return self.layer(x)[0]

layer, any_size = Output(), torch.export.Dim.AUTO
with torch.no_grad():
    inputs = torch.randn(2, 9, 16, dtype=torch.float64), torch.randn(5, 50, 16, dtype=torch.float64)
    program = torch.export.export(layer, inputs[:1], dynamic_shapes=({0: any_size, 1: any_size},)).module()
    torch.testing.assert_close(program(inputs[1]), layer(inputs[1]), atol=1e-12, rtol=1e-12)
"""


def test_compiled_and_exported_functions():
    """In an interpreter without run-time checks of shapes, which compilers cannot follow."""
    answer = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", TRACED], capture_output=True, text=True, check=False, timeout=200
    )
    assert answer.returncode == 0, answer.stderr


@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")  # torch's own, in its formulas
def test_transforms_of_functions():
    call = make((3, 9, 4, 2, 4), 4)
    inputs = (call.query, call.key, call.value, call.gate)

    def run(*given):
        return rat_attention(*given, chunk_size=4)

    expected = run(*inputs)
    mapped = torch.func.vmap(run)(*(tensor[:, None] for tensor in inputs))
    torch.testing.assert_close(mapped[:, 0], expected, **EXACT)
    primal, tangent = torch.func.jvp(run, inputs, tuple(torch.ones_like(tensor) for tensor in inputs))
    torch.testing.assert_close(primal, expected, **EXACT)
    step = 1e-6
    ahead, back = (run(*(tensor + sign * step for tensor in inputs)) for sign in (1, -1))
    torch.testing.assert_close(tangent, (ahead - back) / (2 * step), atol=1e-7, rtol=1e-7)


def test_the_environment_forces_the_reference(monkeypatch):
    call = make((1, 5, 2, 1, 4), 2)
    asked = []
    for module, name in ((blocked, "torch"), (reference, "reference")):
        compute = module.compute
        monkeypatch.setattr(module, "compute", lambda call, n=name, c=compute: (asked.append(n), c(call))[1])
    computed(call)
    monkeypatch.setenv("HOLDFAST_KERNELS", "reference")
    computed(call)
    computed(call, "torch")  # who asks for one gets it
    assert asked == ["torch", "reference", "torch"]
