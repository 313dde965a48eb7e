"""Purposes of random numbers in the parts of this study; see `holdfast.lab.seeds`."""

WEIGHTS, SPLIT, BATCHES, PERMUTATION, GLYPHS = range(5)
