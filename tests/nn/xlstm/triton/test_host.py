"""The kernels against the reference in float64: on a GPU where there is one, otherwise in Triton's interpreter."""

from __future__ import annotations

import math
import sys
import warnings
from dataclasses import replace

import pytest
import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
triton = pytest.importorskip("triton", reason="triton is not installed")


from holdfast.errors import ArgumentError  # noqa: E402
from holdfast.nn import MLSTM  # noqa: E402
from holdfast.nn.xlstm import recurrent  # noqa: E402
from holdfast.nn.xlstm.call import Memory, MLSTMCall  # noqa: E402
from holdfast.nn.xlstm.mlstm import computed, mlstm  # noqa: E402
from holdfast.nn.xlstm.triton import host, kernels  # noqa: E402
from tests.nn.rounding import combined, rounded_to, rounding  # noqa: E402


@triton.jit
def _loop(out, n):
    for i in range(n):
        triton.language.store(out + i, 1.0)


def _cannot_loop() -> bool:
    """Whether Triton's interpreter cannot count: 3.6 asks for what numpy 2.4 no longer does."""
    if DEVICE == "cuda" or not kernels.INTERPRETED:
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            _loop[(1,)](torch.zeros(3), 3)
        except Exception as error:
            return "0-dimensional arrays" in repr(error)
    return False


pytestmark = [
    pytest.mark.gpu,  # on a CUDA device where there is one, in the interpreter elsewhere
    pytest.mark.skipif(_cannot_loop(), reason="this Triton's interpreter cannot loop with this numpy"),
    pytest.mark.skipif(DEVICE == "cpu" and not kernels.INTERPRETED, reason="triton was imported before this module"),
    # The interpreter computes what a mask then hides, on numpy.
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:Conversion of an array with ndim > 0:DeprecationWarning"),
]

on_gpu = pytest.mark.skipif(DEVICE == "cpu", reason="needs a GPU")

VECTORS = ("query", "key", "value")
GATES = ("input_gate", "forget_gate")
STATES = ("cell", "normaliser")
LARGEST_GATE = 12.0


@pytest.fixture(autouse=True)
def poison(monkeypatch: pytest.MonkeyPatch):
    """Memory that nobody has written to holds NaN."""
    monkeypatch.delenv(host.VARIABLE, raising=False)
    torch.use_deterministic_algorithms(True, warn_only=True)
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


def make(time, heads, dim, value_dim, *, chunk_size=16, past=False, dtype=torch.float32, closed=-1e5):
    """A call whose vectors lie inside larger buffers of NaN, with strides of their own; one gate in ten is closed."""
    generator = torch.Generator().manual_seed(time * 1009 + chunk_size * 31 + dim)

    def one(*shape, dtype=torch.float32):
        around = torch.full([size + 3 for size in shape], math.nan, dtype=dtype, device=DEVICE)
        inside = around[tuple(slice(1, size + 1) for size in shape)]
        return inside.copy_(torch.randn(inside.shape, generator=generator))

    forget_gate = 3 * one(heads, time)
    forget_gate[torch.rand(heads, time, generator=generator).to(DEVICE) < 0.1] = closed
    cell, normaliser, stabiliser = one(heads, dim, value_dim), one(heads, dim), one(heads)
    return MLSTMCall(
        query=one(heads, time, dim, dtype=dtype),
        key=one(heads, time, dim, dtype=dtype),
        value=one(heads, time, value_dim, dtype=dtype),
        input_gate=(3 * one(heads, time)).clamp(-LARGEST_GATE, LARGEST_GATE),
        forget_gate=forget_gate,
        memory=Memory(cell=past * cell, normaliser=past * normaliser, stabiliser=past * stabiliser),
        scale=dim**-0.5,
        chunk_size=chunk_size,
    )


def changed(call, change):
    """The call with all of its tensors as `change` leaves them."""
    memory = Memory(**{name: change(tensor) for name, tensor in vars(call.memory).items()})
    return replace(call, memory=memory, **{name: change(getattr(call, name)) for name in (*VECTORS, *GATES)})


def answer_and_gradients(module, call, parts=("output", *STATES)):
    """Every part of the answer, and the gradients of a product of some of them with fixed numbers."""
    call = changed(call, lambda tensor: tensor.detach().requires_grad_())
    call = replace(call, memory=replace(call.memory, stabiliser=call.memory.stabiliser.detach()))
    answer = module.compute(call)
    found = {"output": answer.output, **vars(answer.memory)}
    generator = torch.Generator().manual_seed(5)
    total = 0.0
    for name in parts:
        total = total + (found[name] * torch.randn(found[name].shape, generator=generator).to(found[name])).sum()
    total.backward()
    leaves = {name: getattr(call, name) for name in (*VECTORS, *GATES)}
    leaves |= {name: getattr(call.memory, name) for name in STATES}
    gradients = {name: torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for name, leaf in leaves.items()}
    return {name: part.detach() for name, part in found.items()}, gradients


def tolerance(call, expected):
    """Sums over tokens and channels of terms as large as the results, with exponentials of the gates in float32.

    A denominator may be as small as the terms that cancel in it, hence the size.
    """
    terms = call.time * call.value.shape[2] + call.query.shape[2]
    size = max([1.0, *expected.abs().flatten().tolist()])
    once = rounding(torch.float32, terms, logit=2 * LARGEST_GATE, size=size)
    if call.value.dtype == torch.float32:
        return once
    return combined(once, rounded_to(call.value.dtype, 8 * size))


def agree(call, parts=("output", *STATES)):
    got = answer_and_gradients(host, call, parts)
    wanted = answer_and_gradients(recurrent, changed(call, torch.Tensor.double), parts)
    for values, exacts in zip(got, wanted, strict=True):
        assert values.keys() == exacts.keys()
        for name, expected in exacts.items():
            torch.testing.assert_close(
                values[name].double(), expected, **tolerance(call, expected), msg=lambda text, of=name: f"{of}: {text}"
            )
    return got


CASES = {
    "one token": make(1, 1, 3, 5),
    "one token with a past": make(1, 2, 6, 6, past=True),
    "whole chunks": make(32, 2, 6, 6),
    "an open chunk, and tiles of both kinds of channels": make(41, 2, 21, 35, past=True),
    "a chunk of 64": make(70, 1, 4, 4, chunk_size=33),
    "chunks below the least": make(20, 1, 4, 4, chunk_size=1, past=True),
}


@pytest.mark.parametrize("name", CASES)
def test_answers_and_gradients_are_those_of_the_reference(name):
    agree(CASES[name])


def test_half_precision():
    got, gradients = agree(make(21, 2, 6, 6, past=True, dtype=torch.float16, closed=-20.0))
    assert got["output"].dtype == torch.float16
    assert {got[name].dtype for name in (*STATES, "stabiliser")} == {torch.float32}
    assert gradients["query"].dtype == torch.float16


@pytest.mark.parametrize("parts", [("output",), ("cell",), ("normaliser",)])
def test_a_part_may_have_no_gradient(parts):
    agree(make(20, 2, 6, 6, past=True), parts)


def test_gates_of_infinite_size():
    call = changed(make(20, 1, 4, 4), torch.clone)
    call.input_gate[0, 3], call.forget_gate[0, 17] = -math.inf, math.inf
    call.input_gate[0, 5:], call.forget_gate[0, 5:] = -math.inf, math.inf  # the second chunk takes in nothing at all
    _, gradients = agree(call)
    assert all(gradient.isfinite().all() for gradient in gradients.values())


def test_channels_need_not_lie_next_to_each_other():
    call = make(20, 2, 6, 6)
    apart = changed(call, lambda tensor: tensor.mT.contiguous().mT if tensor.ndim == 3 else tensor)
    assert apart.value.stride(-1) != 1
    torch.testing.assert_close(host.compute(apart).output, host.compute(call).output, rtol=0, atol=0)


def test_a_layer_by_the_kernels():
    """Several rows, padding that is inert, and a state that goes on."""
    torch.manual_seed(0)
    layer = MLSTM(24, 4).to(DEVICE)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    x = torch.randn(3, 37, 24, generator=torch.Generator().manual_seed(1)).to(DEVICE)
    expected = layer(x)[0]
    layer.backend = "triton"
    first, state = layer(x[:, :19])
    second, _ = layer(x[:, 19:], state)
    torch.testing.assert_close(torch.cat([first, second], 1), expected, rtol=1e-4, atol=1e-4)


def test_the_gradient_has_no_gradient():
    call = changed(make(4, 1, 4, 4), lambda tensor: tensor.detach().clone().requires_grad_())
    call = replace(call, memory=replace(call.memory, stabiliser=call.memory.stabiliser.detach()))
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(host.compute(call).output.sum(), call.value, create_graph=True)


def test_what_the_kernels_do_not_take():
    call = make(3, 1, 4, 4)
    for other, reason in (
        (changed(call, torch.Tensor.double), "torch.float64"),
        (changed(call, lambda tensor: tensor.to("meta")), "on meta"),
    ):
        assert reason in host.refusal(other)
        with pytest.raises(ArgumentError, match=reason):
            computed(other, "triton")


def test_without_triton_there_are_other_backends(monkeypatch):
    monkeypatch.setenv(host.VARIABLE, "triton")
    monkeypatch.setitem(sys.modules, "triton", None)
    call = make(3, 1, 4, 4)
    assert host.refusal(call) == "triton is not installed"
    assert computed(call).output.isfinite().all()


def test_the_kernels_are_taken_on_request_only(monkeypatch):
    taken = []
    compute = host.compute
    monkeypatch.setattr(host, "compute", lambda call: taken.append(call) or compute(call))
    call = make(5, 2, 6, 6)
    inputs = [getattr(call, name).unsqueeze(2) for name in (*VECTORS, *GATES)]  # two rows of one head
    unasked, _ = mlstm(*inputs)
    monkeypatch.setenv(host.VARIABLE, "reference")
    mlstm(*inputs)
    assert taken == []
    monkeypatch.setenv(host.VARIABLE, "triton")
    by_environment, _ = mlstm(*inputs)
    doubled, _ = mlstm(*(tensor.double() for tensor in inputs))
    monkeypatch.delenv(host.VARIABLE)
    by_name, _ = mlstm(*inputs, backend="triton")
    assert len(taken) == 2
    assert torch.equal(by_environment, by_name)
    torch.testing.assert_close(by_name.double(), doubled, **tolerance(call, doubled))
    torch.testing.assert_close(unasked.double(), doubled, **tolerance(call, doubled))
    monkeypatch.setenv(host.VARIABLE, "nonsense")
    with pytest.raises(ArgumentError, match="triton or reference"):
        mlstm(*inputs)


@on_gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dim", [64, 256, 640])
def test_sizes_as_they_are_in_use(dim, dtype):
    agree(make(1187, 4, dim, dim, chunk_size=64, dtype=dtype, past=True))
