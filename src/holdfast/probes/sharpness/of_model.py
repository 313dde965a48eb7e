"""How sharp each attention head of a transformers model is on given text, and what a remedy would do to the model.

The model's own attention runs unchanged; statistics of its logits are streamed beside it, at any length. Remedies are
compared by the model's next-token cross-entropy with each switched on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from holdfast.errors import ArgumentError
from holdfast.nn.attention.call import AttentionCall, full_precision
from holdfast.nn.attention.statistics import RowStatistics
from holdfast.nn.huggingface import register, unregister
from holdfast.nn.normalisers import Normaliser
from holdfast.nn.temperature import PUBLISHED, AdaptiveTemperature
from holdfast.probes.context_length import trained_length
from holdfast.probes.replaced_attention import attention_replaced, model_attention, model_implementation
from holdfast.probes.report import evaluating, random_state_kept
from holdfast.probes.sharpness.dispersion import (
    check_heads,
    checked_normalisers,
    critical_beta,
    fitted_slope,
    mean,
    median,
    onset,
)
from holdfast.probes.sharpness.listening import MeasuredCall, projections_seen
from holdfast.probes.sharpness.model_report import SAMPLE, ModelHead, ModelRemedy, ModelSharpnessReport
from holdfast.probes.sharpness.reading import (
    PARTS,
    Layers,
    ModelInputs,
    forward_arguments,
    run,
    sees_no_future,
    side_of,
)

SHORTEST = 64
"""Rows that see fewer keys say little about growth, and are left out of slopes."""

WIDER = 1.5
"""A slope needs rows that see this many times as many keys as others."""

REMEDY = "holdfast_probe_remedy"


@dataclass(frozen=True)
class _Seen:
    """What one attention let pass in one call; `keys` without its sink, `rows` with it."""

    part: str
    layer: int
    name: str
    kept: Bool[Tensor, "batch queries"]
    keys: RowStatistics
    rows: RowStatistics
    bound: Float[Tensor, "batch heads queries"]
    weight_bound: Float[Tensor, "batch heads queries"]
    beta_crit: Float[Tensor, "batch heads sample"]


def probe_model_sharpness(
    model: nn.Module,
    input_ids: Int[Tensor, "batch time"] | None = None,
    attention_mask: Int[Tensor, "batch time"] | Bool[Tensor, "batch time"] | None = None,
    *,
    inputs: Mapping[str, Any] | None = None,
    temperature: AdaptiveTemperature | None = None,
    normalisers: Mapping[str, Normaliser] | None = None,
    exclude_first_keys: int = 0,
) -> ModelSharpnessReport:
    """Measure how dispersed the attention of every head is, and what normalisers would do to the model.

    Leaves the model as it found it: mode, gradients, hooks, attention implementation and random states.

    Arguments:
        model: a model of transformers that looks its attention up in the library's registry: a decoder, an encoder,
            both, or one for images or sound.
        input_ids: tokens; longer sequences show more.
        attention_mask: 0 for padding; padded positions are left out throughout.
        inputs: what else the model's forward takes, by name: `pixel_values`, `input_features`, `position_ids` (which
            start anew with each document of a packed sequence), `decoder_input_ids` (by default `input_ids`).
        temperature: the law whose reach is reported; `None`: the published one.
        normalisers: what to compare, by name, each switched on in all heads for one more run of the model; `None`:
            nothing.
        exclude_first_keys: measure attention conditional on not being at this many first tokens of each sequence, or
            document. A head that parks most of its weight on the first token has a low entropy, however dispersed the
            rest is. What the normalisers see is not changed by it.

    Returns:
        The report.

    Errors:
        ArgumentError: the model does not use the registry, takes no such inputs, or there is nothing to measure.

    Source: arXiv 2410.01104, sections 2 (lemma 2.1) and 3 (proposition 3.1: `weight_bound`; `bound` has the norms of
    the very queries and keys in the place of the singular values, which makes it tighter and holds for any kind of
    layer); arXiv 2605.12697 for `beta_crit`.
    """
    values = forward_arguments(model, input_ids, attention_mask, inputs)
    if input_ids is not None:
        if input_ids.shape[1] < 2:
            raise ArgumentError("input_ids", "at least two tokens", input_ids.shape[1])
        if exclude_first_keys >= input_ids.shape[1] - 1:
            expected = f"from 0 to {input_ids.shape[1] - 2}, since two of {input_ids.shape[1]} tokens must be left"
            raise ArgumentError("exclude_first_keys", expected, exclude_first_keys)
    if exclude_first_keys < 0:
        raise ArgumentError("exclude_first_keys", "at least 0", exclude_first_keys)
    compared = checked_normalisers(normalisers)
    law = PUBLISHED if temperature is None else temperature
    given = ModelInputs.of(model, values, exclude_first_keys)
    with torch.no_grad(), random_state_kept(), evaluating(model):
        seen, output = _listen(model, given)
        loss = _loss_of(seen, given)
        last = [_last_entropy(one.rows, one.kept) for one in seen]
        unchanged = ModelRemedy("none", loss(output), _share(last))
        del output
        remedies = []
        for name, normaliser in compared.items():
            output, entropies = _with_normaliser(model, name, normaliser, given, [one.part for one in seen])
            shares = [(entropy, usable, n) for entropy, (_, usable, n) in zip(entropies, last, strict=True)]
            remedies.append(ModelRemedy(name, loss(output), _share(shares)))
        ordered = sorted(seen, key=lambda one: (PARTS.index(one.part), one.layer))
        heads = [_head(one, head, law) for one in ordered for head in range(one.bound.shape[1])]
    length = max(max(one.bound.shape[2], int(one.keys.visible.max())) for one in seen)
    return ModelSharpnessReport(
        tuple(heads), length, law.active_interval, exclude_first_keys, unchanged, tuple(remedies), trained_length(model)
    )


def _listen(model: nn.Module, given: ModelInputs) -> tuple[list[_Seen], Any]:
    """Run the model with its own attention under another name, and take statistics of what passes."""
    implementation = model_implementation(model)
    layers, seen = Layers(model), list[_Seen]()
    with ExitStack() as stack:
        projections = stack.enter_context(projections_seen(model))
        stack.enter_context(layers.watched(model))

        def attend(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: Any) -> Any:
            with full_precision(query.device):
                call = AttentionCall.of_transformers(module, query, key, None, mask, **options)
                cross = layers.is_cross(module, query, key)
                causal = not cross and sees_no_future(call)
                part = "cross" if cross else "decoder" if causal else "encoder"
                measured = MeasuredCall.of(call, given.excluded_keys(side_of(part, "key", given), key))
                keys, rows = measured.statistics()
                batch, _, queries, _ = query.shape
                seen.append(
                    _Seen(
                        part,
                        *layers.number(module, part),
                        given.kept(side_of(part, "query", given), batch, queries, query.device),
                        keys,
                        rows,
                        measured.norm_bound(),
                        measured.weight_bound(projections.pop(id(module), None)),
                        critical_beta(measured.last_logits(SAMPLE)),
                    )
                )
            return model_attention(module, implementation)(module, query, key, value, mask, **options)

        stack.enter_context(attention_replaced(model, attend, implementation))
        output = run(model, given)
    if not seen:
        raise ArgumentError(
            "model", "one that routes its attention through transformers' registry", type(model).__name__
        )
    return seen, output


def _with_normaliser(
    model: nn.Module, name: str, normaliser: Normaliser, given: ModelInputs, parts: Sequence[str]
) -> tuple[Any, list[Float[Tensor, "batch heads sample"]]]:
    """Run the model with a normaliser in all heads; its output, and the entropy of each attention's last rows.

    Arguments:
        model: the model.
        name: what errors call the normaliser.
        normaliser: in the place of the model's own.
        given: what the model reads.
        parts: of each attention in the order of the run, what kind it is.
    """
    from transformers import AttentionInterface

    entropies = list[Tensor]()
    register(REMEDY, normaliser, replace=True)
    attention: Any = AttentionInterface._global_mapping[REMEDY]

    def attend(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: Any) -> Any:
        check_heads(name, normaliser, query.shape[1])
        with full_precision(query.device):
            call = AttentionCall.of_transformers(module, query, key, None, mask, **options)
            excluded = given.excluded_keys(side_of(parts[len(entropies)], "key", given), key)
            weights = MeasuredCall.of(call, excluded).last_weights(SAMPLE, normaliser)
        entropies.append(torch.special.entr(weights).sum(-1))
        return attention(module, query, key, value, mask, **options)

    try:
        with attention_replaced(model, attend, REMEDY):
            return run(model, given), entropies
    finally:
        unregister(REMEDY)


def _loss_of(seen: list[_Seen], given: ModelInputs) -> Callable[[Any], float]:
    """Next-token cross-entropy of an output; NaN for a model that is no causal language model."""
    tokens = given.tokens
    looks_ahead = [one for one in seen if one.part == "encoder" and not given.both]
    if tokens is None or not any(one.part == "decoder" for one in seen):
        return lambda output: math.nan
    if any(one.kept.shape == tokens.shape for one in looks_ahead):
        return lambda output: math.nan
    kept = given.kept("decoder", tokens.shape[0], tokens.shape[1], tokens.device)
    follows = kept[:, 1:] & kept[:, :-1]
    if given.positions is not None and given.positions.ndim == 2:
        # The first token of a document does not follow from the last one of another.
        follows = follows & (given.positions.diff(dim=1) == 1).expand_as(follows)
    return lambda output: _cross_entropy(output, tokens, follows)


def _cross_entropy(output: Any, tokens: Int[Tensor, "batch time"], follows: Bool[Tensor, "batch steps"]) -> float:
    """Mean next-token cross-entropy in nats; NaN for a model without logits over tokens."""
    logits = getattr(output, "logits", None)
    if logits is None or logits.ndim != 3 or logits.shape[:2] != tokens.shape:
        return math.nan
    losses = [
        nn.functional.cross_entropy(row[:-1].float(), ids[1:], reduction="none")[counted]
        for row, ids, counted in zip(logits, tokens, follows, strict=True)
    ]
    return mean(torch.cat(losses))


def _last_entropy(rows: RowStatistics, kept: Bool[Tensor, "batch time"]) -> tuple[Tensor, Tensor, Tensor]:
    """Entropy of the last rows, which of them count, and what they see."""
    visible = rows.visible[..., -SAMPLE:]
    return rows.entropy[..., -SAMPLE:], (visible >= 2) & kept[:, None, -SAMPLE:], visible


def _share(attentions: list[tuple[Tensor, Tensor, Tensor]]) -> float:
    """Mean H / ln n over attentions, heads and rows."""
    shares = torch.cat([h[usable].double() / n[usable].double().log() for h, usable, n in attentions])
    return mean(shares[shares.isfinite()])


def _head(seen: _Seen, head: int, law: AdaptiveTemperature) -> ModelHead:
    """Measure one head."""
    entropy, visible, spread = seen.rows.entropy[:, head], seen.rows.visible[:, head], seen.keys.spread[:, head]
    wanted = (seen.keys.visible[:, head] >= 2) & seen.kept
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
        part=seen.part,
        layer=seen.layer,
        name=seen.name,
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
        slope=_slope(n[long], h[long]),
        reach=1 + math.exp(min(700.0, d.max().item())) if len(d) else math.nan,
        beta_crit=median(seen.beta_crit[:, head][sampled]),
        onset=onset(_by_octave(n, largest), 0.5),
        below=mean(h <= low),
        acting=mean((h > low) & (h < high)),
        above=mean((h > low) & (h >= high)),
    )


def _slope(n: Float[Tensor, " rows"], entropy: Float[Tensor, " rows"]) -> float:
    """Slope of the entropy against ln n, where rows see different numbers of keys; else NaN."""
    if len(n) == 0 or n.max() < WIDER * n.min():
        return math.nan
    return fitted_slope(list(zip(n.tolist(), entropy.tolist(), strict=True)))


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
