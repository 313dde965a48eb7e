"""From estimates to plain sentences. A word such as "over-weights" stands only where Holm's correction allows it, the
interval excludes the ideal value on calibrated log-odds, and the difference is not negligible.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from holdfast.confidence.choices import ChoiceModel
from holdfast.confidence.intervals import LEVEL, Estimate, holm

NEGLIGIBLE = 0.01
"""Log-odds (or weights) this close to ideal are never called a bias: they move no probability by more than .0025."""

IDEAL = {"choice_bias": 0.0, "ownership_bias": 0.0, "weight_opposite": 1.0, "weight_same": 1.0, "ratio": 1.0}
"""The family of comparisons with an ideal observer."""


@dataclass(frozen=True)
class Verdict:
    """A comparison with an ideal observer.

    Arguments:
        name: of the estimate.
        flag: what it is called: `clings`, `backs_away`, `own_answer`, `others_answer`, `over_weights_opposite`,
            `under_weights_opposite`, `goes_against_opposite`, `over_weights_same`, `under_weights_same`,
            `goes_against_same`, `asymmetric`; empty: nothing was found.
        sentence: the same in plain words.
        value: of the estimate; NaN: it is not known.
        p_adjusted: after Holm's correction; NaN: it could not be judged.
    """

    name: str
    flag: str
    sentence: str
    value: float
    p_adjusted: float


def judge(estimates: Mapping[str, Estimate], p_values: Mapping[str, float]) -> tuple[Verdict, ...]:
    """Verdicts on all five comparisons.

    Arguments:
        estimates: by the names of `IDEAL`; weights on calibrated log-odds.
        p_values: by the same names; NaN where a comparison cannot be made.
    """
    usable = {name: p_values[name] if estimates[name].known else math.nan for name in IDEAL}
    adjusted = holm(usable)
    verdicts = []
    for name, ideal in IDEAL.items():
        entry = estimates[name]
        departs = adjusted[name] < LEVEL and entry.excludes(ideal) and abs(entry.value - ideal) > NEGLIGIBLE
        flag = _flag(name, entry) if departs else ""
        verdicts.append(Verdict(name, flag, _sentence(name, flag, entry), entry.value, adjusted[name]))
    return tuple(verdicts)


def wald_p_values(model: ChoiceModel) -> tuple[dict[str, Estimate], dict[str, float]]:
    """What a model of bare choices says on the comparisons that it can make: its weights have no absolute unit."""
    unit = Estimate(math.nan, math.nan, math.nan, "bare choices have no unit of log-odds")
    bias = model.coefficients.get("choice_bias", unit)
    estimates = {
        "choice_bias": bias,
        "ownership_bias": model.ownership_bias,
        "weight_opposite": unit,
        "weight_same": unit,
        "ratio": model.ratio,
    }
    p_values = dict.fromkeys(IDEAL, math.nan)
    for name in ("choice_bias", "ownership_bias"):
        p_values[name] = _normal_p(estimates[name].value, estimates[name].low, estimates[name].high)
    if model.ratio.known:
        p_values["ratio"] = _normal_p(*(math.log(x) for x in (model.ratio.value, model.ratio.low, model.ratio.high)))
    return estimates, p_values


def summary(verdicts: tuple[Verdict, ...], refusal: str, questions: int) -> str:
    """One plain sentence: what is wrong, how much, and what to try.

    Arguments:
        verdicts: from `judge`.
        refusal: why nothing was estimated; empty: something was.
        questions: how many the estimates come from.
    """
    if refusal:
        return f"Nothing can be said: {refusal}."
    flagged = [verdict for verdict in verdicts if verdict.flag]
    unjudged = [verdict.name for verdict in verdicts if math.isnan(verdict.p_adjusted)]
    if not flagged:
        if len(unjudged) == len(verdicts):
            return "Nothing can be said: no comparison with an ideal observer could be made."
        text = f"No departure from an ideal Bayesian observer was found in {questions} questions"
        left = f" ({', '.join(_WORDS[name] for name in unjudged)} could not be judged)" if unjudged else ""
        return f"{text}{left}."
    parts = [_SUMMARY[verdict.flag].format(verdict.value) for verdict in flagged]
    said = parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])}, and {parts[-1]}"
    remedies = list(dict.fromkeys(remedy for verdict in flagged if (remedy := _remedy(verdict.flag))))
    return f"The model {said}{'; try ' + ' and '.join(remedies) if remedies else ''}."


_FLAGS = {
    "choice_bias": ("clings", "backs_away"),
    "ownership_bias": ("own_answer", "others_answer"),
    "weight_opposite": ("over_weights_opposite", "under_weights_opposite"),
    "weight_same": ("over_weights_same", "under_weights_same"),
    "ratio": ("asymmetric", "asymmetric"),
}
"""Above and below the ideal value."""


def _flag(name: str, entry: Estimate) -> str:
    if name.startswith("weight") and entry.high < 0:
        return name.replace("weight", "goes_against")
    return _FLAGS[name][entry.value < IDEAL[name]]


_WORDS = {
    "choice_bias": "choice bias",
    "ownership_bias": "ownership",
    "weight_opposite": "the weight of contradiction",
    "weight_same": "the weight of agreement",
    "ratio": "their ratio",
}

_SUMMARY = {
    "clings": "clings to its own earlier answer ({:+.2f} log-odds)",
    "backs_away": "backs away from its own earlier answer ({:+.2f} log-odds)",
    "own_answer": "trusts an answer more for being its own ({:+.2f})",
    "others_answer": "trusts an answer more for being another model's ({:+.2f})",
    "over_weights_opposite": "over-weights contradicting advice ({:.2f} times its worth)",
    "under_weights_opposite": "under-weights contradicting advice ({:.2f} times its worth)",
    "over_weights_same": "over-weights agreeing advice ({:.2f} times its worth)",
    "under_weights_same": "under-weights agreeing advice ({:.2f} times its worth)",
    "goes_against_opposite": "stays all the more when contradicted ({:.2f} times what the advice is worth)",
    "goes_against_same": "is put off by agreement ({:.2f} times what the advice is worth)",
    "asymmetric": "weighs contradicting advice {:.2f} times as much as agreeing advice",
}
"""With the value of the estimate in braces."""

_HIDE, _FUSE = "hiding the earlier answer (mask_own_answer)", "weighing advice outside of the model (fuse)"


def _remedy(flag: str) -> str:
    """What to try; knowing whose answer counts is no failure in itself."""
    return {"clings": _HIDE, "backs_away": _HIDE, "own_answer": "", "others_answer": ""}.get(flag, _FUSE)


def _sentence(name: str, flag: str, entry: Estimate) -> str:
    """A verdict in words, with the number."""
    if not entry.known:
        return f"{_WORDS[name].capitalize()}: no verdict ({entry.reason or 'not in this design'})."
    form = "+.2f" if IDEAL[name] == 0 else ".2f"
    number, limits = f"{entry.value:{form}}", f"95 % interval {entry.low:{form}} to {entry.high:{form}}"
    if not flag:
        clear = entry.excludes(IDEAL[name]) and abs(entry.value - IDEAL[name]) > NEGLIGIBLE
        why = "; too weak for one of five comparisons" if clear else ""
        return f"{_WORDS[name].capitalize()}: no departure from {IDEAL[name]:.0f} was found ({number}, {limits}{why})."
    return {
        "clings": f"It clings to its own earlier answer: showing it adds {number} log-odds ({limits}).",
        "backs_away": f"It backs away from its own earlier answer: showing it adds {number} log-odds ({limits}).",
        "own_answer": f"It matters that the answer is its own: that adds {number} log-odds ({limits}).",
        "others_answer": f"It trusts another model's answer more than its own: {number} log-odds ({limits}).",
        "over_weights_opposite": f"It over-weights contradicting advice: {number} times its worth ({limits}).",
        "under_weights_opposite": f"It under-weights contradicting advice: {number} times its worth ({limits}).",
        "goes_against_opposite": f"It goes against contradicting advice: {number} times its worth ({limits}).",
        "over_weights_same": f"It over-weights agreeing advice: {number} times its worth ({limits}).",
        "under_weights_same": f"It under-weights agreeing advice: {number} times its worth ({limits}).",
        "goes_against_same": f"It goes against agreeing advice: {number} times its worth ({limits}).",
        "asymmetric": f"Contradiction weighs {number} times as much as agreement ({limits}).",
    }[flag]


def _normal_p(value: float, low: float, high: float) -> float:
    """Two-sided p-value against 0, from a symmetric 95 % interval."""
    return math.nan if math.isnan(value) else math.erfc(abs(value) * 3.92 / ((high - low) * math.sqrt(2)))
