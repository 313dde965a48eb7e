"""One call of the mLSTM: everything that decides its result, as every backend takes it."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid


def in_dtype(x: Tensor, dtype: torch.dtype) -> Tensor:
    """x.to(dtype), which takes as long as an operation where there is nothing to do."""
    return x if x.dtype == dtype else x.to(dtype)


@dataclass(frozen=True, kw_only=True)
class Memory:
    """What the heads of an mLSTM keep of the tokens they have read, in float32 or better.

    Cell and normaliser are the true ones times exp(-stabiliser), a unit in which they neither vanish nor overflow. The
    query is what is scaled by 1 / sqrt(dim), so that the cell holds keys as they are.

    Arguments:
        cell: C, the matrix that holds values by their keys.
        normaliser: n, the gated sum of keys.
        stabiliser: m, the logarithm of the unit.
    """

    cell: Float[Tensor, "*heads dim value_dim"]
    normaliser: Float[Tensor, "*heads dim"]
    stabiliser: Float[Tensor, "*heads"]

    def reshape(self, *heads: int) -> Memory:
        """The same heads in another shape."""
        return Memory(
            cell=self.cell.reshape(*heads, *self.cell.shape[-2:]),
            normaliser=self.normaliser.reshape(*heads, self.normaliser.shape[-1]),
            stabiliser=self.stabiliser.reshape(heads),
        )


@dataclass(frozen=True, kw_only=True)
class MLSTMCall:
    """What an mLSTM is computed from. Not checked: `mlstm` and `MLSTM` do that.

    Arguments:
        query: of each head of each row, which do not know of each other; of the dtype of `value`.
        key: likewise.
        value: of the dtype of the output.
        input_gate: pre-activations, of which the gates are the exponentials; of any floating dtype.
        forget_gate: pre-activations, of which the gates are the sigmoids; likewise, above -inf.
        memory: what came before; its stabiliser is above -inf and needs no gradient.
        scale: of the queries, above 0.
        eps: added to the denominator, in the unit of the memory.
        chunk_size: tokens that the chunkwise forms take at once.
        in_place: whether the new cell may be written over the old one, which spares a step its largest allocation.
    """

    query: Float[Tensor, "heads time dim"]
    key: Float[Tensor, "heads time dim"]
    value: Float[Tensor, "heads time value_dim"]
    input_gate: Float[Tensor, "heads time"]
    forget_gate: Float[Tensor, "heads time"]
    memory: Memory
    scale: float
    eps: float = 1e-6
    chunk_size: int = 64
    in_place: bool = False

    @property
    def time(self) -> int:
        """Number of tokens."""
        return self.value.shape[1]

    @property
    def needs_gradient(self) -> bool:
        """Whether a backward pass may follow."""
        memory = (getattr(self.memory, field.name) for field in fields(Memory))
        tensors = (self.query, self.key, self.value, self.input_gate, self.forget_gate, *memory)
        return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)

    def tokens(self) -> Tokens:
        """The tokens as the equations have them, in float32 or better."""
        wide = self.memory.cell.dtype
        return Tokens(
            in_dtype(self.query, wide),
            in_dtype(self.key, wide),
            in_dtype(self.value, wide),
            in_dtype(self.input_gate, wide),
            logsigmoid(in_dtype(self.forget_gate, wide)),
        )


@dataclass(frozen=True)
class Tokens:
    """The tokens of a call.

    Arguments:
        query: of each token, not scaled.
        key: likewise.
        value: likewise.
        log_input: logarithm of the input gate.
        log_forget: logarithm of the forget gate.
    """

    query: Float[Tensor, "heads time dim"]
    key: Float[Tensor, "heads time dim"]
    value: Float[Tensor, "heads time value_dim"]
    log_input: Float[Tensor, "heads time"]
    log_forget: Float[Tensor, "heads time"]

    def __getitem__(self, places: slice) -> Tokens:
        """Some of them."""
        vectors = self.query[:, places], self.key[:, places], self.value[:, places]
        return Tokens(*vectors, self.log_input[:, places], self.log_forget[:, places])


@dataclass(frozen=True)
class MLSTMAnswer:
    """What a backend computes; differentiable in all parts but the stabiliser, which is a unit only.

    Arguments:
        output: in the dtype of the value.
        memory: after the last token.
    """

    output: Float[Tensor, "heads time value_dim"]
    memory: Memory
