"""Whether a policy's steps of control take longer the longer an episode lasts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.card.checks.check import Check, picture
from holdfast.card.finding import Finding, Measure, Outcome, Remedy
from holdfast.card.settings import CheckSettings
from holdfast.card.target import Kind, Target

if TYPE_CHECKING:
    from holdfast.probes.action import StepTimes

NAME = "control-latency"
QUESTION = "Does each decision take longer as an episode goes on?"

CONSTANT = Remedy(
    "train it with a recurrent network, whose state is of one size however long the episode",
    "holdfast train action --data DEMONSTRATIONS --backbone xlstm --output policy",
    "systems/action",
)
QUIETER = Remedy("measure on a machine that does nothing else, or with a longer budget", page="systems/action")


def unfit(target: Target, settings: CheckSettings) -> str:
    """Only policies."""
    if target.kind is not Kind.POLICY:
        return "it is no policy"
    acting = hasattr(target.subject, "init_state") or "observation" in target.parts
    return "" if acting else "it is no action model, and needs an observation to act on"


def probe(target: Target, settings: CheckSettings, seconds: float) -> Finding:
    """Time a step after episodes of several lengths, in turn."""
    from holdfast.probes.action import probe_control_latency
    from holdfast.probes.action.latency_report import FLAT

    report = probe_control_latency(
        target.subject,
        observation=target.parts.get("observation"),
        # What is timed is a part of what it takes: states have to be laid into memory first.
        budget_s=seconds / 2,
        compare=False,
    )
    steps = report.policy[0]
    low, high = steps.growth_interval
    outcome = Outcome.NOT_TOLD
    if low > FLAT[1] and not steps.constant_state:
        outcome = Outcome.FAILS
    # What works on a state of one size does the same at each length: that noise does not hide.
    elif steps.flat or (steps.constant_state and low <= FLAT[1]):
        outcome = Outcome.HOLDS
    certainty = (
        f"{steps.rounds} steps at each of {len(steps.lengths)} lengths, in turn; after {steps.lengths[-1]:,} timesteps "
        f"a step takes {steps.growth:.2f} times what it takes after {steps.lengths[0]:,} (95 % {low:.2f} to {high:.2f})"
    )
    remedies = {Outcome.FAILS: CONSTANT, Outcome.NOT_TOLD: QUIETER}
    return Finding(
        NAME,
        QUESTION,
        outcome,
        report.verdict if steps.flat or outcome is not Outcome.HOLDS else _at_any_length(steps),
        certainty,
        remedies.get(outcome),
        _measures(steps),
        report.to_dict(),
        picture(report, NAME),
    )


def _at_any_length(steps: StepTimes) -> str:
    """What is said of a state of one size where noise is larger than a difference."""
    median = sorted(steps.medians)[len(steps.medians) // 2]
    return f"A step takes about {median:.3g} ms at any episode length: what it keeps of an episode stays of one size."


def _measures(steps: StepTimes) -> tuple[Measure, ...]:
    """What is kept of an episode; times are no figure of two checks that ran at different moments."""
    grows = steps.bytes_per_timestep
    if grows is None:
        return ()
    meaning = "bytes by which what is kept of an episode grows with each timestep"
    return (Measure("state growth", meaning, grows, better="lower"),)


CHECK = Check(NAME, QUESTION, 8.0, unfit, probe)
