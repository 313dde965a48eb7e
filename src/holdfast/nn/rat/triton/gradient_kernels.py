"""The Triton kernels of RAT's backward pass; `launches.py` says what each is for and launches them.

With p the weights of the closed chunks, w the weight of the own key, y the output, and K, V states of chunks:

    dz_ij = p_ij (dy_i V_j - dy_i y_i)        ds_i = w_i (dy_i v_i - dy_i y_i)
    dq_i = sum_j dz_ij K_j + ds_i k_i         dK_j = sum_i dz_ij q_i         dV_j = sum_i p_ij dy_i

and, inside a chunk, for the gradient dh of a running state h with gate g and token x (arXiv 2507.04416, section 3):

    dH_l = dh_l + g_{l+1} dH_{l+1}            dx_l = (1 - g_l) dH_l          dg_l = (h_{l-1} - x_l) dH_l
"""

from __future__ import annotations

from typing import no_type_check

import triton
import triton.language as tl


@triton.jit
@no_type_check
def _query_tiles(
    q, dy, k_ptr, v_ptr, k_row, v_row, low, high, limit, visible, lse, delta, dq, dims, scale,
    DIM: tl.constexpr, BLOCK_N: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """Gradient of queries by the states from `low` up to `high`, none from `limit` on; a row sees up to `visible`."""
    for start in range(low, high, BLOCK_N):
        column = start + tl.arange(0, BLOCK_N)
        inside = (dims < DIM)[None, :]
        if MASKED:
            inside = inside & (column < limit)[:, None]
        k = tl.load(k_ptr + column.to(tl.int64)[:, None] * k_row + dims[None, :], mask=inside, other=0.0).to(q.dtype)
        v = tl.load(v_ptr + column.to(tl.int64)[:, None] * v_row + dims[None, :], mask=inside, other=0.0).to(q.dtype)
        z = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        p = tl.exp2(z - lse[:, None])
        if MASKED:
            p = tl.where(column[None, :] < visible[:, None], p, 0.0)
        dz = p * (tl.dot(dy, tl.trans(v), input_precision="ieee") - delta[:, None])
        dq = tl.dot(dz.to(q.dtype), k, dq, input_precision="ieee")
    return dq


@triton.jit
@no_type_check
def query_gradient_kernel(
    q_ptr, k_ptr, v_ptr, past_k_ptr, past_v_ptr, count_ptr, own_ptr, lse_ptr, running_v_ptr, y_ptr, dy_ptr,
    dq_ptr, delta_ptr, own_gradient_ptr,
    q_batch, q_time, q_head, past_k_batch, past_k_head, past_k_row, past_v_batch, past_v_head, past_v_row,
    time, chunks, capacity, heads, groups, chunk_size, scale, factor,
    DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, PAST: tl.constexpr,
):  # fmt: skip
    """Gradient of a tile of turned queries of one head by the closed chunks, and dy y and ds, times `factor`."""
    tiles = tl.cdiv(time, BLOCK_M)
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
    at = ((batch * time + row_64) * heads + head)[:, None] * DIM + dims[None, :]
    dy = tl.load(dy_ptr + at, mask=inside, other=0.0)
    y = tl.load(y_ptr + at, mask=inside, other=0.0).to(tl.float32)
    value = tl.load(running_v_ptr + at, mask=inside, other=0.0).to(tl.float32)
    scalar = place * time + row
    lse = tl.load(lse_ptr + scalar, mask=row < time, other=0.0)
    own = tl.load(own_ptr + scalar, mask=row < time, other=0.0)
    delta = tl.sum(dy.to(tl.float32) * y, 1)
    ds = tl.exp2(own - lse) * (tl.sum(dy.to(tl.float32) * value, 1) - delta)
    tl.store(delta_ptr + scalar, delta, mask=row < time)
    tl.store(own_gradient_ptr + scalar, ds * factor, mask=row < time)

    dq = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    visible = row // chunk_size
    if PAST:
        count = tl.minimum(tl.load(count_ptr + batch).to(tl.int32), capacity)
        whole = count // BLOCK_N * BLOCK_N
        past_k_ptr += batch * past_k_batch + head * past_k_head
        past_v_ptr += batch * past_v_batch + head * past_v_head
        dq = _query_tiles(
            q, dy, past_k_ptr, past_v_ptr, past_k_row, past_v_row, 0, whole, count, visible,
            lse, delta, dq, dims, scale, DIM, BLOCK_N, False,
        )  # fmt: skip
        dq = _query_tiles(
            q, dy, past_k_ptr, past_v_ptr, past_k_row, past_v_row, whole, count, count, visible * 0 + count,
            lse, delta, dq, dims, scale, DIM, BLOCK_N, True,
        )  # fmt: skip
    k_ptr += place * chunks * DIM
    v_ptr += place * chunks * DIM
    whole = first // chunk_size // BLOCK_N * BLOCK_N
    end = tl.minimum(first + BLOCK_M - 1, time - 1) // chunk_size
    dq = _query_tiles(
        q, dy, k_ptr, v_ptr, DIM, DIM, 0, whole, chunks, visible, lse, delta, dq, dims, scale, DIM, BLOCK_N, False
    )
    dq = _query_tiles(
        q, dy, k_ptr, v_ptr, DIM, DIM, whole, end, chunks, visible, lse, delta, dq, dims, scale, DIM, BLOCK_N, True
    )
    tl.store(dq_ptr + at, (dq * factor).to(dq_ptr.dtype.element_ty), mask=inside)


@triton.jit
@no_type_check
def state_gradient_kernel(
    q_ptr, k_ptr, v_ptr, count_ptr, lse_ptr, delta_ptr, dy_ptr, dk_ptr, dv_ptr,
    q_batch, q_time, q_head, k_batch, k_head, k_row, v_batch, v_head, v_row,
    time, keys, heads, groups, splits, chunk_size, scale, factor,
    DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, PAST: tl.constexpr,
):  # fmt: skip
    """Gradient of a tile of states of one head by one part of the queries that see them.

    With `PAST` the states are of chunks before the call, which all queries see.
    """
    tiles = tl.cdiv(keys, BLOCK_N)
    head = (tl.program_id(0) % heads).to(tl.int64)
    split = tl.program_id(0) // heads % splits
    tile = tl.program_id(0) // heads // splits % tiles
    batch = (tl.program_id(0) // heads // splits // tiles).to(tl.int64)
    place = batch * heads + head
    column = tile * BLOCK_N + tl.arange(0, BLOCK_N)
    dims = tl.arange(0, BLOCK_D)
    if PAST:
        limit = tl.minimum(tl.load(count_ptr + batch).to(tl.int32), keys)
        first = tl.where(tile * BLOCK_N < limit, 0, time)
    else:
        limit = keys
        first = tl.minimum((tile * BLOCK_N + 1) * chunk_size, time)
    inside = (column < limit)[:, None] & (dims < DIM)[None, :]
    k_ptr += batch * k_batch + head * k_head
    v_ptr += batch * v_batch + head * v_head
    q_ptr += batch * q_batch + head % groups * q_head
    k = tl.load(k_ptr + column.to(tl.int64)[:, None] * k_row + dims[None, :], mask=inside, other=0.0)
    v = tl.load(v_ptr + column.to(tl.int64)[:, None] * v_row + dims[None, :], mask=inside, other=0.0)
    k = k.to(q_ptr.dtype.element_ty)
    v = v.to(q_ptr.dtype.element_ty)
    dk = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    dv = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    share = tl.cdiv(tl.cdiv(time - first, BLOCK_M), splits) * BLOCK_M
    low = first + split * share
    for start in range(low, tl.minimum(low + share, time), BLOCK_M):
        row = start + tl.arange(0, BLOCK_M)
        row_64 = row.to(tl.int64)
        live = (row < time)[:, None] & (dims < DIM)[None, :]
        q = tl.load(q_ptr + row_64[:, None] * q_time + dims[None, :], mask=live, other=0.0)
        at = ((batch * time + row_64) * heads + head)[:, None] * DIM + dims[None, :]
        dy = tl.load(dy_ptr + at, mask=live, other=0.0)
        lse = tl.load(lse_ptr + place * time + row, mask=row < time, other=0.0)
        delta = tl.load(delta_ptr + place * time + row, mask=row < time, other=0.0)
        seen = (column < limit)[:, None] & (row < time)[None, :]
        if not PAST:
            seen = seen & (column[:, None] < (row // chunk_size)[None, :])
        z = tl.dot(k, tl.trans(q), input_precision="ieee") * scale
        p = tl.where(seen, tl.exp2(z - lse[None, :]), 0.0)
        dv = tl.dot(p.to(dy.dtype), dy, dv, input_precision="ieee")
        dz = p * (tl.dot(v, tl.trans(dy), input_precision="ieee") - delta[None, :])
        dk = tl.dot(dz.to(q.dtype), q, dk, input_precision="ieee")
    # Splits are summed by whoever reads them, in one order: atomics would add in another one each time.
    batches = tl.num_programs(0) // heads // splits // tiles
    at = (((split * batches + batch) * heads + head) * keys + column)[:, None] * DIM + dims[None, :]
    inside = (column < keys)[:, None] & (dims < DIM)[None, :]
    tl.store(dk_ptr + at, dk * factor, mask=inside)
    tl.store(dv_ptr + at, dv, mask=inside)


@triton.jit
@no_type_check
def state_scan_gradient_kernel(
    q_ptr, k_ptr, v_ptr, g_ptr, start_k_ptr, start_v_ptr, running_k_ptr, running_v_ptr,
    own_ptr, lse_ptr, own_gradient_ptr, dy_ptr, end_dk_ptr, end_dv_ptr,
    dk_ptr, dv_ptr, dg_ptr, start_dk_ptr, start_dv_ptr,
    q_batch, q_time, q_head, k_batch, k_time, k_head, v_batch, v_time, v_head, g_batch, g_time, g_head,
    start_k_batch, start_k_head, start_v_batch, start_v_head,
    time, chunks, heads, groups, chunk_size,
    DIM: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_D: tl.constexpr, PAST: tl.constexpr,
):  # fmt: skip
    """The recurrence of some chunks of one head backwards, from the gradients of their end states."""
    blocks = tl.cdiv(chunks, BLOCK_C)
    head = (tl.program_id(0) % heads).to(tl.int64)
    block = tl.program_id(0) // heads % blocks
    batch = (tl.program_id(0) // heads // blocks).to(tl.int64)
    group = head % groups
    place = batch * heads + head
    chunk = block * BLOCK_C + tl.arange(0, BLOCK_C)
    dims = tl.arange(0, BLOCK_D)
    q_ptr += batch * q_batch + group * q_head
    k_ptr += batch * k_batch + group * k_head
    v_ptr += batch * v_batch + head * v_head
    g_ptr += batch * g_batch + head * g_head
    if PAST:
        start_k_ptr += batch * start_k_batch + head * start_k_head
        start_v_ptr += batch * start_v_batch + head * start_v_head
        start_k = tl.load(start_k_ptr + dims, mask=dims < DIM, other=0.0).to(tl.float32)
        start_v = tl.load(start_v_ptr + dims, mask=dims < DIM, other=0.0).to(tl.float32)
    at = ((batch * chunks + chunk) * heads + head)[:, None] * DIM + dims[None, :]
    inside = (chunk < chunks)[:, None] & (dims < DIM)[None, :]
    key = tl.load(end_dk_ptr + at, mask=inside, other=0.0)
    value = tl.load(end_dv_ptr + at, mask=inside, other=0.0)
    for step in range(chunk_size):
        token = chunk.to(tl.int64) * chunk_size + (chunk_size - 1 - step)
        live = token < time
        inside = live[:, None] & (dims < DIM)[None, :]
        g = tl.load(g_ptr + token[:, None] * g_time + dims[None, :], mask=inside, other=1.0).to(tl.float32)
        k = tl.load(k_ptr + token[:, None] * k_time + dims[None, :], mask=inside, other=0.0).to(tl.float32)
        v = tl.load(v_ptr + token[:, None] * v_time + dims[None, :], mask=inside, other=0.0).to(tl.float32)
        q = tl.load(q_ptr + token[:, None] * q_time + dims[None, :], mask=inside, other=0.0).to(tl.float32)
        at = ((batch * time + token) * heads + head)[:, None] * DIM + dims[None, :]
        dy = tl.load(dy_ptr + at, mask=inside, other=0.0).to(tl.float32)
        scalar = place * time + token
        own = tl.load(own_ptr + scalar, mask=live, other=0.0)
        lse = tl.load(lse_ptr + scalar, mask=live, other=0.0)
        ds = tl.load(own_gradient_ptr + scalar, mask=live, other=0.0)
        key += ds[:, None] * q
        value += tl.exp2(own - lse)[:, None] * dy
        later = inside & (token > chunk.to(tl.int64) * chunk_size)[:, None]
        before_k = tl.load(running_k_ptr + at - heads * DIM, mask=later, other=0.0).to(tl.float32)
        before_v = tl.load(running_v_ptr + at - heads * DIM, mask=later, other=0.0).to(tl.float32)
        if PAST:
            begins = (token == 0)[:, None]
            before_k = tl.where(begins, start_k[None, :], before_k)
            before_v = tl.where(begins, start_v[None, :], before_v)
        dg = (before_k - k) * key + (before_v - v) * value
        tl.store(dk_ptr + at, ((1.0 - g) * key).to(dk_ptr.dtype.element_ty), mask=inside)
        tl.store(dv_ptr + at, ((1.0 - g) * value).to(dv_ptr.dtype.element_ty), mask=inside)
        tl.store(dg_ptr + at, dg.to(dg_ptr.dtype.element_ty), mask=inside)
        key = g * key
        value = g * value
    if PAST:
        at = (place + chunk * 0)[:, None] * DIM + dims[None, :]
        inside = (chunk == 0)[:, None] & (dims < DIM)[None, :]
        tl.store(start_dk_ptr + at, key, mask=inside)
        tl.store(start_dv_ptr + at, value, mask=inside)
