"""Purposes of random numbers in the parts of this study; see `holdfast.lab.seeds`."""

PLAY, EVALUATION, START, SHUFFLE, WEIGHTS, WALKS = range(6)
