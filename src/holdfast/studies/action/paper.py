"""The paper that this study re-tests. Its abstract and accounts of it by others are what this study goes by."""

from holdfast.lab import Paper

PAPER = Paper("A Large Recurrent Action Model: xLSTM enables Fast Inference for Robotics Tasks", "2410.22391")

SECOND_HAND = "as told in accounts of the paper, whose figures were not at hand"

OURS = "not in the paper"
