"""Whether a network can still learn, beside fresh ones of its kind; of checkpoints alone, what their norms tell."""

from __future__ import annotations

import copy
import math
import statistics
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.card.checks.check import Check, picture
from holdfast.card.finding import Finding, Measure, Outcome, Remedy
from holdfast.card.settings import CheckSettings
from holdfast.card.target import Kind, Target
from holdfast.errors import ArgumentError

if TYPE_CHECKING:
    from torch import nn

    from holdfast.probes.plasticity import PlasticityReport, SpeedRatio
    from holdfast.probes.plasticity.run_weights import MatrixChange, RunWeights

NAME = "plasticity"
QUESTION = "Can it still learn something new?"
STEPS = (250, 120, 60)
"""Of each run; the most that there is time for. In few steps fresh networks learn little, and nothing is told."""
DRAWS, TWINS = 3, 6
"""What fresh networks differ by is known from these twins alone: by three of them a network would have to lose a third
of its speed to be told from another."""
BATCH = 64
TIMED = 5
"""Steps by which it is told how long one takes."""
USED = 0.7
"""Share of its time that a probe plans with."""
LONGER = 4
"""Times as many steps, where fresh networks learnt too little in the first ones."""
EXAMPLES_A_STEP = 2
"""Examples to memorise, for each step of a run."""

OUTCOMES = {
    "none": Outcome.HOLDS,
    "rewarm": Outcome.FAILS,
    "project": Outcome.FAILS,
    "reset": Outcome.FAILS,
}
"""By what the ratios call for; more draws or steps decide nothing."""

PAGE = "systems/plasticity"
REMEDIES = {
    "rewarm": Remedy(
        "raise the learning rate again when new data arrive",
        """\
from holdfast.optim import Cusum, Rewarm

rewarm = Rewarm(optimizer, peak={peak:g}, final={current:g}, period=1000, trigger=Cusum())
# after each optimizer.step():
rewarm.step(loss)""",
        PAGE,
    ),
    "project": Remedy(
        "scale the weights of its layers back to the size they began with, and keep them there",
        """\
from holdfast.optim import Projector

fresh = dict(make_network().named_parameters())  # your own
norms = {{name: float(fresh[name].detach().norm()) for name in Projector(model, optimizer).targets}}
optimizer = torch.optim.{optimizer}(model.parameters(), lr={peak:g})
Projector(model, optimizer, radius=norms)  # once: it then acts after each step""",
        PAGE,
    ),
    "reset": Remedy(
        "mix its weights with fresh ones, add normalisation, and keep the size of its weights fixed from then on",
        """\
from holdfast.optim import Projector, normalize_, shrink_and_perturb_

shrink_and_perturb_(model, make_network())  # your own function
normalize_(model)  # norms before nonlinearities
optimizer = torch.optim.{optimizer}(model.parameters(), lr={peak:g})
Projector(model, optimizer)  # once: it then acts after each step""",
        PAGE,
    ),
    "more draws": Remedy("measure again with a longer --budget", page=PAGE),
    "more steps": Remedy(
        "measure again with a longer --budget, and check that --peak is the rate it was trained at", page=PAGE
    ),
}
CLASSES = {"adam": "Adam", "adamw": "AdamW", "sgd": "SGD", "rmsprop": "RMSprop"}
HOLD = Remedy(
    "to find out, check again with the function that makes the network, its data and its highest learning rate",
    "holdfast check FILE.py:make_network --checkpoint FIRST LAST --data FILE.py:data --peak RATE",
    PAGE,
)


def unfit(target: Target, settings: CheckSettings) -> str:
    """Networks that can be made anew, with data; and checkpoints of one run."""
    if target.kind is Kind.RUN:
        return ""
    if target.kind is not Kind.NETWORK:
        return "it is no network of your own"
    if "factory" not in target.parts:
        return "needs the function that makes a fresh network of its kind"
    if settings.data is None:
        return "needs --data, what it is trained on"
    return "" if settings.peak is not None else "needs --peak, the highest learning rate of its training"


def probe(target: Target, settings: CheckSettings, seconds: float) -> Finding:
    """Let copies learn new targets, beside fresh networks."""
    checkpoints: Sequence[Path] = target.parts.get("checkpoints", ())
    peak, current = _rates(target, settings, checkpoints)
    if "factory" not in target.parts or settings.data is None or peak is None:
        return _by_weights(checkpoints)
    from holdfast.probes.plasticity import PlasticitySettings, probe_plasticity
    from holdfast.probes.plasticity.files import gather
    from holdfast.probes.plasticity.training import optimizer_named

    models = _models(target, settings, checkpoints)
    examples = gather(settings.data(), EXAMPLES_A_STEP * STEPS[0])
    optimizer = optimizer_named(settings.optimizer, peak)

    def measured(steps: int, memorised: int) -> list[PlasticityReport]:
        amount = PlasticitySettings(
            steps=steps,
            batch=BATCH,
            examples=memorised,
            draws=DRAWS,
            twins=TWINS,
            seed=settings.seed,
            progress=False,
        )
        return [
            probe_plasticity(
                model,
                target.parts["factory"],
                examples,
                optimizer=optimizer,
                peak=peak,
                current=current if model is models[-1] else None,
                settings=amount,
            )
            for model in models
        ]

    started = time.monotonic()
    runs = DRAWS * (TWINS + 2 + (current is not None)) * len(models)
    steps = _steps(models[-1], examples, optimizer, runs, seconds)
    memorised = EXAMPLES_A_STEP * steps
    reports = measured(steps, memorised)
    spent = time.monotonic() - started
    if reports[-1].peak is None and spent * (1 + LONGER) < USED * seconds:
        steps *= LONGER
        reports = measured(steps, memorised)
    report = reports[-1]
    remedy = REMEDIES.get(report.remedy)
    if remedy is not None:
        filled = remedy.code.format(peak=peak, current=current or peak / 100, optimizer=CLASSES[settings.optimizer])
        remedy = Remedy(remedy.text, filled, remedy.page)
    return Finding(
        NAME,
        QUESTION,
        OUTCOMES.get(report.remedy, Outcome.NOT_TOLD),
        _sentence(reports, checkpoints),
        f"{report.examples} examples with new answers drawn {DRAWS} times, beside {TWINS} fresh networks, {steps} "
        "steps of training each" + _interval(report.peak),
        remedy,
        _measures(report),
        {"last": report.to_dict(), "first": reports[0].to_dict()} if len(reports) > 1 else report.to_dict(),
        picture(
            report,
            NAME,
            "Learning new answers",
            "steps of training",
            "error left (1: a constant answer's)",
        ),
    )


def _rates(target: Target, settings: CheckSettings, checkpoints: Sequence[Path]) -> tuple[float | None, float | None]:
    """The highest rate and the present one: those given, or those that a Trainer noted."""
    from holdfast.probes.plasticity.run_weights import rates_noted

    noted = rates_noted(checkpoints[-1]) if checkpoints else []
    peak = settings.peak if settings.peak is not None or not noted else max(noted)
    current = settings.current if settings.current is not None or not noted else noted[-1]
    return peak, None if current == peak else current


def _models(target: Target, settings: CheckSettings, checkpoints: Sequence[Path]) -> list[nn.Module]:
    """Copies of the network; of a run as it was at the first checkpoint and at the last."""
    from holdfast.probes.plasticity.files import load_weights

    models = [copy.deepcopy(target.subject)]
    if target.kind is Kind.RUN:
        models.insert(0, copy.deepcopy(target.subject))
        load_weights(models[0], checkpoints[0])
    return [model.to(settings.device) for model in models]


def _steps(
    model: nn.Module, examples: tuple[Any, Any], optimizer: Callable[..., Any], runs: int, seconds: float
) -> int:
    """As many as there is time for.

    Errors:
        ArgumentError: there is not enough.
    """
    import torch

    from holdfast.probes.plasticity.learning_speed import Task, default_loss, learn, moved, select
    from holdfast.probes.report import random_state_kept

    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    inputs, targets = (moved(part, device) for part in examples)
    places = torch.arange(min(BATCH, len(targets)), device=device).expand(TIMED + 1, -1)
    tried = copy.deepcopy(model).train()
    with random_state_kept():
        task = Task(select(inputs, slice(BATCH)), targets[:BATCH], places, default_loss, 1.0)
        moments = [time.monotonic() for _ in learn(tried, optimizer(tried.parameters()), task)]
    # The first step makes the optimiser's state, and is not among these. What others do on the machine is not its own.
    a_step = min(after - before for before, after in pairwise(moments))
    for steps in STEPS:
        if a_step * steps * runs < USED * seconds:
            return steps
    needed = a_step * STEPS[-1] * runs / USED
    raise ArgumentError(
        "budget", f"about {needed:.0f} s for the probe {NAME}, by the time of a step", f"{seconds:.0f} s"
    )


def _sentence(reports: Sequence[PlasticityReport], checkpoints: Sequence[Path]) -> str:
    """Can it learn, and how much of that is lost."""
    last = reports[-1]
    if last.peak is None:
        return (
            f"Whether it can still learn is not told: in {last.steps} steps even fresh networks learnt too little to "
            f"be compared with (their error was still {last.twin_loss:.0%} of that of a constant answer)."
        )
    now = "" if last.current is None else f", and at its present learning rate {last.current.ratio:.0%}"
    found = {
        "none": "It can still learn",
        "rewarm": "It can no longer learn at its present learning rate",
        "more draws": "Whether it can still learn is not told",
    }.get(last.remedy, "It has lost the ability to learn")
    text = f"{found}: it learns new answers at {last.peak.ratio:.0%} of the speed of a fresh network of its kind{now}"
    if last.restored is not None and last.remedy == "project":
        text += f"; with its weights scaled back to their first size at {last.restored.ratio:.0%}"
    if len(reports) > 1 and reports[0].peak is not None:
        text += f" (at {checkpoints[0].stem} it was {reports[0].peak.ratio:.0%})"
    return f"{text}."


def _interval(speed: SpeedRatio | None) -> str:
    if speed is None or math.isnan(speed.interval[0]):
        return ""
    low, high = speed.interval
    return f"; its speed is {speed.ratio:.0%} of theirs (95 % interval {low:.0%} to {high:.0%})"


def _measures(report: PlasticityReport) -> tuple[Measure, ...]:
    """Speeds, each with the spread over draws and that of single networks, which differ though all can learn.

    Beside the same twins, which are known by their speeds, two networks are compared draw by draw: what twins share
    is in both.
    """
    speeds = {"learning speed": report.peak, "learning speed now": report.current}
    meanings = {
        "learning speed": "speed of memorising new answers at its highest learning rate; 1: as fast as fresh networks",
        "learning speed now": "the same at the learning rate that its training has come to",
    }
    found = []
    for name, speed in speeds.items():
        if speed is None:
            continue
        of_draws = statistics.variance(speed.by_draw) / len(speed.by_draw)
        of_networks = statistics.variance(report.twins)
        # Once for itself, as another network of the kind is another draw, and once for the mean of its twins.
        error = math.sqrt(of_draws + of_networks * (1 + 1 / len(report.twins)))
        degrees = min(len(speed.by_draw), len(report.twins)) - 1
        beside = " ".join(f"{twin:.4f}" for twin in report.twins)
        found.append(
            Measure(
                name,
                meanings[name],
                speed.ratio,
                error,
                degrees,
                better="higher",
                units=f"{len(speed.by_draw)} draws beside networks of speeds {beside}",
                values=speed.by_draw,
                spread=math.sqrt(of_networks),
                spread_degrees=len(report.twins) - 1,
            )
        )
    return tuple(found)


def _by_weights(checkpoints: Sequence[Path]) -> Finding:
    """What norms alone tell, said as that."""
    from holdfast.probes.plasticity.run_weights import probe_run_weights

    report = probe_run_weights(checkpoints)
    return Finding(
        NAME,
        QUESTION,
        Outcome.NOT_TOLD,
        _of_norms(report),
        f"the weights of {len(checkpoints)} checkpoints alone; no network was run",
        HOLD,
        by_matrix(
            report,
            "norm growth",
            "how much larger weight matrices are than at the first checkpoint (logarithm; 0: as large)",
            _growth,
        ),
        report.to_dict(),
        picture(report, NAME, "Size of weight matrices", "checkpoint", "times that at the first"),
    )


def _of_norms(report: RunWeights) -> str:
    rate = "at the same learning rate" if report.rates is None else "at the learning rates noted in the run"
    return (
        f"Not told by weights alone. From {report.checkpoints[0]} to {report.checkpoints[-1]} its "
        f"{len(report.matrices)} weight matrices came to {report.growth:.2f} times their size, so that {rate} a step "
        f"of training changes them {report.effective_rate:.2f} times as much as at first."
    )


def _growth(change: MatrixChange) -> float:
    return change.growth


def by_matrix(
    report: RunWeights, name: str, meaning: str, ratio: Callable[[MatrixChange], float]
) -> tuple[Measure, ...]:
    """A ratio of weight matrices as a measure: two runs of one model are compared matrix by matrix."""
    logs = {key: math.log(ratio(change)) for key, change in report.matrices.items() if ratio(change) > 0}
    if len(logs) < 2:
        return ()
    mean, spread = statistics.mean(logs.values()), statistics.stdev(logs.values())
    units = f"matrices {' '.join(logs)}"
    error = spread / math.sqrt(len(logs))
    return (Measure(name, meaning, mean, error, len(logs) - 1, units=units, values=tuple(logs.values())),)


CHECK = Check(NAME, QUESTION, 20.0, unfit, probe, "it no longer learns as it should")
