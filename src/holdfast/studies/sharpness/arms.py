"""The arms: how the logits of a trained network are turned into weights, on the same logits in every arm."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from holdfast.lab import Record
    from holdfast.nn import AdaptiveTemperature, Normaliser

ARMS = (
    "plain",
    "published",
    "refit",
    "log-n",
    "ssmax",
    "yarn",
    "llama4",
    "scale-invariant",
    "entmax",
    "sparsemax",
    "hard",
)
"""Names of the arms; `normalisers` says with which settings."""

SSMAX = 0.43
"""Scale s of scalable softmax, softmax(s ln(n) z), in the opening example of arXiv 2501.19399."""

Normalisers: TypeAlias = "dict[str, Normaliser | Sequence[Normaliser | None]]"
"""A normaliser for each arm, or one for each of its seeds; `None` where a seed has none."""


def normalisers(n: int, train_items: int, laws: Sequence[AdaptiveTemperature | None] = ()) -> Normalisers:
    """The normaliser of each arm for sets of `n` items.

    Lengths that a normaliser wants to know are those of this task: `train_items` in training, `n` in the test.

    Arguments:
        n: items in a set.
        train_items: most items in a training set.
        laws: the refitted law of each seed, or `None` where the fit was refused.
    """
    from holdfast.nn import (
        Adaptive,
        Entmax,
        Hard,
        Llama4,
        LogN,
        Plain,
        ScaleInvariant,
        Sparsemax,
        SSMax,
        YaRN,
    )

    return {
        "plain": Plain(),
        "published": Adaptive(detach=False),
        "refit": [Adaptive(law) if law else None for law in laws],
        "log-n": LogN(train_items),
        "ssmax": SSMax(SSMAX),
        "yarn": YaRN(max(1.0, n / train_items)),
        "llama4": Llama4(floor_scale=float(train_items)),
        "scale-invariant": ScaleInvariant(),
        "entmax": Entmax(),
        "sparsemax": Sparsemax(),
        "hard": Hard(),
    }


def weights(logits: Float[Tensor, "seed batch n"], arms: Normalisers) -> Float[Tensor, "arm seed batch n"]:
    """Attention weights of each arm, in their order; a seed without a law keeps the softmax."""
    import torch

    from holdfast.nn import Plain

    # The query of a set is a row of its own, which stands behind the last item.
    rows = logits.unsqueeze(-2)
    with without_warning_of_inactivity():
        by_arm = [
            torch.stack([(normaliser or Plain()).weights(z) for normaliser, z in zip(arm, rows, strict=True)])
            if isinstance(arm, Sequence)
            else arm.weights(rows)
            for arm in arms.values()
        ]
    return torch.stack(by_arm).squeeze(-2)


@contextlib.contextmanager
def without_warning_of_inactivity() -> Iterator[None]:
    """That the published law stops acting is what this study measures; it needs no warning."""
    from holdfast.nn import CorrectionInactiveWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CorrectionInactiveWarning)
        yield


def law_rows(arm: str, law: AdaptiveTemperature) -> list[Record]:
    """The curve of a law: `beta` by `entropy`, from 0 to 8 nats."""
    import torch

    entropy = torch.linspace(0, 8, 81, dtype=torch.float64)
    return [
        {"arm": arm, "entropy": h, "beta": beta}
        for h, beta in zip(entropy.tolist(), law.beta(entropy).tolist(), strict=True)
    ]
