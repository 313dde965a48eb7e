"""Sizes that the parts of this study are tested at."""


def powers(first: int, last: int) -> tuple[int, ...]:
    """Powers of two from 2^first to 2^last."""
    return tuple(2**k for k in range(first, last + 1))
