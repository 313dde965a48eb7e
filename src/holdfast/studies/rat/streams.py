"""Purposes of random numbers in the parts of this study; see `holdfast.lab.seeds`."""

WEIGHTS, TRAIN, TEST, INPUTS = range(4)
