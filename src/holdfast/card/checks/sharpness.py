"""Whether the attention of a transformers model spreads over everything it sees."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from holdfast.card.checks.check import Check, picture
from holdfast.card.finding import Finding, Measure, Outcome, Remedy
from holdfast.card.settings import CheckSettings
from holdfast.card.target import Kind, Target

if TYPE_CHECKING:
    from holdfast.probes.sharpness.model_report import ModelSharpnessReport

NAME = "sharpness"
QUESTION = "Does its attention spread too thin as inputs grow?"
ROWS = (2, 4, 6, 8, 12, 16)
"""Inputs that are read, as many as there is time for; few numbers, so that two cards mostly have the same."""
LENGTH = 256
SHORTER, LONGER = (64, 128), (512, 1024, 2048)
"""Lengths beside: the shorter ones always, the longer ones as there is time for, up to what the model was made for."""
BESIDE = 2
"""Inputs that are read at each of those."""
SHARE = 1 / 3
"""Of the heads, from which on attention counts as dispersed: some heads are meant to average."""
USED = 0.6
"""Share of its time that the probe plans with."""
LOGITS = 2**28
"""Numbers that a model's output may have, for all inputs together."""


@dataclass(frozen=True)
class Span:
    """How far the heads of a model spread on inputs of one length.

    Arguments:
        seen: keys that a row sees, on average.
        entropy: of a row, in nats, on average over heads.
    """

    seen: float
    entropy: float

    @classmethod
    def of(cls, report: ModelSharpnessReport) -> Span:
        """The mean over heads of a report; NaN where no head is known."""
        known = [head for head in report.heads if math.isfinite(head.entropy)]
        if not known:
            return cls(math.nan, math.nan)
        return cls(statistics.mean(head.keys for head in known), statistics.mean(head.entropy for head in known))


def unfit(target: Target, settings: CheckSettings) -> str:
    """Transformers models that ask for their attention by name."""
    from holdfast.errors import ArgumentError
    from holdfast.probes.replaced_attention import model_implementation

    if target.kind is not Kind.MODEL:
        return "it is no transformers model"
    if not any("attention" in type(module).__name__.lower() for module in target.subject.modules()):
        return "it has no attention"
    try:
        if model_implementation(target.subject) and target.subject.config.model_type != "holdfast":
            return ""
    except ArgumentError:
        pass
    return "its attention cannot be listened to, as it does not ask transformers for it"


def probe(target: Target, settings: CheckSettings, seconds: float) -> Finding:
    """Measure every head on some inputs together, on each alone for the noise, and at other lengths for the growth."""
    from holdfast.card.transformers_model import inputs_for
    from holdfast.probes.sharpness import probe_model_sharpness
    from holdfast.probes.sharpness.verdict import DISPERSED, GROWING

    started = time.monotonic()
    model, place = target.subject, target.parts.get("place")
    first, _ = inputs_for(model, place, settings.text, 1, LENGTH)
    probe_model_sharpness(model, inputs=first)  # the first run of all takes longer than those after it
    begun = time.monotonic()
    probe_model_sharpness(model, inputs=first)
    one, left = time.monotonic() - begun, USED * seconds - (time.monotonic() - started)
    wanted = _rows(model, one, left)
    inputs, read = inputs_for(model, place, settings.text, wanted, LENGTH)
    report = probe_model_sharpness(model, inputs=inputs)
    rows = range(len(next(iter(inputs.values()))))
    alone = [_mean(probe_model_sharpness(model, inputs=_part(inputs, row))) for row in rows]
    left = USED * seconds - (time.monotonic() - started)
    spans = _at_lengths(target, settings, report, inputs, one, left)
    known = [head for head in report.heads if not math.isnan(head.entropy_share)]
    spread = [head for head in known if head.entropy_share > DISPERSED]
    growing = [head for head in known if head.slope > GROWING]
    slope, unit = _slope(spans), "tokens" if "input_ids" in inputs else "places"
    outcome = Outcome.NOT_TOLD
    if known and len(spread) >= SHARE * len(known):
        outcome = Outcome.FAILS
    elif known and not spread and not growing and not slope > GROWING:
        outcome = Outcome.HOLDS
    error = statistics.stdev(alone) / math.sqrt(len(alone)) if len(alone) > 1 else 0.0
    measure = Measure(
        "attention entropy",
        "mean over heads of H / ln n: 0 where one place has all attention, 1 where all have the same",
        statistics.mean(alone) if alone else math.nan,
        error,
        max(len(alone) - 1, 1),
        better="lower",
        units=read,
        values=tuple(alone),
    )
    return Finding(
        NAME,
        QUESTION,
        outcome,
        _sentence(report, outcome, len(spread), spans, unit),
        f"{read}, {len(known)} heads; their mean entropy is {measure.value:.2f} ± {1.96 * error:.2f} "
        "of that of even attention"
        + (f"; {len(spans)} lengths from {min(spans)} to {max(spans)}" if len(spans) > 1 else ""),
        _remedy(target) if outcome is not Outcome.HOLDS else None,
        (measure,) if known else (),
        {**report.to_dict(), "lengths": {str(length): asdict(span) for length, span in spans.items()}},
        picture(report, NAME),
    )


def _rows(model: Any, one: float, left: float) -> int:
    """How many inputs there is time and room for; each is read twice, alone and with the others."""
    vocabulary = int(getattr(model.config.get_text_config(), "vocab_size", 1) or 1)
    room = LOGITS // (LENGTH * vocabulary)
    return max((rows for rows in ROWS if 2 * rows * one <= left / 2 and rows <= room), default=ROWS[0])


def _at_lengths(
    target: Target,
    settings: CheckSettings,
    report: ModelSharpnessReport,
    inputs: Mapping[str, Any],
    one: float,
    left: float,
) -> dict[int, Span]:
    """How far heads spread, by the length of the input; nothing for a model of images, which have one size.

    Arguments:
        target: the model.
        settings: of the check.
        report: at the length of `inputs`.
        inputs: of the model.
        one: seconds that one input takes.
        left: seconds.
    """
    from holdfast.card.transformers_model import inputs_for
    from holdfast.probes.load_model import fitting_length
    from holdfast.probes.sharpness import probe_model_sharpness

    if "input_ids" not in inputs:
        return {}
    tokens = inputs["input_ids"][:BESIDE]
    spans = {
        length: Span.of(probe_model_sharpness(target.subject, inputs={"input_ids": tokens[:, :length]}))
        for length in SHORTER
        if length < tokens.shape[1]
    }
    spans[tokens.shape[1]] = Span.of(report)
    most = fitting_length(target.subject, None, LONGER[-1])[0]
    for length in (length for length in LONGER if tokens.shape[1] < length <= most):
        cost = BESIDE * one * (length / tokens.shape[1]) ** 2
        if cost > left:
            break
        longer, _ = inputs_for(target.subject, target.parts.get("place"), settings.text, BESIDE, length)
        if longer["input_ids"].shape[1] < length:
            break
        spans[length] = Span.of(probe_model_sharpness(target.subject, inputs=longer))
        left -= cost
    return {length: span for length, span in spans.items() if math.isfinite(span.entropy)}


def _slope(spans: Mapping[int, Span]) -> float:
    """d H / d ln n over lengths; NaN: there are not two of them."""
    if len(spans) < 2:
        return math.nan
    seen, entropies = [math.log(span.seen) for span in spans.values()], [span.entropy for span in spans.values()]
    return statistics.linear_regression(seen, entropies).slope


def _sentence(report: ModelSharpnessReport, outcome: Outcome, spread: int, spans: Mapping[int, Span], unit: str) -> str:
    """The answer for somebody who has read nothing on it.

    Arguments:
        report: at one length.
        outcome: the answer in a word.
        spread: heads that look at almost everything alike.
        spans: by length.
        unit: what is counted of an input.
    """
    known = sum(not math.isnan(head.entropy_share) for head in report.heads)
    if not known:
        return report.verdict
    opening = {
        Outcome.FAILS: "It is spread thin",
        Outcome.HOLDS: "It keeps its focus",
        Outcome.NOT_TOLD: "Some of it is spread thin" if spread else "It is not spread thin yet",
    }[outcome]
    text = [f"{opening} at {report.length} {unit}: {spread} of {known} heads look at almost everything alike."]
    if len(spans) > 1:
        low, high = min(spans), max(spans)
        few, many = (math.exp(spans[length].entropy) for length in (low, high))
        text.append(
            f"Reading {low} {unit}, a head spreads over {few:.3g} of them on average; reading {high:,}, which is "
            f"{high / low:.3g} times as many, over {many:.3g}, which is {many / few:.3g} times as many."
        )
    if outcome is Outcome.NOT_TOLD:
        text.append(
            "Some heads are meant to average: whether it does harm, its loss with and without the remedy tells."
        )
    broken = sum(head.nan_rows for head in report.heads)
    if broken:
        text.append(f"{broken} rows of its attention are no numbers, and were left out.")
    return " ".join(text)


def _part(inputs: Mapping[str, Any], row: int) -> dict[str, Any]:
    return {key: value[row : row + 1] for key, value in inputs.items()}


def _mean(report: ModelSharpnessReport) -> float:
    shares = [head.entropy_share for head in report.heads if not math.isnan(head.entropy_share)]
    return statistics.mean(shares) if shares else math.nan


def _remedy(target: Target) -> Remedy:
    place, kind = target.parts.get("place", "your/model"), type(target.subject).__name__
    code = f"""\
from transformers import {kind}

from holdfast.nn.huggingface import register

model = {kind}.from_pretrained({place!r}, attn_implementation=register())  # compare its loss with and without"""
    return Remedy("let attention sharpen itself as its input grows, without training", code, "systems/sharpness")


CHECK = Check(NAME, QUESTION, 6.0, unfit, probe, "its attention spreads too thin")
