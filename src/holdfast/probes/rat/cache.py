"""What a model keeps of the text while it generates: bytes of its live cache, layer by layer, against the length.

Nothing is read from the configuration but the width that full multi-head keys would have: grouped keys, latent keys,
sliding windows and recurrent states are what the tensors say.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int
from torch import Tensor, nn

from holdfast.errors import ArgumentError, count_of
from holdfast.probes.context_length import position_limit
from holdfast.probes.rat.reading import Progress, check_tokens, device_of, left_as_found, untold, width

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAMES = ("past_key_values", "cache_params", "state")
"""What models of transformers call their cache, in what they return and in what they take."""

CHUNK_SIZE = 16
"""Tokens of a chunk of the RAT that a model is compared with."""

LENGTHS = (1024, 4096, 16384, 65536)
"""Lengths that a report and a picture look at, besides those that were measured."""

FAR = 1 << 50
"""Tokens, more than which no text has."""


@dataclass(frozen=True)
class LayerCache:
    """What one layer keeps.

    Arguments:
        layer: its index; `None` for a cache that is not kept by layers.
        sizes: bytes after each length.
        per_token: bytes that one more token adds, at the longest lengths; 0 for a layer that has stopped growing.
        most: number of tokens at which a layer that grows will stop, where its cache says so.
    """

    layer: int | None
    sizes: tuple[int, ...]
    per_token: float
    most: int | None

    def at(self, length: int, lengths: Sequence[int]) -> float:
        """Bytes after a length: between those that were measured by interpolation, beyond them predicted."""
        if length <= lengths[-1]:
            return float(np.interp(length, [0, *lengths], [0, *self.sizes]))
        end = length if self.most is None else min(length, self.most)
        return self.sizes[-1] + self.per_token * (end - lengths[-1])


@dataclass(frozen=True)
class CacheGrowth:
    """What `cache_growth` found, for one sequence.

    Arguments:
        lengths: tokens after which the cache was looked at.
        layers: one entry a layer.
        itemsize: bytes of one number in the cache.
        weights: bytes of the model's parameters and buffers.
        width: numbers in the keys of one token, were there a key head for each query head.
        chunk_size: tokens of a chunk of the RAT that is compared.
    """

    lengths: tuple[int, ...]
    layers: tuple[LayerCache, ...]
    itemsize: int
    weights: int
    width: int
    chunk_size: int

    @property
    def growing(self) -> tuple[LayerCache, ...]:
        """Layers whose cache grows without an end that it tells."""
        return tuple(layer for layer in self.layers if layer.per_token > 0 and layer.most is None)

    @property
    def per_token(self) -> float:
        """Bytes that one more token adds to all growing layers."""
        return math.fsum(layer.per_token for layer in self.growing)

    @property
    def rat_per_token(self) -> float:
        """Bytes that one more token would add with RAT in the place of the growing layers: a state a chunk."""
        return len(self.growing) * 2 * self.width * self.itemsize / self.chunk_size

    @property
    def saving(self) -> float:
        """How many times less RAT adds for each token than the model; NaN where nothing grows.

        RAT's states are as wide as keys of all heads: what grouped keys save already, it cannot save again.
        """
        return self.per_token / self.rat_per_token if self.growing else math.nan

    @property
    def outweighs(self) -> float:
        """Tokens at which the cache is as large as the weights, predicted; inf where it never is."""
        tokens = bisect.bisect_left(range(FAR), float(self.weights), key=lambda length: self.at(length))
        return float(tokens) if tokens < FAR else math.inf

    def at(self, length: int) -> float:
        """Bytes of the model's cache after a length: beyond those that were measured, predicted."""
        return math.fsum(layer.at(length, self.lengths) for layer in self.layers)

    def multi_head(self, length: int) -> float:
        """Bytes after a length if each growing layer had a key head for each query head."""
        return self._others(length) + len(self.growing) * 2 * length * self.width * self.itemsize

    def rat(self, length: int) -> float:
        """Bytes after a length with RAT in the place of each growing layer."""
        one = rat_cache_bytes(length, self.width, chunk_size=self.chunk_size, itemsize=self.itemsize)
        return self._others(length) + len(self.growing) * one

    def _others(self, length: int) -> float:
        """Bytes of the layers that stay as they are."""
        return math.fsum(layer.at(length, self.lengths) for layer in self.layers if layer not in self.growing)

    def plot(self, ax: Axes) -> None:
        """Draw bytes against the length: the model, full multi-head keys, RAT, and the weights.

        Arguments:
            ax: Matplotlib axes to draw into.
        """
        last = self.lengths[-1]
        far = [last * 2**power for power in range(1 + max(1, math.ceil(math.log2(max(LENGTHS) / last))))]
        near = list(self.lengths)
        curves: list[tuple[str, Callable[[int], float], str]] = [("this model", self.at, "C0")]
        if self.growing:
            rat = f"RAT, chunks of {self.chunk_size}"
            curves += [("all key heads", self.multi_head, "0.5"), (rat, self.rat, "C1")]
        for label, sizes, colour in curves:
            ax.plot(near + far[1:], [sizes(n) for n in near + far[1:]], color=colour, linestyle="--", linewidth=1)
            if label == "this model":
                ax.plot(near, [sizes(n) for n in near], color=colour, marker="o", markersize=3, label=label)
            else:
                ax.plot([], [], color=colour, linestyle="--", linewidth=1, label=label)
        ax.axhline(self.weights, color="C3", linewidth=0.8, label="weights")
        ax.set_xscale("log", base=2)
        ax.set_yscale("log")
        ax.set_xlabel("tokens (dashed: predicted)")
        ax.set_ylabel("bytes")
        ax.set_title("cache of one sequence")
        ax.legend(loc="upper left")


def rat_cache_bytes(length: int, width: int, *, chunk_size: int = CHUNK_SIZE, itemsize: int = 2) -> int:
    """Bytes that one RAT layer keeps of one sequence: a key and a value a chunk, and the running ones in float32.

    Arguments:
        length: tokens.
        width: numbers in a key, of all heads: RAT does not share them between heads.
        chunk_size: tokens of a chunk.
        itemsize: bytes of a number in the states.

    Source: arXiv 2507.04416, sections 2 and 3.
    """
    return 2 * -(-length // chunk_size) * width * itemsize + 2 * width * 4


def cache_growth(
    model: nn.Module,
    tokens: Int[Tensor, "texts time"],
    *,
    lengths: Sequence[int] | None = None,
    chunk_size: int = CHUNK_SIZE,
    progress: Progress = untold,
) -> CacheGrowth:
    """Read what a model's cache holds after several lengths of text.

    Arguments:
        model: a causal language model of transformers.
        tokens: texts; the first one is read.
        lengths: after how many tokens to look; `None`: after an eighth, a quarter, a half and all of them.
        chunk_size: tokens of a chunk of the RAT to compare with.
        progress: told of each length.

    Errors:
        ArgumentError: the model returns no cache, or tokens or lengths do not fit.
    """
    check_tokens(model, tokens, 2)
    count_of("chunk_size", chunk_size, least=1)
    ascending = checked_lengths(model, tokens, lengths)
    sizes = []
    last: tuple[Any, ...] = ()
    with left_as_found(model):
        for done, length in enumerate(ascending):
            progress("cache", done, len(ascending))
            _, cache = prefill(model, tokens[:1, :length])
            last = parts(cache)
            sizes.append([sum(tensor.nbytes for tensor in tensors_in(part)) for part in last])
    progress("cache", len(ascending), len(ascending))
    by_layer = list(zip(*sizes, strict=True))
    kept = max((tensor for part in last for tensor in tensors_in(part)), key=lambda tensor: tensor.nbytes, default=None)
    if kept is None:
        raise ArgumentError("model", "one whose cache holds tensors", type(model).__name__)
    layers = tuple(
        _layer(number if len(last) > 1 else None, ascending, by_layer[number], part) for number, part in enumerate(last)
    )
    return CacheGrowth(ascending, layers, kept.element_size(), _weight_bytes(model), width(model), chunk_size)


def checked_lengths(model: nn.Module, tokens: Tensor, lengths: Sequence[int] | None) -> tuple[int, ...]:
    """Ascending lengths of a text, by default an eighth, a quarter, a half and all of what the model can read.

    Errors:
        ArgumentError: fewer than two, or longer than the text or than the model can read.
    """
    most = min(tokens.shape[1], position_limit(model) or tokens.shape[1])
    ascending = tuple(sorted({most // 8, most // 4, most // 2, most} - {0} if lengths is None else set(lengths)))
    for length in ascending:
        count_of("lengths", length, least=1)
    if len(ascending) < 2 or ascending[-1] > most:
        raise ArgumentError("lengths", f"two or more, of at most {most} tokens", ascending)
    return ascending


def prefill(model: nn.Module, ids: Int[Tensor, "1 time"]) -> tuple[str, Any]:
    """Have a model read a text; its cache, and what it calls it.

    Errors:
        ArgumentError: it returns none.
    """
    output = model(input_ids=ids.to(device_of(model)), use_cache=True)
    for name in NAMES:
        cache = getattr(output, name, None)
        if cache is not None:
            return name, cache
    raise ArgumentError("model", f"one that returns a cache ({', '.join(NAMES)})", type(model).__name__)


def parts(cache: Any) -> tuple[Any, ...]:
    """The layers of a cache; a cache of another kind as a whole."""
    return tuple(getattr(cache, "layers", None) or (cache,))


def tensors_in(part: Any) -> Iterator[Tensor]:
    """All tensors within a part of a cache, but for single numbers, once each."""
    waiting, seen = [part], set[int]()
    while waiting:
        thing = waiting.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if isinstance(thing, Tensor):
            if thing.ndim > 0:
                yield thing
        elif isinstance(thing, dict):
            waiting += thing.values()
        elif isinstance(thing, list | tuple):
            waiting += thing
        elif hasattr(thing, "__dict__") and not isinstance(thing, type | nn.Module):
            waiting += vars(thing).values()


def _layer(number: int | None, lengths: tuple[int, ...], sizes: tuple[int, ...], part: Any) -> LayerCache:
    """How a layer grows from the second longest length to the longest, and whether its cache tells an end."""
    told = getattr(part, "get_max_length", lambda: -1)()
    most = int(told) if told > 0 else None
    ended = most is not None and lengths[-1] >= most
    per_token = 0.0 if ended else (sizes[-1] - sizes[-2]) / (lengths[-1] - lengths[-2])
    return LayerCache(number, sizes, per_token, most)


def _weight_bytes(model: nn.Module) -> int:
    """Bytes of parameters and buffers; what is shared counts once."""
    unique = {tensor.data_ptr(): tensor.nbytes for tensor in (*model.parameters(), *model.buffers())}
    return sum(unique.values())
