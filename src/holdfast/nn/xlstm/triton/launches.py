"""How the mLSTM's kernels are launched: sizes of tiles, room for results, one function a kernel.

Forward: `units` runs through the chunks' units, `memories` through their memories, and `output` reads each chunk and
its memory at once. Backward: the memories anew, then `memory_gradient` back through them, and `key_gradient` and
`value_gradient` of each chunk.

Here every tensor's channels lie next to each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from holdfast.nn.xlstm.triton import gradient_kernels, kernels


@dataclass(frozen=True)
class Chunks:
    """What the kernels compute from.

    Arguments:
        eps: added to the denominators.
        query: of all tokens.
        key: likewise.
        value: likewise.
        weights: of the memory and the tokens of each chunk, at each of its tokens.
        least: bound of the denominators.
        forget: what is kept of the memory behind each chunk.
        taken: what each chunk takes of its tokens.
        cell: of the memory before the first token.
        normaliser: likewise.
    """

    eps: float
    query: Float[Tensor, "heads time dim"]
    key: Float[Tensor, "heads time dim"]
    value: Float[Tensor, "heads time value_dim"]
    weights: Float[Tensor, "chunks size columns"]
    least: Float[Tensor, "chunks size 1"]
    forget: Float[Tensor, "heads chunks_each"]
    taken: Float[Tensor, "chunks size"]
    cell: Float[Tensor, "heads dim value_dim"]
    normaliser: Float[Tensor, "heads dim"]

    @property
    def heads(self) -> int:
        """Number of heads."""
        return self.value.shape[0]

    @property
    def number(self) -> int:
        """Chunks of a head."""
        return self.forget.shape[1]

    @property
    def tiles(self) -> tuple[int, int]:
        """Tiles of the channels of keys and of values."""
        dim, value_dim = self.cell.shape[1:]
        sizes = self.sizes
        return -(-dim // sizes["BLOCK_K"]), -(-value_dim // sizes["BLOCK_V"])

    @property
    def sizes(self) -> dict[str, Any]:
        """Compile-time sizes of the kernels."""
        dim, value_dim = self.cell.shape[1:]
        most = 16 if kernels.INTERPRETED else 64
        block_k, block_v = (min(most, max(16, 1 << (number - 1).bit_length())) for number in (dim, value_dim))
        size = self.taken.shape[1]
        return {"DIM": dim, "VALUE_DIM": value_dim, "SIZE": size, "BLOCK_K": block_k, "BLOCK_V": block_v}


def units(
    forget: Float[Tensor, "heads chunks"], own: Float[Tensor, "heads chunks"], start: Float[Tensor, " heads"]
) -> Float[Tensor, "heads memories"]:
    """Logarithm of the unit of the memory before each chunk, and behind the last one.

    Arguments:
        forget: logarithm of what each chunk keeps.
        own: logarithm of the most that each takes of a token.
        start: logarithm of the first unit.
    """
    heads, chunks = forget.shape
    out = torch.empty(heads, chunks + 1, dtype=torch.float32, device=forget.device)
    kernels.units_kernel[(-(-heads // 32),)](
        forget.contiguous(), own.contiguous(), start.contiguous(), out, heads, chunks, BLOCK_H=32, num_warps=1
    )
    return out


def memories(
    given: Chunks,
) -> tuple[Float[Tensor, "heads memories dim value_dim"], Float[Tensor, "heads memories dim"]]:
    """Cells and normalisers before each chunk, and behind the last one."""
    heads, dim, value_dim = given.cell.shape
    cells = given.cell.new_empty(heads, given.number + 1, dim, value_dim)
    normalisers = given.cell.new_empty(heads, given.number + 1, dim)
    tiles_k, tiles_v = given.tiles
    kernels.memories_kernel[(heads * tiles_k * tiles_v,)](
        given.key,
        given.value,
        given.forget,
        given.taken,
        given.cell,
        given.normaliser,
        cells,
        normalisers,
        *given.key.stride()[:2],
        *given.value.stride()[:2],
        given.value.shape[1],
        given.number,
        **given.sizes,
    )
    return cells, normalisers


def output(
    given: Chunks, cells: Tensor, normalisers: Tensor
) -> tuple[Float[Tensor, "heads time value_dim"], Float[Tensor, "chunks size"]]:
    """The output, and the denominators before they are bounded."""
    out = torch.empty(given.value.shape, dtype=given.value.dtype, device=given.value.device)
    denominator = torch.empty_like(given.taken)
    _, tiles_v = given.tiles
    kernels.output_kernel[(given.heads * given.number * tiles_v,)](
        given.query,
        given.key,
        given.value,
        given.weights,
        given.least,
        cells,
        normalisers,
        out,
        denominator,
        *_strides(given.query, given.key, given.value),
        given.value.shape[1],
        given.number,
        given.eps,
        **given.sizes,
    )
    return out, denominator


@dataclass(frozen=True)
class Rows:
    """What the gradients of a call are computed from, beside what the call is.

    Arguments:
        cells: see `memories`.
        normalisers: likewise.
        gradient: of the output, contiguous.
        inverse: 1 / the bounded denominators.
        denominator: gradient of the denominators before they are bounded.
    """

    cells: Float[Tensor, "heads memories dim value_dim"]
    normalisers: Float[Tensor, "heads memories dim"]
    gradient: Float[Tensor, "heads time value_dim"]
    inverse: Float[Tensor, "chunks size"]
    denominator: Float[Tensor, "chunks size"]


def memory_gradient(
    given: Chunks, rows: Rows, end_cell: Tensor, end_normaliser: Tensor
) -> tuple[Tensor, Tensor, Float[Tensor, "heads chunks_each"]]:
    """Gradients of all cells and normalisers, and of `forget`, from those of the last ones."""
    dcells, dnormalisers = torch.empty_like(rows.cells), torch.empty_like(rows.normalisers)
    tiles_k, tiles_v = given.tiles
    shares = given.cell.new_empty(tiles_k * tiles_v, given.heads, given.number)
    gradient_kernels.memory_gradient_kernel[(given.heads * tiles_k * tiles_v,)](
        given.query,
        rows.gradient,
        rows.inverse,
        rows.denominator,
        given.weights,
        given.forget,
        rows.cells,
        rows.normalisers,
        end_cell.contiguous(),
        end_normaliser.contiguous(),
        dcells,
        dnormalisers,
        shares,
        *given.query.stride()[:2],
        given.value.shape[1],
        given.number,
        given.heads,
        **given.sizes,
    )
    return dcells, dnormalisers, shares.sum(0)


def key_gradient(
    given: Chunks, rows: Rows, dcells: Tensor, dnormalisers: Tensor
) -> tuple[Tensor, Tensor, Float[Tensor, "chunks size columns"], Float[Tensor, "chunks size"]]:
    """Gradients of query, key, weights and `taken`."""
    dq, dk = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (given.query, given.key))
    dweights = torch.empty_like(given.weights)
    tiles_k, _ = given.tiles
    dmemory, dtaken = (given.taken.new_empty(tiles_k, *given.taken.shape) for _ in range(2))
    gradient_kernels.key_gradient_kernel[(given.heads * given.number * tiles_k,)](
        given.query,
        given.key,
        given.value,
        rows.gradient,
        rows.inverse,
        rows.denominator,
        given.weights,
        given.taken,
        rows.cells,
        rows.normalisers,
        dcells,
        dnormalisers,
        dq,
        dk,
        dweights,
        dmemory,
        dtaken,
        *_strides(given.query, given.key, given.value),
        given.value.shape[1],
        given.number,
        given.heads,
        **given.sizes,
    )
    dweights[..., 0] = dmemory.sum(0)
    return dq, dk, dweights, dtaken.sum(0)


def value_gradient(given: Chunks, rows: Rows, dcells: Tensor) -> Float[Tensor, "heads time value_dim"]:
    """Gradient of the value."""
    dv = torch.empty(given.value.shape, dtype=given.value.dtype, device=given.value.device)
    _, tiles_v = given.tiles
    gradient_kernels.value_gradient_kernel[(given.heads * given.number * tiles_v,)](
        given.query,
        given.key,
        rows.gradient,
        rows.inverse,
        given.weights,
        given.taken,
        dcells,
        dv,
        *_strides(given.query, given.key),
        given.value.shape[1],
        given.number,
        **given.sizes,
    )
    return dv


def _strides(*tensors: Tensor) -> list[int]:
    """Of heads and time."""
    return [stride for tensor in tensors for stride in tensor.stride()[:2]]
