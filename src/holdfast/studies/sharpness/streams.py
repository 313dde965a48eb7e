"""Purposes of random numbers in the parts of this study; see `holdfast.lab.seeds`."""

TRAIN, TEST, FIT, ROWS, TOKENS, NEEDLES = range(6)
