"""The paper that this study re-tests, and what it says of a claim that is ours."""

from holdfast.lab import Paper

PAPER = Paper(
    "How Overconfidence in Initial Choices and Underconfidence Under Criticism Modulate Change of Mind in Large "
    "Language Models",
    "2507.03120",
)

OURS = "not in the paper: a check of our own"
