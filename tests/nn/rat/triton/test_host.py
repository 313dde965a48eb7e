"""The kernels against the reference in float64: on a GPU where there is one, otherwise in Triton's interpreter."""

from __future__ import annotations

import math
import sys
import warnings
from dataclasses import fields, replace

import pytest
import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
triton = pytest.importorskip("triton", reason="triton is not installed")


from holdfast.errors import ArgumentError  # noqa: E402
from holdfast.nn.normalisers import LogN, Plain  # noqa: E402
from holdfast.nn.rat import rat_attention, reference  # noqa: E402
from holdfast.nn.rat.call import ChunkAnswer, ChunkCall, Past  # noqa: E402
from holdfast.nn.rat.rat_attention import computed  # noqa: E402
from holdfast.nn.rat.triton import host, kernels, launches  # noqa: E402
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

INPUTS = ("query", "key", "value", "gate")
STATES = ("keys", "values", "running_key", "running_value")


@pytest.fixture(autouse=True)
def poison(monkeypatch: pytest.MonkeyPatch):
    """Memory that nobody has written to holds NaN."""
    monkeypatch.delenv(host.VARIABLE, raising=False)
    torch.use_deterministic_algorithms(True, warn_only=True)
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


def chunk_call(
    time, heads, groups, dim, chunk_size, *, batch=1, theta=1e4, past=None, dtype=torch.float32, gate=torch.float32
):
    """A call whose tensors lie inside larger buffers of NaN, with strides of their own.

    `past` is the capacity of the states of chunks, and each row's count; what is no row's is NaN.
    """
    generator = torch.Generator().manual_seed(time * 1009 + chunk_size * 31 + dim)

    def one(*shape, dtype=torch.float32, scale=1.0):
        around = torch.full([size + 3 for size in shape], math.nan, dtype=dtype, device=DEVICE)
        inside = around[tuple(slice(1, size + 1) for size in shape)]
        return inside.copy_(scale * torch.randn(inside.shape, generator=generator))

    before = None
    if past is not None:
        capacity, counts = past
        count = torch.tensor(counts, device=DEVICE)
        dead = torch.arange(capacity, device=DEVICE)[:, None] >= count[:, None, None, None]
        before = Past(
            keys=one(batch, heads, capacity, dim, dtype=dtype).masked_fill_(dead, math.nan),
            values=one(batch, heads, capacity, dim, dtype=dtype).masked_fill_(dead, math.nan),
            count=count,
            running_key=one(batch, heads, dim),
            running_value=one(batch, heads, dim),
        )
    return ChunkCall(
        query=one(batch, time, groups, dim, dtype=dtype, scale=2.0),
        key=one(batch, time, groups, dim, dtype=dtype),
        value=one(batch, time, heads, dim, dtype=dtype),
        gate=one(batch, time, heads, dim, dtype=gate, scale=2.0).sigmoid_(),
        chunk_size=chunk_size,
        scale=dim**-0.5,
        rope_theta=theta,
        past=before,
    )


def changed(call, change):
    """The call with all of its floating tensors as `change` leaves them."""
    past = call.past
    if past is not None:
        past = replace(past, **{name: change(getattr(past, name)) for name in STATES})
    return replace(call, past=past, **{name: change(getattr(call, name)) for name in INPUTS})


def exact(call):
    """The call in float64; NaN, which the reference multiplies by 0 in its backward pass, is 0."""
    return changed(call, lambda tensor: tensor.detach().double().nan_to_num(0.0))


def answer_and_gradients(module, call, parts=("output", "key_ends", "value_ends")):
    """Every part of the answer, and the gradients of a product of some of them with fixed numbers."""
    call = changed(call, lambda tensor: tensor.detach().requires_grad_())
    answer = module.compute(call)
    generator = torch.Generator().manual_seed(5)
    total = 0.0
    for name in parts:
        part = getattr(answer, name)
        total = total + (part * torch.randn(part.shape, generator=generator).to(part)).sum()
    total.backward()
    leaves = {name: getattr(call, name) for name in INPUTS}
    leaves |= {} if call.past is None else {name: getattr(call.past, name) for name in STATES}
    results = {field.name: getattr(answer, field.name).detach() for field in fields(ChunkAnswer)}
    # Leaves that the parts do not depend on have no gradient.
    gradients = {name: torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for name, leaf in leaves.items()}
    return results, gradients


def tolerance(call, expected, dtype):
    """A sum over heads, tokens and states, of terms as large as the result, computed in float32."""
    states = call.chunks + (0 if call.past is None else call.past.keys.shape[2])
    logit = 2 * math.sqrt(call.value.shape[-1])
    terms = call.repeats * (call.chunk_size + call.time + states)
    size = max([1.0, *expected.abs().flatten().tolist()])
    once = rounding(torch.float32, terms, dim=call.value.shape[-1], logit=logit, size=size)
    if call.value.dtype == torch.float32:
        return once
    # States, weights and their gradients are rounded on the way, each at another place of the sums.
    return combined(once, rounded_to(call.value.dtype, 4 * size))


def agree(call, parts=("output", "key_ends", "value_ends")):
    got = answer_and_gradients(host, call, parts)
    wanted = answer_and_gradients(reference, exact(call), parts)
    leaves = {name: getattr(call, name) for name in INPUTS}
    leaves |= {} if call.past is None else {name: getattr(call.past, name) for name in STATES}
    dtypes = {"output": call.value.dtype, "key_ends": torch.float32, "value_ends": torch.float32}
    for values, exacts in zip(got, wanted, strict=True):
        assert values.keys() == exacts.keys()
        for name, expected in exacts.items():
            dtype = dtypes.get(name) or leaves[name].dtype
            assert values[name].dtype == dtype, name
            torch.testing.assert_close(
                values[name].double(), expected, **tolerance(call, expected, dtype), msg=lambda text, of=name: of + text
            )
    return got


CASES = {
    "one token": chunk_call(1, 1, 1, 6, 1),
    "chunks of one, whole tiles of states": chunk_call(41, 2, 1, 6, 1),
    "chunks that share tiles, groups of two heads": chunk_call(38, 4, 2, 6, 3),
    "a chunk longer than a tile": chunk_call(70, 1, 1, 6, 64),
    "one chunk is all": chunk_call(7, 2, 2, 6, 16),
    "an odd number of channels": chunk_call(5, 2, 1, 5, 2, theta=None),
    "a past of some rows": chunk_call(35, 2, 1, 6, 16, batch=2, past=(37, [3, 36])),
    "a past without room": chunk_call(5, 1, 1, 6, 3, past=(0, [0])),
    "one token with a past": chunk_call(1, 2, 2, 6, 16, batch=2, past=(20, [20, 1])),
}


@pytest.mark.parametrize("name", CASES)
def test_answers_and_gradients_are_those_of_the_reference(name):
    agree(CASES[name])


@pytest.mark.parametrize("gate", [torch.float32, None], ids=["gate of float32", "gate as the value"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype, gate):
    if dtype == torch.bfloat16 and DEVICE == "cpu":
        pytest.skip("the interpreter holds bfloat16 as integers and multiplies those")
    agree(chunk_call(21, 2, 1, 6, 2, dtype=dtype, gate=gate or dtype, past=(3, [2])))


@pytest.mark.parametrize("parts", [("output",), ("key_ends",), ("value_ends",)])
def test_a_part_may_have_no_gradient(parts):
    agree(chunk_call(8, 2, 1, 6, 3, past=(2, [1])), parts)


def test_channels_need_not_lie_next_to_each_other():
    call = chunk_call(9, 2, 1, 6, 2, past=(3, [3]))
    apart = changed(call, lambda tensor: tensor.transpose(-1, -2).contiguous().transpose(-1, -2))
    assert apart.value.stride(-1) != 1
    answer, same = host.compute(apart), host.compute(call)
    assert all(torch.equal(getattr(answer, field.name), getattr(same, field.name)) for field in fields(ChunkAnswer))


def test_the_values_of_the_paper_by_hand():
    """One head of one channel, chunks of two, all gates a half, in the order of section 3 of arXiv 2507.04416.

    The third token: (1.25 e^0.75 + 1.5 e^0.5) / (e^0.75 + e^0.5).
    """
    ones, value = torch.ones(1, 4, 1, 1, device=DEVICE), torch.arange(1.0, 5.0, device=DEVICE).view(1, 4, 1, 1)
    for query, third in ((0 * ones, 1.375), (ones, 1.3594558747785506)):
        call = ChunkCall(query=query, key=ones, value=value, gate=ones / 2, chunk_size=2, scale=1.0, rope_theta=None)
        expected = torch.tensor([0.5, 1.25, third, 2.0])
        torch.testing.assert_close(host.compute(call).output.flatten().cpu(), expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("splits", [1, 2, 5])
@pytest.mark.parametrize("theta", [None, 1e4])
def test_a_step_is_the_reference(monkeypatch, splits, theta):
    """Parts of a row's states that hold none, rows without any, and slots of NaN."""
    call = chunk_call(1, 4, 2, 6, 16, batch=3, theta=theta, past=(150, [0, 5, 149]))
    monkeypatch.setattr(launches, "_splits", lambda *_: splits)
    steps = []
    step = launches.step
    monkeypatch.setattr(launches, "step", lambda *args: steps.append(1) or step(*args))
    answer, expected = host.compute(call), reference.compute(exact(call))
    assert steps == [1]
    for name in ("output", "key_ends", "value_ends"):
        exacts = getattr(expected, name)
        got = getattr(answer, name)
        assert got.shape == exacts.shape
        torch.testing.assert_close(got.double(), exacts, **tolerance(call, exacts, got.dtype))


@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.parametrize("place", [6, 20])
def test_nan_reaches_later_tokens_only(name, place):
    """From the begin and the end of a chunk of three; one of them closes among the queries of one tile."""
    call = changed(chunk_call(26, 2, 1, 6, 3), torch.clone)
    clean = host.compute(call)
    getattr(call, name)[0, place, 0, 1] = math.nan
    got, expected = host.compute(call).output, reference.compute(changed(call, torch.Tensor.double)).output
    assert torch.equal(got[:, :place], clean.output[:, :place])
    assert torch.equal(got.isnan().any(-1), expected.isnan().any(-1))
    assert got.isnan().any()


def test_gates_that_are_open_or_closed_and_large_logits_stay_finite():
    call = changed(chunk_call(20, 2, 1, 6, 3, dtype=torch.float16), torch.clone)
    call.gate[0, :6] = 1
    call.gate[0, 6:9] = 0
    call.query[0, 12:] *= 1e3
    answer, expected = host.compute(call), reference.compute(exact(call))
    assert (answer.output[:, :3] == 0).all()
    assert answer.output.isfinite().all()
    ordinary = torch.arange(12)  # a large query takes one state whole, and rounding may decide which
    torch.testing.assert_close(
        answer.output[:, ordinary].double(), expected.output[:, ordinary], **rounded_to(torch.float16, 32.0)
    )


def test_the_gradient_has_no_gradient():
    call = changed(chunk_call(4, 1, 1, 6, 2), lambda tensor: tensor.clone().requires_grad_())
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(host.compute(call).output.sum(), call.value, create_graph=True)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"value": torch.zeros(1, 2, 1, 6, dtype=torch.float64)}, "torch.float64"),
        ({"gate": torch.zeros(1, 2, 1, 6, dtype=torch.float64)}, "torch.float64"),
        ({name: torch.zeros(1, 2, 1, 300) for name in INPUTS}, "more than 256 dimensions"),
        ({"normaliser": LogN(4)}, "knows no LogN"),
        ({"value": torch.zeros(1, 2, 1, 6, device="meta")}, "on meta"),
    ],
)
def test_what_the_kernels_do_not_take(changes, reason):
    call = replace(chunk_call(2, 1, 1, 6, 2), **changes)
    assert reason in host.refusal(call)
    with pytest.raises(ArgumentError, match=reason):
        computed(call, "triton")


def test_without_triton_there_are_other_backends(monkeypatch):
    monkeypatch.setenv(host.VARIABLE, "triton")
    monkeypatch.setitem(sys.modules, "triton", None)
    call = chunk_call(2, 1, 1, 6, 2)
    assert host.refusal(call) == "triton is not installed"
    assert computed(call).output.isfinite().all()


def test_the_kernels_are_taken_on_request_only(monkeypatch):
    taken = []
    compute = host.compute
    monkeypatch.setattr(host, "compute", lambda call: taken.append(call) or compute(call))
    call = chunk_call(5, 2, 1, 6, 2)
    inputs = [getattr(call, name) for name in INPUTS]
    unasked = rat_attention(*inputs, chunk_size=2)
    monkeypatch.setenv(host.VARIABLE, "reference")
    rat_attention(*inputs, chunk_size=2)
    assert taken == []
    monkeypatch.setenv(host.VARIABLE, "triton")
    by_environment = rat_attention(*inputs, chunk_size=2)
    monkeypatch.delenv(host.VARIABLE)
    by_name = rat_attention(*inputs, chunk_size=2, backend="triton")
    assert len(taken) == 2
    assert torch.equal(by_environment, by_name)
    torch.testing.assert_close(by_name, unasked, **tolerance(call, unasked, torch.float32))
    with pytest.raises(ArgumentError, match="does not \\(the kernel knows no LogN\\)"):
        rat_attention(*inputs, chunk_size=2, backend="triton", normaliser=LogN(4))
    monkeypatch.setenv(host.VARIABLE, "triton")
    rat_attention(*inputs, chunk_size=2, normaliser=LogN(4))
    assert len(taken) == 2
    monkeypatch.setenv(host.VARIABLE, "nonsense")
    with pytest.raises(ArgumentError, match="triton or reference"):
        rat_attention(*inputs, chunk_size=2, normaliser=Plain())


@on_gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dim", [64, 128, 256])
def test_sizes_as_they_are_in_use(dim, dtype):
    agree(chunk_call(1187, 4, 2, dim, 16, batch=2, dtype=dtype, past=(70, [0, 67])))


@on_gpu
@pytest.mark.parametrize("chunk_size", [1, 48, 2048])
def test_chunks_as_they_are_in_use(chunk_size):
    agree(chunk_call(1187, 4, 2, 128, chunk_size, dtype=torch.bfloat16))


@on_gpu
def test_one_recorded_graph_serves_every_step():
    """Count and state stand where the graph reads them, and nothing waits for the device."""
    calls = [chunk_call(1, 4, 2, 64, 16, batch=3, past=(200, counts)) for counts in ([0, 5, 190], [1, 77, 200])]
    static = changed(calls[0], torch.clone)
    host.compute(static)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        answer = host.compute(static)
    for call in calls:
        for name in INPUTS:
            getattr(static, name).copy_(getattr(call, name))
        for name in (*STATES, "count"):
            getattr(static.past, name).copy_(getattr(call.past, name))
        graph.replay()
        expected = reference.compute(exact(call))
        for name in ("output", "key_ends", "value_ends"):
            exacts = getattr(expected, name)
            torch.testing.assert_close(getattr(answer, name).double(), exacts, **tolerance(call, exacts, None))
