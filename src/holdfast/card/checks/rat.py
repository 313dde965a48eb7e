"""What a longer context costs a causal language model."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from holdfast.card.checks.check import Check, picture
from holdfast.card.finding import Finding, Measure, Outcome, Remedy
from holdfast.card.settings import CheckSettings
from holdfast.card.target import Kind, Target

if TYPE_CHECKING:
    from holdfast.probes.rat import CacheGrowth, DecodeLatency

NAME = "rat"
QUESTION = "Does each token cost more as texts get longer?"
TEXTS = 4
LENGTH = 256
"""Tokens at which the cache is counted: bytes are exact, and so few say it all."""
TIMED = (256, 512, 1024, 2048)
"""Tokens up to which steps are timed, as there is time for: over few of them no step is seen to take longer."""
ROUNDS = (21, 14, 7)
"""Steps at each length, likewise; the fewest have a wide interval."""
USED = 0.6
"""Share of its time that the probe plans with."""
AT = 131_072
"""Tokens of a long text: what is asked is whether the cache outweighs the model before that."""


def unfit(target: Target, settings: CheckSettings) -> str:
    """Causal language models."""
    from holdfast.card.transformers_model import is_causal

    if target.kind is not Kind.MODEL:
        return "it is no language model"
    return "" if is_causal(target.subject) else "it does not write text token by token"


def probe(target: Target, settings: CheckSettings, seconds: float) -> Finding:
    """Count the bytes of the cache of one text; with seconds left, time the next token after short and long ones."""
    from holdfast.card.transformers_model import inputs_for
    from holdfast.probes.rat import RATReport, cache_growth

    started = time.monotonic()
    inputs, _ = inputs_for(target.subject, target.parts.get("place"), settings.text, TEXTS, LENGTH)
    begun = time.monotonic()
    cache = cache_growth(target.subject, inputs["input_ids"])
    prefills = time.monotonic() - begun
    latency = _timed(target, settings, prefills, USED * seconds - (time.monotonic() - started))
    report = RATReport(cache=cache, latency=latency)
    fails = bool(cache.growing) and cache.outweighs <= AT
    timed = "no step was timed, for want of time"
    if latency is not None:
        timed = f"steps timed on this machine, median of {latency.rounds} after each of {len(latency.lengths)} lengths"
    return Finding(
        NAME,
        QUESTION,
        Outcome.FAILS if fails else Outcome.HOLDS,
        f"{_memory(cache)} {_time(latency)}".rstrip(),
        f"bytes of the cache, counted at {len(cache.lengths)} lengths up to {cache.lengths[-1]} tokens; a failure is a "
        f"cache that outweighs the model within {AT:,} tokens; {timed}",
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


def _timed(target: Target, settings: CheckSettings, prefills: float, left: float) -> DecodeLatency | None:
    """Time steps after texts as long as there is time for.

    Arguments:
        target: the model.
        settings: of the check.
        prefills: seconds that it took to read four texts, the longest of `LENGTH` tokens.
        left: seconds.
    """
    from holdfast.card.transformers_model import inputs_for
    from holdfast.errors import ArgumentError
    from holdfast.probes.load_model import fitting_length
    from holdfast.probes.rat import decode_latency

    most = fitting_length(target.subject, None, TIMED[-1])[0]
    # No step takes longer than reading the shortest text does, which is a quarter of all four or less. Reading takes
    # time that grows with the square of the length at the worst.
    for length in reversed([length for length in TIMED if length <= most] or [most]):
        for rounds in ROUNDS:
            cost = prefills * (max(length / LENGTH, 1) ** 2 + rounds + 1)
            if cost <= left:
                inputs, _ = inputs_for(target.subject, target.parts.get("place"), settings.text, 1, length)
                try:
                    return decode_latency(target.subject, inputs["input_ids"], rounds=rounds)
                except ArgumentError:  # a table of positions that is too short for steps behind a text
                    return None
    return None


def _memory(cache: CacheGrowth) -> str:
    from holdfast.probes.rat.report import rounded
    from holdfast.probes.report import size

    if not cache.growing:
        return "What it remembers of a text stops growing: a long one takes no more memory than a short one."
    each = size(cache.per_token)
    if math.isinf(cache.outweighs):
        return f"Each further token takes {each} of memory, which never comes to as much as the model itself."
    return (
        f"Each further token takes {each} of memory: by calculation, from {rounded(cache.outweighs)} tokens on a text "
        "takes more than the model itself."
    )


def _time(latency: DecodeLatency | None) -> str:
    if latency is None:
        return ""
    first, last = latency.lengths[0], latency.lengths[-1]
    timed = (
        f"Timed on this machine, one more token took {latency.medians[0]:.3g} ms after {first:,} tokens and "
        f"{latency.medians[-1]:.3g} ms after {last:,}"
    )
    if latency.grows:
        return f"{timed}: it takes longer, the longer the text."
    return f"{timed}: no steady growth is seen up to there."


def _remedy(saving: float) -> Remedy:
    if not math.isfinite(saving) or saving <= 1:
        return Remedy("keep its narrow keys, and keep contexts short: RAT's states would be wider", page="systems/rat")
    code = """\
from holdfast.models.language import HoldfastConfig, HoldfastForCausalLM

config = HoldfastConfig(mixers=["rat", "window"] * 12, chunk_size=16)
model = HoldfastForCausalLM(config)  # before training: a trained model cannot be switched"""
    text = f"train the next one with RAT for attention: its memory of a text grows at {1 / saving:.0%} of the rate"
    return Remedy(text, code, "systems/rat")


CHECK = Check(NAME, QUESTION, 8.0, unfit, probe, "a long text takes more memory than the model")
