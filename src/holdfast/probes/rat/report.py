"""What the probe found, as one sentence, tables of 80 columns, numbers for JSON and a picture."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from holdfast.probes.rat.cache import LENGTHS, CacheGrowth
from holdfast.probes.rat.chunks import ChunkCompressibility
from holdfast.probes.rat.latency import DecodeLatency
from holdfast.probes.rat.locality import HeadLocality, LocalityProfile
from holdfast.probes.rat.positions import PositionLoss
from holdfast.probes.report import explained, jsonable, percent, shown, size, table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH = 80
"""Columns of a report."""

SHOWN = 12
"""Layers that a table shows."""

MEANINGS = {
    "layers": "layers that keep the same; 'grows' adds bytes with each token, 'stops at n' does up to n tokens",
    "a token": "bytes that one more token adds to one such layer, from the tensors of the live cache",
    "all key heads": "what the growing layers would keep if each query head had keys of its own (MHA)",
    "RAT": "what they would keep as RAT layers: one key and value a chunk, all heads wide, and running ones in float32",
    "a + bT": "milliseconds of one more token after T tokens, fitted to medians; intervals are of 95 %",
    "last n": "mean share of a layer's attention on the n nearest tokens, the query's own included",
    "before": "share on all tokens before the largest n",
    "sink": "share of a learned sink, which is no token",
    "far head": "the head of the layer that looks back farthest, and its share before the largest n",
    "dropped": "nats a token that the loss rises by without the closed chunks, which is all that merging could lose",
    "last, mean": "nats a token that the loss rises by when a closed chunk is its last token, or its mean",
    "best EMA": "the same for the exponential mean whose gate is best here; keys are merged after their rotation",
    "layer": "chunks merged in that layer alone, with the state that is best in all",
    "context": "tokens that the model is given; the tokens whose loss is taken are the same ones in all contexts",
    "change": "of the loss, in nats a token, from the context marked *; the interval is over texts",
}
"""What each column of the tables means."""


@dataclass(frozen=True)
class RATReport:
    """What `probe_rat` found; a part that was not asked for, or does not fit the model, is `None`.

    Arguments:
        locality: how far back each head looks.
        cache: what the model keeps of a text.
        latency: how long one more token takes.
        chunks: what is lost when old keys and values are merged.
        positions: the loss with more and more text before the same tokens.
        left_out: parts that do not fit the model, and why.
    """

    locality: LocalityProfile | None = None
    cache: CacheGrowth | None = None
    latency: DecodeLatency | None = None
    chunks: ChunkCompressibility | None = None
    positions: PositionLoss | None = None
    left_out: Mapping[str, str] | None = None

    @property
    def verdict(self) -> str:
        """One sentence: does the cost of attention grow here, how badly, and what to try."""
        clauses = [clause for clause in (self._cost(), self._remedy(), *self._evidence()) if clause]
        return f"{clauses[0][0].upper()}{clauses[0][1:]}{''.join(f'; {clause}' for clause in clauses[1:])}."

    def _cost(self) -> str:
        """What is said of cache and time."""
        cache, latency, time = self.cache, self.latency, ""
        if latency is not None and latency.grows:
            low, high = map(rounded, latency.doubles_interval)
            time = f"decoding takes twice as long at {rounded(latency.doubles)} tokens [{low}, {high}]"
        elif latency is not None and not latency.linear:
            time = f"the time of a token follows no line up to {latency.lengths[-1]:,} tokens"
        elif latency is not None:
            time = f"decoding is not seen to slow down up to {latency.lengths[-1]:,} tokens"
        if cache is None:
            return time
        if cache.growing:
            cost = f"attention's cost grows with the text: the cache takes {size(cache.per_token)} a token"
            cost += f" and is as large as the weights at {rounded(cache.outweighs)} tokens"
        else:
            ends = [layer.most for layer in cache.layers if layer.per_token > 0 and layer.most is not None]
            cost = f"the cache does not grow beyond {max((cache.lengths[0], *ends)):,} tokens"
        return f"{cost}, and {time}" if time else cost

    def _remedy(self) -> str:
        """What RAT would change, against the model's own keys and against those of all heads."""
        cache = self.cache
        if cache is None:
            return ""
        if not cache.growing:
            return "RAT has nothing to save"
        of_rat = f"RAT with chunks of {cache.chunk_size} would add"
        narrower = 2 * cache.width * cache.itemsize * len(cache.growing) / cache.per_token
        if cache.saving > 1.05:
            beside = "" if narrower < 1.05 else f" ({cache.saving * narrower:.3g} against keys of all heads)"
            return f"{of_rat} {cache.saving:.3g} times less a token{beside}"
        if cache.saving > 0.95:
            return f"{of_rat} as much a token, for these keys are {narrower:.3g} times narrower than those of all heads"
        return f"{of_rat} {1 / cache.saving:.3g} times more a token, so keep these narrow keys"

    def _evidence(self) -> list[str]:
        """What is said of merging, of length, and of locality where nothing weightier is known."""
        measured = [part for part in (self.chunks, self.positions) if part is not None]
        clauses = [part.finding for part in measured if part.informative]
        if len(clauses) < len(measured):
            clauses.append("nothing follows from losses on a text that the model does not predict")
        if self.locality is not None and self.chunks is None:
            widest = self.locality.spans[-1]
            share = f"{100 * self.locality.mean_share(widest):.0f} %"
            clauses.append(f"{share} of the attention lies on the last {widest} tokens")
        return clauses

    def explain(self) -> str:
        """What each column of the tables means, a line each."""
        return explained(MEANINGS)

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists, dicts and numbers, ready for JSON: what is not finite becomes `None`."""
        derived: dict[str, Any] = {}
        if self.cache is not None:
            derived["cache"] = {
                "per_token": self.cache.per_token,
                "rat_per_token": self.cache.rat_per_token,
                "saving": self.cache.saving,
                "outweighs": self.cache.outweighs,
            }
        plain: dict[str, Any] = jsonable({"verdict": self.verdict, **asdict(self), "derived": derived})
        return plain

    def plot(self, ax: Axes) -> None:
        """Draw the parts, one panel each.

        Arguments:
            ax: Matplotlib axes to draw into; several panels share their place.
        """
        drawn = [part for part in (self.cache, self.latency, self.locality, self.chunks, self.positions) if part]
        if len(drawn) == 1:
            drawn[0].plot(ax)
            return
        ax.set_axis_off()
        columns = 2 if len(drawn) < 5 else 3
        rows = -(-len(drawn) // columns)
        for place, part in enumerate(drawn):
            row, column = divmod(place, columns)
            box = (column / columns, 1 - (row + 1) / rows, 0.70 / columns, 0.66 / rows)
            panel = ax.inset_axes((box[0] + 0.22 / columns, box[1] + 0.2 / rows, box[2], box[3]))
            part.plot(panel)
            _shrink(panel)

    def __str__(self) -> str:
        """Return the sentence and a table for each part."""
        lines = textwrap.wrap(self.verdict, WIDTH)
        writers: tuple[tuple[Any, Callable[[Any], list[str]]], ...] = (
            (self.cache, _cache_lines),
            (self.latency, _latency_lines),
            (self.locality, _locality_lines),
            (self.chunks, _chunk_lines),
            (self.positions, _position_lines),
        )
        for part, write in writers:
            if part is not None:
                lines += ["", *write(part)]
        if self.left_out:
            lines += ["", *(f"left out: {part}: {reason}" for part, reason in self.left_out.items())]
        return "\n".join(lines)


def rounded(tokens: int | float) -> str:
    """A predicted number of tokens, to two digits."""
    if not math.isfinite(tokens):
        return "never"
    digits = max(0, math.floor(math.log10(max(tokens, 1))) - 1)
    return f"{round(tokens / 10**digits) * 10**digits:,}"


def _cache_lines(cache: CacheGrowth) -> list[str]:
    groups: list[tuple[str, Any]] = []
    for layer in cache.layers:
        name = "all" if layer.layer is None else str(layer.layer)
        alike = groups and (groups[-1][1].sizes, groups[-1][1].most) == (layer.sizes, layer.most)
        if alike:
            groups[-1] = (f"{groups[-1][0].partition('-')[0]}-{name}", layer)
        else:
            groups.append((name, layer))
    rows = [(name, _kind(x), *map(size, x.sizes), shown(x.per_token, ",.0f")) for name, x in groups[:SHOWN]]
    header = ("layers", "cache", *(f"{n:,}" for n in cache.lengths), "a token")
    lines = [f"cache of one sequence, a layer; the weights take {size(cache.weights)}"]
    lines += table(header, rows, names=("layers", "cache"))
    if len(groups) > SHOWN:
        lines.append(f"... and {len(groups) - SHOWN} groups of layers more")
    far = (cache.lengths[-1], *(n for n in LENGTHS if n > cache.lengths[-1]))[:4]
    kinds: list[tuple[str, Callable[[int], float]]] = [("this model", cache.at)]
    if cache.growing:
        kinds += [("all key heads", cache.multi_head), (f"RAT, chunks of {cache.chunk_size}", cache.rat)]
    rows = [(name, *(size(at(n)) for n in far)) for name, at in kinds]
    if cache.growing:
        rows.append(("model / RAT", *(f"{cache.at(n) / cache.rat(n):.2f}x" for n in far)))
    return [*lines, "", *table(("all layers, tokens", *(f"{n:,}" for n in far)), rows, names=("all layers, tokens",))]


def _kind(layer: Any) -> str:
    if layer.per_token <= 0:
        return "constant"
    return "grows" if layer.most is None else f"stops at {layer.most:,}"


def _latency_lines(latency: DecodeLatency) -> list[str]:
    low, high = latency.fixed_interval
    a = f"a = {latency.fixed:.3g} ms [{low:.3g}, {high:.3g}]"
    low, high = (1000 * end for end in latency.per_token_interval)
    b = f"b = {1000 * latency.per_token:.3g} us [{low:.3g}, {high:.3g}]"
    slope = "" if latency.grows else "; b is not told from zero" if latency.linear else "; no line fits them"
    rows = [("median ms", *(f"{median:.3g}" for median in latency.medians))]
    return [
        f"one more token takes a + bT, medians of {latency.rounds} rounds{slope}",
        f"{a}, {b}",
        *table(("tokens before", *(f"{n:,}" for n in latency.lengths)), rows, names=("tokens before",)),
    ]


def _locality_lines(profile: LocalityProfile) -> list[str]:
    sinks = any(head.sink > 0 for head in profile.heads)
    header = (
        "layer", "keys", *(f"last {span}" for span in profile.spans), "before", *(("sink",) * sinks), "far head",
    )  # fmt: skip
    layers = sorted(profile.layers, key=lambda layer: -_mean(profile.of_layer(layer), "rest"))[:SHOWN]
    rows = []
    for layer in sorted(layers):
        heads = profile.of_layer(layer)
        far = max(heads, key=lambda head: head.rest)
        shares = [sum(column) / len(heads) for column in zip(*(head.shares for head in heads), strict=True)]
        rows.append(
            (
                str(layer),
                f"{_mean(heads, 'keys'):,.0f}",
                *map(percent, shares),
                percent(_mean(heads, "rest")),
                *((percent(_mean(heads, "sink")),) * sinks),
                f"{far.head}: {percent(far.rest)}",
            )
        )
    lines = [
        f"share of attention on the nearest tokens, queries {profile.first:,} to {profile.tokens - 1:,}",
        *table(header, rows),
    ]
    rest = len(profile.layers) - len(layers)
    if rest:
        lines.append(f"... and {rest} layers more, which look less far back")
    if profile.without:
        lines.append(f"no attention weights in {_counted(profile.without)}")
    return lines


def _counted(layers: tuple[int, ...]) -> str:
    names = ", ".join(map(str, layers[:8]))
    return f"{'layer' if len(layers) == 1 else 'layers'} {names}{', ...' if len(layers) > 8 else ''}"


def _mean(heads: tuple[HeadLocality, ...], name: str) -> float:
    return math.fsum(getattr(head, name) for head in heads) / len(heads)


def _chunk_lines(chunks: ChunkCompressibility) -> list[str]:
    rows = []
    for chunk_size in chunks.chunk_sizes:
        best, ema = chunks.best(chunk_size), chunks.best(chunk_size, "ema")
        dropped = next(merged for merged in chunks.dropped if merged.chunk_size == chunk_size)
        kinds = (dropped, chunks.best(chunk_size, "last"), chunks.best(chunk_size, "mean"), ema)
        cells = [f"{merged.change:+.4f}" for merged in kinds]
        rows.append((str(chunk_size), *cells, ema.state.partition(" ")[2], best.state, _interval(best.low, best.high)))
    header = ("chunk", "dropped", "last", "mean", "best EMA", "gate", "best", "95% interval")
    lines = [
        f"loss added by merging chunks older than {chunks.window} tokens in all layers, nats a token",
        f"({chunks.loss:.3f} without; {chunks.texts} texts, last {chunks.targets} of {chunks.tokens} tokens each)",
        *table(header, rows),
    ]
    layers = sorted({merged.layer for merged in chunks.by_layer if merged.layer is not None})
    if layers:
        worst = sorted(layers, key=lambda layer: -chunks.in_layer(chunks.chunk_sizes[-1], layer).change)[:SHOWN]
        rows = [
            (str(layer), *(f"{chunks.in_layer(n, layer).change:+.4f}" for n in chunks.chunk_sizes))
            for layer in sorted(worst)
        ]
        lines += ["", "in one layer alone, with the best state"]
        lines += table(("layer", *(f"chunks of {n}" for n in chunks.chunk_sizes)), rows)
        if len(layers) > len(worst):
            lines.append(f"... and {len(layers) - len(worst)} layers more, which lose less")
    return lines


def _position_lines(positions: PositionLoss) -> list[str]:
    rows = [
        (
            f"{point.context:,}{'*' if point.context == positions.base else ' '}",
            f"{point.loss:.4f}",
            f"{point.change:+.4f}",
            _interval(point.low, point.high),
        )
        for point in positions.points
    ]
    known = "not known" if positions.trained is None else f"{positions.trained:,}"
    lines = [
        f"loss of the same last {positions.targets} tokens of {positions.texts} texts; trained length {known}",
        *table(("context", "loss", "change", "95% interval"), rows),
    ]
    if positions.left_out:
        contexts = ", ".join(f"{context:,}" for context in positions.left_out)
        lines.append(f"not {contexts}: the model's table has {positions.limit:,} positions")
    return lines


def _interval(low: float, high: float) -> str:
    return "-" if math.isnan(low) else f"[{low:+.4f}, {high:+.4f}]"


def _shrink(panel: Axes) -> None:
    """Text of a size that fits a panel among several."""
    for text in (panel.title, panel.xaxis.label, panel.yaxis.label):
        text.set_fontsize(7)
    panel.tick_params(labelsize=6)
    if panel.get_legend() is not None:
        panel.legend(fontsize=5.5, frameon=False, handlelength=1.5, labelspacing=0.25, borderaxespad=0.2)
    for image in panel.images:
        if image.colorbar is not None:
            image.colorbar.ax.tick_params(labelsize=6)
            image.colorbar.ax.yaxis.label.set_fontsize(7)
