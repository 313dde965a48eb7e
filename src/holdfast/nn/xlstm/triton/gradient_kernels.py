"""The Triton kernels of the mLSTM's backward pass; `launches.py` says what each is for and launches them.

With N / b the output of a chunk, b the bounded denominator d, D the weights of its tokens and e that of its memory
(C, n), w what it takes of each token and f what it keeps of the memory, dy the gradient of the output, and dC that of
the memory behind the chunk:

    dN = dy / b        dd = -(dy y) sign(d) / b, where d is not bounded        P = dN V^T + dd
    dq = (P * D) K + e X        dk = (P * D)^T Q + w Y        dv = (Q K^T * D)^T dN + (w K) dC
    X = dN C^T + dd n^T        Y = V dC^T + dn^T
    dD = P * Q K^T        de = q X        dw = k Y        df = C dC + n dn
    dC before the chunk = f dC + (e Q)^T dN        dn before it = f dn + (e Q)^T dd
"""

from __future__ import annotations

from typing import no_type_check

import triton
import triton.language as tl


@triton.jit
@no_type_check
def memory_gradient_kernel(
    q_ptr, dy_ptr, inverse_ptr, dd_ptr, weights_ptr, forget_ptr, cells_ptr, normalisers_ptr,
    end_cell_ptr, end_normaliser_ptr, dcells_ptr, dnormalisers_ptr, dforget_ptr,
    q_head, q_time, time, chunks, heads,
    DIM: tl.constexpr, VALUE_DIM: tl.constexpr, SIZE: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_V: tl.constexpr,
):  # fmt: skip
    """Gradients of all memories of a head, from the last one back: a tile of the cells, and its share of `dforget`."""
    tiles_v = tl.cdiv(VALUE_DIM, BLOCK_V)
    tiles = tl.cdiv(DIM, BLOCK_K) * tiles_v
    tile = tl.program_id(0) % tiles
    head = (tl.program_id(0) // tiles).to(tl.int64)
    tile_v = tile % tiles_v
    dims = tile // tiles_v * BLOCK_K + tl.arange(0, BLOCK_K)
    values = tile_v * BLOCK_V + tl.arange(0, BLOCK_V)
    inside = (dims < DIM)[:, None] & (values < VALUE_DIM)[None, :]
    place = dims[:, None] * VALUE_DIM + values[None, :]
    token = tl.arange(0, SIZE)
    dcell = tl.load(end_cell_ptr + head * DIM * VALUE_DIM + place, mask=inside, other=0.0)
    dnormaliser = tl.load(end_normaliser_ptr + head * DIM + dims, mask=dims < DIM, other=0.0)
    q_ptr += head * q_head
    for step in range(chunks):
        chunk = chunks - 1 - step
        memory = head * (chunks + 1) + chunk
        tl.store(dcells_ptr + (memory + 1) * DIM * VALUE_DIM + place, dcell, mask=inside)
        cell = tl.load(cells_ptr + memory * DIM * VALUE_DIM + place, mask=inside, other=0.0)
        share = tl.sum(tl.sum(dcell * cell, 1), 0)
        if tile_v == 0:
            tl.store(dnormalisers_ptr + (memory + 1) * DIM + dims, dnormaliser, mask=dims < DIM)
            normaliser = tl.load(normalisers_ptr + memory * DIM + dims, mask=dims < DIM, other=0.0)
            share += tl.sum(dnormaliser * normaliser, 0)
        at = head * chunks + chunk
        # Shares are summed by whoever reads them, in one order: atomics would add in another one each time.
        tl.store(dforget_ptr + tile.to(tl.int64) * heads * chunks + at, share)
        row = (chunk * SIZE + token).to(tl.int64)
        live = (row < time)[:, None]
        q = tl.load(q_ptr + row[:, None] * q_time + dims[None, :], mask=live & (dims < DIM)[None, :], other=0.0)
        dy = tl.load(
            dy_ptr + (head * time + row)[:, None] * VALUE_DIM + values[None, :],
            mask=live & (values < VALUE_DIM)[None, :], other=0.0,
        )  # fmt: skip
        inverse = tl.load(inverse_ptr + at * SIZE + token)
        dd = tl.load(dd_ptr + at * SIZE + token)
        weighted = q.to(tl.float32) * tl.load(weights_ptr + (at * SIZE + token) * (SIZE + 1))[:, None]
        dn = (dy.to(tl.float32) * inverse[:, None]).to(q.dtype)
        forget = tl.load(forget_ptr + at)
        dcell = tl.dot(tl.trans(weighted.to(q.dtype)), dn, forget * dcell, input_precision="ieee")
        dnormaliser = forget * dnormaliser + tl.sum(weighted * dd[:, None], 0)
    memory = head * (chunks + 1)
    tl.store(dcells_ptr + memory * DIM * VALUE_DIM + place, dcell, mask=inside)
    if tile_v == 0:
        tl.store(dnormalisers_ptr + memory * DIM + dims, dnormaliser, mask=dims < DIM)


@triton.jit
@no_type_check
def key_gradient_kernel(
    q_ptr, k_ptr, v_ptr, dy_ptr, inverse_ptr, dd_ptr, weights_ptr, taken_ptr,
    cells_ptr, normalisers_ptr, dcells_ptr, dnormalisers_ptr,
    dq_ptr, dk_ptr, dweights_ptr, dmemory_ptr, dtaken_ptr,
    q_head, q_time, k_head, k_time, v_head, v_time, time, chunks, heads,
    DIM: tl.constexpr, VALUE_DIM: tl.constexpr, SIZE: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_V: tl.constexpr,
):  # fmt: skip
    """Gradients of a tile of a chunk's queries and keys, its shares of `dmemory` and `dtaken`, and `dweights`."""
    tiles_k = tl.cdiv(DIM, BLOCK_K)
    tile = tl.program_id(0) % tiles_k
    chunk = tl.program_id(0) // tiles_k % chunks
    head = (tl.program_id(0) // tiles_k // chunks).to(tl.int64)
    token = tl.arange(0, SIZE)
    row = (chunk * SIZE + token).to(tl.int64)
    live = (row < time)[:, None]
    dims = tile * BLOCK_K + tl.arange(0, BLOCK_K)
    inside = live & (dims < DIM)[None, :]
    memory = head * (chunks + 1) + chunk
    place = (head * chunks + chunk) * SIZE + token
    q_ptr += head * q_head
    k_ptr += head * k_head
    q = tl.load(q_ptr + row[:, None] * q_time + dims[None, :], mask=inside, other=0.0)
    k = tl.load(k_ptr + row[:, None] * k_time + dims[None, :], mask=inside, other=0.0)
    inverse = tl.load(inverse_ptr + place)[:, None]
    dd = tl.load(dd_ptr + place)[:, None]
    p = tl.zeros([SIZE, SIZE], tl.float32) + dd
    normaliser = tl.load(normalisers_ptr + memory * DIM + dims, mask=dims < DIM, other=0.0)
    x = dd * normaliser[None, :]
    dnormaliser = tl.load(dnormalisers_ptr + (memory + 1) * DIM + dims, mask=dims < DIM, other=0.0)
    y = tl.zeros([SIZE, BLOCK_K], tl.float32) + dnormaliser[None, :]
    for start in range(0, VALUE_DIM, BLOCK_V):
        values = start + tl.arange(0, BLOCK_V)
        seen = live & (values < VALUE_DIM)[None, :]
        dy = tl.load(dy_ptr + (head * time + row)[:, None] * VALUE_DIM + values[None, :], mask=seen, other=0.0)
        dn = (dy.to(tl.float32) * inverse).to(q.dtype)
        v = tl.load(v_ptr + head * v_head + row[:, None] * v_time + values[None, :], mask=seen, other=0.0)
        real = (dims < DIM)[:, None] & (values < VALUE_DIM)[None, :]
        at = dims[:, None] * VALUE_DIM + values[None, :]
        cell = tl.load(cells_ptr + memory * DIM * VALUE_DIM + at, mask=real, other=0.0)
        dcell = tl.load(dcells_ptr + (memory + 1) * DIM * VALUE_DIM + at, mask=real, other=0.0)
        p = tl.dot(dn, tl.trans(v), p, input_precision="ieee")
        x = tl.dot(dn, tl.trans(cell.to(q.dtype)), x, input_precision="ieee")
        y = tl.dot(v, tl.trans(dcell.to(q.dtype)), y, input_precision="ieee")
    of_memory = tl.load(weights_ptr + place * (SIZE + 1))
    of_tokens = tl.load(weights_ptr + place[:, None] * (SIZE + 1) + 1 + token[None, :])
    taken = tl.load(taken_ptr + place)
    ds = (p * of_tokens).to(q.dtype)
    dq = tl.dot(ds, k, of_memory[:, None] * x, input_precision="ieee")
    dk = tl.dot(tl.trans(ds), q, taken[:, None] * y, input_precision="ieee")
    out = (head * time + row)[:, None] * DIM + dims[None, :]
    tl.store(dq_ptr + out, dq.to(dq_ptr.dtype.element_ty), mask=inside)
    tl.store(dk_ptr + out, dk.to(dk_ptr.dtype.element_ty), mask=inside)
    share = tile.to(tl.int64) * heads * chunks * SIZE + place
    tl.store(dmemory_ptr + share, tl.sum(q.to(tl.float32) * x, 1))
    tl.store(dtaken_ptr + share, tl.sum(k.to(tl.float32) * y, 1))
    if tile == 0:
        scores = tl.zeros([SIZE, SIZE], tl.float32)
        for start in range(0, DIM, BLOCK_K):
            every = start + tl.arange(0, BLOCK_K)
            seen = live & (every < DIM)[None, :]
            q = tl.load(q_ptr + row[:, None] * q_time + every[None, :], mask=seen, other=0.0)
            k = tl.load(k_ptr + row[:, None] * k_time + every[None, :], mask=seen, other=0.0)
            scores = tl.dot(q, tl.trans(k), scores, input_precision="ieee")
        tl.store(dweights_ptr + place[:, None] * (SIZE + 1) + 1 + token[None, :], p * scores)


@triton.jit
@no_type_check
def value_gradient_kernel(
    q_ptr, k_ptr, dy_ptr, inverse_ptr, weights_ptr, taken_ptr, dcells_ptr, dv_ptr,
    q_head, q_time, k_head, k_time, time, chunks,
    DIM: tl.constexpr, VALUE_DIM: tl.constexpr, SIZE: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_V: tl.constexpr,
):  # fmt: skip
    """Gradient of a tile of the values of one chunk."""
    tiles_v = tl.cdiv(VALUE_DIM, BLOCK_V)
    tile_v = tl.program_id(0) % tiles_v
    chunk = tl.program_id(0) // tiles_v % chunks
    head = (tl.program_id(0) // tiles_v // chunks).to(tl.int64)
    token = tl.arange(0, SIZE)
    row = (chunk * SIZE + token).to(tl.int64)
    live = (row < time)[:, None]
    values = tile_v * BLOCK_V + tl.arange(0, BLOCK_V)
    place = (head * chunks + chunk) * SIZE + token
    taken = tl.load(taken_ptr + place)[:, None]
    q_ptr += head * q_head
    k_ptr += head * k_head
    dcells_ptr += (head * (chunks + 1) + chunk + 1) * DIM * VALUE_DIM
    scores = tl.zeros([SIZE, SIZE], tl.float32)
    dv = tl.zeros([SIZE, BLOCK_V], tl.float32)
    for start in range(0, DIM, BLOCK_K):
        dims = start + tl.arange(0, BLOCK_K)
        seen = live & (dims < DIM)[None, :]
        q = tl.load(q_ptr + row[:, None] * q_time + dims[None, :], mask=seen, other=0.0)
        k = tl.load(k_ptr + row[:, None] * k_time + dims[None, :], mask=seen, other=0.0)
        real = (dims < DIM)[:, None] & (values < VALUE_DIM)[None, :]
        dcell = tl.load(dcells_ptr + dims[:, None] * VALUE_DIM + values[None, :], mask=real, other=0.0)
        scores = tl.dot(q, tl.trans(k), scores, input_precision="ieee")
        weighted = (k.to(tl.float32) * taken).to(k.dtype)
        dv = tl.dot(weighted, dcell.to(k.dtype), dv, input_precision="ieee")
    scores *= tl.load(weights_ptr + place[:, None] * (SIZE + 1) + 1 + token[None, :])
    out = (head * time + row)[:, None] * VALUE_DIM + values[None, :]
    inside = live & (values < VALUE_DIM)[None, :]
    dy = tl.load(dy_ptr + out, mask=inside, other=0.0)
    dn = dy.to(tl.float32) * tl.load(inverse_ptr + place)[:, None]
    dv = tl.dot(tl.trans(scores.to(k_ptr.dtype.element_ty)), dn.to(k_ptr.dtype.element_ty), dv, input_precision="ieee")
    tl.store(dv_ptr + out, dv.to(dv_ptr.dtype.element_ty), mask=inside)
