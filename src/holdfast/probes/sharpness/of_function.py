"""How sharp each attention head is at each size, and what can be done about it.

Softmax attention with bounded logits must spread as the number of keys grows (arXiv 2410.01104, theorem 2.2);
this probe says how far a given model has come on that way, whether a temperature law can still act on it, what other
normalisers would make of the same logits, and which errors no normaliser can mend.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from holdfast.errors import ArgumentError
from holdfast.nn.masking import hidden_keys
from holdfast.nn.normalisers import Hard, Normaliser, Plain, Rows
from holdfast.nn.softmax import entropy_of
from holdfast.nn.temperature import AdaptiveTemperature
from holdfast.probes.report import explained, jsonable, listed, percent, random_state_kept, shown, table
from holdfast.probes.sharpness.dispersion import (
    check_heads,
    checked_normalisers,
    critical_beta,
    fitted_slope,
    mean,
    median,
    onset,
)
from holdfast.probes.sharpness.verdict import COLUMNS, HeadSummary, sentence

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MEANINGS = {
    "n": "number of keys",
    "head": "index of the head",
    "rows": "number of rows",
    "NaN": "rows with NaN or infinity among their visible logits, left out of all else",
    **COLUMNS,
    "ordering": "share of answers that argmax attention gets wrong too: the largest logit is on the wrong key",
    "dispersion": "share of answers that argmax attention would get right: the weight is spread too thin",
}
"""What each column of the tables means."""

Correct = Callable[[int, Tensor], Tensor]
"""Size and attention weights -> for each row, whether the answer that these weights give is right."""


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
        beta_crit: median over rows with k >= 2 visible keys of max_i ln(i + 1) / D_i, where D_1 <= D_2 <= ... are the
            gaps of the other logits to the largest one: what the logits must be multiplied by for the largest to stand
            out. Below it no key of the row holds two thirds; from it on one holds 1 / (1 + 1/2 + ... + 1/k) or more.
            At most 1 for a row that is sharp as it is. A row whose largest logit ties has inf, and counts as such, so
            that the median is inf only where at least half of the rows tie.
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
    beta_crit: float
    below: float
    acting: float
    above: float


@dataclass(frozen=True)
class Remedy:
    """What one normaliser makes of the same logits. Means are over the rows that `HeadSharpness` takes them over.

    Arguments:
        size: number of keys n.
        head: index of the head.
        normaliser: its name in the comparison.
        entropy: mean Shannon entropy of the weights, in nats.
        largest: mean largest weight.
    """

    size: int
    head: int
    normaliser: str
    entropy: float
    largest: float


@dataclass(frozen=True)
class Answers:
    """How often the answers are right at one size, and why they are not.

    Arguments:
        size: number of keys n.
        rows: number of answers.
        error: share of wrong answers with the plain softmax: the sum of the two below.
        ordering_error: share where argmax attention errs too: the largest logit is on the wrong key, and no
            temperature mends that.
        dispersion_error: share where argmax attention would be right: the weight is spread too thin.
        accuracy: share of right answers with each normaliser of the comparison.
    """

    size: int
    rows: int
    error: float
    ordering_error: float
    dispersion_error: float
    accuracy: dict[str, float]


@dataclass(frozen=True)
class SharpnessReport:
    """What `probe_sharpness` found.

    Arguments:
        entries: one a size and head, by size, then head.
        slopes: of each head, d H / d ln n over the largest sizes; 1 means that attention spreads as fast as
            it can, 0 that it stays as sharp as it is. NaN with fewer than two usable sizes.
        slope_sizes: the sizes that the slopes are taken over.
        onsets: of each head, the predicted size at which its mean largest weight falls below `weight`: interpolated,
            or extrapolated from the largest sizes, with ln(1/p - 1) linear in ln n. A prediction, where `reach` is a
            bound. inf where the largest weight does not fall; NaN where it cannot be told, which includes a head
            that is below the weight at all sizes.
        weight: the weight w of `reach` and `onsets`.
        interval: entropies, in nats, between which the law acts; `None` for a law that never acts.
        remedies: one a size, head and normaliser of the comparison, in that order.
        answers: one a size, where the probe was told how to score.
    """

    entries: tuple[HeadSharpness, ...]
    slopes: tuple[float, ...]
    slope_sizes: tuple[int, ...]
    onsets: tuple[float, ...]
    weight: float
    interval: tuple[float, float] | None
    remedies: tuple[Remedy, ...] = ()
    answers: tuple[Answers, ...] = ()

    @property
    def sizes(self) -> tuple[int, ...]:
        """The sizes probed, ascending."""
        return tuple(sorted({entry.size for entry in self.entries}))

    @property
    def normalisers(self) -> tuple[str, ...]:
        """Names of the normalisers compared."""
        return tuple(dict.fromkeys(remedy.normaliser for remedy in self.remedies))

    def violations(self, limit: float) -> tuple[HeadSharpness, ...]:
        """Heads whose mean H / ln n at the largest size exceeds a limit, most dispersed first; NaN is a violation."""
        last = [entry for entry in self.entries if entry.size == self.sizes[-1]]
        above = [entry for entry in last if not entry.entropy_share <= limit]
        return tuple(sorted(above, key=lambda entry: -entry.entropy_share))

    @property
    def verdict(self) -> str:
        """One sentence: is attention dispersed at the largest size, how badly, and what to try."""
        last = [entry for entry in self.entries if entry.size == self.sizes[-1]]
        summaries = [
            HeadSummary(entry.entropy_share, slope, entry.acting, entry.above)
            for entry, slope in zip(last, self.slopes, strict=True)
        ]
        broken = sum(entry.nan_rows for entry in self.entries)
        text = sentence(summaries, f"at n = {self.sizes[-1]}", broken=broken, compared=bool(self.remedies))
        if not self.answers:
            return text
        worst = self.answers[-1]
        ordering = worst.ordering_error > worst.dispersion_error
        cause = f", most by {'ordering, which no temperature mends' if ordering else 'dispersion'}"
        return f"{text[:-1]}; {worst.error:.0%} of the answers there are wrong{cause if worst.error else ''}."

    def explain(self) -> str:
        """What each column of the tables means, a line each."""
        return explained(MEANINGS)

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists, dicts and numbers, ready for JSON: what is not finite becomes `None`."""
        plain: dict[str, Any] = jsonable({"verdict": self.verdict, **asdict(self)})
        return plain

    def plot(self, ax: Axes) -> None:
        """Draw mean entropy against size, with uniform attention and the law's interval.

        One line a head; in a comparison one line a normaliser, the mean over heads.

        Arguments:
            ax: Matplotlib axes to draw into.
        """
        sizes = self.sizes
        ax.plot(sizes, [math.log(n) for n in sizes], color="0.5", linestyle="--", label="uniform, ln n")
        heads = len(self.slopes)
        for index, name in enumerate(self.normalisers):
            of_size = [[e.entropy for e in self.remedies if (e.size, e.normaliser) == (n, name)] for n in sizes]
            means = [sum(entropies) / heads for entropies in of_size]
            style = "-" if index < 10 else ":"  # the colours start again
            ax.plot(sizes, means, marker="o", markersize=3, linestyle=style, label=name)
        for head in range(heads if not self.remedies else 0):
            entropies = [entry.entropy for entry in self.entries if entry.head == head]
            label = f"head {head}" if heads <= 10 else f"{heads} heads" if head == 0 else None
            colour = None if heads <= 10 else "C0"
            ax.plot(
                sizes, entropies, marker="o", markersize=3, color=colour, alpha=1 if heads <= 10 else 0.4, label=label
            )
        if self.interval is not None:
            low, high = self.interval
            top = max(math.log(sizes[-1]), low)
            ax.axhspan(low, min(high, top), color="C0", alpha=0.08, linewidth=0, label="the law acts")
        ax.set_xscale("log", base=2)
        ax.set_xlabel("size n")
        ax.set_ylabel("mean entropy (nats)" + (f", over {heads} heads" if self.remedies and heads > 1 else ""))
        if len(ax.get_legend_handles_labels()[1]) <= 7:
            ax.legend(fontsize="small")
        else:  # beside the lines, which it would cover
            ax.legend(fontsize="small", frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))

    def __str__(self) -> str:
        """Return tables for people to read."""
        law = "never"
        if self.interval is not None:
            law = f"for {self.interval[0]:.4f} < H < {self.interval[1]:.4f} nats"
        sizes = ", ".join(map(str, self.slope_sizes))
        return "\n".join(
            [
                self.verdict,
                "",
                *self._table_of_heads(),
                f"the law acts {law}",
                listed(f"dH/d ln n, by head, over n = {sizes}", [shown(slope, ".3f") for slope in self.slopes]),
                f"n*: bound on the n at which a key of such a row can hold w={self.weight:g}",
                listed(
                    f"predicted n at which the mean largest weight falls below {self.weight:g}, by head",
                    [shown(n, ".3g") for n in self.onsets],
                ),
                *self._tables_of_remedies(),
                *self._tables_of_answers(),
            ]
        )

    def _table_of_heads(self) -> list[str]:
        header = (
            "n", "head", "rows", "NaN", "H", "H/ln n", "exp H", "max w", "spread", "n*",
            "b_crit", "below", "acts", "above",
        )  # fmt: skip
        lines = [
            (
                str(e.size),
                str(e.head),
                str(e.rows),
                str(e.nan_rows),
                shown(e.entropy, ".3f"),
                shown(e.entropy_share, ".3f"),
                shown(e.effective_keys, ".1f"),
                shown(e.largest, ".4f"),
                shown(e.spread, ".2f"),
                shown(e.reach, ".3g"),
                shown(e.beta_crit, ".3g"),
                *map(percent, (e.below, e.acting, e.above)),
            )
            for e in self.entries
        ]
        return table(header, lines)

    def _tables_of_remedies(self) -> list[str]:
        lines: list[str] = []
        for title, values in (
            ("mean entropy in nats, by normaliser and n", {_key(e): shown(e.entropy, ".3f") for e in self.remedies}),
            ("mean largest weight, by normaliser and n", {_key(e): shown(e.largest, ".4f") for e in self.remedies}),
        ):
            if self.remedies:
                rows = [
                    (str(head), name, *(values[n, head, name] for n in self.sizes))
                    for head in range(len(self.slopes))
                    for name in self.normalisers
                ]
                header = ("head", "normaliser", *map(str, self.sizes))
                lines += ["", title, *table(header, rows, names=("normaliser",))]
        return lines

    def _tables_of_answers(self) -> list[str]:
        if not self.answers:
            return []
        sizes = [str(answers.size) for answers in self.answers]
        parts = (
            ("ordering", [answers.ordering_error for answers in self.answers]),
            ("dispersion", [answers.dispersion_error for answers in self.answers]),
            ("total", [answers.error for answers in self.answers]),
        )
        rows = [(name, *(format(value, ".4f") for value in values)) for name, values in parts]
        lines = ["", "error of the softmax, by cause and n", *table(("error", *sizes), rows, names=("error",))]
        if self.answers[0].accuracy:
            rows = [
                (name, *(format(answers.accuracy[name], ".4f") for answers in self.answers))
                for name in self.answers[0].accuracy
            ]
            header = ("normaliser", *sizes)
            lines += ["", "accuracy, by normaliser and n", *table(header, rows, names=("normaliser",))]
        return lines


def _key(remedy: Remedy) -> tuple[int, int, str]:
    return remedy.size, remedy.head, remedy.normaliser


def probe_sharpness(
    logits_of: Callable[[int], Float[Tensor, "*heads rows n"]],
    sizes: Sequence[int],
    *,
    temperature: AdaptiveTemperature | None = None,
    normalisers: Mapping[str, Normaliser] | None = None,
    correct: Correct | None = None,
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
        normalisers: what to compare on these logits, by name; `None`: nothing. A normaliser that asks for positions is
            told that the query of each row stands at the row's last visible key.
        correct: where the model can be scored: size n and attention weights, in the shape that `logits_of` gave -> a
            bool for each row, whether the model's answer with these weights in the place of its own is right. Called
            after `logits_of(n)`, for the same rows, with the weights of the softmax, of argmax attention and of each
            normaliser; a row without a visible key has zeros.
        weight: the weight w of `reach` and `onsets`, above 0 and below 1.
        slope_sizes: how many of the largest sizes slopes and onsets are taken over, at least 2.

    Returns:
        the report, sizes ascending.

    Errors:
        ArgumentError: no sizes, a size below 1 or twice, logits or answers of another shape, or something else in the
            place of a normaliser.

    Source: arXiv 2410.01104, sections 2 (lemma 2.1: weights in a logit spread) and 3 (the law); arXiv 2605.12697 for
    `beta_crit`.
    """
    law = AdaptiveTemperature.published() if temperature is None else temperature
    compared = checked_normalisers(normalisers)
    ordered = sorted(sizes)
    if not ordered or ordered[0] < 1 or len(set(ordered)) < len(ordered):
        raise ArgumentError("sizes", "different sizes of at least 1", list(sizes))
    if not 0 < weight < 1:
        raise ArgumentError("weight", "a weight above 0 and below 1", weight)
    if slope_sizes < 2:
        raise ArgumentError("slope_sizes", "at least 2", slope_sizes)
    entries: list[HeadSharpness] = []
    remedies: list[Remedy] = []
    answers: list[Answers] = []
    heads: int | None = None
    with torch.no_grad(), random_state_kept():
        for size in ordered:
            given = logits_of(size)
            logits = _by_head(given, size)
            if heads is not None and len(logits) != heads:
                raise ArgumentError(f"logits_of({size})", f"{heads} heads, as before", len(logits))
            heads = len(logits)
            entries += [_head(size, head, rows, law, weight) for head, rows in enumerate(logits)]
            accuracy: dict[str, float] = {}
            for name, normaliser in compared.items():
                check_heads(name, normaliser, heads)
                weights = _weights(normaliser, logits)
                remedies += [_remedy(size, head, name, logits[head], weights[head]) for head in range(heads)]
                if correct is not None:
                    accuracy[name] = mean(_right(correct, size, weights, given.ndim))
            if correct is not None:
                answers.append(_answers(correct, size, logits, given.ndim, accuracy))
        last = ordered[-slope_sizes:]
        of_head = [[entry for entry in entries if entry.head == head] for head in range(heads or 0)]
        return SharpnessReport(
            entries=tuple(entries),
            slopes=tuple(fitted_slope([(e.size, e.entropy) for e in head if e.size in last]) for head in of_head),
            slope_sizes=tuple(last),
            onsets=tuple(onset([(e.size, e.largest) for e in head], weight, slope_sizes) for head in of_head),
            weight=weight,
            interval=law.active_interval,
            remedies=tuple(sorted(remedies, key=lambda remedy: (remedy.size, remedy.head))),
            answers=tuple(answers),
        )


def _by_head(logits: Tensor, size: int) -> Float[Tensor, "heads rows n"]:
    """Give logits the shape (heads, rows, n), -inf where masked, or say what is wrong with theirs."""
    if not isinstance(logits, Tensor) or not logits.is_floating_point():
        kind = f"a tensor of {logits.dtype}" if isinstance(logits, Tensor) else type(logits).__name__
        raise ArgumentError(f"logits_of({size})", "a tensor of floating-point logits", kind)
    if logits.ndim not in (2, 3) or logits.shape[-1] != size or logits.numel() == 0:
        raise ArgumentError(
            f"logits_of({size})",
            f"shape (rows, {size}) or (heads, rows, {size}), not empty",
            f"shape {tuple(logits.shape)}",
        )
    # What counts as masked depends on the dtype, so that it is settled before the dtype changes.
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32)).masked_fill(hidden_keys(logits), -math.inf)
    return wide if logits.ndim == 3 else wide[None]


def _usable(logits: Float[Tensor, "rows n"]) -> Bool[Tensor, " rows"]:
    """Rows with a visible key and no NaN."""
    return ~(logits == -math.inf).all(-1) & ~entropy_of(logits).isnan()


def _head(
    size: int, head: int, logits: Float[Tensor, "rows n"], law: AdaptiveTemperature, weight: float
) -> HeadSharpness:
    """Measure one head at one size."""
    usable = _usable(logits)
    empty = int((logits == -math.inf).all(-1).sum())
    z = logits[usable]
    hidden, h = z == -math.inf, entropy_of(z).double()
    spread = z.amax(-1) - z.masked_fill(hidden, math.inf).amin(-1)
    visible = (~hidden).sum(-1)
    several = visible >= 2
    low, high = law.active_interval or (math.inf, math.inf)
    mean_entropy = mean(h)
    widest = spread.max().item() if len(spread) else math.nan
    return HeadSharpness(
        size=size,
        head=head,
        rows=len(logits),
        nan_rows=len(logits) - empty - len(z),
        empty_rows=empty,
        entropy=mean_entropy,
        entropy_share=mean(h[several] / visible[several].double().log()),
        effective_keys=math.exp(mean_entropy),
        largest=mean(z.softmax(-1).amax(-1)),
        spread=mean(spread),
        spread_max=widest,
        reach=_reach(mean(spread), weight),
        reach_max=_reach(widest, weight),
        beta_crit=median(critical_beta(z[several])),
        below=mean(h <= low),
        acting=mean((h > low) & (h < high)),
        above=mean((h > low) & (h >= high)),
    )


def _weights(normaliser: Normaliser, logits: Float[Tensor, "heads rows n"]) -> Float[Tensor, "heads rows n"]:
    """Weights of all heads, each row's query at its last visible key."""
    key = torch.arange(logits.shape[-1], device=logits.device)
    query = torch.where((logits != -math.inf).any(0), key, 0).amax(-1)
    return normaliser.weights(logits, Rows(query, key))


def _remedy(
    size: int, head: int, name: str, logits: Float[Tensor, "rows n"], weights: Float[Tensor, "rows n"]
) -> Remedy:
    """Measure the weights of one normaliser in one head at one size."""
    w = weights[_usable(logits)]
    return Remedy(size, head, name, entropy=mean(torch.special.entr(w).sum(-1)), largest=mean(w.amax(-1)))


def _answers(
    correct: Correct, size: int, logits: Float[Tensor, "heads rows n"], ndim: int, accuracy: dict[str, float]
) -> Answers:
    """Split the softmax's error by what argmax attention would have answered."""
    wrong = ~_right(correct, size, _weights(Plain(), logits), ndim)
    hard = _right(correct, size, _weights(Hard(), logits), ndim)
    ordering, dispersion = mean(wrong & ~hard), mean(wrong & hard)
    return Answers(size, len(wrong), ordering + dispersion, ordering, dispersion, accuracy)


def _right(correct: Correct, size: int, weights: Float[Tensor, "heads rows n"], ndim: int) -> Bool[Tensor, " rows"]:
    """Ask which answers are right, and check the reply."""
    right = correct(size, weights if ndim == 3 else weights[0])
    rows = weights.shape[1]
    if not isinstance(right, Tensor) or right.dtype != torch.bool or right.shape != (rows,):
        got = f"{right.dtype} of shape {tuple(right.shape)}" if isinstance(right, Tensor) else type(right).__name__
        raise ArgumentError(f"correct({size}, weights)", f"a tensor of torch.bool of shape ({rows},)", got)
    return right


def _reach(spread: float, weight: float) -> float:
    """Size beyond which no key holds `weight`: max p <= e^d / (e^d + n - 1) for a spread d (lemma 2.1)."""
    return 1 + math.exp(spread) * (1 - weight) / weight if not spread > 700 else math.inf
