"""RAT: gated recurrence inside chunks, softmax attention across them."""

from holdfast.nn.rat.rat_attention import rat_attention

__all__ = ["rat_attention"]
