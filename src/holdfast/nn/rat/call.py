"""One call of RAT's core: everything that decides its result, as every backend takes it.

A row begins at a chunk boundary. Whoever continues one inside a chunk puts tokens before the new ones that change
nothing (gate 1, key and value 0) and hands over the running state that they leave as it is.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from holdfast.nn.normalisers import Normaliser, Plain


@dataclass(frozen=True, kw_only=True)
class Past:
    """The chunks that were closed before a call, and the running state at its first token.

    Arguments:
        keys: end states of chunks, turned to their chunk's position.
        values: likewise, not turned.
        count: how many of them are each row's, from the first on; the others are no keys. The first new chunk of a row
            has this index.
        running_key: state before the first token, not turned, in float32 or better.
        running_value: likewise.
    """

    keys: Float[Tensor, "batch heads past dim"]
    values: Float[Tensor, "batch heads past dim"]
    count: Int[Tensor, " batch"]
    running_key: Float[Tensor, "batch heads dim"]
    running_value: Float[Tensor, "batch heads dim"]


@dataclass(frozen=True, kw_only=True)
class ChunkCall:
    """What RAT's core is computed from. Not checked: `rat_attention` and `RAT` do that.

    Arguments:
        query: `groups` divides `heads`; head h takes group h mod groups.
        key: likewise, of the dtype of `query`.
        value: of the dtype of `query`.
        gate: forget gates in [0, 1], one for each channel of key and value; of any floating dtype.
        chunk_size: tokens a chunk, L; the last one may be shorter.
        scale: of the products of queries and keys.
        rope_theta: base of the rotary positions by chunk index; `None`: no positions.
        past: what came before; `None`: nothing.
        normaliser: turns logits into weights.
    """

    query: Float[Tensor, "batch time groups dim"]
    key: Float[Tensor, "batch time groups dim"]
    value: Float[Tensor, "batch time heads dim"]
    gate: Float[Tensor, "batch time heads dim"]
    chunk_size: int
    scale: float
    rope_theta: float | None
    past: Past | None = None
    normaliser: Normaliser = field(default_factory=Plain)

    @property
    def time(self) -> int:
        """Number of tokens a row."""
        return self.value.shape[1]

    @property
    def chunks(self) -> int:
        """Number of chunks a row, the last one perhaps open."""
        return -(-self.time // self.chunk_size)

    @property
    def repeats(self) -> int:
        """Heads that share a group of queries and keys."""
        return self.value.shape[2] // self.query.shape[2]

    @property
    def dtype(self) -> torch.dtype:
        """What is computed in: float32 or better."""
        return torch.promote_types(self.value.dtype, torch.float32)

    @property
    def first_chunk(self) -> Int[Tensor, "#batch"]:
        """Index of the first chunk of each row."""
        device = self.value.device
        return torch.zeros(1, dtype=torch.long, device=device) if self.past is None else self.past.count

    @property
    def needs_gradient(self) -> bool:
        """Whether a backward pass may follow."""
        past = self.past
        of_past = () if past is None else (past.keys, past.values, past.running_key, past.running_value)
        tensors = (self.query, self.key, self.value, self.gate, *of_past)
        return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


@dataclass(frozen=True)
class ChunkAnswer:
    """What a backend computes; differentiable in all parts.

    Arguments:
        output: in the dtype of the value.
        key_ends: state at the last token of each chunk, the open one included; not turned, in float32 or better.
        value_ends: likewise.
    """

    output: Float[Tensor, "batch time heads dim"]
    key_ends: Float[Tensor, "batch chunks heads dim"]
    value_ends: Float[Tensor, "batch chunks heads dim"]
