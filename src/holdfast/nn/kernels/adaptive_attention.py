"""Adaptive-temperature attention for inference: a Triton kernel and its PyTorch twin.

The temperature of a row needs the entropy of the whole row, so that every row is gone through twice. Both forms keep
three numbers a row, which merge exactly: m = max z, s = sum exp(z - m), t = sum (z - m) exp(z - m), with
H = ln s - t / s. Inside the kernel logits are in units of ln 2, since exp2 is what the hardware has.

Prefill: one launch. A program takes a tile of queries, runs over the keys for (m, s, t), works out beta in registers
and runs over keys and values with beta folded into the scale. Nothing is stored but the output.
Decode (few queries): keys are split among programs. The first launch stores scores and (m, s, t) of each split, the
second merges them and weighs the values, the third adds up the splits. Keys and values are read once.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Any, no_type_check

import torch
from jaxtyping import Float
from torch import Tensor

from holdfast.errors import ArgumentError
from holdfast.nn.temperature import PUBLISHED, AdaptiveTemperature

try:
    import triton
    import triton.language as tl

    jit: Callable[[Any], Any] = triton.jit
except ModuleNotFoundError:  # the module must import without it: the twin needs none
    triton = tl = None

    def jit(fn: Any) -> Any:
        """Leave a kernel as it is, where there is nothing to compile it."""
        return fn


DECODE_QUERIES = 16
"""Up to this many queries the keys are split among programs."""

DECODE_ROWS = 128
"""Rows (queries x query heads of one key head) that one decoding program can hold."""

LONG = 1024
"""From here on sizes of tiles are tried out anew."""

MAX_COEFFICIENTS = 7
MAX_DIM = 256
DTYPES = (torch.float16, torch.bfloat16, torch.float32)

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
"""Whether kernels run in Triton's interpreter, on the CPU: Triton reads this once, when it is imported."""


def adaptive_attention_twin(
    query: Float[Tensor, "batch heads queries dim"],
    key: Float[Tensor, "batch kv_heads keys dim"],
    value: Float[Tensor, "batch kv_heads keys value_dim"],
    *,
    causal: bool = False,
    scale: float | None = None,
    softcap: float | None = None,
    window: int | None = None,
    temperature: AdaptiveTemperature | None = PUBLISHED,
) -> Float[Tensor, "batch heads queries value_dim"]:
    """The same result with all scores in memory, in float32 or better: what the kernel is compared with.

    Arguments:
        query: of any floating dtype; the other arguments are those of `adaptive_attention_triton`.
        key: likewise.
        value: likewise.
        causal: likewise.
        scale: likewise.
        softcap: likewise.
        window: likewise.
        temperature: likewise.

    Returns:
        The output, in the dtype of `query`.

    Errors:
        ArgumentError: shapes or options that do not fit.
    """
    _check(query, key, value, softcap, window)
    queries, keys = query.shape[2], key.shape[2]
    wide = torch.promote_types(query.dtype, torch.float32)
    k, v = (each.to(wide).repeat_interleave(query.shape[1] // key.shape[1], dim=1) for each in (key, value))
    z = query.to(wide) @ k.mT * (query.shape[-1] ** -0.5 if scale is None else scale)
    if softcap is not None:
        z = softcap * torch.tanh(z / softcap)
    ahead = torch.arange(keys, device=z.device) - torch.arange(keys - queries, keys, device=z.device)[:, None]
    hidden = torch.zeros_like(ahead, dtype=torch.bool)
    if causal:
        hidden |= ahead > 0
    if window is not None:
        hidden |= ahead.abs() >= window
    z = z.masked_fill(hidden, -math.inf)
    z = z - z.amax(-1, keepdim=True).masked_fill(hidden.all(-1, keepdim=True), 0.0)
    if temperature is not None:
        weight = z.exp()
        s = weight.sum(-1, keepdim=True)
        entropy = s.log() - (z.masked_fill(hidden, 0.0) * weight).sum(-1, keepdim=True) / s
        entropy = entropy.masked_fill(hidden.all(-1, keepdim=True), 0.0)
        z = z * temperature.beta(entropy)
    weight = z.exp()
    total = weight.sum(-1, keepdim=True).masked_fill(hidden.all(-1, keepdim=True), 1.0)
    return (weight @ v / total).to(query.dtype)


def available(
    query: Tensor,
    key: Tensor | None = None,
    value: Tensor | None = None,
    *,
    mask: Tensor | None = None,
    sinks: Tensor | None = None,
    temperature: object = PUBLISHED,
) -> bool:
    """Say whether the kernel takes these inputs; `refusal` says why not.

    Arguments:
        query: (batch, heads, queries, dim).
        key: likewise, where it is at hand.
        value: likewise.
        mask: a mask beyond causality and window.
        sinks: sink logits.
        temperature: what is to set the temperature.
    """
    return refusal(query, key, value, mask=mask, sinks=sinks, temperature=temperature) is None


def refusal(
    query: Tensor,
    key: Tensor | None = None,
    value: Tensor | None = None,
    *,
    mask: Tensor | None = None,
    sinks: Tensor | None = None,
    temperature: object = PUBLISHED,
) -> str | None:
    """Say why the kernel does not take these inputs.

    Arguments:
        query: (batch, heads, queries, dim).
        key: likewise, where it is at hand.
        value: likewise.
        mask: a mask beyond causality and window.
        sinks: sink logits.
        temperature: what is to set the temperature.

    Returns:
        The reason, to follow the word "and" in an error; `None` where the kernel takes them.
    """
    tensors = [each for each in (query, key, value) if each is not None]
    if triton is None:
        return "triton is not installed"
    if any(each.device != query.device for each in tensors):
        return "the inputs are on different devices"
    if not query.is_cuda and not (INTERPRETED and query.device.type == "cpu"):
        return f"the inputs are on {query.device.type}"
    if any(each.dtype != query.dtype for each in tensors) or query.dtype not in DTYPES:
        return f"the inputs are of {', '.join(sorted({str(each.dtype) for each in tensors}))}"
    if mask is not None or sinks is not None:
        return "the kernel takes no mask and no sinks"
    if torch.is_grad_enabled() and any(each.requires_grad for each in tensors):
        return "a gradient is needed, which the kernel does not have"
    if any(each.shape[-1] > MAX_DIM for each in tensors):
        return f"a head has more than {MAX_DIM} dimensions"
    if any(0 in each.shape for each in tensors):
        return "an input is empty"
    if temperature is not None and not isinstance(temperature, AdaptiveTemperature):
        return f"the kernel knows no {type(temperature).__name__}"
    if isinstance(temperature, AdaptiveTemperature) and len(temperature.coefficients) > MAX_COEFFICIENTS:
        return f"the law has more than {MAX_COEFFICIENTS} coefficients"
    return None


def adaptive_attention_triton(
    query: Float[Tensor, "batch heads queries dim"],
    key: Float[Tensor, "batch kv_heads keys dim"],
    value: Float[Tensor, "batch kv_heads keys value_dim"],
    *,
    causal: bool = False,
    scale: float | None = None,
    softcap: float | None = None,
    window: int | None = None,
    temperature: AdaptiveTemperature | None = PUBLISHED,
    decode: bool | None = None,
    statistics: tuple[Tensor, Tensor] | None = None,
) -> Float[Tensor, "batch heads queries value_dim"]:
    """Compute adaptive-temperature attention by the kernel, without a gradient.

    Extra memory: none in prefill; in decode 4 bytes for each query and key, and the partial outputs of the splits.

    Arguments:
        query: of float16, bfloat16 or float32, with at most 256 dimensions; any strides.
        key: `kv_heads` divides `heads`; each key head serves that many query heads in turn (GQA).
        value: as `key`.
        causal: a query sees no key after it; the last query stands at the last key.
        scale: of the products; 1 / sqrt(dim) unless given.
        softcap: logits become softcap x tanh(logit / softcap), before the temperature.
        window: a query sees keys less than this many positions away.
        temperature: the law, of at most seven coefficients; `None` turns adaptation off, for one pass over the keys.
        decode: force one form; `None`: decode for up to 16 queries.
        statistics: two contiguous float32 tensors (batch, heads, queries), filled by an adaptive prefill with the
            entropy and the logarithm of the sum of exp(z) of each row, both in nats and before the temperature.

    Returns:
        The output, in the dtype of `query`; zeros for a query without a visible key. NaN in a query stays in its row,
        NaN in a key in the rows that see it; NaN or infinity in a value reaches all rows of a tile that goes over its
        key, whether they see it or not, since a weight of 0 does not undo it.

    Errors:
        ArgumentError: shapes or options that do not fit, or inputs that the kernel does not take.

    Source: arXiv 2410.01104, section 3.
    """
    _check(query, key, value, softcap, window)
    reason = refusal(query, key, value, temperature=temperature)
    if reason is not None:
        raise ArgumentError("query", "inputs that the kernel takes", reason)
    rows = query.shape[2] * (query.shape[1] // key.shape[1])
    if decode is None:
        decode = query.shape[2] <= DECODE_QUERIES and rows <= DECODE_ROWS and statistics is None
    elif decode and rows > DECODE_ROWS:
        raise ArgumentError("decode", f"at most {DECODE_ROWS} rows for each key head", rows)
    if statistics is not None:
        if decode or temperature is None:
            raise ArgumentError("statistics", "an adaptive prefill", "another form")
        for each in statistics:
            if each.shape != query.shape[:3] or each.dtype != torch.float32 or not each.is_contiguous():
                expected = f"contiguous float32 tensors of shape {tuple(query.shape[:3])}"
                raise ArgumentError("statistics", expected, f"{each.dtype} of shape {tuple(each.shape)}")
    factor = query.shape[-1] ** -0.5 if scale is None else float(scale)
    with torch.no_grad(), _on(query.device):
        if decode:
            return _decode(query, key, value, causal, factor, softcap, window, temperature)
        return _prefill(query, key, value, causal, factor, softcap, window, temperature, statistics)


def _check(query: Tensor, key: Tensor, value: Tensor, softcap: float | None, window: int | None) -> None:
    for name, each in (("query", query), ("key", key), ("value", value)):
        if each.ndim != 4:
            raise ArgumentError(name, "shape (batch, heads, positions, dim)", f"shape {tuple(each.shape)}")
    if key.shape[0] != query.shape[0] or key.shape[-1] != query.shape[-1] or query.shape[1] % max(1, key.shape[1]):
        expected = f"batch {query.shape[0]}, dim {query.shape[-1]} and heads that divide {query.shape[1]}"
        raise ArgumentError("key", expected, f"shape {tuple(key.shape)}")
    if value.shape[:3] != key.shape[:3]:
        raise ArgumentError("value", f"shape {(*key.shape[:3], 'value_dim')}", f"shape {tuple(value.shape)}")
    if key.shape[2] == 0:
        raise ArgumentError("key", "at least one key", "none")
    if softcap is not None and not (math.isfinite(softcap) and softcap > 0):
        raise ArgumentError("softcap", "a value above 0", softcap)
    if window is not None and window < 1:
        raise ArgumentError("window", "at least 1", window)


def _on(device: torch.device) -> AbstractContextManager[Any]:
    """Launch on the device that the inputs are on."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


@lru_cache(maxsize=256)
def _law(temperature: AdaptiveTemperature | None, device: torch.device) -> Tensor:
    """Seven coefficients, threshold, entropy range and range of beta: an argument, so that no law is compiled in."""
    if temperature is None:
        temperature = PUBLISHED
    padding = (0.0,) * (MAX_COEFFICIENTS - len(temperature.coefficients))
    low, high = temperature.entropy_range or (-math.inf, math.inf)
    beta_max = math.inf if temperature.beta_max is None else temperature.beta_max
    numbers = (*padding, *temperature.coefficients, temperature.threshold, low, high, temperature.beta_min, beta_max)
    return torch.tensor(numbers, dtype=torch.float64, device=device)


def _padded(dim: int) -> int:
    """The next power of two that a matrix product takes."""
    return max(16, 1 << (dim - 1).bit_length())


def _prefill(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    causal: bool,
    scale: float,
    softcap: float | None,
    window: int | None,
    temperature: AdaptiveTemperature | None,
    statistics: tuple[Tensor, Tensor] | None,
) -> Tensor:
    batch, heads, queries, dim = query.shape
    value_dim = value.shape[-1]
    output = query.new_empty(batch, heads, queries, value_dim)
    entropy, logsumexp = (output, output) if statistics is None else statistics
    block_d, block_dv = _padded(dim), _padded(value_dim)
    long = min(queries, key.shape[2]) > LONG
    kernel, blocks = _tuned_prefill(max(block_d, block_dv), query.element_size(), long)

    def grid(meta: dict[str, Any]) -> tuple[int]:
        return (batch * heads * -(-queries // meta["BLOCK_M"]),)

    kernel[grid](
        query,
        key,
        value,
        output,
        entropy,
        logsumexp,
        _law(temperature, query.device),
        *query.stride(),
        *key.stride(),
        *value.stride(),
        heads,
        heads // key.shape[1],
        queries,
        key.shape[2],
        scale,
        softcap or 0.0,
        window or 0,
        DIM=dim,
        VALUE_DIM=value_dim,
        BLOCK_D=block_d,
        BLOCK_DV=block_dv,
        CAUSAL=causal,
        WINDOW=window is not None,
        SOFTCAP=softcap is not None,
        ADAPT=temperature is not None,
        STATISTICS=statistics is not None,
        **blocks,
    )
    return output


@lru_cache(maxsize=32)
def _tuned_prefill(dim: int, itemsize: int, long: bool) -> tuple[Any, dict[str, int]]:
    """The kernel with its sizes: tried out on a GPU, once for each shape of head and again for long inputs, so that a
    short first call does not settle it for all; small sizes for the interpreter.
    """
    if INTERPRETED:
        return _prefill_kernel, {"BLOCK_M": 32, "BLOCK_N": 32}
    if itemsize == 4:
        sizes = [(64, 32, 4, 2), (32, 32, 4, 2)] if dim <= 128 else [(32, 32, 4, 2), (16, 32, 4, 2)]
    elif dim <= 64:
        sizes = [(128, 128, 8, 3), (128, 64, 8, 3), (128, 64, 4, 3), (64, 64, 4, 3)]
    elif dim <= 128:
        sizes = [(128, 128, 8, 3), (128, 128, 8, 2), (128, 64, 8, 3), (128, 64, 4, 3), (64, 64, 4, 3)]
    else:
        sizes = [(128, 64, 8, 2), (64, 64, 8, 2), (64, 32, 4, 2)]
    configs = [
        triton.Config({"BLOCK_M": m, "BLOCK_N": n}, num_warps=warps, num_stages=stages) for m, n, warps, stages in sizes
    ]
    keys = ["BLOCK_D", "BLOCK_DV", "CAUSAL", "WINDOW", "SOFTCAP", "ADAPT"]
    return triton.autotune(configs=configs, key=keys)(_prefill_kernel), {}


def _decode(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    causal: bool,
    scale: float,
    softcap: float | None,
    window: int | None,
    temperature: AdaptiveTemperature | None,
) -> Tensor:
    batch, heads, queries, dim = query.shape
    kv_heads, value_dim = key.shape[1], value.shape[-1]
    if window is not None:  # keys before the first window are not so much as looked at
        first = max(0, key.shape[2] - queries - window + 1)
        key, value = key[:, :, first:], value[:, :, first:]
    keys = key.shape[2]
    rows = queries * heads // kv_heads
    block_d, block_dv, block_r = _padded(dim), _padded(value_dim), _padded(rows)
    block_n = 32 if INTERPRETED or query.element_size() == 4 or max(block_d, block_dv) > 128 else 64
    span, splits = _splits(keys, batch * kv_heads, block_n, query.device)
    adapt = temperature is not None
    places = batch * kv_heads
    output = query.new_empty(batch, heads, queries, value_dim)
    wide = {"dtype": torch.float32, "device": query.device}
    # Scores are kept where adaptation needs them a second time.
    scores = torch.empty((places, rows, keys) if adapt else (1,), **wide)  # type: ignore[call-overload]
    # For each split m, s and t; then for the second launch m and the sum of the weights.
    parts = torch.empty((places, splits, rows, 3), **wide)  # type: ignore[call-overload]
    sums = torch.empty((places, splits, rows, 2), **wide)  # type: ignore[call-overload]
    partial = torch.empty((places, splits, rows, value_dim), **wide)  # type: ignore[call-overload]
    sizes = {"BLOCK_R": block_r, "BLOCK_N": block_n, "BLOCK_D": block_d, "BLOCK_DV": block_dv}
    # A grid is long in its first dimension only: 65535 is the end of the others.
    _decode_scores[(places, splits)](
        query,
        key,
        value,
        scores,
        parts,
        sums,
        partial,
        *query.stride(),
        *key.stride(),
        *value.stride(),
        kv_heads,
        heads // kv_heads,
        queries,
        keys,
        span,
        scale,
        softcap or 0.0,
        window or 0,
        DIM=dim,
        VALUE_DIM=value_dim,
        **sizes,
        CAUSAL=causal,
        WINDOW=window is not None,
        SOFTCAP=softcap is not None,
        ADAPT=adapt,
        num_warps=4,
        num_stages=2,
    )
    if adapt:
        _decode_values[(places, splits)](
            value,
            scores,
            parts,
            sums,
            partial,
            _law(temperature, query.device),
            *value.stride(),
            kv_heads,
            rows,
            keys,
            span,
            splits,
            VALUE_DIM=value_dim,
            **sizes,
            num_warps=4,
            num_stages=2,
        )
    _decode_merge[(places, rows)](
        sums,
        partial,
        output,
        rows,
        splits,
        VALUE_DIM=value_dim,
        BLOCK_S=1 << (splits - 1).bit_length(),
        BLOCK_DV=block_dv,
        num_warps=4,
    )
    return output


def _splits(keys: int, places: int, block_n: int, device: torch.device) -> tuple[int, int]:
    """Keys of a split and number of splits: two programs a multiprocessor, none for less than two blocks of keys."""
    if device.type == "cuda":
        wanted = -(-2 * torch.cuda.get_device_properties(device).multi_processor_count // places)
    else:
        wanted = 3
    blocks = -(-keys // block_n)
    wanted = max(1, min(wanted, 64, -(-blocks // 2)))
    span = -(-blocks // wanted) * block_n
    return span, -(-keys // span)


@jit
@no_type_check
def _beta(law_ptr, s, t):
    """Entropy in nats of rows with these sums in units of ln 2, and their inverse temperature."""
    safe = tl.where(s == 0.0, 1.0, s)
    h = (tl.log2(safe) - t / safe) * 0.6931471805599453
    # The terms of the polynomial are far larger than their sum, and there are few rows: float64, as in the twin.
    x = h.to(tl.float64)
    x = tl.minimum(tl.maximum(x, tl.load(law_ptr + 8)), tl.load(law_ptr + 9))
    value = x * 0.0 + tl.load(law_ptr)
    value = value * x + tl.load(law_ptr + 1)
    value = value * x + tl.load(law_ptr + 2)
    value = value * x + tl.load(law_ptr + 3)
    value = value * x + tl.load(law_ptr + 4)
    value = value * x + tl.load(law_ptr + 5)
    value = value * x + tl.load(law_ptr + 6)
    value = tl.minimum(tl.maximum(value, tl.load(law_ptr + 10)), tl.load(law_ptr + 11))
    beta = tl.where(h.to(tl.float64) <= tl.load(law_ptr + 7), 1.0, value)
    return h, beta.to(tl.float32)


@jit
@no_type_check
def _logits(q, k, columns, position, keys, scale, softcap, window, CAUSAL, WINDOW, SOFTCAP, MASKED):
    """Logits of a tile in units of ln 2, -inf where hidden; `position` is that of the query among the keys."""
    z = tl.dot(q, k, input_precision="ieee")
    if SOFTCAP:
        # tanh(x) = 1 - 2 / (exp(2x) + 1), right at both infinities.
        z = softcap * (1.0 - 2.0 / (tl.exp2(z * (scale / softcap * 2.8853900817779268)) + 1.0))
        z = z * 1.4426950408889634
    else:
        z = z * (scale * 1.4426950408889634)
    if MASKED:
        visible = (columns < keys)[None, :]
        if CAUSAL:
            visible = visible & (columns[None, :] <= position[:, None])
        if WINDOW:
            ahead = columns[None, :] - position[:, None]
            visible = visible & (ahead < window) & (-ahead < window)
        z = tl.where(visible, z, -float("inf"))
    return z


@jit
@no_type_check
def _count(z, m, s, t):
    """Take a tile of logits into the statistics of its rows."""
    top = tl.maximum(m, tl.max(z, 1))
    safe = tl.where(top == -float("inf"), 0.0, top)
    fall = tl.where(m == -float("inf"), 0.0, m - safe)
    factor = tl.exp2(fall)
    shifted = z - safe[:, None]
    p = tl.exp2(shifted)
    t = factor * (t + fall * s) + tl.sum(tl.where(p > 0.0, shifted * p, 0.0), 1)
    s = factor * s + tl.sum(p, 1)
    return top, s, t


@jit
@no_type_check
def _count_tiles(
    q, k_ptrs, step, low, high, position, dims, m, s, t, keys, scale, softcap, window,
    DIM: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
    CAUSAL: tl.constexpr, WINDOW: tl.constexpr, SOFTCAP: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """Statistics of the rows over the keys from `low` up to `high`."""
    for start in range(low, high, BLOCK_N):
        columns = start + tl.arange(0, BLOCK_N)
        inside = dims[:, None] < DIM
        if MASKED:
            inside = inside & (columns < keys)[None, :]
        k = tl.load(k_ptrs, mask=inside, other=0.0)
        z = _logits(q, k, columns, position, keys, scale, softcap, window, CAUSAL, WINDOW, SOFTCAP, MASKED)
        m, s, t = _count(z, m, s, t)
        k_ptrs += step
    return k_ptrs, m, s, t


@jit
@no_type_check
def _weigh_tiles(
    q, k_ptrs, v_ptrs, k_step, v_step, low, high, position, dims, value_dims, m, beta, total, acc,
    keys, scale, softcap, window,
    DIM: tl.constexpr, VALUE_DIM: tl.constexpr, BLOCK_N: tl.constexpr,
    CAUSAL: tl.constexpr, WINDOW: tl.constexpr, SOFTCAP: tl.constexpr, ADAPT: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """Weighted sum of the values over the keys from `low` up to `high`, and the sum of the weights.

    With adaptation `m` is the final maximum, so that nothing is ever scaled again; without it is a running one.
    """
    for start in range(low, high, BLOCK_N):
        columns = start + tl.arange(0, BLOCK_N)
        inside = dims[:, None] < DIM
        inside_v = value_dims[None, :] < VALUE_DIM
        if MASKED:
            inside = inside & (columns < keys)[None, :]
            inside_v = inside_v & (columns < keys)[:, None]
        k = tl.load(k_ptrs, mask=inside, other=0.0)
        z = _logits(q, k, columns, position, keys, scale, softcap, window, CAUSAL, WINDOW, SOFTCAP, MASKED)
        if ADAPT:
            p = tl.exp2((z - m[:, None]) * beta[:, None])
        else:
            top = tl.maximum(m, tl.max(z, 1))
            safe = tl.where(top == -float("inf"), 0.0, top)
            factor = tl.exp2(tl.where(m == -float("inf"), 0.0, m - safe))
            p = tl.exp2(z - safe[:, None])
            total = total * factor
            acc = acc * factor[:, None]
            m = top
        total += tl.sum(p, 1)
        v = tl.load(v_ptrs, mask=inside_v, other=0.0)
        acc = tl.dot(p.to(v.dtype), v, acc, input_precision="ieee")
        k_ptrs += k_step
        v_ptrs += v_step
    return k_ptrs, v_ptrs, m, total, acc


@jit
@no_type_check
def _prefill_kernel(
    q_ptr, k_ptr, v_ptr, o_ptr, h_ptr, lse_ptr, law_ptr,
    q_batch, q_head, q_row, q_dim, k_batch, k_head, k_row, k_dim, v_batch, v_head, v_row, v_dim,
    heads, groups, queries, keys, scale, softcap, window,
    DIM: tl.constexpr, VALUE_DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
    CAUSAL: tl.constexpr, WINDOW: tl.constexpr, SOFTCAP: tl.constexpr, ADAPT: tl.constexpr,
    STATISTICS: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """One tile of queries of one head: first its temperatures, then its output."""
    tiles = tl.cdiv(queries, BLOCK_M)
    place = tl.program_id(0) // tiles
    tile = tl.program_id(0) % tiles
    if CAUSAL:  # the longest rows first: what is left at the end is short
        tile = tiles - 1 - tile
    batch = (place // heads).to(tl.int64)
    head = (place % heads).to(tl.int64)
    kv_head = head // groups
    rows = tile * BLOCK_M + tl.arange(0, BLOCK_M)
    position = rows + (keys - queries)
    dims = tl.arange(0, BLOCK_D)
    value_dims = tl.arange(0, BLOCK_DV)

    # Keys from `low` up to `high` are looked at; those up to `whole` are visible to every row of the tile.
    low = 0
    high = keys
    whole = keys
    first = tile * BLOCK_M + (keys - queries)
    if CAUSAL:
        high = tl.maximum(tl.minimum(high, first + BLOCK_M), 0)
        whole = tl.maximum(tl.minimum(whole, first + 1), 0)
    if WINDOW:
        low = tl.maximum(first - window + 1, 0) // BLOCK_N * BLOCK_N
        high = tl.minimum(high, tl.maximum(first + BLOCK_M - 1 + window, 0))
        whole = low
    else:
        whole = whole // BLOCK_N * BLOCK_N

    q_ptrs = q_ptr + batch * q_batch + head * q_head + rows.to(tl.int64)[:, None] * q_row + dims[None, :] * q_dim
    q = tl.load(q_ptrs, mask=(rows < queries)[:, None] & (dims[None, :] < DIM), other=0.0)
    columns = low + tl.arange(0, BLOCK_N)
    k_ptrs = k_ptr + batch * k_batch + kv_head * k_head + columns.to(tl.int64)[None, :] * k_row + dims[:, None] * k_dim
    v_ptrs = v_ptr + batch * v_batch + kv_head * v_head + columns.to(tl.int64)[:, None] * v_row
    v_ptrs += value_dims[None, :] * v_dim
    k_step = BLOCK_N * k_row
    v_step = BLOCK_N * v_row

    m = tl.full([BLOCK_M], -float("inf"), tl.float32)
    beta = tl.full([BLOCK_M], 1.0, tl.float32)
    if ADAPT:
        s = tl.zeros([BLOCK_M], tl.float32)
        t = tl.zeros([BLOCK_M], tl.float32)
        ptrs, m, s, t = _count_tiles(
            q, k_ptrs, k_step, low, whole, position, dims, m, s, t, keys, scale, softcap, window,
            DIM, BLOCK_N, BLOCK_D, CAUSAL, WINDOW, SOFTCAP, False,
        )  # fmt: skip
        ptrs, m, s, t = _count_tiles(
            q, ptrs, k_step, whole, high, position, dims, m, s, t, keys, scale, softcap, window,
            DIM, BLOCK_N, BLOCK_D, CAUSAL, WINDOW, SOFTCAP, True,
        )  # fmt: skip
        h, beta = _beta(law_ptr, s, t)
        if STATISTICS:
            at = place.to(tl.int64) * queries + rows
            tl.store(h_ptr + at, h, mask=rows < queries)
            tl.store(lse_ptr + at, (m + tl.log2(s)) * 0.6931471805599453, mask=rows < queries)
        m = tl.where(m == -float("inf"), 0.0, m)

    total = tl.zeros([BLOCK_M], tl.float32)
    acc = tl.zeros([BLOCK_M, BLOCK_DV], tl.float32)
    k_ptrs, v_ptrs, m, total, acc = _weigh_tiles(
        q, k_ptrs, v_ptrs, k_step, v_step, low, whole, position, dims, value_dims, m, beta, total, acc,
        keys, scale, softcap, window, DIM, VALUE_DIM, BLOCK_N, CAUSAL, WINDOW, SOFTCAP, ADAPT, False,
    )  # fmt: skip
    k_ptrs, v_ptrs, m, total, acc = _weigh_tiles(
        q, k_ptrs, v_ptrs, k_step, v_step, whole, high, position, dims, value_dims, m, beta, total, acc,
        keys, scale, softcap, window, DIM, VALUE_DIM, BLOCK_N, CAUSAL, WINDOW, SOFTCAP, ADAPT, True,
    )  # fmt: skip
    out = acc / tl.where(total == 0.0, 1.0, total)[:, None]
    o_ptrs = o_ptr + (place.to(tl.int64) * queries + rows)[:, None] * VALUE_DIM + value_dims[None, :]
    tl.store(o_ptrs, out.to(o_ptr.dtype.element_ty), mask=(rows < queries)[:, None] & (value_dims < VALUE_DIM)[None, :])


@jit
@no_type_check
def _decode_scores(
    q_ptr, k_ptr, v_ptr, score_ptr, part_ptr, sum_ptr, partial_ptr,
    q_batch, q_head, q_row, q_dim, k_batch, k_head, k_row, k_dim, v_batch, v_head, v_row, v_dim,
    kv_heads, groups, queries, keys, span, scale, softcap, window,
    DIM: tl.constexpr, VALUE_DIM: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
    CAUSAL: tl.constexpr, WINDOW: tl.constexpr, SOFTCAP: tl.constexpr, ADAPT: tl.constexpr,
):  # fmt: skip
    """One split of the keys of one key head, for all its query heads: scores and statistics.

    Without adaptation the values are weighed right away.
    """
    split = tl.program_id(1)
    place = tl.program_id(0).to(tl.int64)
    batch = place // kv_heads
    kv_head = place % kv_heads
    total_rows = groups * queries
    rows = tl.arange(0, BLOCK_R)
    head = kv_head * groups + rows // queries
    position = rows % queries + (keys - queries)
    dims = tl.arange(0, BLOCK_D)
    value_dims = tl.arange(0, BLOCK_DV)
    low = split * span
    high = tl.minimum(low + span, keys)
    columns = low + tl.arange(0, BLOCK_N)

    q_ptrs = (
        q_ptr + batch * q_batch + head[:, None] * q_head + (rows % queries)[:, None] * q_row + dims[None, :] * q_dim
    )
    q = tl.load(q_ptrs, mask=(rows < total_rows)[:, None] & (dims[None, :] < DIM), other=0.0)
    k_ptrs = k_ptr + batch * k_batch + kv_head * k_head + columns.to(tl.int64)[None, :] * k_row + dims[:, None] * k_dim
    m = tl.full([BLOCK_R], -float("inf"), tl.float32)
    s = tl.zeros([BLOCK_R], tl.float32)
    at = (place * tl.num_programs(1) + split) * total_rows + rows
    if ADAPT:
        t = tl.zeros([BLOCK_R], tl.float32)
        for start in range(low, high, BLOCK_N):
            columns = start + tl.arange(0, BLOCK_N)
            k = tl.load(k_ptrs, mask=(dims[:, None] < DIM) & (columns < keys)[None, :], other=0.0)
            z = _logits(q, k, columns, position, keys, scale, softcap, window, CAUSAL, WINDOW, SOFTCAP, True)
            m, s, t = _count(z, m, s, t)
            score_ptrs = score_ptr + (place * total_rows + rows)[:, None] * keys + columns[None, :]
            tl.store(score_ptrs, z, mask=(rows < total_rows)[:, None] & (columns < keys)[None, :])
            k_ptrs += BLOCK_N * k_row
        tl.store(part_ptr + at * 3, m, mask=rows < total_rows)
        tl.store(part_ptr + at * 3 + 1, s, mask=rows < total_rows)
        tl.store(part_ptr + at * 3 + 2, t, mask=rows < total_rows)
    else:
        v_ptrs = v_ptr + batch * v_batch + kv_head * v_head + columns.to(tl.int64)[:, None] * v_row
        v_ptrs += value_dims[None, :] * v_dim
        acc = tl.zeros([BLOCK_R, BLOCK_DV], tl.float32)
        k_ptrs, v_ptrs, m, s, acc = _weigh_tiles(
            q, k_ptrs, v_ptrs, BLOCK_N * k_row, BLOCK_N * v_row, low, high, position, dims, value_dims, m, m, s, acc,
            keys, scale, softcap, window, DIM, VALUE_DIM, BLOCK_N, CAUSAL, WINDOW, SOFTCAP, ADAPT, True,
        )  # fmt: skip
        tl.store(sum_ptr + at * 2, m, mask=rows < total_rows)
        tl.store(sum_ptr + at * 2 + 1, s, mask=rows < total_rows)
        inside = (rows < total_rows)[:, None] & (value_dims < VALUE_DIM)[None, :]
        tl.store(partial_ptr + at[:, None] * VALUE_DIM + value_dims[None, :], acc, mask=inside)


@jit
@no_type_check
def _decode_values(
    v_ptr, score_ptr, part_ptr, sum_ptr, partial_ptr, law_ptr, v_batch, v_head, v_row, v_dim,
    kv_heads, total_rows, keys, span, splits,
    VALUE_DIM: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
    BLOCK_DV: tl.constexpr,
):  # fmt: skip
    """Merge the statistics of all splits, then weigh the values of one."""
    split = tl.program_id(1)
    place = tl.program_id(0).to(tl.int64)
    rows = tl.arange(0, BLOCK_R)
    value_dims = tl.arange(0, BLOCK_DV)
    m = tl.full([BLOCK_R], -float("inf"), tl.float32)
    s = tl.zeros([BLOCK_R], tl.float32)
    t = tl.zeros([BLOCK_R], tl.float32)
    for i in range(splits):
        part = part_ptr + ((place * splits + i) * total_rows + rows) * 3
        m1 = tl.load(part, mask=rows < total_rows, other=-float("inf"))
        s1 = tl.load(part + 1, mask=rows < total_rows, other=0.0)
        t1 = tl.load(part + 2, mask=rows < total_rows, other=0.0)
        top = tl.maximum(m, m1)
        fall = tl.where(m == -float("inf"), 0.0, m - top)
        fall1 = tl.where(m1 == -float("inf"), 0.0, m1 - top)
        factor = tl.exp2(fall)
        factor1 = tl.exp2(fall1)
        t = factor * (t + fall * s) + factor1 * (t1 + fall1 * s1)
        s = factor * s + factor1 * s1
        m = top
    _, beta = _beta(law_ptr, s, t)
    m = tl.where(m == -float("inf"), 0.0, m)

    low = split * span
    high = tl.minimum(low + span, keys)
    columns = low + tl.arange(0, BLOCK_N)
    v_ptrs = v_ptr + (place // kv_heads) * v_batch + (place % kv_heads) * v_head + columns.to(tl.int64)[:, None] * v_row
    v_ptrs += value_dims[None, :] * v_dim
    total = tl.zeros([BLOCK_R], tl.float32)
    acc = tl.zeros([BLOCK_R, BLOCK_DV], tl.float32)
    for start in range(low, high, BLOCK_N):
        columns = start + tl.arange(0, BLOCK_N)
        score_ptrs = score_ptr + (place * total_rows + rows)[:, None] * keys + columns[None, :]
        inside = (rows < total_rows)[:, None] & (columns < keys)[None, :]
        z = tl.load(score_ptrs, mask=inside, other=-float("inf"))
        p = tl.exp2((z - m[:, None]) * beta[:, None])
        total += tl.sum(p, 1)
        v = tl.load(v_ptrs, mask=(columns < keys)[:, None] & (value_dims < VALUE_DIM)[None, :], other=0.0)
        acc = tl.dot(p.to(v.dtype), v, acc, input_precision="ieee")
        v_ptrs += BLOCK_N * v_row
    at = (place * splits + split) * total_rows + rows
    # All splits share one maximum; 0 stands for it.
    tl.store(sum_ptr + at * 2, m * 0.0, mask=rows < total_rows)
    tl.store(sum_ptr + at * 2 + 1, total, mask=rows < total_rows)
    inside = (rows < total_rows)[:, None] & (value_dims < VALUE_DIM)[None, :]
    tl.store(partial_ptr + at[:, None] * VALUE_DIM + value_dims[None, :], acc, mask=inside)


@jit
@no_type_check
def _decode_merge(
    sum_ptr, partial_ptr, o_ptr, total_rows, splits,
    VALUE_DIM: tl.constexpr, BLOCK_S: tl.constexpr, BLOCK_DV: tl.constexpr,
):  # fmt: skip
    """Add up the partial outputs of one row."""
    row = tl.program_id(1)
    place = tl.program_id(0).to(tl.int64)
    split = tl.arange(0, BLOCK_S)
    value_dims = tl.arange(0, BLOCK_DV)
    at = (place * splits + split) * total_rows + row
    m = tl.load(sum_ptr + at * 2, mask=split < splits, other=-float("inf"))
    total = tl.load(sum_ptr + at * 2 + 1, mask=split < splits, other=0.0)
    top = tl.max(m, 0)
    factor = tl.exp2(tl.where(m == -float("inf"), 0.0, m - top))
    inside = (split < splits)[:, None] & (value_dims < VALUE_DIM)[None, :]
    partial = tl.load(partial_ptr + at[:, None] * VALUE_DIM + value_dims[None, :], mask=inside, other=0.0)
    total = tl.sum(total * factor, 0)
    out = tl.sum(partial * factor[:, None], 0) / tl.where(total == 0.0, 1.0, total)
    o_ptrs = o_ptr + (place * total_rows + row) * VALUE_DIM + value_dims
    tl.store(o_ptrs, out.to(o_ptr.dtype.element_ty), mask=value_dims < VALUE_DIM)
