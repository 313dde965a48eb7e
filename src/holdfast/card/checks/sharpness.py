"""Whether the attention of a transformers model spreads over everything it sees."""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING

from holdfast.card.checks.check import Check, picture
from holdfast.card.finding import Finding, Measure, Outcome, Remedy
from holdfast.card.settings import CheckSettings
from holdfast.card.target import Kind, Target

if TYPE_CHECKING:
    from holdfast.probes.sharpness.model_report import ModelSharpnessReport

NAME = "sharpness"
QUESTION = "Does its attention spread too thin as inputs grow?"
ROWS = 6
LENGTH = 256
SHARE = 1 / 3
"""Of the heads, from which on attention counts as dispersed: some heads are meant to average."""


def unfit(target: Target, settings: CheckSettings) -> str:
    """Transformers models that ask for their attention by name."""
    from holdfast.errors import ArgumentError
    from holdfast.probes.replaced_attention import model_implementation

    if target.kind is not Kind.MODEL:
        return "it is no transformers model"
    try:
        if model_implementation(target.subject) and target.subject.config.model_type != "holdfast":
            return ""
    except ArgumentError:
        pass
    return "its attention cannot be listened to, as it does not ask transformers for it"


def probe(target: Target, settings: CheckSettings, seconds: float) -> Finding:
    """Measure every head on some inputs together, and on each alone for the noise."""
    from holdfast.card.transformers_model import inputs_for
    from holdfast.probes.sharpness import probe_model_sharpness
    from holdfast.probes.sharpness.verdict import DISPERSED, GROWING

    model = target.subject
    inputs, read = inputs_for(model, target.parts.get("place"), settings.text, ROWS, LENGTH)
    report = probe_model_sharpness(model, inputs=inputs)
    rows = range(len(next(iter(inputs.values()))))
    alone = [
        _mean(probe_model_sharpness(model, inputs={key: value[row : row + 1] for key, value in inputs.items()}))
        for row in rows
    ]
    known = [head for head in report.heads if not math.isnan(head.entropy_share)]
    spread = [head for head in known if head.entropy_share > DISPERSED]
    growing = [head for head in known if head.slope > GROWING]
    outcome = Outcome.NOT_TOLD
    if known and len(spread) >= SHARE * len(known):
        outcome = Outcome.FAILS
    elif known and not spread and not growing:
        outcome = Outcome.HOLDS
    error = statistics.stdev(alone) / math.sqrt(len(alone)) if len(alone) > 1 else 0.0
    measure = Measure(
        "attention entropy",
        "mean over heads of H / ln n: 0 for one key, 1 for all alike",
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
        report.verdict,
        f"{read}, {len(known)} heads; their mean H / ln n is {measure.value:.2f} ± {1.96 * error:.2f}",
        _remedy(target) if outcome is not Outcome.HOLDS else None,
        (measure,) if known else (),
        report.to_dict(),
        picture(report, NAME),
    )


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


CHECK = Check(NAME, QUESTION, 6.0, unfit, probe)
