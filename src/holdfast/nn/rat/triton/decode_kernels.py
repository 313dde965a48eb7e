"""The Triton kernels of one step of RAT; `launches.py` launches them.

Number of states and position are read on the device, so that one recorded graph serves every step.
"""

from __future__ import annotations

from typing import no_type_check

import triton
import triton.language as tl

from holdfast.nn.rat.triton.kernels import cosine_and_sine


@triton.jit
@no_type_check
def step_kernel(
    q_ptr, k_ptr, v_ptr, g_ptr, start_k_ptr, start_v_ptr, past_k_ptr, past_v_ptr, count_ptr, cycles_ptr,
    o_ptr, end_k_ptr, end_v_ptr, sums_ptr, partial_ptr,
    q_batch, q_head, k_batch, k_head, v_batch, v_head, g_batch, g_head,
    start_k_batch, start_k_head, start_v_batch, start_v_head,
    past_k_batch, past_k_head, past_k_row, past_v_batch, past_v_head, past_v_row,
    capacity, heads, groups, splits, scale,
    DIM: tl.constexpr, HALF: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
    ROPE: tl.constexpr, SPLIT: tl.constexpr,
):  # fmt: skip
    """The new state of one head, and the attention of its query over one part of the states of chunks.

    The first part holds the own key. Without `SPLIT` it is the only one, and the output is done.
    """
    place = (tl.program_id(0) // splits).to(tl.int64)
    split = tl.program_id(0) % splits
    batch = place // heads
    head = place % heads
    group = head % groups
    dims = tl.arange(0, BLOCK_D)
    inside = dims < DIM
    q_ptr += batch * q_batch + group * q_head
    q = tl.load(q_ptr + dims, mask=inside, other=0.0).to(tl.float32)
    k = tl.load(k_ptr + batch * k_batch + group * k_head + dims, mask=inside, other=0.0).to(tl.float32)
    v = tl.load(v_ptr + batch * v_batch + head * v_head + dims, mask=inside, other=0.0).to(tl.float32)
    g = tl.load(g_ptr + batch * g_batch + head * g_head + dims, mask=inside, other=1.0).to(tl.float32)
    start_k_ptr += batch * start_k_batch + head * start_k_head
    start_v_ptr += batch * start_v_batch + head * start_v_head
    key = g * tl.load(start_k_ptr + dims, mask=inside, other=0.0).to(tl.float32) + (1.0 - g) * k
    value = g * tl.load(start_v_ptr + dims, mask=inside, other=0.0).to(tl.float32) + (1.0 - g) * v

    # Every part measures its weights against the own key at first, so that none is ever empty.
    m = tl.sum(q * key, 0) * scale
    total = tl.where(split == 0, 1.0, 0.0)
    acc = tl.where(split == 0, value, 0.0)
    if split == 0:
        tl.store(end_k_ptr + place * DIM + dims, key, mask=inside)
        tl.store(end_v_ptr + place * DIM + dims, value, mask=inside)

    position = tl.load(count_ptr + batch)
    if ROPE:
        pair = tl.where(dims < HALF, dims, dims - HALF)
        cosine, sine = cosine_and_sine(cycles_ptr, position + tl.zeros([1], tl.int64), pair, HALF)
        sine = tl.where(dims[None, :] < HALF, -sine, sine)
        other = tl.where(dims < HALF, dims + HALF, dims - HALF)
        other_q = tl.load(q_ptr + other, mask=inside, other=0.0).to(tl.float32)
        turned = q[None, :] * cosine + other_q[None, :] * sine
    else:
        turned = q[None, :]
    count = tl.minimum(position.to(tl.int32), capacity)
    share = tl.cdiv(tl.cdiv(count, BLOCK_N), splits) * BLOCK_N
    low = split * share
    high = tl.minimum(low + share, count)
    past_k_ptr += batch * past_k_batch + head * past_k_head
    past_v_ptr += batch * past_v_batch + head * past_v_head
    for start in range(low, high, BLOCK_N):
        column = start + tl.arange(0, BLOCK_N)
        row = column.to(tl.int64)[:, None]
        real = (column < high)[:, None] & inside[None, :]
        keys = tl.load(past_k_ptr + row * past_k_row + dims[None, :], mask=real, other=0.0).to(tl.float32)
        values = tl.load(past_v_ptr + row * past_v_row + dims[None, :], mask=real, other=0.0).to(tl.float32)
        z = tl.where(column < high, tl.sum(keys * turned, 1) * scale, -float("inf"))
        top = tl.maximum(m, tl.max(z, 0))
        factor = tl.exp2(m - top)
        p = tl.exp2(z - top)
        total = total * factor + tl.sum(p, 0)
        acc = acc * factor + tl.sum(p[:, None] * values, 0)
        m = top
    if SPLIT:
        at = place * splits + split
        tl.store(sums_ptr + at * 2, m)
        tl.store(sums_ptr + at * 2 + 1, total)
        tl.store(partial_ptr + at * DIM + dims, acc, mask=inside)
    else:
        tl.store(o_ptr + place * DIM + dims, (acc / total).to(o_ptr.dtype.element_ty), mask=inside)


@triton.jit
@no_type_check
def merge_kernel(
    sums_ptr, partial_ptr, o_ptr, splits,
    DIM: tl.constexpr, BLOCK_S: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Add up the parts of one head."""
    place = tl.program_id(0).to(tl.int64)
    split = tl.arange(0, BLOCK_S)
    dims = tl.arange(0, BLOCK_D)
    at = place * splits + split
    m = tl.load(sums_ptr + at * 2, mask=split < splits, other=-float("inf"))
    total = tl.load(sums_ptr + at * 2 + 1, mask=split < splits, other=0.0)
    factor = tl.exp2(m - tl.max(m, 0))
    inside = (split < splits)[:, None] & (dims < DIM)[None, :]
    partial = tl.load(partial_ptr + at[:, None] * DIM + dims[None, :], mask=inside, other=0.0)
    out = tl.sum(partial * factor[:, None], 0) / tl.sum(total * factor, 0)
    tl.store(o_ptr + place * DIM + dims, out.to(o_ptr.dtype.element_ty), mask=dims < DIM)
