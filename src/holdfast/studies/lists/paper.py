"""The paper that this study re-tests, and what it says of a claim where it has no figure."""

from holdfast.lab import Paper

PAPER = Paper(
    "Filter Equivariant Functions: A symmetric account of length-general extrapolation on lists", "2507.08796"
)

PROVED = "proved in the paper"
NO_EXPERIMENT = "no experiment in the paper"
NOT_THERE = "no such statement that we could find"
