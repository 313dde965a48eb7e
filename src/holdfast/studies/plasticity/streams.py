"""Purposes of random numbers in the parts of this study; see `holdfast.lab.seeds`."""

WEIGHTS, SPLIT, LABELS, BATCHES, NOISE, GOALS, PROBE, FRESH = range(8)
