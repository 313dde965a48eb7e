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
    "train it with a recurrent network, which keeps as little of a long episode as of a short one",
    "holdfast train action --data DEMONSTRATIONS --backbone xlstm --output policy",
    "systems/action",
)
QUIETER = Remedy("measure on a machine that does nothing else, or with a longer --budget", page="systems/action")


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
        f"{steps.rounds} decisions timed after each of {len(steps.lengths)} lengths of an episode; after "
        f"{steps.lengths[-1]:,} timesteps one takes {steps.growth:.2f} times what it takes after {steps.lengths[0]:,} "
        f"(95 % interval {low:.2f} to {high:.2f})"
    )
    remedies = {Outcome.FAILS: CONSTANT, Outcome.NOT_TOLD: QUIETER}
    return Finding(
        NAME,
        QUESTION,
        outcome,
        _sentence(steps, outcome),
        certainty,
        remedies.get(outcome),
        _measures(steps),
        report.to_dict(),
        picture(
            report,
            NAME,
            "Time of a decision (bar: up to the slowest 1 %)",
            "timesteps since the episode began",
            "milliseconds",
        ),
    )


def _sentence(steps: StepTimes, outcome: Outcome) -> str:
    """What a decision takes, and whether that grows; of a state of one size also where noise hides a difference."""
    median = sorted(steps.medians)[len(steps.medians) // 2]
    last = f"{steps.lengths[-1]:,} timesteps"
    if outcome is Outcome.HOLDS and not steps.flat:
        return (
            f"A decision takes about {median:.3g} ms however long the episode: what it keeps of an episode stays "
            "of one size."
        )
    if outcome is Outcome.HOLDS:
        return f"A decision takes {median:.3g} ms however long the episode, up to {last}."
    first, final = steps.medians[0], steps.medians[-1]
    if outcome is Outcome.FAILS:
        return f"A decision takes {first:.3g} ms after {steps.lengths[0]:,} timesteps, and {final:.3g} ms after {last}."
    low, high = min(steps.medians), max(steps.medians)
    return (
        f"Not told: up to {last} a decision takes {low:.3g} to {high:.3g} ms, and other work on the machine hides "
        "whether that grows."
    )


def _measures(steps: StepTimes) -> tuple[Measure, ...]:
    """What is kept of an episode; times are no figure of two checks that ran at different moments."""
    grows = steps.bytes_per_timestep
    if grows is None:
        return ()
    meaning = "bytes by which its memory of an episode grows with each timestep"
    return (Measure("state growth", meaning, grows, better="lower"),)


CHECK = Check(NAME, QUESTION, 8.0, unfit, probe, "decisions take longer as an episode goes on")
