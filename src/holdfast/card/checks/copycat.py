"""Whether a policy is led to copy its last action: by its demonstrations, if it sees what it did before."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from holdfast.card.checks.check import Check, picture
from holdfast.card.digest import digest_of_files
from holdfast.card.finding import Finding, Measure, Outcome, Remedy
from holdfast.card.settings import CheckSettings
from holdfast.card.target import Kind, Target

if TYPE_CHECKING:
    from holdfast.models.action.trajectories import Trajectories
    from holdfast.probes.action import CopycatReport

NAME = "copycat"
QUESTION = "Is it led to copy its last action instead of looking?"
OWN = "pendulum"
"""Of the tasks that the shipped policy has learnt, the one with actions that change least from step to step."""
OWN_EPISODES = 9
Z = 1.96

BLIND = Remedy(
    "train it again without past actions among what it sees",
    "holdfast train action --data DEMONSTRATIONS --output policy  # past actions are read only where asked for",
    "systems/action",
)
MORE = Remedy(
    "measure with more demonstrations, or train it without past actions among what it sees", page="systems/action"
)


def unfit(target: Target, settings: CheckSettings) -> str:
    """Only policies, with what they were trained on."""
    if target.kind is not Kind.POLICY:
        return "it is no policy"
    if settings.demonstrations is None and not _shipped(target):
        return "needs --demonstrations, the trajectories that it was trained on"
    return ""


def probe(target: Target, settings: CheckSettings, seconds: float) -> Finding:
    """Measure how much of the loss of imitation the last action alone explains."""
    from holdfast.probes.action import probe_copycat

    data = _demonstrations(target, settings)
    report = probe_copycat(data, seed=settings.seed)
    # Of a policy that is no action model it is not known what it sees.
    config = getattr(target.subject, "config", None)
    sees = getattr(config, "past_actions", None)
    outcome, sentence = _answer(report, sees)
    low, high = report.index_interval
    interval = "" if math.isnan(low) else f", 95 % interval {low:.0%} to {high:.0%}"
    certainty = (
        "two small networks that guess the next action, one with the last action and one without, on "
        f"{report.trajectories} demonstrations ({report.steps:,} steps) that they did not learn from{interval}"
    )
    remedies = {Outcome.FAILS: BLIND, Outcome.NOT_TOLD: MORE}
    return Finding(
        NAME,
        QUESTION,
        outcome,
        sentence,
        certainty,
        remedies.get(outcome),
        _measures(report),
        report.to_dict(),
        picture(
            report, NAME, "Guessing the teacher's next action", "what the guess sees", "error (nats), lower is better"
        ),
    )


def _answer(report: CopycatReport, sees: bool | None) -> tuple[Outcome, str]:
    """Led to it is who sees the last action and is helped by it."""
    saves = "" if math.isnan(report.index) else f"{report.index:.0%} of the error in guessing its teacher's next action"
    if sees is False:
        tempting = (
            f" That is as well: to know it would spare {saves}, and tempt it to look no further."
            if report.shortcut
            else ""
        )
        return Outcome.HOLDS, f"It is not led to copy, as it does not see its last action.{tempting}"
    if report.shortcut and sees:
        text = f"It is led to copy: it sees its last action, and knowing that alone spares {saves}, without a look"
        return Outcome.FAILS, f"{text} at what has changed."
    if report.shortcut:
        text = f"Its demonstrations lead to copying: knowing the last action spares {saves}"
        return Outcome.NOT_TOLD, f"{text}; whether it sees that is not known."
    if math.isnan(report.index) or report.no_news or report.index_interval[1] <= 0:
        return Outcome.HOLDS, "It is not led to copy: its last action helps little or nothing in guessing the next one."
    return (
        Outcome.NOT_TOLD,
        f"These demonstrations do not tell whether it is led to copy: knowing the last action spares about {saves}.",
    )


def _measures(report: CopycatReport) -> tuple[Measure, ...]:
    low, high = report.index_interval
    if math.isnan(report.index) or math.isnan(low):
        return ()
    meaning = "share of the error in guessing the teacher's next action that knowing the last one spares"
    return (Measure("copycat index", meaning, report.index, (high - low) / (2 * Z), better="lower"),)


def _shipped(target: Target) -> bool:
    from holdfast.models.action.checkpoint import SHIPPED

    return target.identity == digest_of_files([SHIPPED])


def _demonstrations(target: Target, settings: CheckSettings) -> Trajectories:
    """Those given, or episodes of an expert that the shipped policy learnt from."""
    from holdfast.models.action.trajectories import read_trajectories
    from holdfast.rl.classic_control import TASKS

    if settings.demonstrations is None:
        return TASKS[OWN].trajectories(OWN_EPISODES, seed=settings.seed)
    return read_trajectories(settings.demonstrations, "demonstrations")


CHECK = Check(NAME, QUESTION, 10.0, unfit, probe, "it copies its last action")
