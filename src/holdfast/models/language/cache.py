"""What a language model keeps of a sequence between two calls, in the form that transformers hands around."""

from __future__ import annotations

from jaxtyping import Int
from torch import Tensor
from transformers import Cache

from holdfast.errors import ArgumentError
from holdfast.nn import Backbone, BackboneState


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

    def reorder_cache(self, beam_idx: Int[Tensor, " rows"]) -> None:
        """Keep these rows, in this order."""
        if self.state is not None:
            self.state = self.state.reorder(beam_idx)

    @property
    def nbytes(self) -> int:
        """Bytes of all that is kept but the counts."""
        return 0 if self.state is None else self.state.nbytes

    @property
    def is_compileable(self) -> bool:
        """The state is handed on as a whole, so that there is no step to compile."""
        return False

    @property
    def is_croppable(self) -> bool:
        """A recurrence cannot go back."""
        return False

    def crop(self, tokens_to_remove: int) -> None:
        """Refused.

        Errors:
            ArgumentError: a state is not a list of tokens.
        """
        raise ArgumentError("tokens_to_remove", "0", tokens_to_remove)
