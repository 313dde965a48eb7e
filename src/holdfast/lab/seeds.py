"""Random numbers of the study of sharpness: each purpose of a seed has a stream of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

TRAIN, TEST, FIT, ROWS, TOKENS, NEEDLES = range(6)
"""Streams of random numbers: each purpose has its own, so that none disturbs another."""


def generator_for(seed: int, *stream: int, device: str = "cpu") -> torch.Generator:
    """A generator of its own for each purpose of a seed."""
    import numpy as np
    import torch

    state = np.random.SeedSequence([seed, *stream]).generate_state(2, np.uint32)
    return torch.Generator(device).manual_seed(int(state[0]) << 31 | int(state[1]) >> 1)
