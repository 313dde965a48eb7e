"""The paper that this study re-tests.

Only its abstract, summaries and a review could be read: neither its games nor its scores or settings. So no number
stands here as the paper's: the penalty is as published, the protocol is ours.
"""

from holdfast.lab import Paper

PAPER = Paper("Meta-learning how to Share Credit among Macro-Actions", "2506.13690")

OURS = "not known to be in the paper"

HURT = "macro-actions added naively often make exploration worse (abstract)"
DIMENSION = "fewer decisions are traded against a larger action space (abstract)"
PENALTY = "a penalty by similarity improves the assignment of credit (abstract)"
LEARNED = "the similarity is meta-learned jointly with the policy (abstract)"
TRANSFER = "the learned similarity transfers to related environments (abstract)"
GAMES = "better than Rainbow in all environments that were tried (abstract; games and scores not known to us)"
