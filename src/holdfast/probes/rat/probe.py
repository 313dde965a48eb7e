"""All parts of the probe on one model: where attention looks, what it costs, and whether chunk states would do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jaxtyping import Int
from torch import Tensor, nn

from holdfast.errors import ArgumentError
from holdfast.probes.context_length import trained_length
from holdfast.probes.rat.cache import CHUNK_SIZE, cache_growth
from holdfast.probes.rat.chunks import CHUNK_SIZES, WINDOW, chunk_compressibility
from holdfast.probes.rat.latency import decode_latency
from holdfast.probes.rat.locality import locality_profile
from holdfast.probes.rat.positions import position_loss
from holdfast.probes.rat.reading import Progress, check_causal_model, check_tokens, untold
from holdfast.probes.rat.report import RATReport

PARTS = ("locality", "cache", "chunks", "positions")
"""Parts by the names that one asks for; `cache` measures bytes and time."""

LONGEST = 512
"""Tokens of a text, at most, that are read in each of the many runs with merged chunks."""


def probe_rat(
    model: nn.Module,
    tokens: Int[Tensor, "texts time"],
    *,
    parts: Sequence[str] = PARTS,
    trained: int | None = None,
    chunk_size: int = CHUNK_SIZE,
    chunk_sizes: Sequence[int] = CHUNK_SIZES,
    window: int = WINDOW,
    progress: Progress = untold,
) -> RATReport:
    """Measure what attention costs in a causal language model as texts grow, and what RAT could change.

    Leaves the model as it found it: mode, gradients, hooks, attention implementation and random states. Parts that do
    not fit the model are left out, and the report says why.

    Arguments:
        model: a causal language model of transformers. Locality and chunks need one that asks the library's registry
            for its attention.
        tokens: texts of one length that the model can predict; beyond the trained length, the end of each is read by
            `positions` only, which needs several texts for an interval.
        parts: some of "locality", "cache", "chunks" and "positions".
        trained: tokens that the model was trained for; `None`: what its configuration says.
        chunk_size: tokens of a chunk of the RAT whose cache is compared.
        chunk_sizes: tokens of the chunks that are merged.
        window: last tokens that are never merged.
        progress: told of each step of each part.

    Returns:
        The report.

    Errors:
        ArgumentError: the model is no causal language model, an argument does not fit, or no part fits the model.

    Source: arXiv 2507.04416; the question of merged keys in a trained model: arXiv 2602.18196.
    """
    for part in parts:
        if part not in PARTS:
            raise ArgumentError("parts", f"some of {', '.join(PARTS)}", part)
    if not parts:
        raise ArgumentError("parts", f"some of {', '.join(PARTS)}", "none")
    check_causal_model(model)
    check_tokens(model, tokens, 8)
    length = trained_length(model) if trained is None else trained
    within = tokens[:, : min(tokens.shape[1], length or tokens.shape[1])]
    measures: dict[str, Any] = {
        "locality": lambda: {"locality": locality_profile(model, within, progress=progress)},
        "cache": lambda: {
            "cache": cache_growth(model, tokens, chunk_size=chunk_size, progress=progress),
            "latency": decode_latency(model, tokens, progress=progress),
        },
        "chunks": lambda: {
            "chunks": chunk_compressibility(
                model, within[:, :LONGEST], chunk_sizes=chunk_sizes, window=window, progress=progress
            )
        },
        "positions": lambda: {"positions": position_loss(model, tokens, trained=trained, progress=progress)},
    }
    results: dict[str, Any] = {}
    left_out: dict[str, str] = {}
    for part in (part for part in PARTS if part in parts):
        try:
            results |= measures[part]()
        except ArgumentError as error:
            # What is wrong with the other arguments is wrong whatever the model.
            if error.argument not in ("model", "contexts"):
                raise
            left_out[part] = str(error)
    if not results:
        raise ArgumentError("model", f"one that {' or '.join(left_out)} can measure", next(iter(left_out.values())))
    return RATReport(**results, left_out=left_out or None)
