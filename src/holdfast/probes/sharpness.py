"""How sharp each attention head is at each size, and whether a temperature law can still act on it.

Softmax attention with bounded logits must spread as the number of keys grows (arXiv 2410.01104, theorem 2.2);
this probe says how far a given model has come on that way.
"""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from holdfast.errors import ArgumentError
from holdfast.nn.temperature import AdaptiveTemperature, adaptive_softmax, entropy_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PLAIN = AdaptiveTemperature((1.0,))
"""The law that leaves every row alone: its adaptive softmax is the softmax."""


@dataclass(frozen=True)
class HeadSharpness:
    """One head at one size. Means are over rows with a visible key and without NaN; NaN where there are none.

    Arguments:
        size: number of keys n.
        head: index of the head.
        rows: number of rows.
        nan_rows: rows with NaN or +inf among their visible logits; counted here and left out of all else.
        empty_rows: rows without a visible key; likewise.
        entropy: mean Shannon entropy H, in nats.
        entropy_share: mean of H / ln k over rows with k >= 2 visible keys; 1 is uniform attention.
        effective_keys: exp of `entropy`, the number of equally weighted keys with that entropy.
        largest: mean largest weight.
        spread: mean logit spread, the largest minus the smallest visible logit of a row.
        spread_max: largest such spread.
        reach: size 1 + e^spread (1 - w) / w beyond which no key of a row with this `spread` can hold the
            weight w.
        reach_max: the same for `spread_max`: beyond it no key of any row can.
        below, acting, above: share of rows whose entropy is at or below the law's active interval, within it,
            and at or above it.
    """

    size: int
    head: int
    rows: int
    nan_rows: int
    empty_rows: int
    entropy: float
    entropy_share: float
    effective_keys: float
    largest: float
    spread: float
    spread_max: float
    reach: float
    reach_max: float
    below: float
    acting: float
    above: float


@dataclass(frozen=True)
class SharpnessReport:
    """What `probe_sharpness` found.

    Arguments:
        entries: one a size and head, by size, then head.
        slopes: of each head, d H / d ln n over the largest sizes; 1 means that attention spreads as fast as
            it can, 0 that it stays as sharp as it is. NaN with fewer than two usable sizes.
        slope_sizes: the sizes that the slopes are taken over.
        weight: the weight w of `reach`.
        interval: entropies, in nats, between which the law acts; `None` for a law that never acts.
    """

    entries: tuple[HeadSharpness, ...]
    slopes: tuple[float, ...]
    slope_sizes: tuple[int, ...]
    weight: float
    interval: tuple[float, float] | None

    @property
    def sizes(self) -> tuple[int, ...]:
        """The sizes probed, ascending."""
        return tuple(sorted({entry.size for entry in self.entries}))

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists, dicts and numbers, ready for JSON: what is not finite becomes `None`."""
        plain: dict[str, Any] = jsonable(asdict(self))
        return plain

    def plot(self, ax: Axes) -> None:
        """Draw mean entropy against size, one line a head, with uniform attention and the law's interval.

        Arguments:
            ax: Matplotlib axes to draw into.
        """
        sizes = self.sizes
        ax.plot(sizes, [math.log(n) for n in sizes], color="0.5", linestyle="--", label="uniform, ln n")
        for head in range(len(self.slopes)):
            entropies = [entry.entropy for entry in self.entries if entry.head == head]
            ax.plot(sizes, entropies, marker="o", markersize=3, label=f"head {head}")
        if self.interval is not None:
            low, high = self.interval
            top = max(math.log(sizes[-1]), low)
            ax.axhspan(low, min(high, top), color="C0", alpha=0.08, linewidth=0, label="the law acts")
        ax.set_xscale("log", base=2)
        ax.set_xlabel("size n")
        ax.set_ylabel("mean entropy (nats)")
        ax.legend()

    def __str__(self) -> str:
        """Return a table for people to read."""
        header = (
            "n", "head", "rows", "NaN", "H", "H/ln n", "exp H", "max w", "spread", f"n* (w={self.weight:g})",
            "below", "acts", "above",
        )  # fmt: skip
        lines = [
            (
                str(e.size),
                str(e.head),
                str(e.rows),
                str(e.nan_rows),
                f"{e.entropy:.3f}",
                f"{e.entropy_share:.3f}",
                f"{e.effective_keys:.1f}",
                f"{e.largest:.4f}",
                f"{e.spread:.2f}",
                f"{e.reach:.3g}",
                *(f"{100 * share:.0f} %" for share in (e.below, e.acting, e.above)),
            )
            for e in self.entries
        ]
        widths = [max(map(len, column)) for column in zip(header, *lines, strict=True)]
        table = [
            "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in (header, *lines)
        ]
        law = "never"
        if self.interval is not None:
            law = f"for {self.interval[0]:.4f} < H < {self.interval[1]:.4f} nats"
        slopes = ", ".join(f"{slope:.3f}" for slope in self.slopes)
        return "\n".join(
            [
                *table,
                f"the law acts {law}",
                f"dH/d ln n, by head, over n = {', '.join(map(str, self.slope_sizes))}: {slopes}",
            ]
        )


def probe_sharpness(
    logits_of: Callable[[int], Float[Tensor, "*heads rows n"]],
    sizes: Sequence[int],
    *,
    temperature: AdaptiveTemperature | None = None,
    weight: float = 0.5,
    slope_sizes: int = 3,
) -> SharpnessReport:
    """Measure how attention spreads with size.

    Leaves gradients and random states (torch, numpy's global one, Python's) as it found them.

    Arguments:
        logits_of: size n -> attention logits before the softmax, of shape (rows, n) or (heads, rows, n).
            Logits of -inf or near the dtype's lowest value count as masked and are left out throughout.
        sizes: numbers of keys to ask for.
        temperature: the law whose reach is reported; `None`: the published one.
        weight: the weight w of `reach`, above 0 and below 1.
        slope_sizes: how many of the largest sizes the slope is taken over, at least 2.

    Returns:
        the report, sizes ascending.

    Errors:
        ArgumentError: no sizes, a size below 1 or twice, or logits of another shape.

    Source: arXiv 2410.01104, sections 2 (lemma 2.1: weights in a logit spread) and 3 (the law).
    """
    law = AdaptiveTemperature.published() if temperature is None else temperature
    ordered = sorted(sizes)
    if not ordered or ordered[0] < 1 or len(set(ordered)) < len(ordered):
        raise ArgumentError("sizes", "different sizes of at least 1", list(sizes))
    if not 0 < weight < 1:
        raise ArgumentError("weight", "a weight above 0 and below 1", weight)
    if slope_sizes < 2:
        raise ArgumentError("slope_sizes", "at least 2", slope_sizes)
    entries: list[HeadSharpness] = []
    heads: int | None = None
    with torch.no_grad(), random_state_kept():
        for size in ordered:
            logits = _by_head(logits_of(size), size)
            if heads is not None and len(logits) != heads:
                raise ArgumentError(f"logits_of({size})", f"{heads} heads, as before", len(logits))
            heads = len(logits)
            entries += [_head(size, index, rows, law, weight) for index, rows in enumerate(logits)]
    last = ordered[-slope_sizes:]
    return SharpnessReport(
        entries=tuple(entries),
        slopes=tuple(
            fitted_slope([(e.size, e.entropy) for e in entries if e.head == head and e.size in last])
            for head in range(heads or 0)
        ),
        slope_sizes=tuple(last),
        weight=weight,
        interval=law.active_interval,
    )


def _by_head(logits: Tensor, size: int) -> Tensor:
    """Give logits the shape (heads, rows, n), or say what is wrong with theirs."""
    if logits.ndim not in (2, 3) or logits.shape[-1] != size or logits.numel() == 0:
        raise ArgumentError(
            f"logits_of({size})",
            f"shape (rows, {size}) or (heads, rows, {size}), not empty",
            f"shape {tuple(logits.shape)}",
        )
    return logits if logits.ndim == 3 else logits[None]


def _head(
    size: int, head: int, logits: Float[Tensor, "rows n"], law: AdaptiveTemperature, weight: float
) -> HeadSharpness:
    """Measure one head at one size."""
    hidden = logits <= torch.finfo(logits.dtype).min / 2
    empty = hidden.all(-1)
    entropy = entropy_of(logits)
    usable = ~empty & ~entropy.isnan()
    z, hidden, h = logits[usable], hidden[usable], entropy[usable].double()
    z = z.to(torch.promote_types(z.dtype, torch.float32))
    spread = z.masked_fill(hidden, -math.inf).amax(-1) - z.masked_fill(hidden, math.inf).amin(-1)
    visible = (~hidden).sum(-1)
    several = visible >= 2
    low, high = law.active_interval or (math.inf, math.inf)
    mean = _mean(h)
    widest = spread.max().item() if len(spread) else math.nan
    return HeadSharpness(
        size=size,
        head=head,
        rows=len(logits),
        nan_rows=int((~empty & entropy.isnan()).sum()),
        empty_rows=int(empty.sum()),
        entropy=mean,
        entropy_share=_mean(h[several] / visible[several].double().log()),
        effective_keys=math.exp(mean),
        largest=_mean(adaptive_softmax(z, temperature=PLAIN).amax(-1)),
        spread=_mean(spread),
        spread_max=widest,
        reach=_reach(_mean(spread), weight),
        reach_max=_reach(widest, weight),
        below=_mean(h <= low),
        acting=_mean((h > low) & (h < high)),
        above=_mean((h > low) & (h >= high)),
    )


def _mean(values: Tensor) -> float:
    """Mean of a vector as a float; NaN for an empty one."""
    return values.double().mean().item() if values.numel() else math.nan


def _reach(spread: float, weight: float) -> float:
    """Size beyond which no key holds `weight`: max p <= e^d / (e^d + n - 1) for a spread d (lemma 2.1)."""
    return 1 + math.exp(spread) * (1 - weight) / weight if not spread > 700 else math.inf


def fitted_slope(points: Sequence[tuple[int | float, float]]) -> float:
    """Least-squares slope of entropy against ln n; NaN with fewer than two points."""
    known = [(math.log(n), h) for n, h in points if not math.isnan(h)]
    if len(known) < 2:
        return math.nan
    x0 = sum(x for x, _ in known) / len(known)
    return sum((x - x0) * h for x, h in known) / sum((x - x0) ** 2 for x, _ in known)


@contextmanager
def random_state_kept() -> Iterator[None]:
    """Put back the random states of torch (all devices in use), Python and numpy's global generator."""
    numpy = sys.modules.get("numpy")
    python_state = random.getstate()
    numpy_state = numpy.random.get_state() if numpy is not None else None
    cuda: bool = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    devices = range(torch.cuda.device_count()) if cuda else []
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(python_state)
        if numpy is not None:
            numpy.random.set_state(numpy_state)


def jsonable(value: Any) -> Any:
    """Replace tuples by lists, and numbers that JSON lacks by None."""
    if isinstance(value, dict):
        return {key: jsonable(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [jsonable(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
