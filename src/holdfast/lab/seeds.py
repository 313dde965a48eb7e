"""Streams of random numbers: each purpose of a seed has its own, so that none disturbs another.

A study numbers its purposes: `rng_for(seed, TEST, n)` draws the same whatever was drawn before it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import torch


def rng_for(seed: int, *stream: int) -> np.random.Generator:
    """NumPy's generator for one purpose of a seed.

    Arguments:
        seed: the trial's seed.
        stream: numbers of the purpose.
    """
    import numpy as np

    return np.random.default_rng([seed, *stream])


def generator_for(seed: int, *stream: int, device: str = "cpu") -> torch.Generator:
    """PyTorch's generator for one purpose of a seed.

    Arguments:
        seed: the trial's seed.
        stream: numbers of the purpose.
        device: where it draws.
    """
    import numpy as np
    import torch

    state = np.random.SeedSequence([seed, *stream]).generate_state(2, np.uint32)
    return torch.Generator(device).manual_seed(int(state[0]) << 31 | int(state[1]) >> 1)
