"""How sharp each attention head of a transformers model is on given text, and what a remedy would do to the model.

The model's own attention runs unchanged; statistics of its logits are streamed beside it, at any length. Remedies are
compared by the model's next-token cross-entropy with each switched on.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from holdfast.errors import ArgumentError
from holdfast.nn.attention.call import AttentionCall, full_precision
from holdfast.nn.attention.statistics import RowStatistics
from holdfast.nn.attention.visibility import block
from holdfast.nn.huggingface import register, unregister
from holdfast.nn.masking import hidden_by
from holdfast.nn.normalisers import Normaliser
from holdfast.nn.temperature import PUBLISHED, AdaptiveTemperature
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

SHORTEST = 64
"""Rows that see fewer keys say little about growth, and are left out of slopes."""

WIDER = 1.5
"""A slope needs rows that see this many times as many keys as others."""

ROWS = 1024
"""Rows of a mask that are looked at together."""

REMEDY = "holdfast_probe_remedy"

PARTS = ("encoder", "decoder", "cross")
"""Kinds of attention, in the order of a report."""

OTHER_SEQUENCE = ("key_value", "encoder_hidden", "encoder_states", "cross_attention")
"""What arguments of an attention layer are called that hold the sequence whose keys it sees."""


@dataclass(frozen=True)
class _Inputs:
    """What a model reads, and what is known of each token.

    Arguments:
        values: arguments of the model's forward by name.
        both: whether the model is an encoder with a decoder beside it, each with a sequence of its own.
        encoder: which tokens of the encoder's sequence are none of padding.
        decoder: likewise of the decoder's, or of the only sequence there is.
        tokens: that sequence.
        positions: of each of its tokens, where the caller gave them; they start anew with each packed document.
        excluded: how many first keys of each sequence, or document, are left out.
    """

    values: dict[str, Any]
    both: bool
    encoder: Bool[Tensor, "batch source"] | None
    decoder: Bool[Tensor, "batch time"] | None
    tokens: Int[Tensor, "batch time"] | None
    positions: Tensor | None
    excluded: int

    @classmethod
    def of(cls, model: nn.Module, values: dict[str, Any], excluded: int) -> _Inputs:
        """Read the arguments of a model's forward; a decoder beside an encoder reads the same tokens by default."""
        both = bool(getattr(getattr(model, "config", None), "is_encoder_decoder", False))
        source = values.get("input_ids")
        tokens = values.get("decoder_input_ids") if both else source
        if both and tokens is None and source is not None and "decoder_inputs_embeds" not in values:
            tokens = source
            values = {**values, "decoder_input_ids": tokens}
        masks = [
            values.get(name) for name in ("attention_mask", "decoder_attention_mask" if both else "attention_mask")
        ]
        sequences = (source, tokens)
        kept = [
            mask.bool() if mask is not None and mask.ndim == 2
            else None if sequence is None
            else torch.ones_like(sequence, dtype=torch.bool)
            for mask, sequence in zip(masks, sequences, strict=True)
        ]  # fmt: skip
        positions = values.get("decoder_position_ids" if both else "position_ids")
        return cls(values, both, kept[0], kept[1], tokens, positions, excluded)

    def kept(self, side: str, batch: int, time: int, device: torch.device) -> Bool[Tensor, "batch time"]:
        """Which tokens of a side of some attention count: all where it is not of the text, as in an image."""
        mask = self.encoder if side == "encoder" else self.decoder
        if mask is None or tuple(mask.shape) != (batch, time):
            return torch.ones(batch, time, dtype=torch.bool, device=device)
        return mask

    def excluded_keys(self, side: str, key: Tensor) -> Bool[Tensor, "batch keys"] | None:
        """The first keys of each sequence, or of each document of a packed one; `None` for none."""
        if self.excluded == 0:
            return None
        batch, _, keys, _ = key.shape
        kept = self.kept(side, batch, keys, key.device)
        positions = self.positions
        if side == "decoder" and positions is not None and positions.ndim == 2 and positions.shape[-1] == keys:
            return kept & (positions.expand(batch, keys) < self.excluded)
        return kept & (kept.cumsum(1) <= self.excluded)


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
    values = _values(model, input_ids, attention_mask, inputs)
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
    given = _Inputs.of(model, values, exclude_first_keys)
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
        tuple(heads), length, law.active_interval, exclude_first_keys, unchanged, tuple(remedies)
    )


def _values(
    model: nn.Module, input_ids: Tensor | None, attention_mask: Tensor | None, inputs: Mapping[str, Any] | None
) -> dict[str, Any]:
    """All arguments of the model's forward by name; refuses what it does not take."""
    values = dict(inputs or {})
    for name, value in (("input_ids", input_ids), ("attention_mask", attention_mask)):
        if value is not None and name in values:
            raise ArgumentError("inputs", f"{name} once", "it twice")
        if value is not None:
            values[name] = value
    if not values:
        raise ArgumentError("input_ids", "tokens, or other inputs of the model in `inputs`", "none")
    model_implementation(model)
    taken = inspect.signature(model.forward).parameters
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values())
    for name in values:
        if name not in taken and not (open_ended and name in ("attention_mask", "position_ids")):
            expected = f"what {type(model).__name__} takes ({', '.join(list(taken)[:6])}, ...)"
            raise ArgumentError("inputs" if name in (inputs or {}) else name, expected, name)
    return values


def _run(model: nn.Module, given: _Inputs) -> Any:
    taken = inspect.signature(model.forward).parameters
    options = {"use_cache": False} if "use_cache" in taken else {}
    return model(**given.values, **options)


class _Layers:
    """Names and numbers attentions: by the index of their layer, or by their order; and knows cross-attention."""

    def __init__(self, model: nn.Module) -> None:
        self.names = {id(module): name for name, module in model.named_modules()}
        self.cross: dict[int, bool] = {}
        self.calls: dict[str, int] = {}

    @contextmanager
    def watched(self, model: nn.Module) -> Iterator[None]:
        """Note of each attention layer whether it is given another sequence."""

        def note(module: nn.Module, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
            try:
                bound = inspect.signature(module.forward).bind_partial(*arguments, **options).arguments
            except TypeError:
                return
            bound |= bound.pop("kwargs", {})
            others = [v for name, v in bound.items() if any(word in name for word in OTHER_SEQUENCE)]
            self.cross[id(module)] = any(isinstance(value, Tensor) for value in others)

        attentions = [module for module in model.modules() if "Attention" in type(module).__name__]
        handles = [module.register_forward_pre_hook(note, with_kwargs=True) for module in attentions]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def is_cross(self, module: nn.Module, query: Tensor, key: Tensor) -> bool:
        """Whether an attention sees the keys of another sequence."""
        return self.cross.get(id(module), False) or query.shape[2] != key.shape[2]

    def number(self, module: nn.Module, part: str) -> tuple[int, str]:
        """The layer's number in its part, and its path in the model."""
        name = self.names.get(id(module), type(module).__name__)
        order = self.calls.get(part, 0)
        self.calls[part] = order + 1
        carried = getattr(module, "layer_idx", None)
        return (order if carried is None else int(carried)), name


def _listen(model: nn.Module, given: _Inputs) -> tuple[list[_Seen], Any]:
    """Run the model with its own attention under another name, and take statistics of what passes."""
    implementation = model_implementation(model)
    layers, seen = _Layers(model), list[_Seen]()
    with ExitStack() as stack:
        projections = stack.enter_context(projections_seen(model))
        stack.enter_context(layers.watched(model))

        def attend(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: Any) -> Any:
            with full_precision(query.device):
                call = AttentionCall.of_transformers(module, query, key, None, mask, **options)
                cross = layers.is_cross(module, query, key)
                causal = not cross and _sees_no_future(call)
                part = "cross" if cross else "decoder" if causal else "encoder"
                measured = MeasuredCall.of(call, given.excluded_keys(_side(part, "key", given), key))
                keys, rows = measured.statistics()
                batch, _, queries, _ = query.shape
                seen.append(
                    _Seen(
                        part,
                        *layers.number(module, part),
                        given.kept(_side(part, "query", given), batch, queries, query.device),
                        keys,
                        rows,
                        measured.norm_bound(),
                        measured.weight_bound(projections.pop(id(module), None)),
                        critical_beta(measured.last_logits(SAMPLE)),
                    )
                )
            return model_attention(module, implementation)(module, query, key, value, mask, **options)

        stack.enter_context(attention_replaced(model, attend, implementation))
        output = _run(model, given)
    if not seen:
        raise ArgumentError(
            "model", "one that routes its attention through transformers' registry", type(model).__name__
        )
    return seen, output


def _side(part: str, of: str, given: _Inputs) -> str:
    """Whose sequence the queries or keys of an attention are. An encoder alone reads what would be the decoder's."""
    return "encoder" if given.both and (part == "encoder" or (part == "cross" and of == "key")) else "decoder"


def _with_normaliser(
    model: nn.Module, name: str, normaliser: Normaliser, given: _Inputs, parts: Sequence[str]
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
            excluded = given.excluded_keys(_side(parts[len(entropies)], "key", given), key)
            weights = MeasuredCall.of(call, excluded).last_weights(SAMPLE, normaliser)
        entropies.append(torch.special.entr(weights).sum(-1))
        return attention(module, query, key, value, mask, **options)

    try:
        with attention_replaced(model, attend, REMEDY):
            return _run(model, given), entropies
    finally:
        unregister(REMEDY)


def _sees_no_future(call: AttentionCall) -> bool:
    """Whether no query of a self-attention sees a key after it."""
    if call.causal:
        return True
    if call.mask is None:
        return False
    key = torch.arange(call.keys, device=call.mask.device)
    for start in range(0, call.queries, ROWS):  # a mask may be large, and needs no copies of itself
        mask = block(call, start, min(call.queries, start + ROWS), 0, call.keys).mask
        assert mask is not None
        ahead = key > torch.arange(start, min(call.queries, start + ROWS), device=key.device)[:, None]
        if bool((ahead & ~hidden_by(mask)).any()):
            return False
    return True


def _loss_of(seen: list[_Seen], given: _Inputs) -> Callable[[Any], float]:
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
