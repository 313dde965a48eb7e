"""The paper that this study re-tests.

Only summaries and a description of a figure could be read, so that no number stands here as the paper's, and all
settings are ours.
"""

from holdfast.lab import Paper

PAPER = Paper("Optimizers Qualitatively Alter Solutions And We Should Leverage This", "2507.12224")

OURS = "not known to be in the paper"

SHAMPOO = "a non-diagonal preconditioner (Shampoo) forgets less than SGD and AdamW (from summaries)"
COSINES = "class representations are less alike with Shampoo (figure 4, as others describe it)"
RANK = "representations of lower effective rank with Shampoo (from summaries)"
POWER = "power-propagation can be had as a preconditioner, with the same bias (from summaries)"
