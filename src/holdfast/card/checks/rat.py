"""What a longer context costs a causal language model."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from holdfast.card.checks.check import Check, picture
from holdfast.card.finding import Finding, Measure, Outcome, Remedy
from holdfast.card.settings import CheckSettings
from holdfast.card.target import Kind, Target

if TYPE_CHECKING:
    from holdfast.probes.rat import CacheGrowth

NAME = "rat"
QUESTION = "Does each token cost more as texts get longer?"
TEXTS = 4
LENGTH = 256
AT = 131_072
"""Tokens of a long text: what is asked is whether the cache outweighs the model before that."""


def unfit(target: Target, settings: CheckSettings) -> str:
    """Causal language models."""
    from holdfast.card.transformers_model import is_causal

    if target.kind is not Kind.MODEL:
        return "it is no language model"
    return "" if is_causal(target.subject) else "it does not write text token by token"


def probe(target: Target, settings: CheckSettings, seconds: float) -> Finding:
    """Measure the cache of one sequence and the time of its next token."""
    from holdfast.card.transformers_model import inputs_for
    from holdfast.probes.rat import probe_rat

    inputs, read = inputs_for(target.subject, target.parts.get("place"), settings.text, TEXTS, LENGTH)
    report = probe_rat(target.subject, inputs["input_ids"], parts=("cache",))
    cache = report.cache
    if cache is None:
        return Finding(NAME, QUESTION, Outcome.NOT_TOLD, report.verdict, read, report=report.to_dict())
    grows = bool(cache.growing)
    fails = grows and cache.outweighs <= AT
    return Finding(
        NAME,
        QUESTION,
        Outcome.FAILS if fails else Outcome.HOLDS,
        _sentence(cache),
        f"bytes of the cache, counted at {len(cache.lengths)} lengths up to {cache.lengths[-1]} tokens; a failure is a "
        f"cache that outweighs the model within {AT:,} tokens; times are medians on this machine",
        _remedy(cache.saving) if fails else None,
        (
            Measure(
                "cache per token",
                "bytes that one more token adds to the cache of a sequence",
                cache.per_token,
                better="lower",
            ),
        ),
        report.to_dict(),
        picture(report, NAME),
    )


def _sentence(cache: CacheGrowth) -> str:
    from holdfast.probes.rat.report import rounded
    from holdfast.probes.report import size

    if not cache.growing:
        return "What it remembers of a text stops growing: a long one takes no more memory than a short one."
    each = size(cache.per_token)
    if math.isinf(cache.outweighs):
        return f"Each further token takes {each} of memory, which never comes to as much as the model itself."
    return (
        f"Each further token takes {each} of memory: computed from that, a text of {rounded(cache.outweighs)} tokens "
        "takes as much as the model itself."
    )


def _remedy(saving: float) -> Remedy:
    if not math.isfinite(saving) or saving <= 1:
        return Remedy("keep its narrow keys, and keep contexts short: RAT's states would be wider", page="systems/rat")
    code = """\
from holdfast.models.language import HoldfastConfig, HoldfastForCausalLM

config = HoldfastConfig(mixers=["rat", "window"] * 12, chunk_size=16)
model = HoldfastForCausalLM(config)  # before training: a trained model cannot be switched"""
    text = f"train the next one with RAT in the place of attention, whose cache grows {saving:.3g} times more slowly"
    return Remedy(text, code, "systems/rat")


CHECK = Check(NAME, QUESTION, 8.0, unfit, probe)
