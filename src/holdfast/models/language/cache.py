"""What a language model keeps of a sequence between two calls, in the form that transformers hands around."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import Cache

from holdfast.errors import ArgumentError
from holdfast.nn import AttentionState, Backbone, BackboneState


class HoldfastCache(Cache):
    """State of all layers, and how many columns of the batch it has read, padding included.

    Arguments:
        limit: room for so many tokens in memory that is written in place; `None`: it grows.
    """

    def __init__(self, limit: int | None = None) -> None:
        super().__init__(layers=[])
        self.limit = limit
        self.state: BackboneState | None = None
        self.columns = 0
        self._is_user_defined = False  # transformers marks what a user hands to `generate`

    def __repr__(self) -> str:
        """Not the tensors."""
        return f"HoldfastCache(columns={self.columns}, limit={self.limit}, nbytes={self.nbytes})"

    @property
    def nbytes(self) -> int:
        """Bytes of all that is kept but the counts."""
        return 0 if self.state is None else self.state.nbytes

    def begun(self, backbone: Backbone, batch: int) -> BackboneState | None:
        """The state to go on from; `None`: nothing has been read, and memory grows.

        Arguments:
            backbone: that goes on.
            batch: number of rows.
        """
        if self.state is None and self.limit is not None:
            self.state = backbone.init_state(batch, limit=self.limit)
        return self.state

    def advance(self, state: BackboneState, columns: int) -> None:
        """Keep the state after so many more columns."""
        self.state = state
        self.columns += columns

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Columns that were read."""
        return self.columns

    def get_max_length(self, layer_idx: int | None = None) -> int:
        """Tokens that there is room for; -1: any number."""
        return -1 if self.limit is None else self.limit

    get_max_cache_shape = get_max_length

    def reorder_cache(self, beam_idx: Int[Tensor, " rows"]) -> None:
        """Keep these rows, in this order."""
        if self.state is not None:
            self.state = self.state.reorder(beam_idx)

    def batch_select_indices(self, indices: Int[Tensor, " rows"]) -> None:
        """Keep these rows, in this order."""
        self.reorder_cache(indices)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Keep every row so many times, the copies side by side."""
        if self.state is not None:
            row = torch.arange(self.state.layers[0].batch, device=self.state.seen.device)
            self.reorder_cache(row.repeat_interleave(repeats))

    def reset(self) -> None:
        """Forget everything."""
        self.state, self.columns = None, 0

    def update(self, *args: Any, **kwargs: Any) -> Any:
        """Refused: the model hands over the state of all layers at once.

        Errors:
            ArgumentError: always.
        """
        raise ArgumentError("past_key_values", "a model of Holdfast that goes on", "one that stores keys and values")

    @property
    def batch_size(self) -> int:
        """Number of rows; -1 before the first."""
        return -1 if self.state is None else self.state.layers[0].batch

    @property
    def is_compileable(self) -> bool:
        """Whether `generate` shall compile a step by itself, which needs masks of a fixed size."""
        return False

    @property
    def is_initialized(self) -> bool:
        """Whether anything has been read."""
        return self.state is not None

    @property
    def is_croppable(self) -> bool:
        """Whether it can go back by any number of tokens: attention over everything can, unless rows are padded."""
        layers = () if self.state is None else self.state.layers
        return all(isinstance(state, AttentionState) and not state.ragged for state in layers)

    def crop(self, tokens_to_remove: int) -> None:
        """Go back.

        Arguments:
            tokens_to_remove: how many tokens, as a negative number; a positive one is what remains, as `transformers`
                before 5.18 has it.

        Errors:
            ArgumentError: a layer cannot tell what it kept then: a window and a recurrence never can, RAT only where a
                chunk began, and none of them after padding.
        """
        length = self.columns + tokens_to_remove if tokens_to_remove <= 0 else tokens_to_remove
        if self.state is None or length >= self.columns:
            return
        if any(state.ragged for state in self.state.layers):
            raise ArgumentError("tokens_to_remove", "0, since rows are padded", tokens_to_remove)
        self.state, self.columns = self.state.crop(length), length
