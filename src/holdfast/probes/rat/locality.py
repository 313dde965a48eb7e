"""How far back each attention head looks: the share of its softmax on the nearest tokens."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from holdfast.errors import ArgumentError, count_of
from holdfast.nn.attention.call import AttentionCall, full_precision
from holdfast.nn.attention.plain import weights
from holdfast.nn.attention.visibility import CHUNK, hidden
from holdfast.nn.normalisers import Plain
from holdfast.probes.context_length import text_config
from holdfast.probes.rat.reading import (
    Progress,
    check_tokens,
    device_of,
    left_as_found,
    no_attention,
    registered_implementation,
    untold,
    without_cache,
)
from holdfast.probes.replaced_attention import attention_replaced, model_attention

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SPANS = (1, 4, 16, 64)
"""Numbers of nearest tokens, the query's own included."""

ROWS = 128
"""Queries of each text that are looked at."""

TOGETHER = 1 << 13
"""Tokens of the texts that are read together."""


@dataclass(frozen=True)
class HeadLocality:
    """Where the weight of one head lies, as a mean over queries.

    Arguments:
        layer: index of the layer.
        head: index of the query head.
        shares: of the weight on the nearest tokens, one for each span; they include each other.
        rest: share on all tokens before them.
        sink: share of a learned sink, which is no token; 0 without one.
        keys: mean number of tokens that the layer lets a query see.
    """

    layer: int
    head: int
    shares: tuple[float, ...]
    rest: float
    sink: float
    keys: float


@dataclass(frozen=True)
class LocalityProfile:
    """What `locality_profile` found.

    Arguments:
        spans: numbers of nearest tokens.
        heads: one entry a head, by layer.
        without: layers that have no attention weights, such as recurrent ones.
        first: position of the first query that was looked at.
        tokens: of each text; the last query stands at its end.
        rows: queries that were looked at, of all texts together.
    """

    spans: tuple[int, ...]
    heads: tuple[HeadLocality, ...]
    without: tuple[int, ...]
    first: int
    tokens: int
    rows: int

    @property
    def layers(self) -> tuple[int, ...]:
        """Layers with attention."""
        return tuple(dict.fromkeys(head.layer for head in self.heads))

    def of_layer(self, layer: int) -> tuple[HeadLocality, ...]:
        """The heads of a layer."""
        return tuple(head for head in self.heads if head.layer == layer)

    def mean_share(self, span: int) -> float:
        """Mean share of all heads within a span."""
        place = self.spans.index(span)
        return math.fsum(head.shares[place] for head in self.heads) / len(self.heads)

    def plot(self, ax: Axes) -> None:
        """Draw the share beyond the largest span as a map of layers and heads; bright heads look far back.

        Arguments:
            ax: Matplotlib axes to draw into.
        """
        width = 1 + max(head.head for head in self.heads)
        values = [[math.nan] * width for _ in self.layers]
        for head in self.heads:
            values[self.layers.index(head.layer)][head.head] = head.rest
        image = ax.imshow(values, vmin=0, vmax=1, aspect="auto", cmap="viridis", origin="lower")
        shown = range(0, len(self.layers), max(1, len(self.layers) // 6))
        ax.set_xlabel("head")
        ax.set_xticks(range(0, width, max(1, width // 8)))
        ax.set_ylabel("layer")
        ax.set_yticks(list(shown), [str(self.layers[place]) for place in shown])
        ax.set_title(f"attention beyond {self.spans[-1]} tokens")
        ax.figure.colorbar(image, cax=ax.inset_axes((1.03, 0, 0.05, 1)), label="share")


def locality_profile(
    model: nn.Module,
    tokens: Int[Tensor, "texts time"],
    *,
    spans: Sequence[int] = SPANS,
    rows: int = ROWS,
    progress: Progress = untold,
) -> LocalityProfile:
    """Measure which share of each head's attention lies on the nearest tokens.

    The model's own attention runs unchanged. Beside it the weights of some queries are computed, evenly spread over the
    second half of each text, a few rows at a time: no table of all weights is ever made here (a model with eager
    attention makes its own).

    Arguments:
        model: a causal language model of transformers that asks the library's registry for its attention.
        tokens: texts.
        spans: numbers of nearest tokens, the query's own included, ascending.
        rows: queries of each text to look at, at most.
        progress: told of each text.

    Errors:
        ArgumentError: the model does not use the registry, or tokens, spans or rows do not fit.
    """
    implementation = registered_implementation(model)
    check_tokens(model, tokens, 2)
    count_of("rows", rows, least=1)
    for number in spans:
        count_of("spans", number, least=1)
    if not spans or list(spans) != sorted(set(spans)):
        raise ArgumentError("spans", "ascending numbers of tokens", tuple(spans))
    texts, time = tokens.shape
    queries = _spread(time // 2, time, rows)
    sums: dict[tuple[int, int], Tensor] = {}
    order = itertools.count()

    def attend(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: Any) -> Any:
        with full_precision(query.device):
            call = AttentionCall.of_transformers(module, query, key, None, mask, normaliser=Plain(), **options)
            place, carried = next(order), getattr(module, "layer_idx", None)
            layer = place if carried is None else int(carried)
            for head, measured in enumerate(_sums(call, queries, spans)):
                sums[layer, head] = sums[layer, head] + measured if (layer, head) in sums else measured
        return model_attention(module, implementation)(module, query, key, value, mask, **options)

    done = 0
    with left_as_found(model), attention_replaced(model, attend, implementation):
        for some in torch.split(tokens, max(1, TOGETHER // time)):
            progress("locality", done, texts)
            order = itertools.count()
            _run(model, some.to(device_of(model)))
            done += len(some)
    progress("locality", texts, texts)
    if not sums:
        raise no_attention(model)
    seen_queries = texts * len(queries)
    heads = tuple(_head(layer, head, measured, seen_queries) for (layer, head), measured in sorted(sums.items()))
    seen = {head.layer for head in heads}
    without = tuple(layer for layer in range(text_config(model).num_hidden_layers) if layer not in seen)
    return LocalityProfile(tuple(spans), heads, without, queries[0], time, seen_queries)


def _run(model: nn.Module, ids: Int[Tensor, "texts time"]) -> None:
    """Run the layers of a model, without the logits over its vocabulary."""
    base: Any = getattr(model, "base_model", model)
    base(input_ids=ids, **without_cache(base))


def _spread(start: int, stop: int, most: int) -> list[int]:
    """Positions evenly spread over a range, the last one among them."""
    count = min(most, stop - start)
    return sorted({stop - 1 - round(place * (stop - start - 1) / max(1, count - 1)) for place in range(count)})


def _sums(call: AttentionCall, queries: Sequence[int], spans: Sequence[int]) -> Float[Tensor, "heads numbers"]:
    """Sums over queries of the shares within each span, of the rest, of the sink, and of the number of keys."""
    call = call.wide()
    batch, heads = call.query.shape[:2]
    sums = torch.zeros(heads, len(spans) + 3, dtype=torch.float64)
    for some in torch.tensor(queries).split(max(1, CHUNK // (batch * heads * call.keys))):
        rows, distance = _rows(call, some.to(call.query.device))
        share = weights(rows)
        within = [share.masked_fill(distance >= number, 0).sum((0, 2, 3)) for number in spans]
        rest = share.masked_fill(distance < spans[-1], 0).sum((0, 2, 3))
        sink = torch.zeros_like(rest) if call.sinks is None else batch * len(some) - rest - within[-1]
        unseen = hidden(rows)
        keys = rows.keys * len(some) if unseen is None else int((~unseen[0, 0]).expand(len(some), rows.keys).sum())
        seen = torch.full_like(rest, batch * keys)
        sums += torch.stack([*within, rest, sink, seen], dim=-1).double().cpu()
    return sums


def _rows(call: AttentionCall, queries: Int[Tensor, " rows"]) -> tuple[AttentionCall, Int[Tensor, "rows keys"]]:
    """The part of a call with some of its queries, and how far before each query each key stands."""
    distance = (queries + call.first_query)[:, None] - torch.arange(call.keys, device=queries.device) - call.first_key
    mask = call.mask
    if mask is not None and mask.shape[2] > 1:
        mask = mask[:, :, queries]
    if call.causal or call.window is not None:
        visible = torch.ones_like(distance, dtype=torch.bool) if not call.causal else distance >= 0
        visible = visible if call.window is None else visible & (distance.abs() < call.window)
        if mask is None or mask.dtype == torch.bool:
            mask = visible[None, None] if mask is None else mask & visible
        else:
            mask = mask.masked_fill(~visible, -math.inf)
    rows = replace(call, query=call.query[:, :, queries], mask=mask, causal=False, window=None)
    return rows, distance


def _head(layer: int, head: int, sums: Float[Tensor, " numbers"], rows: int) -> HeadLocality:
    """Means from sums over so many queries."""
    *shares, rest, sink, keys = (sums / rows).tolist()
    return HeadLocality(layer, head, tuple(shares), rest, sink, keys)
