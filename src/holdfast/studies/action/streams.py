"""Purposes of random numbers in the parts of this study; see `holdfast.lab.seeds`."""

WEIGHTS, SHUFFLE, GOALS, HISTORIES, TEST, INPUTS = range(6)

ENVIRONMENTS = 10_000
"""Seeds of environments that a seed of the study has for each purpose."""


def environment_seed(seed: int, *, test: bool) -> int:
    """The first seed of the environments of a seed: none is used for demonstrations and rollouts, or by two seeds."""
    return (2 * seed + 1 + test) * ENVIRONMENTS
