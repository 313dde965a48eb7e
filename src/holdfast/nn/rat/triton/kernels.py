"""The Triton kernels of RAT's forward pass over many tokens; `launches.py` says what each is for and launches them.

Recurrence, logits, softmax and sums are in float32. Logits are in units of ln 2, since exp2 is what the hardware has.
"""

from __future__ import annotations

from typing import no_type_check

import triton
import triton.language as tl


@triton.jit
@no_type_check
def states_kernel(
    q_ptr, k_ptr, v_ptr, g_ptr, start_k_ptr, start_v_ptr,
    running_k_ptr, running_v_ptr, own_ptr, end_k_ptr, end_v_ptr,
    q_batch, q_time, q_head, k_batch, k_time, k_head, v_batch, v_time, v_head, g_batch, g_time, g_head,
    start_k_batch, start_k_head, start_v_batch, start_v_head,
    time, chunks, heads, groups, chunk_size, scale,
    DIM: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_D: tl.constexpr, PAST: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """The recurrence of some chunks of one head: running values, logits of the own keys, and end states.

    With `KEYS` the running keys too, which the backward pass needs.
    """
    blocks = tl.cdiv(chunks, BLOCK_C)
    # Heads next to each other lie next to each other in memory, and share the query and key of their group.
    head = (tl.program_id(0) % heads).to(tl.int64)
    block = tl.program_id(0) // heads % blocks
    batch = (tl.program_id(0) // heads // blocks).to(tl.int64)
    group = head % groups
    chunk = block * BLOCK_C + tl.arange(0, BLOCK_C)
    dims = tl.arange(0, BLOCK_D)
    q_ptr += batch * q_batch + group * q_head
    k_ptr += batch * k_batch + group * k_head
    v_ptr += batch * v_batch + head * v_head
    g_ptr += batch * g_batch + head * g_head
    own_ptr += (batch * heads + head) * time

    key = tl.zeros([BLOCK_C, BLOCK_D], tl.float32)
    value = tl.zeros([BLOCK_C, BLOCK_D], tl.float32)
    if PAST:
        start_k_ptr += batch * start_k_batch + head * start_k_head
        start_v_ptr += batch * start_v_batch + head * start_v_head
        first = (chunk == 0)[:, None]
        key = tl.where(first, tl.load(start_k_ptr + dims, mask=dims < DIM, other=0.0).to(tl.float32)[None, :], key)
        value = tl.where(first, tl.load(start_v_ptr + dims, mask=dims < DIM, other=0.0).to(tl.float32)[None, :], value)
    for place in range(chunk_size):
        token = chunk.to(tl.int64) * chunk_size + place
        inside = (token < time)[:, None] & (dims < DIM)[None, :]
        # A token that the last chunk lacks changes nothing.
        g = tl.load(g_ptr + token[:, None] * g_time + dims[None, :], mask=inside, other=1.0).to(tl.float32)
        k = tl.load(k_ptr + token[:, None] * k_time + dims[None, :], mask=inside, other=0.0).to(tl.float32)
        v = tl.load(v_ptr + token[:, None] * v_time + dims[None, :], mask=inside, other=0.0).to(tl.float32)
        q = tl.load(q_ptr + token[:, None] * q_time + dims[None, :], mask=inside, other=0.0).to(tl.float32)
        key = g * key + (1.0 - g) * k
        value = g * value + (1.0 - g) * v
        # Query and own key stand in one chunk and are turned alike, which their product does not see.
        tl.store(own_ptr + token, tl.sum(q * key, 1) * scale, mask=token < time)
        at = ((batch * time + token) * heads + head)[:, None] * DIM + dims[None, :]
        tl.store(running_v_ptr + at, value.to(running_v_ptr.dtype.element_ty), mask=inside)
        if KEYS:
            tl.store(running_k_ptr + at, key.to(running_k_ptr.dtype.element_ty), mask=inside)
    at = ((batch * chunks + chunk) * heads + head)[:, None] * DIM + dims[None, :]
    inside = (chunk < chunks)[:, None] & (dims < DIM)[None, :]
    tl.store(end_k_ptr + at, key, mask=inside)
    tl.store(end_v_ptr + at, value, mask=inside)


@triton.jit
@no_type_check
def cosine_and_sine(cycles_ptr, position, pair, PAIRS: tl.constexpr):
    """Of the angles of pairs of channels at some positions, from the turns that a pair makes from one to the next."""
    cycles = tl.load(cycles_ptr + pair, mask=pair < PAIRS, other=0.0)
    # In float64, where any position is exact, until whole turns are gone.
    turns = position.to(tl.float64)[:, None] * cycles[None, :]
    angle = (turns - tl.floor(turns + 0.5)).to(tl.float32) * 6.283185307179586
    return tl.cos(angle), tl.sin(angle)


@triton.jit
@no_type_check
def turn_kernel(
    x_ptr, out_ptr, cycles_ptr, count_ptr, own_k_ptr, own_weight_ptr,
    x_copy, x_batch, x_row, x_head, out_batch, out_row, out_head,
    rows, heads, copies, span,
    DIM: tl.constexpr, HALF: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_H: tl.constexpr,
    TURN: tl.constexpr, PAST: tl.constexpr, OWN: tl.constexpr,
):  # fmt: skip
    """Sum of some copies, turned to the position of their chunk (`TURN` 1), turned back (-1) or left as it is (0).

    A chunk has `span` rows. With `OWN` it adds the running keys that lie as `x` does, each by its row's weight.
    """
    blocks = tl.cdiv(rows, BLOCK_R)
    head = (tl.program_id(0) % heads).to(tl.int64)
    block = tl.program_id(0) // heads % blocks
    batch = (tl.program_id(0) // heads // blocks).to(tl.int64)
    row = (block * BLOCK_R + tl.arange(0, BLOCK_R)).to(tl.int64)
    pair = tl.arange(0, BLOCK_H)
    inside = (row < rows)[:, None] & (pair < HALF)[None, :]
    inside_2 = (row < rows)[:, None] & (pair < DIM - HALF)[None, :]
    at = batch * x_batch + head * x_head + row[:, None] * x_row + pair[None, :]
    first = tl.zeros([BLOCK_R, BLOCK_H], tl.float32)
    second = tl.zeros([BLOCK_R, BLOCK_H], tl.float32)
    for copy in range(copies):
        x = x_ptr + at + copy * x_copy
        first += tl.load(x, mask=inside, other=0.0).to(tl.float32)
        second += tl.load(x + HALF, mask=inside_2, other=0.0).to(tl.float32)
    if TURN != 0:
        position = row // span
        if PAST:
            position += tl.load(count_ptr + batch).to(tl.int64)
        cosine, sine = cosine_and_sine(cycles_ptr, position, pair, HALF)
        sine = sine * TURN
        x = first
        first = x * cosine - second * sine
        second = second * cosine + x * sine
    if OWN:
        for copy in range(copies):
            own = own_k_ptr + at + copy * x_copy
            place = (batch * copies + copy) * heads + head
            weight = tl.load(own_weight_ptr + place * rows + row, mask=row < rows, other=0.0)[:, None]
            first += weight * tl.load(own, mask=inside, other=0.0).to(tl.float32)
            second += weight * tl.load(own + HALF, mask=inside_2, other=0.0).to(tl.float32)
    out_ptr += batch * out_batch + head * out_head
    out = out_ptr + row[:, None] * out_row + pair[None, :]
    tl.store(out, first.to(out_ptr.dtype.element_ty), mask=inside)
    tl.store(out + HALF, second.to(out_ptr.dtype.element_ty), mask=inside_2)


@triton.jit
@no_type_check
def _attend_tiles(
    q, k_ptr, v_ptr, k_row, v_row, low, high, limit, visible, m, total, acc, dims, scale,
    DIM: tl.constexpr, BLOCK_N: tl.constexpr, MASKED: tl.constexpr, CLEAN: tl.constexpr,
):  # fmt: skip
    """Softmax over the states from `low` up to `high`, none from `limit` on; a row sees those before `visible`.

    With `CLEAN` values that are not finite count as 0, and whether there were any is the last result.
    """
    broken = 0
    for start in range(low, high, BLOCK_N):
        column = start + tl.arange(0, BLOCK_N)
        inside = dims < DIM
        k_at = column.to(tl.int64)[None, :] * k_row + dims[:, None]
        v_at = column.to(tl.int64)[:, None] * v_row + dims[None, :]
        if MASKED:
            k = tl.load(k_ptr + k_at, mask=inside[:, None] & (column < limit)[None, :], other=0.0)
            v = tl.load(v_ptr + v_at, mask=inside[None, :] & (column < limit)[:, None], other=0.0)
        else:
            k = tl.load(k_ptr + k_at, mask=inside[:, None], other=0.0)
            v = tl.load(v_ptr + v_at, mask=inside[None, :], other=0.0)
        v = v.to(q.dtype)
        z = tl.dot(q, k.to(q.dtype), input_precision="ieee") * scale
        if MASKED:
            seen = column[None, :] < visible[:, None]
            z = tl.where(seen, z, -float("inf"))
        top = tl.maximum(m, tl.max(z, 1))
        factor = tl.exp2(m - top)
        p = tl.exp2(z - top[:, None])
        m = top
        total = total * factor + tl.sum(p, 1)
        acc = acc * factor[:, None]
        if CLEAN:
            wide = v.to(tl.float32)
            other = (wide - wide) != 0.0
            broken = tl.maximum(broken, tl.max(tl.max(other.to(tl.int32), 1), 0))
            v = tl.where(other, 0.0, wide).to(q.dtype)
        acc = tl.dot(p.to(q.dtype), v, acc, input_precision="ieee")
    return m, total, acc, broken


@triton.jit
@no_type_check
def attend_kernel(
    q_ptr, k_ptr, v_ptr, past_k_ptr, past_v_ptr, count_ptr, own_ptr, o_ptr, lse_ptr,
    q_batch, q_time, q_head, past_k_batch, past_k_head, past_k_row, past_v_batch, past_v_head, past_v_row,
    time, chunks, capacity, heads, groups, chunk_size, scale,
    DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    PAST: tl.constexpr, LSE: tl.constexpr,
):  # fmt: skip
    """Attention of a tile of queries of one head over the closed chunks; running values in `o_ptr` become outputs."""
    tiles = tl.cdiv(time, BLOCK_M)
    # The longest rows first: what is left at the end is short.
    tile = tiles - 1 - tl.program_id(0) // heads % tiles
    head = (tl.program_id(0) % heads).to(tl.int64)
    batch = (tl.program_id(0) // heads // tiles).to(tl.int64)
    place = batch * heads + head
    first = tile * BLOCK_M
    row = first + tl.arange(0, BLOCK_M)
    row_64 = row.to(tl.int64)
    dims = tl.arange(0, BLOCK_D)
    inside = (row < time)[:, None] & (dims < DIM)[None, :]
    q_ptr += batch * q_batch + head % groups * q_head
    q = tl.load(q_ptr + row_64[:, None] * q_time + dims[None, :], mask=inside, other=0.0)

    # The softmax starts from the own key, so that no row is ever empty.
    at = ((batch * time + row_64) * heads + head)[:, None] * DIM + dims[None, :]
    acc = tl.load(o_ptr + at, mask=inside, other=0.0).to(tl.float32)
    m = tl.load(own_ptr + place * time + row, mask=row < time, other=0.0)
    total = tl.full([BLOCK_M], 1.0, tl.float32)
    visible = row // chunk_size
    if PAST:
        count = tl.minimum(tl.load(count_ptr + batch).to(tl.int32), capacity)
        whole = count // BLOCK_N * BLOCK_N
        past_k_ptr += batch * past_k_batch + head * past_k_head
        past_v_ptr += batch * past_v_batch + head * past_v_head
        m, total, acc, _ = _attend_tiles(
            q, past_k_ptr, past_v_ptr, past_k_row, past_v_row, 0, whole, count, visible,
            m, total, acc, dims, scale, DIM, BLOCK_N, False, False,
        )  # fmt: skip
        m, total, acc, _ = _attend_tiles(
            q, past_k_ptr, past_v_ptr, past_k_row, past_v_row, whole, count, count, visible * 0 + count,
            m, total, acc, dims, scale, DIM, BLOCK_N, True, False,
        )  # fmt: skip
    k_ptr += place * chunks * DIM
    v_ptr += place * chunks * DIM
    # Chunks that end before the tile are seen by all of its rows, none by any from the chunk of the last row on.
    whole = first // chunk_size // BLOCK_N * BLOCK_N
    end = tl.minimum(first + BLOCK_M - 1, time - 1) // chunk_size
    m, total, acc, _ = _attend_tiles(
        q, k_ptr, v_ptr, DIM, DIM, 0, whole, chunks, visible, m, total, acc, dims, scale, DIM, BLOCK_N, False, False
    )
    m, total, acc, broken = _attend_tiles(
        q, k_ptr, v_ptr, DIM, DIM, whole, end, chunks, visible, m, total, acc, dims, scale, DIM, BLOCK_N, True, True
    )
    if broken > 0:
        # A weight of 0 does not undo NaN, so that such values were left out: they reach only the rows that see them.
        for column in range(whole, end):
            value = tl.load(v_ptr + column * DIM + dims, mask=dims < DIM, other=0.0).to(tl.float32)
            reached = (column < visible)[:, None] & ((value - value) != 0.0)[None, :]
            acc = tl.where(reached, float("nan"), acc)
    tl.store(o_ptr + at, (acc / total[:, None]).to(o_ptr.dtype.element_ty), mask=inside)
    if LSE:
        tl.store(lse_ptr + place * time + row, m + tl.log2(total), mask=row < time)


INTERPRETED: bool = not isinstance(attend_kernel, triton.runtime.JITFunction)
"""Whether Triton was imported with `TRITON_INTERPRET=1`: then these run in its interpreter, on a CPU."""
