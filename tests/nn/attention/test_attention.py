"""Chunked attention equals the plain one, for every option, in value and gradient; and streams without harm."""

from __future__ import annotations

import inspect
import itertools
import math
import random

import pytest
import torch

from holdfast.errors import ArgumentError
from holdfast.nn import (
    Adaptive,
    AdaptiveTemperature,
    Entmax,
    Hard,
    Llama4,
    LogN,
    Plain,
    RowStatistics,
    ScaleInvariant,
    SSMax,
    YaRN,
    adaptive_attention,
    attention_statistics,
    attention_weights,
    entropy_of,
)
from holdfast.nn.attention import fused, plain, streamed, tiles, visibility
from tests.nn.rounding import attention_rounding, rounding


def reference(query, key, value, **options):
    """The plain form: all weights at once."""
    groups = query.shape[1] // key.shape[1]
    weights = attention_weights(query, key, **options)
    return (weights @ value.to(weights.dtype).repeat_interleave(groups, dim=1)).to(query.dtype)


pytestmark = pytest.mark.filterwarnings("ignore::holdfast.nn.CorrectionInactiveWarning")

SHAPES = [  # batch, heads, kv heads, queries, keys, dim
    (1, 1, 1, 1, 1, 4),
    (2, 4, 2, 7, 7, 8),
    (1, 6, 2, 5, 33, 16),
    (2, 3, 3, 17, 130, 5),
    (1, 4, 1, 1, 65, 8),
]
OPTIONS = [
    {},
    {"causal": True},
    {"causal": True, "window": 3},
    {"window": 4},
    {"softcap": 2.0, "causal": True},
    {"scale": 1.7},
    {"mask": "bool"},
    {"mask": "bool", "causal": True},
    {"mask": "additive"},
    {"mask": "finfo", "causal": True},
    {"sinks": True, "causal": True},
    {"sinks": True, "mask": "bool", "softcap": 3.0},
]


def inputs(shape, dtype=torch.float64, seed=0):
    torch.manual_seed(seed)
    batch, heads, kv_heads, queries, keys, dim = shape
    q = 3 * torch.randn(batch, heads, queries, dim, dtype=torch.float64)
    k, v = (torch.randn(batch, kv_heads, keys, dim, dtype=torch.float64) for _ in range(2))
    return tuple(each.to(dtype) for each in (q, k, v))


def settle(options, shape, dtype=torch.float64):
    """Options with their tensors."""
    batch, heads, _, queries, keys, _ = shape
    found = dict(options)
    kind = found.get("mask")
    if kind is not None:
        visible = torch.rand(batch, 1, queries, keys) < 0.7
        if queries > 1:
            visible[0, :, 1] = False
        found["mask"] = visible
        if kind == "additive":
            found["mask"] = torch.randn(batch, heads, queries, keys).masked_fill(~visible, -math.inf).to(dtype)
        elif kind == "finfo":
            found["mask"] = torch.zeros(visible.shape, dtype=dtype).masked_fill(~visible, torch.finfo(dtype).min)
    if found.get("sinks"):
        found["sinks"] = torch.randn(heads, dtype=dtype)
    return found


@pytest.fixture(params=[16, 1 << 21, "fused", None], ids=["tiny chunks", "one chunk", "fused", "all at once"])
def chunk(request, monkeypatch):
    monkeypatch.setattr(fused, "FEWEST", 1 if request.param == "fused" else 1 << 40)
    monkeypatch.setattr(fused, "TABLE", 1)
    monkeypatch.setattr(streamed, "FEWEST", 0 if isinstance(request.param, int) else 1 << 40)
    if isinstance(request.param, int):
        monkeypatch.setattr(visibility, "CHUNK", request.param)
        monkeypatch.setattr(tiles, "TILE", request.param)
        monkeypatch.setattr(plain, "MOST", 0)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_the_plain_form(shape, options, chunk):
    q, k, v = inputs(shape)
    settled = settle(options, shape)
    found = adaptive_attention(q, k, v, **settled)
    torch.testing.assert_close(
        found, reference(q, k, v, **settled), **attention_rounding(q, k, scale=options.get("scale"))
    )
    assert not found.isnan().any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_lower_precision_equals_float64_on_the_same_numbers(options, dtype, chunk):
    shape = (2, 4, 2, 9, 33, 8)
    q, k, v = inputs(shape, dtype)
    settled = settle(options, shape, dtype)
    found = adaptive_attention(q, k, v, **settled)
    wide = {
        name: each.double() if isinstance(each, torch.Tensor) and each.is_floating_point() else each
        for name, each in settled.items()
    }
    if options.get("mask") == "finfo":  # the lowest number of one dtype hides nothing in another
        wide["mask"] = wide["mask"].masked_fill(wide["mask"] < -1e4, -math.inf)
    exact = reference(q.double(), k.double(), v.double(), **wide)
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), exact, **attention_rounding(q, k, scale=options.get("scale")))


NORMALISERS = [
    Plain(),
    Adaptive(AdaptiveTemperature((0.4, 1.0), entropy_range=(0.5, 2.0), beta_max=3.0)),
    LogN(4),
    SSMax(),
    SSMax((0.2, 0.5, 0.9, 0.0)),
    YaRN(4.0),
    Llama4(floor_scale=4.0),
    ScaleInvariant(),
    Hard(),
    Entmax(),
]


@pytest.mark.parametrize("normaliser", NORMALISERS, ids=lambda each: type(each).__name__)
@pytest.mark.parametrize("options", [{"causal": True}, {"mask": "bool"}, {"window": 5, "causal": True}], ids=str)
def test_every_normaliser_runs_chunked(normaliser, options, chunk):
    shape = (2, 4, 2, 9, 21, 8)
    q, k, v = inputs(shape)
    settled = settle(options, shape)
    found = adaptive_attention(q, k, v, normaliser=normaliser, **settled)
    torch.testing.assert_close(found, reference(q, k, v, normaliser=normaliser, **settled), atol=1e-6, rtol=1e-6)


def test_with_the_law_off_it_is_torchs_attention():
    q, k, v = inputs((2, 4, 2, 33, 33, 16))
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    for off in (Plain(), AdaptiveTemperature((1.0,))):
        torch.testing.assert_close(adaptive_attention(q, k, v, causal=True, normaliser=off), expected)


def test_the_future_changes_nothing():
    q, k, v = inputs((1, 2, 2, 9, 9, 8))
    found = adaptive_attention(q, k, v, causal=True)
    k[:, :, 6:], v[:, :, 6:] = 100.0, -100.0
    again = adaptive_attention(q, k, v, causal=True)
    assert torch.equal(found[:, :, :6], again[:, :, :6])
    assert not torch.equal(found[:, :, 6:], again[:, :, 6:])


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("options", [{"causal": True}, {"causal": True, "window": 4}, {"mask": True}], ids=str)
@pytest.mark.parametrize("recorded", [False, True])
def test_nothing_that_is_hidden_poisons_a_row(options, poison, recorded, chunk):
    q, k, v = inputs((1, 4, 2, 9, 9, 8))
    if "mask" in options:
        options = {"mask": torch.ones(9, 9, dtype=torch.bool).tril()}
    q.requires_grad_(recorded)
    clean, allowed = adaptive_attention(q, k, v, **options), attention_rounding(q, k)
    k[:, 1, 7], v[:, 1, 7, 2], v[:, 1, 8] = poison, poison, poison
    found = adaptive_attention(q, k, v, **options)
    torch.testing.assert_close(found[:, :2], clean[:, :2], **allowed)
    torch.testing.assert_close(found[:, 2:, :7], clean[:, 2:, :7], **allowed)
    assert not found[:, 2:, 8].isfinite().any()


def test_a_key_before_the_window_poisons_nothing(chunk):
    q, k, v = inputs((1, 1, 1, 9, 9, 8))
    clean = adaptive_attention(q, k, v, causal=True, window=3)
    k[:, :, 2], v[:, :, 2] = math.nan, math.nan
    found = adaptive_attention(q, k, v, causal=True, window=3)
    assert found[:, :, 2:5].isnan().all()
    for rows in (slice(0, 2), slice(5, 9)):
        torch.testing.assert_close(found[:, :, rows], clean[:, :, rows], **attention_rounding(q, k))


def test_a_value_of_nan_under_one_query_is_seen(chunk):
    q, k, v = inputs((1, 2, 1, 1, 9, 8))
    v[0, 0, 3, 5] = math.nan
    assert adaptive_attention(q, k, v, causal=True)[..., 5].isnan().all()


def test_vmap_goes_through():
    q, k, v = (each.unsqueeze(1) for each in inputs((3, 4, 2, 5, 9, 8)))
    found = torch.func.vmap(lambda *each: adaptive_attention(*each, causal=True))(q, k, v)
    torch.testing.assert_close(found[:, 0], adaptive_attention(q[:, 0], k[:, 0], v[:, 0], causal=True))


@pytest.mark.parametrize(
    "shapes",
    [
        ((0, 2, 3, 8), (0, 2, 3, 8)),
        ((1, 0, 3, 8), (1, 0, 3, 8)),
        ((1, 2, 3, 8), (1, 0, 3, 8)),
        ((1, 2, 3, 0), (1, 2, 3, 0)),
    ],
)
def test_without_a_sequence_a_head_or_a_number_there_is_one_clear_error(shapes):
    query, key = (torch.zeros(shape) for shape in shapes)
    words = "at least one sequence, head and number in each, got shapes"
    with pytest.raises(ArgumentError, match=words):
        adaptive_attention(query, key, key)
    with pytest.raises(ArgumentError, match=words):
        attention_statistics(query, key)


def test_float8_is_refused():
    query = torch.zeros(1, 2, 3, 8).to(torch.float8_e4m3fn)
    with pytest.raises(ArgumentError, match=r"query: expected float16, .* or float64, got torch\.float8"):
        inspect.unwrap(adaptive_attention)(query, query, query)


@pytest.mark.parametrize("gradient", [False, True])
@pytest.mark.parametrize("queries", [128, 1])
def test_autocast_leaves_statistics_in_float32(gradient, queries):
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 2, 128, 32) for _ in range(3))
    q, k, v = (6 * q[:, :, -queries:]).bfloat16(), (2 * k).bfloat16(), v.bfloat16()
    exact = adaptive_attention(q.double(), k.double(), v.double(), causal=True)
    entropy = attention_statistics(q.double(), k.double(), causal=True).entropy
    q.requires_grad_(gradient)
    with torch.autocast("cpu", torch.bfloat16):
        output = adaptive_attention(q, k, v, causal=True)
        mixed = adaptive_attention(q.float(), k.float(), v, causal=True)
        weights = attention_weights(q, k, causal=True, normaliser=Plain())
        statistics = attention_statistics(q, k, causal=True)
    assert (mixed.dtype, weights.dtype, statistics.entropy.dtype) == (torch.bfloat16, torch.float32, torch.float32)
    # The output is rounded to bfloat16; a product in bfloat16 would be off by several nats here.
    assert (output.double() - exact).abs().max() < 2**-7 * exact.abs().max()
    torch.testing.assert_close(mixed, output.detach(), atol=0.0, rtol=0.0)
    torch.testing.assert_close(statistics.entropy.double(), entropy, atol=1e-4, rtol=0)
    torch.testing.assert_close(torch.special.entr(weights.double()).sum(-1), entropy, atol=1e-4, rtol=0)


def test_inside_vmap_and_with_fake_tensors_nothing_is_looked_at():
    """At a size where a CPU would use the fused kernel, or chunks with a mask."""
    q, k, v = inputs((1, 2, 1, 260, 260, 8))
    mask = torch.ones(260, 260, dtype=torch.bool).tril()
    expected = adaptive_attention(q, k, v, causal=True)
    for options in ({"causal": True}, {"mask": mask}):
        found = torch.func.vmap(lambda query, options=options: adaptive_attention(query, k, v, **options))(q[None])
        torch.testing.assert_close(found[0], expected, **attention_rounding(q, k))
    found = torch.func.vmap(lambda mask: adaptive_attention(q, k, v, mask=mask))(mask[None])
    torch.testing.assert_close(found[0], expected, **attention_rounding(q, k))
    with torch._subclasses.FakeTensorMode() as mode:
        fake = adaptive_attention(*(mode.from_tensor(each) for each in (q, k, v)), causal=True)
    assert fake.shape == expected.shape


def test_rows_that_see_nothing_are_zero(chunk):
    q, k, v = inputs((1, 2, 2, 6, 4, 8))  # more queries than keys: the first two see nothing
    found = adaptive_attention(q, k, v, causal=True)
    assert (found[:, :, :2] == 0).all()
    assert (found[:, :, 2:] != 0).all()
    assert (adaptive_attention(q, k, v, mask=torch.zeros(1, 1, 6, 4, dtype=torch.bool)) == 0).all()


def test_nan_in_a_query_stays_in_its_row(chunk):
    q, k, v = inputs((1, 2, 2, 6, 9, 8))
    clean = adaptive_attention(q, k, v)
    q[0, 1, 3] = math.nan
    found = adaptive_attention(q, k, v)
    assert found[0, 1, 3].isnan().all()
    found[0, 1, 3] = clean[0, 1, 3]
    torch.testing.assert_close(found, clean, **attention_rounding(q, k))


@pytest.mark.parametrize("detach", [True, False])
@pytest.mark.parametrize("options", [{"causal": True}, {"mask": "bool"}, {"sinks": True, "softcap": 2.0}], ids=str)
def test_gradients_equal_those_of_the_plain_form(options, detach, chunk):
    shape = (1, 2, 1, 5, 11, 4)
    settled = settle(options, shape)
    gradients = []
    for attend in (adaptive_attention, reference):
        tensors = [each.clone().requires_grad_() for each in inputs(shape)]
        attend(*tensors, detach=detach, **settled).sin().sum().backward()
        gradients.append([each.grad for each in tensors])
    for found, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected, **attention_rounding(*tensors[:2], size=100.0))


def test_gradient_through_the_temperature_is_exact():
    tensors = [each.requires_grad_() for each in inputs((1, 1, 1, 3, 6, 2))]
    assert torch.autograd.gradcheck(lambda q, k, v: adaptive_attention(q, k, v, causal=True, detach=False), tensors)


@pytest.mark.parametrize(
    ("change", "argument"),
    [
        (lambda q, k, v: ((q, k.float(), v), {}), "key"),
        (lambda q, k, v: ((q, k[..., :3], v), {}), "key"),
        (lambda q, k, v: ((q[:, :3], k, v), {}), "key"),
        (lambda q, k, v: ((q, k, v[:, :, :2]), {}), "value"),
        (lambda q, k, v: ((q, k[:, :, :0], v[:, :, :0]), {}), "key"),
        (lambda q, k, v: ((q, k, v), {"window": 0}), "window"),
        (lambda q, k, v: ((q, k, v), {"softcap": 0.0}), "softcap"),
        (lambda q, k, v: ((q, k, v), {"mask": torch.ones(3, 5, dtype=torch.bool)}), "mask"),
        (lambda q, k, v: ((q, k, v), {"mask": torch.ones(4, 5, dtype=torch.long)}), "mask"),
        (lambda q, k, v: ((q, k, v), {"sinks": torch.zeros(3)}), "sinks"),
        (lambda q, k, v: ((q[0], k[0], v[0]), {}), r"query: .* four dimensions"),
        (lambda q, k, v: ((q, k.tolist(), v), {}), "key: expected a tensor, got list"),
        (lambda q, k, v: ((q, k, v.to("meta")), {}), "value: expected a tensor on cpu, .* meta"),
        (lambda q, k, v: ((q, k, v), {"mask": [True]}), "mask: expected a tensor, got list"),
        (lambda q, k, v: ((q, k, v), {"window": 2.5}), "window: expected a whole number"),
        (lambda q, k, v: ((q, k, v), {"scale": "1"}), "scale: expected a number, got '1'"),
        (lambda q, k, v: ((q, k, v), {"normaliser": 2.0}), "normaliser: expected an AdaptiveTemperature"),
        (lambda q, k, v: ((q, k, v), {"normaliser": SSMax((0.1, 0.2))}), "one that is for 4 heads, got"),
    ],
)
def test_what_does_not_fit_is_refused(change, argument):
    arguments, options = change(*inputs((1, 4, 2, 4, 5, 8)))
    # Without the run-time checks of the tests, as users have it.
    plain = inspect.unwrap(adaptive_attention)
    with pytest.raises(ArgumentError, match=argument):
        plain(*arguments, **options)


@pytest.mark.parametrize("offset", [0.0, 1e5, -1e5])
@pytest.mark.parametrize("seed", range(5))
def test_streaming_equals_direct(seed, offset):
    """Random cuts, an empty piece and a wholly masked one, in random order."""
    torch.manual_seed(seed)
    rng = random.Random(seed)
    logits = 5 * torch.randn(2, 3, 4, 65, dtype=torch.float64) + offset
    logits[..., 20:30] = -math.inf
    logits[0, 0, 0] = -math.inf
    cuts = sorted({0, 20, 30, 65, *(rng.randrange(66) for _ in range(4))})
    pieces = [RowStatistics.of(logits[..., a:b]) for a, b in itertools.pairwise(cuts)]
    pieces.append(RowStatistics.of(logits[..., :0]))
    rng.shuffle(pieces)
    found = pieces[0]
    for piece in pieces[1:]:
        found = found.merge(piece)
    hidden = logits == -math.inf
    rounded = rounding(torch.float64, 65, logit=25.0 + abs(offset))
    torch.testing.assert_close(found.entropy, entropy_of(logits), **rounded)
    torch.testing.assert_close(found.logsumexp, logits.logsumexp(-1), **rounded)
    torch.testing.assert_close(found.largest, logits.softmax(-1).amax(-1).nan_to_num(0.0), **rounded)
    assert torch.equal(found.visible, (~hidden).sum(-1))
    spread = logits.amax(-1) - logits.masked_fill(hidden, math.inf).amin(-1)
    torch.testing.assert_close(found.spread, spread.masked_fill(hidden.all(-1), 0.0))


def test_large_offsets_do_not_hurt_in_float32():
    torch.manual_seed(0)
    logits = torch.randn(1, 1, 8, 4096, dtype=torch.float64) + 1e5
    stored = logits.float()
    found = RowStatistics.of(stored[..., :1000]).merge(RowStatistics.of(stored[..., 1000:]))
    torch.testing.assert_close(
        found.entropy.double(), entropy_of(stored.double()), **rounding(torch.float32, 4096, logit=math.log(4096))
    )


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("block", [3, 1024])
def test_statistics_are_those_of_the_logits(options, block):
    shape = (2, 4, 2, 9, 33, 8)
    q, k, _ = inputs(shape)
    settled = settle(options, shape)
    found = attention_statistics(q, k, block=block, **settled)
    seen = []

    class Spy(Plain):
        def weights(self, logits, rows=None):
            seen.append(logits)
            return super().weights(logits, rows)

    reference(q, k, k, normaliser=Spy(), **settled)
    torch.testing.assert_close(
        found.entropy, entropy_of(seen[0]), **attention_rounding(q, k, scale=options.get("scale"))
    )
    direct = RowStatistics.of(seen[0])
    torch.testing.assert_close(found.spread, direct.spread)
    assert torch.equal(found.visible, direct.visible)


def test_a_mask_that_is_the_same_for_all_keys_hides_none_of_them_from_the_count(chunk):
    """The factor of `LogN` counts visible keys, which such a mask does not list one by one."""
    q, k, v = inputs((1, 2, 2, 5, 9, 8))
    mask = torch.arange(5)[:, None] != 2
    found = adaptive_attention(q, k, v, mask=mask, normaliser=LogN(2))
    torch.testing.assert_close(found, reference(q, k, v, mask=mask.expand(5, 9), normaliser=LogN(2)))


class Counted(torch.utils._python_dispatch.TorchDispatchMode):
    """Counts how many products of a query and a key are taken, and the largest table of them."""

    products = largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        if func.overloadpacket is torch.ops.aten.bmm:
            self.products += found.numel()
            self.largest = max(self.largest, found.numel())
        return found


@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize(
    ("options", "share"),
    [({}, 1.0), ({"causal": True}, 0.6), ({"causal": True, "window": 16}, 0.2), ({"window": 16}, 0.3)],
    ids=str,
)
def test_statistics_skip_what_is_hidden_and_stay_small(options, share, recorded, monkeypatch):
    monkeypatch.setattr(visibility, "CHUNK", 2 * 4 * 16 * 8)
    monkeypatch.setattr(tiles, "TILE", 2 * 4 * 16 * 8)
    monkeypatch.setattr(tiles, "ROWS", 4)
    q, k, _ = inputs((2, 4, 2, 256, 256, 8))
    q.requires_grad_(recorded)
    with Counted() as counted:
        attention_statistics(q, k, block=16, **options)
    assert counted.largest <= 2 * 4 * 16 * 8
    # What is worked on for the entropy, `vecdot`, is a product of two rows that count as one.
    assert 0 < counted.products <= share * 2 * 4 * 256 * 256 + (0 if recorded else 2 * 4 * 256 * 16)
