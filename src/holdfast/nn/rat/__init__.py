"""RAT: gated recurrence inside chunks, softmax attention across them."""

from holdfast.nn.rat.gated_rnn import GatedRNN, GatedRNNState, gated_scan
from holdfast.nn.rat.mixer import RAT
from holdfast.nn.rat.rat_attention import rat_attention
from holdfast.nn.rat.state import RATState

__all__ = ["RAT", "GatedRNN", "GatedRNNState", "RATState", "gated_scan", "rat_attention"]
