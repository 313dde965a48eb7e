"""The paper that this study re-tests. It has no tables: what it says of a claim is read from its text and captions."""

from holdfast.lab import Paper

PAPER = Paper("What Can Grokking Teach Us About Learning Under Nonstationarity?", "2507.20057")

NAP = "as in the paper that projection is from (arXiv 2407.01800)"

OURS = "not in the paper"
