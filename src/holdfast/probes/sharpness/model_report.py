"""What the probe of whole models found: one row an attention and head, the model under each remedy, one sentence."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from holdfast.probes.report import explained, jsonable, percent, shown, table
from holdfast.probes.sharpness.verdict import COLUMNS, HeadSummary, sentence

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SAMPLE = 32
"""Rows at the end of each sequence, where most keys are seen, for what needs whole rows of logits."""

SHOWN = 24
"""Heads that a table shows."""

MEANINGS = {
    "part": "encoder: attention that looks ahead; decoder: causal attention; cross: of one sequence to another",
    "layer": "number of the layer in its part",
    "head": "number of the query head",
    **COLUMNS,
    "bound": "mean upper bound on the spread from the norms of queries and keys",
    "slope": "d H / d ln n over rows that see 64 keys or more; 1 is that of uniform attention, - where n is one",
    "onset": "predicted number of keys at which the mean largest weight falls below one half",
    "bound/spread": "least bound over spread of any row",
    "weight bound": "mean of the bound that the weights of the projections give",
    "weight bound/spread": "least such bound over spread of any row",
    "nats/token": "next-token cross-entropy of the model with that normaliser in all heads",
    "change": "its difference from the model as it is; negative is better",
}
"""What each column of the tables means."""


@dataclass(frozen=True)
class ModelHead:
    """One head. Means are over its rows with at least two visible keys and no NaN.

    A learned sink counts as one more visible key in all that concerns weights; spreads and their bounds are those of
    the keys. With `exclude_first_keys` all but the bounds is measured as if those keys were not there.

    Arguments:
        part: "encoder" for attention that looks ahead, "decoder" for causal attention, "cross" for attention to the
            keys of another sequence.
        layer: index of the layer in its part. A layer that attends several times has several entries a head.
        name: path of the attention in the model.
        head: index of the query head.
        rows: number of such rows.
        nan_rows: rows with NaN or infinite statistics; counted here and left out of all else.
        keys: mean number of visible keys, n.
        entropy: mean Shannon entropy H, in nats.
        entropy_share: mean of H / ln n; 1 is uniform attention.
        effective_keys: exp of `entropy`.
        largest: mean largest weight.
        spread: mean logit spread, largest minus smallest visible logit, in nats.
        bound: mean upper bound on the spread, 2 scale |q| max |k| over all keys of the sequence; NaN for a layer that
            adds a bias to its logits.
        slack: least bound over spread of any row; at least 1.
        weight_bound: mean of the looser bound that the weights give, 2 scale sigma(W_q) sigma(W_k) |x| max |x_i|,
            with the largest singular values of the head's projections and the norms of the layer's inputs. NaN for a
            layer without `q_proj` and `k_proj` as linear maps, with a bias, or with something between them and the
            attention that changes norms; rotary positions do not.
        weight_slack: least such bound over spread of any row.
        slope: d H / d ln n over rows that see 64 keys or more; NaN where they do not see different numbers, the most
            at least half as many again as the fewest.
        reach: 1 + e^spread_max, the length beyond which no key of any such row could hold half the weight.
        beta_crit: median over the last 32 rows of each sequence of what the logits must be multiplied by for the
            largest to stand out, as in `HeadSharpness`.
        onset: predicted number of keys at which the mean largest weight falls below one half, from rows that see
            16 to 31, 32 to 63, ... keys, as in `SharpnessReport`; NaN where it cannot be told.
        below: share of rows whose entropy is below the law's active interval.
        acting: share of rows within it.
        above: share of rows above it, where the law changes nothing.
    """

    part: str
    layer: int
    name: str
    head: int
    rows: int
    nan_rows: int
    keys: float
    entropy: float
    entropy_share: float
    effective_keys: float
    largest: float
    spread: float
    bound: float
    slack: float
    weight_bound: float
    weight_slack: float
    slope: float
    reach: float
    beta_crit: float
    onset: float
    below: float
    acting: float
    above: float


@dataclass(frozen=True)
class ModelRemedy:
    """The model with one normaliser in all heads.

    Arguments:
        normaliser: its name in the comparison; "none" for the model as it is.
        cross_entropy: mean next-token cross-entropy of the text, in nats a token; NaN for a model that is no causal
            language model.
        entropy_share: mean H / ln n of all heads over the last 32 rows of each sequence; rows with NaN are left out.
    """

    normaliser: str
    cross_entropy: float
    entropy_share: float


@dataclass(frozen=True)
class ModelSharpnessReport:
    """What `probe_model_sharpness` found.

    Arguments:
        heads: one entry a head, by part, layer, then head.
        length: tokens in the longest sequence that any attention sees.
        interval: entropies, in nats, between which the law acts; `None` for a law that never acts.
        excluded: how many first keys of each sequence the attention is conditional on not being at.
        own: the model as it is.
        remedies: one entry a normaliser of the comparison.
        made_for: tokens that the model was made for, as its configuration says; `None` where that says nothing.
    """

    heads: tuple[ModelHead, ...]
    length: int
    interval: tuple[float, float] | None
    excluded: int
    own: ModelRemedy
    remedies: tuple[ModelRemedy, ...] = ()
    made_for: int | None = None

    def violations(self, limit: float) -> tuple[ModelHead, ...]:
        """Heads whose mean H / ln n exceeds a limit, the most dispersed first; NaN counts as a violation."""
        above = [head for head in self.heads if not head.entropy_share <= limit]
        return tuple(sorted(above, key=lambda head: -head.entropy_share))

    @property
    def parts(self) -> tuple[str, ...]:
        """The kinds of attention that the model has."""
        return tuple(dict.fromkeys(head.part for head in self.heads))

    @property
    def nan_rows(self) -> int:
        """Rows with NaN, of all heads together."""
        return sum(head.nan_rows for head in self.heads)

    @property
    def verdict(self) -> str:
        """One sentence: is attention dispersed, how badly, and what to try."""
        summaries = [HeadSummary(h.entropy_share, h.slope, h.acting, h.above) for h in self.heads]
        beyond = f", beyond the {self.made_for} it was made for" if self.length > (self.made_for or math.inf) else ""
        where = f"in this {_kind(self.parts)} at {self.length} tokens{beyond}{self._condition}"
        text = sentence(summaries, where, broken=self.nan_rows, compared=bool(self.remedies))
        known = [remedy for remedy in self.remedies if not math.isnan(remedy.cross_entropy)]
        if not known or math.isnan(self.own.cross_entropy):
            return text
        best = min(known, key=lambda remedy: remedy.cross_entropy)
        change = best.cross_entropy - self.own.cross_entropy
        if change >= -5e-5:
            return f"{text[:-1]}; none of the normalisers compared lowers the loss on this text."
        return f"{text[:-1]}; {best.normaliser} lowers the loss on this text the most, by {-change:.4f} nats a token."

    def explain(self) -> str:
        """What each column of the tables means, a line each."""
        return explained(MEANINGS)

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists, dicts and numbers, ready for JSON: what is not finite becomes `None`."""
        plain: dict[str, Any] = jsonable({"verdict": self.verdict, **asdict(self)})
        return plain

    def plot(self, ax: Axes) -> None:
        """Draw H / ln n as a map of layers and heads; bright is dispersed.

        Arguments:
            ax: Matplotlib axes to draw into.
        """
        rows = list(dict.fromkeys((h.part, h.layer, h.name) for h in self.heads))
        heads = 1 + max(h.head for h in self.heads)
        values = [[math.nan] * heads for _ in rows]
        for head in self.heads:
            values[rows.index((head.part, head.layer, head.name))][head.head] = head.entropy_share
        image = ax.imshow(values, vmin=0, vmax=1, aspect="auto", cmap="viridis", origin="lower")
        ax.set_xlabel("head")
        ax.set_xticks(range(0, heads, max(1, heads // 8)))
        shown_rows = range(0, len(rows), max(1, len(rows) // 8))
        several = len(self.parts) > 1
        ax.set_ylabel("attention" if several else "layer")
        ax.set_yticks(shown_rows, [f"{rows[i][0]} {rows[i][1]}" if several else str(rows[i][1]) for i in shown_rows])
        ax.figure.colorbar(image, ax=ax, label=f"H / ln n at {self.length} tokens{self._condition}")

    @property
    def _condition(self) -> str:
        return f" without the first {self.excluded}" if self.excluded else ""

    def __str__(self) -> str:
        """Return tables for people to read, the most dispersed heads first."""
        rest = len(self.heads) - SHOWN
        law = "never" if self.interval is None else f"for {self.interval[0]:.4f} < H < {self.interval[1]:.4f} nats"
        return "\n".join(
            [
                self.verdict,
                "",
                f"{len(self.heads)} heads at {self.length} tokens{self._condition}, the most dispersed first",
                *self._table_of_attention(),
                "",
                *self._table_of_logits(),
                *([f"... and {rest} heads more"] if rest > 0 else []),
                *([f"{self.nan_rows} rows with NaN were left out"] if self.nan_rows else []),
                *self._table_of_remedies(),
                "",
                f"the law acts {law}",
            ]
        )

    def _parts_shown(self, cell: str) -> tuple[str, ...]:
        """A cell that tables have where the model has several kinds of attention."""
        return (cell,) if len(self.parts) > 1 else ()

    def _table_of_attention(self) -> list[str]:
        header = (
            *self._parts_shown("part"), "layer", "head", "H", "H/ln n", "exp H", "max w", "spread", "bound", "slope",
            "n*", "below", "acts", "above",
        )  # fmt: skip
        lines = [
            (
                *self._parts_shown(h.part),
                str(h.layer),
                str(h.head),
                shown(h.entropy, ".3f"),
                shown(h.entropy_share, ".3f"),
                shown(h.effective_keys, ".1f"),
                shown(h.largest, ".4f"),
                shown(h.spread, ".2f"),
                shown(h.bound, ".2f"),
                shown(h.slope, ".3f"),
                shown(h.reach, ".3g"),
                *map(percent, (h.below, h.acting, h.above)),
            )
            for h in self.violations(-1.0)[:SHOWN]
        ]
        return table(header, lines, names=("part",))

    def _table_of_logits(self) -> list[str]:
        columns = ("layer", "head", "b_crit", "onset", "bound/spread", "weight bound", "weight bound/spread")
        header = (*self._parts_shown("part"), *columns)
        lines = [
            (
                *self._parts_shown(h.part),
                str(h.layer),
                str(h.head),
                shown(h.beta_crit, ".3g"),
                shown(h.onset, ".3g"),
                shown(h.slack, ".2f"),
                shown(h.weight_bound, ".3g"),
                shown(h.weight_slack, ".3g"),
            )
            for h in self.violations(-1.0)[:SHOWN]
        ]
        return table(header, lines, names=("part",))

    def _table_of_remedies(self) -> list[str]:
        before = self.own.cross_entropy
        if math.isnan(before) and not self.remedies:
            return []
        lines = [
            (
                remedy.normaliser,
                shown(remedy.cross_entropy, ".4f"),
                shown(round(remedy.cross_entropy - before, 4) + 0.0, "+.4f"),  # no minus before a zero
                shown(remedy.entropy_share, ".3f"),
            )
            for remedy in (self.own, *self.remedies)
        ]
        header = ("normaliser", "nats/token", "change", f"H/ln n, last {SAMPLE} rows")
        return ["", *table(header, lines, names=("normaliser",))]


def _kind(parts: tuple[str, ...]) -> str:
    """What a model with these kinds of attention is called."""
    if "cross" in parts:
        return "encoder-decoder" if "encoder" in parts else "decoder"
    return parts[0] if len(parts) == 1 else "model"
