"""Adaptive-temperature attention by Triton kernels, without gradient: what they take, and how they are launched.

The temperature of a row needs the entropy of the whole row, so that every row is gone through twice.

Prefill: one launch. A program takes a tile of queries, runs over the keys for the row's statistics, works out beta in
registers and runs over keys and values with beta folded into the scale. Nothing is stored but the output.
Decode (few queries): keys are split among programs. The first launch stores scores and statistics of each split, the
second merges them and weighs the values, the third adds up the splits. Keys and values are read once.

Triton is imported only where a kernel may run.
"""

from __future__ import annotations

import importlib.util
import math
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from holdfast.errors import ArgumentError
from holdfast.nn.attention import plain
from holdfast.nn.attention.call import AttentionCall
from holdfast.nn.attention.triton.agreement import agrees, measured
from holdfast.nn.normalisers import Adaptive, Plain
from holdfast.nn.temperature import PUBLISHED, AdaptiveTemperature

VARIABLE = "HOLDFAST_KERNELS"

DECODE_QUERIES = 16
"""Up to this many queries the keys are split among programs."""

DECODE_ROWS = 128
"""Rows (queries x query heads of one key head) that one decoding program can hold."""

LONG = 1024
"""From here on sizes of tiles are tried out anew."""

MAX_COEFFICIENTS = 7
MAX_DIM = 256
DTYPES = (torch.float16, torch.bfloat16, torch.float32)


def refusal(call: AttentionCall) -> str | None:
    """Not asked for, not known to be the fastest, or nothing that the kernels take.

    Errors:
        ArgumentError: `HOLDFAST_KERNELS` is neither of the two names.
    """
    wanted = kernels_wanted()
    if wanted == "triton":
        return unfit(call)
    if wanted == "reference" or call.transformed or not measured(call.query):
        return f"{VARIABLE} is not triton"
    if type(call.normaliser) is Plain:
        return "the plain softmax has a kernel of its own"
    reason = unfit(call)
    if reason is None and not agrees("attention", call.query, _kind(call), lambda: _small_cases(call)):
        return "they disagree with PyTorch on this device"
    return reason


def kernels_wanted() -> str:
    """What the environment asks for: `"triton"`, `"reference"`, or nothing.

    Errors:
        ArgumentError: `HOLDFAST_KERNELS` is neither of the two names.
    """
    name = os.environ.get(VARIABLE, "")
    if name not in ("", "triton", "reference"):
        raise ArgumentError(VARIABLE, "triton or reference", name)
    return name


def _kind(call: AttentionCall) -> tuple[int, int, int]:
    """What chooses among compiled kernels, beside device and dtype."""
    value = call.query if call.value is None else call.value
    return call.query.shape[-1], value.shape[-1], call.groups


def _small_cases(call: AttentionCall) -> Iterator[tuple[Tensor, Tensor]]:
    """Outputs like that of a call, whole and of a last query, and what they should be."""
    generator = torch.Generator().manual_seed(0)
    dim, value_dim, groups = _kind(call)

    def drawn(heads: int, number: int, width: int) -> Tensor:
        return torch.randn(2, heads, number, width, generator=generator).to(call.query)

    query, key, value = drawn(groups, 77, dim) * 3, drawn(1, 77, dim), drawn(1, 77, value_dim)
    with torch.no_grad():
        for asked in (query, query[:, :, -1:]):
            small = AttentionCall.of(asked, key, value, causal=True, normaliser=Adaptive())
            exact = AttentionCall.of(asked.double(), key.double(), value.double(), causal=True, normaliser=Adaptive())
            yield compute(small), plain.compute(exact)


def unfit(call: AttentionCall) -> str | None:
    """Why the kernels cannot compute a call, asked for or not."""
    widest = max(tensor.shape[-1] for tensor in (call.query, call.value) if tensor is not None)
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    if call.query.dtype not in DTYPES:
        return f"the inputs are of {call.query.dtype}"
    if call.mask is not None or call.sinks is not None:
        return "the kernel takes no mask and no sinks"
    if call.needs_gradient:
        return "a gradient is needed, which the kernel does not have"
    if widest > MAX_DIM:
        return f"a head has more than {MAX_DIM} dimensions"
    if call.table == 0 or widest == 0:
        return "an input is empty"
    if type(call.normaliser) not in (Plain, Adaptive):
        return f"the kernel knows no {type(call.normaliser).__name__}"
    law = _law_of(call)
    if law is not None and len(law.coefficients) > MAX_COEFFICIENTS:
        return f"the law has more than {MAX_COEFFICIENTS} coefficients"
    if call.query.is_cuda or (call.on_cpu and _interpreted()):
        return None
    return f"the inputs are on {call.query.device.type}"


def compute(
    call: AttentionCall, *, decode: bool | None = None, statistics: tuple[Tensor, Tensor] | None = None
) -> Float[Tensor, "batch heads queries value_dim"]:
    """Compute a call by the kernels.

    Extra memory: none in prefill; in decode 4 bytes for each query and key, and the partial outputs of the splits.

    Arguments:
        call: a whole one, whose last query stands at the last key.
        decode: force one form; `None`: decode for up to 16 queries.
        statistics: two contiguous float32 tensors (batch, heads, queries), filled by an adaptive prefill with the
            entropy and the logarithm of the sum of exp(z) of each row, both in nats and before the temperature.

    Returns:
        The output, in the dtype of `query`; zeros for a query without a visible key. NaN in a query stays in its row,
        NaN in a key in the rows that see it; NaN or infinity in a value reaches all rows of a tile that goes over its
        key, whether they see it or not, since a weight of 0 does not undo it.

    Errors:
        ArgumentError: a call or options that the kernels do not take.

    Source: arXiv 2410.01104, section 3.
    """
    reason = unfit(call)
    if reason is not None:
        raise ArgumentError("call", "one that the kernel takes", reason)
    rows = call.queries * call.groups
    if decode is None:
        decode = call.queries <= DECODE_QUERIES and rows <= DECODE_ROWS and statistics is None
    elif decode and rows > DECODE_ROWS:
        raise ArgumentError("decode", f"at most {DECODE_ROWS} rows for each key head", rows)
    if statistics is not None:
        if decode or _law_of(call) is None:
            raise ArgumentError("statistics", "an adaptive prefill", "another form")
        shape = call.query.shape[:3]
        for room in statistics:
            if room.shape != shape or room.dtype != torch.float32 or not room.is_contiguous():
                expected = f"contiguous float32 tensors of shape {tuple(shape)}"
                raise ArgumentError("statistics", expected, f"{room.dtype} of shape {tuple(room.shape)}")
    with torch.no_grad(), _on(call.query.device):
        return _decode(call) if decode else _prefill(call, statistics)


def _interpreted() -> bool:
    """Whether kernels run in Triton's interpreter, on a CPU."""
    from holdfast.nn.attention.triton import kernels

    return kernels.INTERPRETED


def _on(device: torch.device) -> AbstractContextManager[Any]:
    """Launch on the device that the inputs are on."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def _law_of(call: AttentionCall) -> AdaptiveTemperature | None:
    """The law that the kernel is to follow; `None`: a softmax."""
    return call.normaliser.temperature if isinstance(call.normaliser, Adaptive) else None


@lru_cache(maxsize=256)
def _numbers_of(law: AdaptiveTemperature | None, device: torch.device) -> Tensor:
    """Seven coefficients, threshold, entropy range and range of beta: an argument, so that no law is compiled in."""
    law = PUBLISHED if law is None else law  # without a law the kernel does not read them
    padding = (0.0,) * (MAX_COEFFICIENTS - len(law.coefficients))
    low, high = law.entropy_range or (-math.inf, math.inf)
    beta_max = math.inf if law.beta_max is None else law.beta_max
    numbers = (*padding, *law.coefficients, law.threshold, low, high, law.beta_min, beta_max)
    return torch.tensor(numbers, dtype=torch.float64, device=device)


def _padded(dim: int) -> int:
    """The next power of two that a matrix product takes."""
    return max(16, 1 << (dim - 1).bit_length())


def _prefill(call: AttentionCall, statistics: tuple[Tensor, Tensor] | None) -> Tensor:
    from holdfast.nn.attention.triton import kernels

    assert call.value is not None
    query, key, value, law = call.query, call.key, call.value, _law_of(call)
    batch, heads, queries, dim = query.shape
    value_dim = value.shape[-1]
    output = query.new_empty(batch, heads, queries, value_dim)
    entropy, logsumexp = (output, output) if statistics is None else statistics
    block_d, block_dv = _padded(dim), _padded(value_dim)
    long = min(queries, key.shape[2]) > LONG
    if kernels.INTERPRETED:
        kernel, blocks = kernels.prefill_kernel, {"BLOCK_M": 32, "BLOCK_N": 32}
    else:
        kernel, blocks = _tuned_prefill(max(block_d, block_dv), query.element_size(), long), {}

    def grid(meta: dict[str, Any]) -> tuple[int]:
        return (batch * heads * -(-queries // meta["BLOCK_M"]),)

    kernel[grid](
        query,
        key,
        value,
        output,
        entropy,
        logsumexp,
        _numbers_of(law, query.device),
        *query.stride(),
        *key.stride(),
        *value.stride(),
        heads,
        call.groups,
        queries,
        call.keys,
        call.scale,
        call.softcap or 0.0,
        call.window or 0,
        DIM=dim,
        VALUE_DIM=value_dim,
        BLOCK_D=block_d,
        BLOCK_DV=block_dv,
        CAUSAL=call.causal,
        WINDOW=call.window is not None,
        SOFTCAP=call.softcap is not None,
        ADAPT=law is not None,
        STATISTICS=statistics is not None,
        **blocks,
    )
    return output


@lru_cache(maxsize=32)
def _tuned_prefill(dim: int, itemsize: int, long: bool) -> Any:
    """The kernel that tries out its sizes, once for each shape of head and again for long inputs, so that a short
    first call does not settle it for all.
    """
    import triton

    from holdfast.nn.attention.triton import kernels

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
    return triton.autotune(configs=configs, key=keys)(kernels.prefill_kernel)


def _decode(call: AttentionCall) -> Tensor:
    from holdfast.nn.attention.triton import kernels

    assert call.value is not None
    query, key, value, law = call.query, call.key, call.value, _law_of(call)
    batch, heads, queries, dim = query.shape
    kv_heads, value_dim = key.shape[1], value.shape[-1]
    if call.window is not None:  # keys before the first window are not so much as looked at
        first = max(0, key.shape[2] - queries - call.window + 1)
        key, value = key[:, :, first:], value[:, :, first:]
    keys = key.shape[2]
    rows = queries * heads // kv_heads
    block_d, block_dv, block_r = _padded(dim), _padded(value_dim), _padded(rows)
    block_n = 32 if kernels.INTERPRETED or query.element_size() == 4 or max(block_d, block_dv) > 128 else 64
    span, splits = _splits(keys, batch * kv_heads, block_n, query.device)
    adapt = law is not None
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
    kernels.decode_scores[(places, splits)](
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
        call.scale,
        call.softcap or 0.0,
        call.window or 0,
        DIM=dim,
        VALUE_DIM=value_dim,
        **sizes,
        CAUSAL=call.causal,
        WINDOW=call.window is not None,
        SOFTCAP=call.softcap is not None,
        ADAPT=adapt,
        num_warps=4,
        num_stages=2,
    )
    if adapt:
        kernels.decode_values[(places, splits)](
            value,
            scores,
            parts,
            sums,
            partial,
            _numbers_of(law, query.device),
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
    kernels.decode_merge[(places, rows)](
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
