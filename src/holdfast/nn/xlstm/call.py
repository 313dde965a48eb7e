"""One call of the mLSTM: everything that decides its result, as every backend takes it."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Memory:
    """What an mLSTM keeps of the tokens it has read, in float32 or better.

    Cell and normaliser are the true ones times exp(-stabiliser), a unit in which they neither vanish nor overflow. The
    query is what is scaled by 1 / sqrt(dim), so that the cell holds keys as they are.

    Arguments:
        cell: C, the matrix that holds values by their keys.
        normaliser: n, the gated sum of keys.
        stabiliser: m, the logarithm of the unit.
    """

    cell: Float[Tensor, "batch heads dim value_dim"]
    normaliser: Float[Tensor, "batch heads dim"]
    stabiliser: Float[Tensor, "batch heads"]


@dataclass(frozen=True, kw_only=True)
class MLSTMCall:
    """What an mLSTM is computed from. Not checked: `mlstm` and `MLSTM` do that.

    Arguments:
        query: of the dtype of `value`.
        key: likewise.
        value: of the dtype of the output.
        input_gate: pre-activations, of which the gates are the exponentials; of any floating dtype.
        forget_gate: pre-activations, of which the gates are the sigmoids; likewise.
        memory: what came before.
        scale: of the queries.
        eps: added to the denominator, in the unit of the memory.
        chunk_size: tokens that the chunkwise forms take at once.
    """

    query: Float[Tensor, "batch time heads dim"]
    key: Float[Tensor, "batch time heads dim"]
    value: Float[Tensor, "batch time heads value_dim"]
    input_gate: Float[Tensor, "batch time heads"]
    forget_gate: Float[Tensor, "batch time heads"]
    memory: Memory
    scale: float
    eps: float = 1e-6
    chunk_size: int = 64

    @property
    def time(self) -> int:
        """Number of tokens a row."""
        return self.value.shape[1]

    @property
    def dtype(self) -> torch.dtype:
        """What is computed in: float32 or better."""
        return self.memory.cell.dtype

    @property
    def needs_gradient(self) -> bool:
        """Whether a backward pass may follow."""
        memory = (getattr(self.memory, field.name) for field in fields(Memory))
        tensors = (self.query, self.key, self.value, self.input_gate, self.forget_gate, *memory)
        return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)

    def by_head(self) -> Tokens:
        """The tokens of each head together, in float32 or better."""
        query, key, value, input_gate, forget_gate = (
            tensor.transpose(1, 2).to(self.dtype)
            for tensor in (self.query, self.key, self.value, self.input_gate, self.forget_gate)
        )
        return Tokens(query * self.scale, key, value, input_gate, torch.nn.functional.logsigmoid(forget_gate))


@dataclass(frozen=True)
class Tokens:
    """The tokens of a call, head by head.

    Arguments:
        query: scaled.
        key: of each token.
        value: likewise.
        log_input: logarithm of the input gate.
        log_forget: logarithm of the forget gate.
    """

    query: Float[Tensor, "*batch time dim"]
    key: Float[Tensor, "*batch time dim"]
    value: Float[Tensor, "*batch time value_dim"]
    log_input: Float[Tensor, "*batch time"]
    log_forget: Float[Tensor, "*batch time"]


@dataclass(frozen=True)
class MLSTMAnswer:
    """What a backend computes; differentiable in all parts but the stabiliser, which is a unit only.

    Arguments:
        output: in the dtype of the value.
        memory: after the last token.
    """

    output: Float[Tensor, "batch time heads value_dim"]
    memory: Memory
