"""How RAT's kernels are launched: sizes of tiles, room for results, one function a kernel.

Forward: `states` runs the recurrence, `turned` brings the end states of chunks into the form that products take, and
`attend` weighs them, starting from the own key of each query. Backward: the states anew, then `query_gradient` in one
pass over the closed chunks, `state_gradient` split over ranges of queries, and `scan_gradient` through the recurrence.
One step: `step`, which is two launches where a row's states are split among programs.

Here every tensor's channels lie next to each other, and `keys` and `values` are states of chunks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from holdfast.nn.rat.call import ChunkAnswer, ChunkCall, Past
from holdfast.nn.rat.triton import decode_kernels, gradient_kernels, kernels

LOG2_E = 1 / math.log(2)
"""Logits are in units of ln 2 inside the kernels."""

LONG = 1024
"""From here on sizes of tiles are tried out anew."""

STEP_TILE = 32
"""States of chunks that a step reads at once."""

MOST_SPLITS = 32


@dataclass(frozen=True)
class States:
    """What the recurrence leaves.

    Arguments:
        running_key: at every token, not turned, in the dtype of the value; `None` unless asked for.
        running_value: likewise.
        own: logit of each query and its running key, in units of ln 2.
        key_ends: at the last token of each chunk, not turned.
        value_ends: likewise.
    """

    running_key: Float[Tensor, "batch time heads dim"] | None
    running_value: Float[Tensor, "batch time heads dim"]
    own: Float[Tensor, "batch heads time"]
    key_ends: Float[Tensor, "batch chunks heads dim"]
    value_ends: Float[Tensor, "batch chunks heads dim"]


def states(call: ChunkCall, *, keys: bool) -> States:
    """Run the recurrence of all chunks; with `keys` the running keys are kept too."""
    batch, time, heads, dim = call.value.shape
    wide: dict[str, Any] = {"dtype": torch.float32, "device": call.value.device}
    running_value = torch.empty_like(call.value, memory_format=torch.contiguous_format)
    running_key = torch.empty_like(running_value) if keys else None
    own = torch.empty((batch, heads, time), **wide)
    key_ends = torch.empty((batch, call.chunks, heads, dim), **wide)
    value_ends = torch.empty_like(key_ends)
    start_key, start_value = _starts(call)
    kernel, blocks = _of_chunks(kernels.states_kernel, call)
    kernel[_grid_of_chunks(call)](
        call.query,
        call.key,
        call.value,
        call.gate,
        start_key,
        start_value,
        running_value if running_key is None else running_key,
        running_value,
        own,
        key_ends,
        value_ends,
        *_strides(call.query, call.key, call.value, call.gate),
        *start_key.stride()[:2],
        *start_value.stride()[:2],
        time,
        call.chunks,
        heads,
        call.query.shape[2],
        call.chunk_size,
        call.scale * LOG2_E,
        DIM=dim,
        BLOCK_D=_padded(dim),
        PAST=call.past is not None,
        KEYS=keys,
        **blocks,
    )
    return States(running_key, running_value, own, key_ends, value_ends)


def turned(
    x: Float[Tensor, "copies batch rows heads dim"],
    out: Float[Tensor, "batch rows heads dim"],
    call: ChunkCall,
    *,
    span: int = 1,
    turn: Literal[-1, 0, 1] = 1,
    own: tuple[Float[Tensor, "batch time all_heads dim"], Float[Tensor, "batch all_heads time"]] | None = None,
) -> Tensor:
    """Write the sum of the copies, turned to the position of its chunk, into `out`.

    Arguments:
        x: one copy for each number to add up.
        out: of any dtype.
        call: says which positions there are.
        span: rows of a chunk.
        turn: -1 turns back, 0 not at all.
        own: running keys in memory as `x` is, and weights, of what is added without being turned.

    Returns:
        `out`.
    """
    copies, batch, rows, heads, dim = x.shape
    turn = 0 if call.rope_theta is None else turn
    half = (dim + 1) // 2
    block_h = max(16, _power(half))
    block_r = 16 if kernels.INTERPRETED else max(4, 1024 // block_h)
    own_key, own_weight = (x, x) if own is None else own
    kernels.turn_kernel[(batch * heads * -(-rows // block_r),)](
        x,
        out,
        _cycles(dim, call.rope_theta, x.device) if call.rope_theta is not None and turn else x,
        x if call.past is None else call.past.count,
        own_key,
        own_weight,
        *x.stride()[:4],
        *out.stride()[:3],
        rows,
        heads,
        copies,
        span,
        DIM=dim,
        HALF=half,
        BLOCK_R=block_r,
        BLOCK_H=block_h,
        TURN=turn,
        PAST=call.past is not None,
        OWN=own is not None,
        num_warps=4,
    )
    return out


def turned_query(call: ChunkCall) -> Float[Tensor, "batch time groups dim"]:
    """The queries at the positions of their chunks."""
    if call.rope_theta is None:
        return call.query
    return turned(call.query[None], torch.empty(call.query.shape, **_like(call)), call, span=call.chunk_size)


def closed(
    call: ChunkCall, made: States
) -> tuple[Float[Tensor, "batch heads chunks dim"], Float[Tensor, "batch heads chunks dim"]]:
    """Keys and values of the call's own chunks, as products take them: the keys turned, in the dtype of the value."""
    batch, chunks, heads, dim = made.key_ends.shape
    keys, values = (torch.empty((batch, heads, chunks, dim), **_like(call)) for _ in range(2))
    turned(made.key_ends[None], keys.transpose(1, 2), call)
    turned(made.value_ends[None], values.transpose(1, 2), call, turn=0)
    return keys, values


def attend(
    call: ChunkCall, made: States, query: Tensor, keys: Tensor, values: Tensor, *, lse: bool
) -> tuple[Float[Tensor, "batch time heads dim"], Float[Tensor, "batch heads time"] | None]:
    """Turn the running values into outputs, where they are; with `lse` also log2 of each row's sum."""
    _, time, heads, dim = call.value.shape
    log_sum = torch.empty_like(made.own) if lse else None
    past_keys, past_values, count = _past(call)
    kernel, blocks = _of_tiles(kernels.attend_kernel, call, restore="o_ptr")
    kernel[_grid_of_queries(call)](
        query,
        keys,
        values,
        past_keys,
        past_values,
        count,
        made.own,
        made.running_value,
        made.own if log_sum is None else log_sum,
        *query.stride()[:3],
        *past_keys.stride()[:3],
        *past_values.stride()[:3],
        time,
        call.chunks,
        past_keys.shape[2],
        heads,
        query.shape[2],
        call.chunk_size,
        call.scale * LOG2_E,
        DIM=dim,
        BLOCK_D=_padded(dim),
        PAST=call.past is not None,
        LSE=lse,
        **blocks,
    )
    return made.running_value, log_sum


@dataclass(frozen=True)
class Rows:
    """What the gradients of a call are computed from, beside the call.

    Arguments:
        query: turned.
        keys: of the call's own chunks, turned.
        values: likewise.
        output: of the call.
        log_sum: log2 of each row's sum.
        gradient: of the output, contiguous.
    """

    query: Float[Tensor, "batch time groups dim"]
    keys: Float[Tensor, "batch heads chunks dim"]
    values: Float[Tensor, "batch heads chunks dim"]
    output: Float[Tensor, "batch time heads dim"]
    log_sum: Float[Tensor, "batch heads time"]
    gradient: Float[Tensor, "batch time heads dim"]


def query_gradient(
    call: ChunkCall, made: States, rows: Rows
) -> tuple[Float[Tensor, "batch time groups dim"], Tensor, Tensor]:
    """Gradient of the queries; for each head and query gradient x output, and gradient of own logit x scale."""
    batch, time, heads, dim = call.value.shape
    groups = call.query.shape[2]
    by_head = torch.empty((batch, time, heads, dim), **_like(call))
    delta, own_gradient = torch.empty_like(made.own), torch.empty_like(made.own)
    past_keys, past_values, count = _past(call)
    kernel, blocks = _of_tiles(gradient_kernels.query_gradient_kernel, call)
    kernel[_grid_of_queries(call)](
        rows.query,
        rows.keys,
        rows.values,
        past_keys,
        past_values,
        count,
        made.own,
        rows.log_sum,
        made.running_value,
        rows.output,
        rows.gradient,
        by_head,
        delta,
        own_gradient,
        *rows.query.stride()[:3],
        *past_keys.stride()[:3],
        *past_values.stride()[:3],
        time,
        call.chunks,
        past_keys.shape[2],
        heads,
        groups,
        call.chunk_size,
        call.scale * LOG2_E,
        call.scale,
        DIM=dim,
        BLOCK_D=_padded(dim),
        PAST=call.past is not None,
        **blocks,
    )
    assert made.running_key is not None
    gradient = torch.empty((batch, time, groups, dim), **_like(call))
    by_group = _by_group(by_head, groups)
    turned(by_group, gradient, call, span=call.chunk_size, turn=-1, own=(made.running_key, own_gradient))
    return gradient, delta, own_gradient


def state_gradient(
    call: ChunkCall, rows: Rows, delta: Tensor, keys: Tensor, values: Tensor, *, past: bool
) -> tuple[Float[Tensor, "splits batch heads keys dim"], Float[Tensor, "splits batch heads keys dim"]]:
    """Gradients of turned keys and of values, own ones or those of the `past`, in parts that are to be added."""
    batch, time, heads, dim = call.value.shape
    number = keys.shape[2]
    splits = _splits(batch * heads * -(-number // 64), -(-time // 64), call.value.device)
    shape = (splits, batch, heads, number, dim)
    key_parts, value_parts = (torch.empty(shape, dtype=torch.float32, device=keys.device) for _ in range(2))
    kernel, blocks = _of_tiles(gradient_kernels.state_gradient_kernel, call)
    _, _, count = _past(call)

    def grid(meta: dict[str, Any]) -> tuple[int]:
        return (batch * heads * splits * -(-number // meta["BLOCK_N"]),)

    kernel[grid](
        rows.query,
        keys,
        values,
        count,
        rows.log_sum,
        delta,
        rows.gradient,
        key_parts,
        value_parts,
        *rows.query.stride()[:3],
        *keys.stride()[:3],
        *values.stride()[:3],
        time,
        number,
        heads,
        rows.query.shape[2],
        splits,
        call.chunk_size,
        call.scale * LOG2_E,
        call.scale,
        DIM=dim,
        BLOCK_D=_padded(dim),
        PAST=past,
        **blocks,
    )
    return key_parts, value_parts


@dataclass(frozen=True)
class TokenGradients:
    """Gradients of what the recurrence takes.

    Arguments:
        key: of the tokens.
        value: likewise.
        gate: likewise.
        running: keys and values before the first token, in float32; without a past, of no meaning.
    """

    key: Float[Tensor, "batch time groups dim"]
    value: Float[Tensor, "batch time heads dim"]
    gate: Float[Tensor, "batch time heads dim"]
    running: tuple[Float[Tensor, "batch heads dim"], Float[Tensor, "batch heads dim"]]


def scan_gradient(
    call: ChunkCall, made: States, rows: Rows, own_gradient: Tensor, key_ends: Tensor, value_ends: Tensor
) -> TokenGradients:
    """Go back through the recurrence, from the gradients of the end states."""
    batch, time, heads, dim = call.value.shape
    groups = call.query.shape[2]
    key_by_head, value = (torch.empty((batch, time, heads, dim), **_like(call)) for _ in range(2))
    gate = torch.empty(call.gate.shape, dtype=call.gate.dtype, device=call.gate.device)
    start_key, start_value = _starts(call)
    running_key, running_value = (key_ends.new_empty(batch, heads, dim) for _ in range(2))
    kernel, blocks = _of_chunks(gradient_kernels.state_scan_gradient_kernel, call)
    kernel[_grid_of_chunks(call)](
        call.query,
        call.key,
        call.value,
        call.gate,
        start_key,
        start_value,
        made.running_key,
        made.running_value,
        made.own,
        rows.log_sum,
        own_gradient,
        rows.gradient,
        key_ends,
        value_ends,
        key_by_head,
        value,
        gate,
        running_key,
        running_value,
        *_strides(call.query, call.key, call.value, call.gate),
        *start_key.stride()[:2],
        *start_value.stride()[:2],
        time,
        call.chunks,
        heads,
        groups,
        call.chunk_size,
        DIM=dim,
        BLOCK_D=_padded(dim),
        PAST=call.past is not None,
        **blocks,
    )
    key = torch.empty((batch, time, groups, dim), **_like(call))
    turned(_by_group(key_by_head, groups), key, call, turn=0)
    return TokenGradients(key, value, gate, (running_key, running_value))


def step(call: ChunkCall, past: Past) -> ChunkAnswer:
    """One token, without gradient."""
    batch, _, heads, dim = call.value.shape
    capacity = past.keys.shape[2]
    splits = _splits(batch * heads, -(-capacity // STEP_TILE), call.value.device)
    wide: dict[str, Any] = {"dtype": torch.float32, "device": call.value.device}
    output = torch.empty((batch, 1, heads, dim), **_like(call))
    key_ends, value_ends = (torch.empty((batch, 1, heads, dim), **wide) for _ in range(2))
    sums = torch.empty((batch * heads, splits, 2), **wide)
    partial = torch.empty((batch * heads, splits, dim), **wide)
    tensors = (call.query, call.key, call.value, call.gate)
    starts = (past.running_key, past.running_value)
    cycles = past.count if call.rope_theta is None else _cycles(dim, call.rope_theta, call.value.device)
    decode_kernels.step_kernel[(batch * heads * splits,)](
        *tensors,
        *starts,
        past.keys,
        past.values,
        past.count,
        cycles,
        output,
        key_ends,
        value_ends,
        sums,
        partial,
        *(tensor.stride(place) for tensor in tensors for place in (0, 2)),
        *(tensor.stride(place) for tensor in starts for place in (0, 1)),
        *past.keys.stride()[:3],
        *past.values.stride()[:3],
        capacity,
        heads,
        call.query.shape[2],
        splits,
        call.scale * LOG2_E,
        DIM=dim,
        HALF=(dim + 1) // 2,
        BLOCK_N=STEP_TILE,
        BLOCK_D=_padded(dim),
        ROPE=call.rope_theta is not None,
        SPLIT=splits > 1,
        num_warps=4,
    )
    if splits > 1:
        decode_kernels.merge_kernel[(batch * heads,)](
            sums, partial, output, splits, DIM=dim, BLOCK_S=_power(splits), BLOCK_D=_padded(dim), num_warps=4
        )
    return ChunkAnswer(output, key_ends, value_ends)


def _by_group(x: Float[Tensor, "batch time heads dim"], groups: int) -> Float[Tensor, "copies batch time groups dim"]:
    """The heads of each group as copies: head h is of group h mod groups."""
    batch, time, heads, dim = x.shape
    return x.view(batch, time, heads // groups, groups, dim).permute(2, 0, 1, 3, 4)


def _like(call: ChunkCall) -> dict[str, Any]:
    return {"dtype": call.value.dtype, "device": call.value.device}


def _starts(call: ChunkCall) -> tuple[Tensor, Tensor]:
    """The running states before the call; anything, where the kernel does not read them."""
    past = call.past
    return (call.value, call.value) if past is None else (past.running_key, past.running_value)


def _past(call: ChunkCall) -> tuple[Tensor, Tensor, Tensor]:
    """Keys, values and counts of the past; anything, where the kernel does not read them."""
    past = call.past
    return (call.value, call.value, call.value) if past is None else (past.keys, past.values, past.count)


def _strides(*tensors: Tensor) -> list[int]:
    """Of all dimensions but the channels."""
    return [stride for tensor in tensors for stride in tensor.stride()[:3]]


def _grid_of_chunks(call: ChunkCall) -> Any:
    batch, _, heads, _ = call.value.shape
    return lambda meta: (batch * heads * -(-call.chunks // meta["BLOCK_C"]),)


def _grid_of_queries(call: ChunkCall) -> Any:
    batch, time, heads, _ = call.value.shape
    return lambda meta: (batch * heads * -(-time // meta["BLOCK_M"]),)


def _of_chunks(kernel: Any, call: ChunkCall) -> tuple[Any, dict[str, int]]:
    """A kernel of the recurrence, and its sizes where it does not try them out."""
    if kernels.INTERPRETED:
        return kernel, {"BLOCK_C": 8}
    dim = _padded(call.value.shape[-1])
    few = max(1, 512 // dim)
    sizes = [(few, 4)] if dim < 64 else [(few, 2), (few, 4), (2 * few, 4), (2 * few, 8)]
    # More chunks than there are would be idle lanes.
    limit = _power(call.chunks)
    choices = tuple({((("BLOCK_C", min(size, limit)),), warps, 1): None for size, warps in sizes})
    return _tuned(kernel, choices, call.time > LONG, None), {}


def _of_tiles(kernel: Any, call: ChunkCall, restore: str | None = None) -> tuple[Any, dict[str, int]]:
    """A kernel of matrix products, and its sizes where it does not try them out.

    Arguments:
        kernel: one with `BLOCK_M` queries and `BLOCK_N` states at once.
        call: what it is for.
        restore: the argument that it reads and writes.
    """
    if kernels.INTERPRETED:
        return kernel, {"BLOCK_M": 16, "BLOCK_N": 16}
    dim = _padded(call.value.shape[-1])
    if dim < 64:  # small heads are for tests, which compile each choice
        sizes = [(32, 32, 4, 1)]
    elif call.value.element_size() == 4:
        sizes = [(32, 32, 8, 1), (16, 32, 4, 1)] if dim <= 128 else [(16, 16, 8, 1)]
    elif kernel is kernels.attend_kernel:
        sizes = [(128, 64, 8, 3), (128, 32, 8, 3), (64, 64, 4, 3)] if dim <= 128 else [(128, 32, 8, 2), (64, 32, 8, 2)]
    else:
        sizes = [(64, 64, 4, 2), (64, 64, 8, 2), (64, 32, 4, 2)] if dim <= 128 else [(64, 32, 8, 1), (32, 32, 8, 1)]
    choices = tuple(((("BLOCK_M", m), ("BLOCK_N", n)), warps, stages) for m, n, warps, stages in sizes)
    return _tuned(kernel, choices, call.time > LONG, restore), {}


@lru_cache(maxsize=64)
def _tuned(
    kernel: Any, choices: tuple[tuple[tuple[tuple[str, int], ...], int, int], ...], long: bool, restore: str | None
) -> Any:
    """A kernel that tries out sizes: for each shape of head, and again for `long` inputs, so that a short first call
    does not settle it for all.
    """
    import triton

    configs = [triton.Config(dict(sizes), num_warps=warps, num_stages=stages) for sizes, warps, stages in choices]
    return triton.autotune(configs=configs, key=["BLOCK_D", "PAST"], restore_value=restore and [restore])(kernel)


@lru_cache(maxsize=64)
def _cycles(dim: int, theta: float, device: torch.device) -> Float[Tensor, " pairs"]:
    """By how much of a whole turn each pair of channels turns from one chunk to the next."""
    pair = torch.arange(dim // 2, device=device, dtype=torch.float64)
    return theta ** (-2 * pair / dim) / (2 * math.pi)


def _splits(programs: int, tiles: int, device: torch.device) -> int:
    """Parts of work of `tiles` tiles: two programs a multiprocessor where there are few, none without two tiles."""
    if device.type == "cuda":
        wanted = -(-2 * torch.cuda.get_device_properties(device).multi_processor_count // programs)
    else:
        wanted = 3
    return max(1, min(wanted, MOST_SPLITS, tiles // 2))


def _power(number: int) -> int:
    """The next power of two."""
    return 1 << (number - 1).bit_length()


def _padded(dim: int) -> int:
    """The next power of two that a matrix product takes."""
    return max(16, _power(dim))
