"""The Triton kernels of adaptive-temperature attention; `host.py` says what each launch is for and launches them.

Three numbers a row merge exactly: m = max z, s = sum exp(z - m), t = sum (z - m) exp(z - m), with H = ln s - t / s.
Inside the kernels logits are in units of ln 2, since exp2 is what the hardware has.
"""

from __future__ import annotations

from typing import no_type_check

import triton
import triton.language as tl


@triton.jit
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


@triton.jit
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


@triton.jit
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


@triton.jit
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


@triton.jit
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


@triton.jit
@no_type_check
def prefill_kernel(
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


@triton.jit
@no_type_check
def decode_scores(
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


@triton.jit
@no_type_check
def decode_values(
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


@triton.jit
@no_type_check
def decode_merge(
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


INTERPRETED: bool = not isinstance(prefill_kernel, triton.runtime.JITFunction)
"""Whether Triton was imported with `TRITON_INTERPRET=1`: then these run in its interpreter, on a CPU."""
