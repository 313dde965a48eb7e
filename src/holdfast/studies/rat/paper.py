"""The paper that this study re-tests, and what it says of a claim where it has no figure."""

from holdfast.lab import Paper

PAPER = Paper("RAT: Bridging RNN Efficiency and Attention Accuracy via Chunk-based Sequence Modeling", "2507.04416")

NOT_SHOWN = "not shown in the paper"
