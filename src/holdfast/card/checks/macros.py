"""Whether an agent's actions overload it: how many different ones its logged Q values know."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from holdfast.card.checks.check import Check, picture
from holdfast.card.finding import Finding, Measure, Outcome, Remedy
from holdfast.card.settings import CheckSettings
from holdfast.card.target import Kind, Target, read_values

if TYPE_CHECKING:
    from holdfast.probes.macros import MacrosReport

NAME = "macros"
QUESTION = "Does it have more actions than it knows apart?"
RESAMPLES, FEWEST = 100, 20
Z = 1.96
MOST, LEAST = 5000, 200
"""States that are looked at."""
A_PAIR = 1e-7
"""Seconds that two actions in a state take in a resample."""
USED = 0.6
"""Share of its time that the probe plans with."""

OUTCOMES = {"overloading": Outcome.FAILS, "not overloading": Outcome.HOLDS}
"""Of what the probe finds; all else decides nothing."""

SHARE = Remedy(
    "let actions with the same values share credit, or take fewer of them, and compare with primitive actions alone",
    """\
from pathlib import Path

from holdfast.probes.macros import probe_macros, {reader}, similarity_of
from holdfast.rl import masp_penalty

similarity = similarity_of(probe_macros({reader}(Path("{place}")))).matrix()
loss = loss + 0.1 * masp_penalty(q, similarity)  # q: values of all actions in a batch of states""",
    "systems/macros",
)


def unfit(target: Target, settings: CheckSettings) -> str:
    """Only logged values."""
    return "" if target.kind is Kind.VALUES else "it is no log of Q values"


def probe(target: Target, settings: CheckSettings, seconds: float) -> Finding:
    """Group the actions by their values."""
    from holdfast.probes.macros import MacrosSettings, probe_macros

    second = None if settings.second is None else read_values(settings.second)
    rows, actions = target.subject.q.shape
    pairs = USED * seconds / A_PAIR / (1 if second is None else 2)
    states = int(min(rows, MOST, max(LEAST, pairs / FEWEST / actions**2)))
    # Never so few that an interval means nothing.
    resamples = int(max(FEWEST, min(RESAMPLES, pairs / states / actions**2)))
    report = probe_macros(
        target.subject,
        second=second,
        settings=MacrosSettings(resamples=resamples, states=max(states, LEAST), seed=settings.seed, progress=False),
    )
    outcome = OUTCOMES.get(report.finding, Outcome.NOT_TOLD)
    unit = "episodes" if report.episodes else "states, taken for independent"
    low, high = report.interval
    certainty = (
        f"{report.states} states; {report.units} {unit}, resampled {resamples} times: {low} to {high} groups (95 %)"
    )
    if second is not None:
        certainty += f"; judged by the values of another agent, {settings.second.name if settings.second else ''}"
    # Values that decide nothing are no figure to compare agents by.
    told = report.finding not in ("untried",)
    return Finding(
        NAME,
        QUESTION,
        outcome,
        # What to try is the remedy's to say.
        f"{report.verdict.partition(': let them share credit')[0].rstrip('.')}.",
        certainty,
        _remedy(target, report),
        (_measure(report),) if told else (),
        report.to_dict(),
        picture(report, NAME),
    )


def _measure(report: MacrosReport) -> Measure:
    """The effective number as a share of the actions; an interval of no width still leaves out or in one group."""
    n = len(report.macros)
    low, high = report.effective_interval
    group = 1 - 1 / (1 + report.strength)
    return Measure(
        "different actions",
        "effective number of actions that the values tell apart, as a share of all",
        report.effective / n,
        max((high - low) / (2 * Z), group) / n,
        better="higher",
        degrees=math.inf,
    )


def _remedy(target: Target, report: MacrosReport) -> Remedy | None:
    if report.finding == "not overloading":
        return None
    if report.finding == "overloading":
        place = target.name if target.name.endswith((".csv", ".npz")) else "log.npz"
        reader = "read_csv" if place.endswith(".csv") else "read_npz"
        return Remedy(SHARE.text, SHARE.code.format(reader=reader, place=place), SHARE.page)
    if report.finding == "one agent":
        text = "log a second agent's values in the same states, trained alike with another seed, and judge by those"
        return Remedy(text, f"holdfast check {target.name} --second SECOND", SHARE.page)
    return Remedy("log more of its play, and let it explore more", page=SHARE.page)


CHECK = Check(NAME, QUESTION, 6.0, unfit, probe, "it has more actions than it knows apart")
