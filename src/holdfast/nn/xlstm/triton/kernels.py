"""The Triton kernels of the mLSTM's forward pass; `launches.py` says what each is for and launches them.

A chunk is SIZE tokens, the last one of a head padded by zeros. Of the weights of a chunk (see `decay`), column 0 is
that of the memory it begins with, and column j + 1 that of its token j; those of padded tokens are zero.
"""

from __future__ import annotations

from typing import no_type_check

import triton
import triton.language as tl


@triton.jit
@no_type_check
def units_kernel(forget_ptr, own_ptr, start_ptr, unit_ptr, heads, chunks, BLOCK_H: tl.constexpr):
    """Logarithms of the units of all memories of some heads: the largest weight of each."""
    head = (tl.program_id(0) * BLOCK_H + tl.arange(0, BLOCK_H)).to(tl.int64)
    inside = head < heads
    unit = tl.load(start_ptr + head, mask=inside, other=0.0)
    tl.store(unit_ptr + head * (chunks + 1), unit, mask=inside)
    for chunk in range(chunks):
        forget = tl.load(forget_ptr + head * chunks + chunk, mask=inside, other=0.0)
        own = tl.load(own_ptr + head * chunks + chunk, mask=inside, other=0.0)
        unit = tl.maximum(unit + forget, own)
        tl.store(unit_ptr + head * (chunks + 1) + chunk + 1, unit, mask=inside)


@triton.jit
@no_type_check
def memories_kernel(
    k_ptr, v_ptr, forget_ptr, taken_ptr, cell_ptr, normaliser_ptr, cells_ptr, normalisers_ptr,
    k_head, k_time, v_head, v_time, time, chunks,
    DIM: tl.constexpr, VALUE_DIM: tl.constexpr, SIZE: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_V: tl.constexpr,
):  # fmt: skip
    """The memory before each chunk of a head, and behind the last one: a tile of its cell.

    C behind a chunk is forget C + (taken K)^T V, and n likewise with 1 in the place of V.
    """
    tiles_v = tl.cdiv(VALUE_DIM, BLOCK_V)
    tiles = tl.cdiv(DIM, BLOCK_K) * tiles_v
    head = (tl.program_id(0) // tiles).to(tl.int64)
    tile_v = tl.program_id(0) % tiles_v
    dims = tl.program_id(0) % tiles // tiles_v * BLOCK_K + tl.arange(0, BLOCK_K)
    values = tile_v * BLOCK_V + tl.arange(0, BLOCK_V)
    inside = (dims < DIM)[:, None] & (values < VALUE_DIM)[None, :]
    place = dims[:, None] * VALUE_DIM + values[None, :]
    token = tl.arange(0, SIZE)
    cell = tl.load(cell_ptr + head * DIM * VALUE_DIM + place, mask=inside, other=0.0)
    normaliser = tl.load(normaliser_ptr + head * DIM + dims, mask=dims < DIM, other=0.0)
    k_ptr += head * k_head
    v_ptr += head * v_head
    cells_ptr += head * (chunks + 1) * DIM * VALUE_DIM
    normalisers_ptr += head * (chunks + 1) * DIM
    for chunk in range(chunks):
        tl.store(cells_ptr + place, cell, mask=inside)
        if tile_v == 0:
            tl.store(normalisers_ptr + dims, normaliser, mask=dims < DIM)
        row = (chunk * SIZE + token).to(tl.int64)
        live = (row < time)[:, None]
        k = tl.load(k_ptr + row[:, None] * k_time + dims[None, :], mask=live & (dims < DIM)[None, :], other=0.0)
        v = tl.load(
            v_ptr + row[:, None] * v_time + values[None, :], mask=live & (values < VALUE_DIM)[None, :], other=0.0
        )
        taken = tl.load(taken_ptr + (head * chunks + chunk) * SIZE + token)
        forget = tl.load(forget_ptr + head * chunks + chunk)
        weighted = k.to(tl.float32) * taken[:, None]
        cell = tl.dot(tl.trans(weighted.to(v.dtype)), v, forget * cell, input_precision="ieee")
        normaliser = forget * normaliser + tl.sum(weighted, 0)
        cells_ptr += DIM * VALUE_DIM
        normalisers_ptr += DIM
    tl.store(cells_ptr + place, cell, mask=inside)
    if tile_v == 0:
        tl.store(normalisers_ptr + dims, normaliser, mask=dims < DIM)


@triton.jit
@no_type_check
def output_kernel(
    q_ptr, k_ptr, v_ptr, weights_ptr, least_ptr, cells_ptr, normalisers_ptr, o_ptr, denominator_ptr,
    q_head, q_time, k_head, k_time, v_head, v_time, time, chunks, eps,
    DIM: tl.constexpr, VALUE_DIM: tl.constexpr, SIZE: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_V: tl.constexpr,
):  # fmt: skip
    """A tile of the output of one chunk, and the denominators before they are bounded."""
    tiles_v = tl.cdiv(VALUE_DIM, BLOCK_V)
    tile_v = tl.program_id(0) % tiles_v
    chunk = tl.program_id(0) // tiles_v % chunks
    head = (tl.program_id(0) // tiles_v // chunks).to(tl.int64)
    token = tl.arange(0, SIZE)
    row = (chunk * SIZE + token).to(tl.int64)
    live = (row < time)[:, None]
    values = tile_v * BLOCK_V + tl.arange(0, BLOCK_V)
    q_ptr += head * q_head
    k_ptr += head * k_head
    cells_ptr += (head * (chunks + 1) + chunk) * DIM * VALUE_DIM
    normalisers_ptr += (head * (chunks + 1) + chunk) * DIM
    scores = tl.zeros([SIZE, SIZE], tl.float32)
    numerator = tl.zeros([SIZE, BLOCK_V], tl.float32)
    denominator = tl.zeros([SIZE], tl.float32)
    for start in range(0, DIM, BLOCK_K):
        dims = start + tl.arange(0, BLOCK_K)
        inside = live & (dims < DIM)[None, :]
        q = tl.load(q_ptr + row[:, None] * q_time + dims[None, :], mask=inside, other=0.0)
        k = tl.load(k_ptr + row[:, None] * k_time + dims[None, :], mask=inside, other=0.0)
        real = (dims < DIM)[:, None] & (values < VALUE_DIM)[None, :]
        cell = tl.load(cells_ptr + dims[:, None] * VALUE_DIM + values[None, :], mask=real, other=0.0)
        normaliser = tl.load(normalisers_ptr + dims, mask=dims < DIM, other=0.0)
        scores = tl.dot(q, tl.trans(k), scores, input_precision="ieee")
        numerator = tl.dot(q, cell.to(q.dtype), numerator, input_precision="ieee")
        denominator += tl.sum(q.to(tl.float32) * normaliser[None, :], 1)
    place = (head * chunks + chunk) * SIZE + token
    of_memory = tl.load(weights_ptr + place * (SIZE + 1))
    scores *= tl.load(weights_ptr + place[:, None] * (SIZE + 1) + 1 + token[None, :])
    denominator = denominator * of_memory + tl.sum(scores, 1)
    v = tl.load(
        v_ptr + head * v_head + row[:, None] * v_time + values[None, :],
        mask=live & (values < VALUE_DIM)[None, :], other=0.0,
    )  # fmt: skip
    numerator = tl.dot(scores.to(v.dtype), v, numerator * of_memory[:, None], input_precision="ieee")
    bounded = tl.maximum(tl.abs(denominator), tl.load(least_ptr + place)) + eps
    tl.store(
        o_ptr + (head * time + row)[:, None] * VALUE_DIM + values[None, :],
        (numerator / bounded[:, None]).to(o_ptr.dtype.element_ty),
        mask=live & (values < VALUE_DIM)[None, :],
    )
    if tile_v == 0:
        tl.store(denominator_ptr + place, denominator)


INTERPRETED: bool = not isinstance(output_kernel, triton.runtime.JITFunction)
"""Whether Triton was imported with `TRITON_INTERPRET=1`: then these run in its interpreter, on a CPU."""
