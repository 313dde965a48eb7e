"""A network of about as many parameters whose step grows where the other one's is constant, or the other way round."""

from __future__ import annotations

from torch import nn

from holdfast.models.action.config import BackboneShape
from holdfast.nn import BackboneConfig, XLSTMConfig

EXPANSIONS = (4, 3, 5, 2, 6, 1, 7, 8)
"""Of a transformer's feed-forward layers: the usual one first, others where they match better."""

WELL_MATCHED = 0.05
"""Share by which the usual shape may miss the number of parameters."""

HEAD = 64
"""Width of an attention head, as of the transformers of arXiv 2410.22391."""


def parameters_of(module: nn.Module) -> int:
    """Number of parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def transformer_of(dim: int, parameters: int) -> BackboneConfig:
    """A transformer with rotary positions, whose keys and values are cached.

    Arguments:
        dim: width of its residual stream.
        parameters: about so many.
    """
    best, missed = (1, EXPANSIONS[0]), float("inf")
    for expansion in EXPANSIONS:
        of_layer = (4 + 2 * expansion) * dim**2
        layers = max(1, round(parameters / of_layer))
        miss = abs(layers * of_layer / parameters - 1)
        if miss < missed and missed > WELL_MATCHED:
            best, missed = (layers, expansion), miss
    return BackboneConfig(
        mixers=("attention",) * best[0],
        dim=dim,
        heads=_heads(dim),
        expansion=best[1],
        rope_theta=10_000.0 if dim // _heads(dim) % 2 == 0 else None,
    )


def xlstm_of(dim: int, parameters: int) -> XLSTMConfig:
    """An xLSTM of mLSTM blocks alone, which have about six parameters for each pair of channels.

    Arguments:
        dim: width of its residual stream.
        parameters: about so many.
    """
    heads = next(heads for heads in (4, 2, 1) if (-(-2 * dim // 64) * 64) % heads == 0)
    return XLSTMConfig(dim=dim, layers=max(1, round(parameters / (6 * dim**2))), heads=heads)


def rival_of(shape: BackboneShape, parameters: int, *, constant: bool) -> tuple[str, BackboneShape]:
    """What a backbone is compared with, and what it is called.

    Arguments:
        shape: of the backbone.
        parameters: that it has.
        constant: whether its state has the same size after any number of tokens.
    """
    if constant:
        return "a transformer of this size", transformer_of(shape.dim, parameters)
    return "an xLSTM of this size", xlstm_of(shape.dim, parameters)


def _heads(dim: int) -> int:
    """As many of about the usual width as divide the width of the stream."""
    return next(heads for heads in range(max(1, round(dim / HEAD)), 0, -1) if dim % heads == 0)
