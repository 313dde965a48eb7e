"""How sharp each attention head of a transformers model is on given text, and what a remedy would do to the model.

The model's own attention runs unchanged; statistics of its logits are streamed beside it, at any length. Remedies are
compared by the model's next-token cross-entropy with each switched on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from holdfast.errors import ArgumentError
from holdfast.nn.attention.call import AttentionCall
from holdfast.nn.attention.statistics import RowStatistics
from holdfast.nn.huggingface import register, unregister
from holdfast.nn.normalisers import Normaliser
from holdfast.nn.temperature import PUBLISHED, AdaptiveTemperature
from holdfast.probes.report import jsonable, percent, random_state_kept, shown, table
from holdfast.probes.sharpness.dispersion import (
    check_heads,
    checked_normalisers,
    critical_beta,
    fitted_slope,
    mean,
    median,
    onset,
)
from holdfast.probes.sharpness.listening import (
    MeasuredCall,
    attention_replaced,
    evaluating,
    model_attention,
    model_implementation,
    projections_seen,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHORTEST = 64
"""Rows that see fewer keys say little about growth, and are left out of slopes."""

SAMPLE = 32
"""Rows at the end of each sequence, where most keys are seen, for what needs whole rows of logits."""

SHOWN = 24
"""Heads that a table shows."""

REMEDY = "holdfast_probe_remedy"


@dataclass(frozen=True)
class ModelHead:
    """One head. Means are over its rows with at least two visible keys and no NaN.

    A learned sink counts as one more visible key in all that concerns weights; spreads and their bounds are those of
    the keys. With `exclude_first_keys` all but the bounds is measured as if those keys were not there.

    Arguments:
        layer: index of the layer.
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
        slope: d H / d ln n over rows that see 64 keys or more; NaN without enough of them.
        reach: 1 + e^spread_max, the length beyond which no key of any such row could hold half the weight.
        beta_crit: median over the last 32 rows of each sequence of what the logits must be multiplied by for the
            largest to stand out, as in `HeadSharpness`.
        onset: predicted number of keys at which the mean largest weight falls below one half, from rows that see
            16 to 31, 32 to 63, ... keys, as in `SharpnessReport`; NaN where it cannot be told.
        below: share of rows whose entropy is below the law's active interval.
        acting: share of rows within it.
        above: share of rows above it, where the law changes nothing.
    """

    layer: int
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
        heads: one entry a head, by layer, then head.
        length: tokens in the longest sequence.
        interval: entropies, in nats, between which the law acts; `None` for a law that never acts.
        excluded: how many first keys of each sequence the attention is conditional on not being at.
        own: the model as it is.
        remedies: one entry a normaliser of the comparison.
    """

    heads: tuple[ModelHead, ...]
    length: int
    interval: tuple[float, float] | None
    excluded: int
    own: ModelRemedy
    remedies: tuple[ModelRemedy, ...] = ()

    def violations(self, limit: float) -> tuple[ModelHead, ...]:
        """Heads whose mean H / ln n exceeds a limit, the most dispersed first; NaN counts as a violation."""
        above = [head for head in self.heads if not head.entropy_share <= limit]
        return tuple(sorted(above, key=lambda head: -head.entropy_share))

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists, dicts and numbers, ready for JSON: what is not finite becomes `None`."""
        plain: dict[str, Any] = jsonable(asdict(self))
        return plain

    def plot(self, ax: Axes) -> None:
        """Draw H / ln n as a map of layers and heads; bright is dispersed.

        Arguments:
            ax: Matplotlib axes to draw into.
        """
        layers, heads = 1 + max(h.layer for h in self.heads), 1 + max(h.head for h in self.heads)
        values = [[math.nan] * heads for _ in range(layers)]
        for head in self.heads:
            values[head.layer][head.head] = head.entropy_share
        image = ax.imshow(values, vmin=0, vmax=1, aspect="auto", cmap="viridis", origin="lower")
        ax.set_xlabel("head")
        ax.set_ylabel("layer")
        ax.set_xticks(range(0, heads, max(1, heads // 8)))
        ax.set_yticks(range(0, layers, max(1, layers // 8)))
        ax.figure.colorbar(image, ax=ax, label=f"H / ln n at {self.length} tokens{self._condition}")

    @property
    def _condition(self) -> str:
        return f" without the first {self.excluded}" if self.excluded else ""

    def __str__(self) -> str:
        """Return tables for people to read, the most dispersed heads first."""
        rest = len(self.heads) - SHOWN
        broken = sum(head.nan_rows for head in self.heads)
        law = "never" if self.interval is None else f"for {self.interval[0]:.4f} < H < {self.interval[1]:.4f} nats"
        return "\n".join(
            [
                f"{len(self.heads)} heads at {self.length} tokens{self._condition}, the most dispersed first",
                *self._table_of_attention(),
                "",
                *self._table_of_logits(),
                *([f"... and {rest} heads more"] if rest > 0 else []),
                *([f"{broken} rows with NaN were left out"] if broken else []),
                "",
                *self._table_of_remedies(),
                "",
                f"the law acts {law}",
            ]
        )

    def _table_of_attention(self) -> list[str]:
        header = (
            "layer", "head", "H", "H/ln n", "exp H", "max w", "spread", "bound", "slope", "n*",
            "below", "acts", "above",
        )  # fmt: skip
        lines = [
            (
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
        return table(header, lines)

    def _table_of_logits(self) -> list[str]:
        header = ("layer", "head", "b_crit", "onset", "bound/spread", "weight bound", "weight bound/spread")
        lines = [
            (
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
        return table(header, lines)

    def _table_of_remedies(self) -> list[str]:
        before = self.own.cross_entropy
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
        return table(header, lines, names=("normaliser",))


@dataclass(frozen=True)
class _Seen:
    """What one layer let pass; `keys` without its sink, `rows` with it."""

    keys: RowStatistics
    rows: RowStatistics
    bound: Float[Tensor, "batch heads queries"]
    weight_bound: Float[Tensor, "batch heads queries"]
    beta_crit: Float[Tensor, "batch heads sample"]


def probe_model_sharpness(
    model: nn.Module,
    input_ids: Int[Tensor, "batch time"],
    attention_mask: Int[Tensor, "batch time"] | None = None,
    *,
    temperature: AdaptiveTemperature | None = None,
    normalisers: Mapping[str, Normaliser] | None = None,
    exclude_first_keys: int = 0,
) -> ModelSharpnessReport:
    """Measure how dispersed the attention of every head is, and what normalisers would do to the model.

    Leaves the model as it found it: mode, gradients, hooks, attention implementation and random states.

    Arguments:
        model: a model of transformers that looks its attention up in the library's registry.
        input_ids: tokens; longer sequences show more.
        attention_mask: 0 for padding; padded positions are left out throughout.
        temperature: the law whose reach is reported; `None`: the published one.
        normalisers: what to compare, by name, each switched on in all heads for one more run of the model; `None`:
            nothing.
        exclude_first_keys: measure attention conditional on not being at this many first tokens of each sequence. A
            head that parks most of its weight on the first token has a low entropy, however dispersed the rest is.
            What the normalisers see is not changed by it.

    Returns:
        The report.

    Errors:
        ArgumentError: the model does not use the registry, or there is nothing to measure.

    Source: arXiv 2410.01104, sections 2 (lemma 2.1) and 3 (proposition 3.1: `weight_bound`; `bound` has the norms of
    the very queries and keys in the place of the singular values, which makes it tighter and holds for any kind of
    layer); arXiv 2605.12697 for `beta_crit`.
    """
    if input_ids.shape[1] < 2:
        raise ArgumentError("input_ids", "at least two tokens", input_ids.shape[1])
    if not 0 <= exclude_first_keys < input_ids.shape[1] - 1:
        expected = f"from 0 to {input_ids.shape[1] - 2}, since two of {input_ids.shape[1]} tokens must be left"
        raise ArgumentError("exclude_first_keys", expected, exclude_first_keys)
    compared = checked_normalisers(normalisers)
    law = PUBLISHED if temperature is None else temperature
    kept = torch.ones_like(input_ids, dtype=torch.bool) if attention_mask is None else attention_mask.bool()
    excluded = kept & (kept.cumsum(1) <= exclude_first_keys) if exclude_first_keys else None
    with torch.no_grad(), random_state_kept(), evaluating(model):
        seen, output = _listen(model, input_ids, attention_mask, excluded)
        causal = all(_is_causal(layer.keys) for layer in seen.values())
        last = {index: _last_entropy(layer.rows, kept) for index, layer in seen.items()}
        unchanged = ModelRemedy("none", _cross_entropy(output, input_ids, kept) if causal else math.nan, _share(last))
        del output
        remedies = []
        for name, normaliser in compared.items():
            output, entropies = _with_normaliser(model, name, normaliser, input_ids, attention_mask, excluded)
            shares = {layer: (entropies[layer], usable, n) for layer, (_, usable, n) in last.items()}
            loss = _cross_entropy(output, input_ids, kept) if causal else math.nan
            remedies.append(ModelRemedy(name, loss, _share(shares)))
        heads = [
            _head(layer, head, seen[layer], kept, law)
            for layer in sorted(seen)
            for head in range(seen[layer].bound.shape[1])
        ]
    return ModelSharpnessReport(
        tuple(heads), input_ids.shape[1], law.active_interval, exclude_first_keys, unchanged, tuple(remedies)
    )


def _run(model: nn.Module, input_ids: Tensor, attention_mask: Tensor | None) -> Any:
    options = {} if attention_mask is None else {"attention_mask": attention_mask}
    return model(input_ids=input_ids, use_cache=False, **options)


class _Layers:
    """Numbers layers: by the index they carry, or by their order."""

    def __init__(self) -> None:
        self.order: dict[int, int] = {}

    def index(self, module: nn.Module) -> int:
        """The layer's number."""
        carried = getattr(module, "layer_idx", None)
        return self.order.setdefault(id(module), len(self.order)) if carried is None else int(carried)


def _listen(
    model: nn.Module, input_ids: Tensor, attention_mask: Tensor | None, excluded: Tensor | None
) -> tuple[dict[int, _Seen], Any]:
    """Run the model with its own attention under another name, and take statistics of what passes."""
    implementation = model_implementation(model)
    layers, seen = _Layers(), dict[int, _Seen]()
    with ExitStack() as stack:
        projections = stack.enter_context(projections_seen(model))

        def attend(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: Any) -> Any:
            call = MeasuredCall.of(AttentionCall.of_transformers(module, query, key, None, mask, **options), excluded)
            keys, rows = call.statistics()
            seen[layers.index(module)] = _Seen(
                keys,
                rows,
                call.norm_bound(),
                call.weight_bound(projections.pop(id(module), None)),
                critical_beta(call.last_logits(SAMPLE)),
            )
            return model_attention(module, implementation)(module, query, key, value, mask, **options)

        stack.enter_context(attention_replaced(model, attend, implementation))
        output = _run(model, input_ids, attention_mask)
    if not seen:
        raise ArgumentError(
            "model", "one that routes its attention through transformers' registry", type(model).__name__
        )
    return seen, output


def _with_normaliser(
    model: nn.Module,
    name: str,
    normaliser: Normaliser,
    input_ids: Tensor,
    attention_mask: Tensor | None,
    excluded: Tensor | None,
) -> tuple[Any, dict[int, Float[Tensor, "batch heads sample"]]]:
    """Run the model with a normaliser in all heads; its output, and the entropy of each layer's last rows."""
    from transformers import AttentionInterface

    layers, seen = _Layers(), dict[int, Tensor]()
    register(REMEDY, normaliser, replace=True)
    attention: Any = AttentionInterface._global_mapping[REMEDY]

    def attend(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: Any) -> Any:
        check_heads(name, normaliser, query.shape[1])
        call = AttentionCall.of_transformers(module, query, key, None, mask, **options)
        weights = MeasuredCall.of(call, excluded).last_weights(SAMPLE, normaliser)
        seen[layers.index(module)] = torch.special.entr(weights).sum(-1)
        return attention(module, query, key, value, mask, **options)

    try:
        with attention_replaced(model, attend, REMEDY):
            return _run(model, input_ids, attention_mask), seen
    finally:
        unregister(REMEDY)


def _is_causal(keys: RowStatistics) -> bool:
    """Whether no row sees a key after it."""
    return bool((keys.visible <= torch.arange(1, keys.visible.shape[-1] + 1, device=keys.visible.device)).all())


def _cross_entropy(output: Any, input_ids: Int[Tensor, "batch time"], kept: Bool[Tensor, "batch time"]) -> float:
    """Mean next-token cross-entropy in nats; NaN for a model without logits over tokens."""
    logits = getattr(output, "logits", None)
    if logits is None or logits.ndim != 3 or logits.shape[:2] != input_ids.shape:
        return math.nan
    losses = [
        nn.functional.cross_entropy(row[:-1].float(), ids[1:], reduction="none")[both[1:] & both[:-1]]
        for row, ids, both in zip(logits, input_ids, kept, strict=True)
    ]
    return mean(torch.cat(losses))


def _last_entropy(rows: RowStatistics, kept: Bool[Tensor, "batch time"]) -> tuple[Tensor, Tensor, Tensor]:
    """Entropy of the last rows, which of them count, and what they see."""
    visible = rows.visible[..., -SAMPLE:]
    return rows.entropy[..., -SAMPLE:], (visible >= 2) & kept[:, None, -SAMPLE:], visible


def _share(layers: dict[int, tuple[Tensor, Tensor, Tensor]]) -> float:
    """Mean H / ln n over layers, heads and rows."""
    shares = torch.cat([h[usable].double() / n[usable].double().log() for h, usable, n in layers.values()])
    return mean(shares[shares.isfinite()])


def _head(layer: int, head: int, seen: _Seen, kept: Tensor, law: AdaptiveTemperature) -> ModelHead:
    """Measure one head."""
    entropy, visible, spread = seen.rows.entropy[:, head], seen.rows.visible[:, head], seen.keys.spread[:, head]
    wanted = (seen.keys.visible[:, head] >= 2) & kept
    finite = entropy.isfinite() & spread.isfinite()
    usable = wanted & finite
    sampled = usable[:, -SAMPLE:]
    h, n, d = entropy[usable].double(), visible[usable].double(), spread[usable].double()
    bound, weight_bound = (b[:, head][usable].double() for b in (seen.bound, seen.weight_bound))
    largest = seen.rows.largest[:, head][usable].double()
    low, high = law.active_interval or (math.inf, math.inf)
    mean_entropy = mean(h)
    long = n >= SHORTEST
    return ModelHead(
        layer=layer,
        head=head,
        rows=int(usable.sum()),
        nan_rows=int((wanted & ~finite).sum()),
        keys=mean(n),
        entropy=mean_entropy,
        entropy_share=mean(h / n.log()),
        effective_keys=math.exp(mean_entropy),
        largest=mean(largest),
        spread=mean(d),
        bound=mean(bound),
        slack=_slack(bound, d),
        weight_bound=mean(weight_bound),
        weight_slack=_slack(weight_bound, d),
        slope=fitted_slope(list(zip(n[long].tolist(), h[long].tolist(), strict=True))),
        reach=1 + math.exp(min(700.0, d.max().item())) if len(d) else math.nan,
        beta_crit=median(seen.beta_crit[:, head][sampled]),
        onset=onset(_by_octave(n, largest), 0.5),
        below=mean(h <= low),
        acting=mean((h > low) & (h < high)),
        above=mean((h > low) & (h >= high)),
    )


def _slack(bound: Float[Tensor, " rows"], spread: Float[Tensor, " rows"]) -> float:
    return (bound / spread).min().item() if len(spread) else math.nan


def _by_octave(n: Float[Tensor, " rows"], largest: Float[Tensor, " rows"]) -> list[tuple[float, float]]:
    """Mean largest weight of rows that see 16 to 31, 32 to 63, ... keys, at the geometric mean of what they see."""
    octave = n.log2().floor().long()
    return [
        (n[octave == power].log().mean().exp().item(), largest[octave == power].mean().item())
        for power in sorted(set(octave.tolist()))
        if power >= 4
    ]
