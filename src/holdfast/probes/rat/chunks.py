"""What a trained model loses when its old keys and values are merged, chunk by chunk, into one state each.

This is what RAT attends to, put into a model that was not trained for it. Keys are merged as attention gets them, after
their rotation: no state stands at one position.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from holdfast.errors import ArgumentError, count_of
from holdfast.nn.attention import attention
from holdfast.nn.attention.call import AttentionCall, full_precision
from holdfast.nn.attention.plain import logits
from holdfast.nn.attention.visibility import block, chunks
from holdfast.nn.normalisers import Plain
from holdfast.probes.rat.reading import (
    PREDICTS,
    Progress,
    chance,
    check_tokens,
    left_as_found,
    mean_interval,
    no_attention,
    registered_implementation,
    target_losses,
    untold,
)
from holdfast.probes.replaced_attention import attention_replaced

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CHUNK_SIZES = (2, 4, 8, 16)

WINDOW = 16
"""Last tokens, the query's own included, that are never merged."""

GATES = (0.5, 0.7, 0.9)
"""Forget gates of the exponential means that are tried; 0 is the last token and 1 the mean."""

NOTICEABLE = 0.05
"""Nats a token from which on a loss counts as worse: five percent of perplexity."""

DROPPED = "dropped"

MASKS = "sdpa"
"""Implementation whose masks the merging attention reads."""


@dataclass(frozen=True)
class MergedLoss:
    """The loss with merged chunks, against the same attention without.

    Arguments:
        chunk_size: tokens of a chunk.
        state: "last", "mean", or "ema" with its gate: what stands for a chunk; "dropped" where nothing does.
        layer: the only layer with merged chunks; `None` for all of them.
        change: mean change of the loss, in nats a token.
        low: lower end of its 95 % interval over texts; NaN for a single text.
        high: upper end.
    """

    chunk_size: int
    state: str
    layer: int | None
    change: float
    low: float
    high: float


@dataclass(frozen=True)
class ChunkCompressibility:
    """What `chunk_compressibility` found.

    Arguments:
        window: last tokens that are never merged.
        tokens: of each text.
        texts: how many.
        targets: last tokens of each text, whose loss this is.
        loss: of the model as it is, in nats a token.
        chance: loss of guessing, the logarithm of the vocabulary.
        together: with merged chunks in all layers, for each size and state.
        dropped: with nothing in the place of those chunks, for each size: what merging can lose at all.
        by_layer: in one layer alone, for each size with the state that is best in all.
    """

    window: int
    tokens: int
    texts: int
    targets: int
    loss: float
    chance: float
    together: tuple[MergedLoss, ...]
    dropped: tuple[MergedLoss, ...]
    by_layer: tuple[MergedLoss, ...]

    @property
    def chunk_sizes(self) -> tuple[int, ...]:
        """The sizes, ascending."""
        return tuple(sorted({merged.chunk_size for merged in self.together}))

    @property
    def informative(self) -> bool:
        """Whether the model predicts these texts better than guessing: else nothing can be lost."""
        return self.loss < self.chance - PREDICTS

    def best(self, chunk_size: int, kind: str = "") -> MergedLoss:
        """The least loss in all layers at a size, of all states or of those whose name begins so."""
        some = [m for m in self.together if m.chunk_size == chunk_size and m.state.startswith(kind)]
        return min(some, key=lambda merged: merged.change)

    def in_layer(self, chunk_size: int, layer: int) -> MergedLoss:
        """The loss with merged chunks in one layer alone."""
        return next(m for m in self.by_layer if (m.chunk_size, m.layer) == (chunk_size, layer))

    @property
    def finding(self) -> str:
        """What follows, in words that a sentence can end with."""
        if not self.informative:
            return (
                f"whether old keys can be merged is not told by a text that the model does not predict "
                f"({self.loss:.2f} nats a token, guessing takes {self.chance:.2f})"
            )
        dropped, worst = self.dropped[-1], self.best(self.chunk_sizes[-1])
        if max(dropped.change, worst.change) <= NOTICEABLE:
            return (
                f"keys older than {self.window} tokens matter so little here ({dropped.change:+.2f} nats a token "
                "without them) that it is not told whether they can be merged"
            )
        least = f"{worst.change:+.2f} nats a token with chunks of {worst.chunk_size}"
        least += f" ({dropped.change:+.2f} without them)"
        if worst.low > NOTICEABLE:
            return f"but merging old keys costs {least}, so this model cannot be switched: RAT has to be trained"
        if worst.high <= NOTICEABLE:
            return f"merging old keys costs only {least}, so they can be merged as they are"
        return f"merging old keys costs {least}, which these texts are too few to judge"

    def plot(self, ax: Axes) -> None:
        """Draw the change of the loss against the chunk size, one line a kind of state.

        Arguments:
            ax: Matplotlib axes to draw into.
        """
        for kind, label in (("last", "last"), ("mean", "mean"), ("ema", "best EMA")):
            best = [self.best(size, kind) for size in self.chunk_sizes]
            ax.plot(self.chunk_sizes, [merged.change for merged in best], marker="o", markersize=3, label=label)
            ax.fill_between(self.chunk_sizes, [m.low for m in best], [m.high for m in best], alpha=0.15)
        without = [merged.change for merged in self.dropped]
        ax.plot(self.chunk_sizes, without, color="0.4", linestyle="--", linewidth=1, label="dropped")
        ax.axhline(0, color="0.6", linewidth=0.8)
        ax.set_xscale("log", base=2)
        ax.set_xticks(self.chunk_sizes, [str(size) for size in self.chunk_sizes])
        ax.set_xlabel("tokens of a chunk")
        ax.set_ylabel("nats a token")
        ax.set_title("loss added by merging old keys")
        ax.legend()


def chunk_compressibility(
    model: nn.Module,
    tokens: Int[Tensor, "texts time"],
    *,
    chunk_sizes: Sequence[int] = CHUNK_SIZES,
    window: int = WINDOW,
    gates: Sequence[float] = GATES,
    progress: Progress = untold,
) -> ChunkCompressibility:
    """Measure what a model loses when closed chunks of keys and values become one state each.

    A query sees its last `window` tokens, and all of each chunk that these reach into, as they are. Each chunk before
    is one key and one value: those of its last token, their mean, or their exponential mean, which weighs a token by
    gate^(tokens after it in the chunk). All are generous to the model: RAT's own states start from zero, which damps
    the first tokens of a chunk. The gate is chosen on the same texts, which is generous too.

    The loss is that of the second half of each text, and each change is against the same attention without merging.

    Arguments:
        model: a causal language model of transformers that asks the library's registry for its attention.
        tokens: texts, of no more tokens than the model was trained for.
        chunk_sizes: tokens of a chunk.
        window: last tokens, the query's own included, that are never merged.
        gates: of the exponential means, between 0 and 1.
        progress: told of each run of the model over the texts.

    Errors:
        ArgumentError: the model does not use the registry, or an argument does not fit.

    Source: the states of arXiv 2507.04416, section 3; the question of arXiv 2602.18196.
    """
    registered_implementation(model)
    check_tokens(model, tokens, 4)
    count_of("window", window, least=1)
    for size in chunk_sizes:
        count_of("chunk_sizes", size, least=1)
    if not chunk_sizes:
        raise ArgumentError("chunk_sizes", "at least one", "none")
    for gate in gates:
        if not 0 < gate < 1:
            raise ArgumentError("gates", "numbers between 0 and 1", gate)
    targets = tokens.shape[1] // 2
    states = ["last", "mean", *(f"ema {gate:g}" for gate in gates)]
    layers = _layers(model, tokens)
    sizes = sorted(set(chunk_sizes))
    total = 1 + len(sizes) * (len(states) + 1 + len(layers))
    done = 0

    def losses(merging: _Merging | None) -> Float[Tensor, " texts"]:
        nonlocal done
        progress("chunks", done, total)
        done += 1
        with left_as_found(model), _merged(model, merging):
            return target_losses(model, tokens, targets).double().mean(1)

    before = losses(None)

    def measured(size: int, state: str, layer: int | None) -> MergedLoss:
        weights = None if state == DROPPED else state_weights(state, size)
        change = losses(_Merging(size, weights, window, layer)) - before
        return MergedLoss(size, state, layer, *mean_interval(change.tolist()))

    dropped = [measured(size, DROPPED, None) for size in sizes]
    together = [measured(size, state, None) for size in sizes for state in states]
    by_layer = []
    for size in sizes:
        best = min((m for m in together if m.chunk_size == size), key=lambda m: m.change)
        by_layer += [measured(size, best.state, layer) for layer in layers]
    progress("chunks", total, total)
    return ChunkCompressibility(
        window=window,
        tokens=tokens.shape[1],
        texts=tokens.shape[0],
        targets=targets,
        loss=float(before.mean()),
        chance=chance(model),
        together=tuple(together),
        dropped=tuple(dropped),
        by_layer=tuple(by_layer),
    )


def state_weights(state: str, chunk_size: int) -> Float[Tensor, " chunk"]:
    """What each token of a chunk weighs in its state; they sum to one.

    Arguments:
        state: "last", "mean", or "ema" and a gate, such as "ema 0.5".
        chunk_size: tokens of a chunk.
    """
    gate = {"last": 0.0, "mean": 1.0}.get(state)
    gate = float(state.partition(" ")[2]) if gate is None else gate
    weights = gate ** torch.arange(chunk_size - 1, -1, -1, dtype=torch.float64)
    return weights / weights.sum()


def merged_attention(
    call: AttentionCall, chunk_size: int, weights: Float[Tensor, " chunk"] | None, window: int
) -> Float[Tensor, "batch heads queries value_dim"]:
    """Attention to recent tokens as they are, and to one state for each closed chunk before.

    A chunk is merged for a query where none of its tokens is among the query's last `window` ones. A query sees the
    state of a chunk where it sees the chunk's last token, and has that token's bias.

    Arguments:
        call: queries and keys of the same tokens.
        chunk_size: tokens of a chunk; what is left at the end makes none.
        weights: of the tokens of a chunk in its state; `None`: no state takes the place of a chunk.
        window: last tokens that are never merged.
    """
    call = call.wide().without_groups()
    assert call.value is not None
    size, states = chunk_size, call.keys // chunk_size
    shares = call.query.new_zeros(size) if weights is None else weights.to(call.query)
    key, value = (
        torch.einsum("bhcld,l->bhcd", t[:, :, : states * size].reshape(*t.shape[:2], states, size, t.shape[3]), shares)
        for t in (call.key, call.value)
    )
    last = slice(size - 1, states * size, size)
    position = torch.arange(call.keys, device=key.device)
    closed = (position // size + 1) * size
    output = []
    for start, stop in chunks(call, call.query.shape[0] * call.query.shape[1] * (call.keys + states)):
        part = block(call, start, stop, 0, call.keys)
        exact = logits(part)
        bias = part.mask if part.mask is not None and part.mask.is_floating_point() else None
        if bias is not None and bias.shape[3] > 1:
            bias = bias[..., last]
        of_states = logits(replace(part, key=key, value=value, mask=bias, causal=False, window=None))
        merged = closed <= position[start:stop, None] + 1 - window
        if weights is None:
            of_states = torch.full_like(of_states, -math.inf)
        of_states = of_states.masked_fill(~merged[:, last] | (exact[..., last] == -math.inf), -math.inf)
        columns = [exact.masked_fill(merged, -math.inf), of_states]
        if call.sinks is not None:
            columns.append(call.sinks.to(exact)[:, None, None].expand(*exact.shape[:3], 1))
        share = torch.cat(columns, dim=-1).softmax(-1)
        output.append(share[..., : call.keys] @ call.value + share[..., call.keys :][..., :states] @ value)
    return torch.cat(output, dim=2)


@dataclass(frozen=True)
class _Merging:
    """Which chunks become states, and how; in one layer, or in all for `None`."""

    chunk_size: int
    weights: Float[Tensor, " chunk"] | None
    window: int
    layer: int | None

    def keeps(self, keys: int) -> bool:
        """Whether it leaves so many keys as they are: the state of a single token is that token."""
        return self.window >= keys or (self.chunk_size == 1 and self.weights is not None)


@contextmanager
def _merged(model: nn.Module, merging: _Merging | None) -> Iterator[None]:
    """Have a model attend to merged chunks; `None` merges nothing."""

    def attend(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: Any) -> Any:
        with full_precision(query.device):
            call = AttentionCall.of_transformers(module, query, key, value, mask, normaliser=Plain(), **options)
            chosen = merging is not None and merging.layer in (None, getattr(module, "layer_idx", None))
            # Where no key is changed the same computation gives the same loss, to the last bit.
            if merging is None or not chosen or merging.keeps(call.keys):
                output = attention.attend(call)
            else:
                output = merged_attention(call, merging.chunk_size, merging.weights, merging.window)
        return output.to(query.dtype).transpose(1, 2).contiguous(), None

    with attention_replaced(model, attend, MASKS):
        yield


def _layers(model: nn.Module, tokens: Tensor) -> list[int]:
    """Layers whose attention is asked for, by running the model over a few tokens."""
    seen = []

    def attend(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: Any) -> Any:
        seen.append(getattr(module, "layer_idx", None))
        call = AttentionCall.of_transformers(module, query, key, value, mask, normaliser=Plain(), **options)
        return attention.attend(call).transpose(1, 2).contiguous(), None

    with left_as_found(model), attention_replaced(model, attend, MASKS):
        target_losses(model, tokens[:1, :4], 1)
    if not seen:
        raise no_attention(model)
    return sorted({layer for layer in seen if layer is not None})
