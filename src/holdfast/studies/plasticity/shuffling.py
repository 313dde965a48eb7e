"""Part `shuffling`: whether a network that memorises random labels can go on to memorise new ones, task after task."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from holdfast.errors import ArgumentError
from holdfast.lab import (
    Claim,
    Evidence,
    Figure,
    Outcome,
    Part,
    Results,
    Trial,
    all_of,
    mean_of,
    paired_difference,
    progress,
    within,
)
from holdfast.lab.figures import GREY, SHARE, draw_over_seeds, legend
from holdfast.lab.results import Values
from holdfast.studies.plasticity.paper import NAP, OURS
from holdfast.studies.plasticity.shapes import Layers

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from torch import Tensor, nn
    from torch.optim import Optimizer

    from holdfast.lab import Record

SOON = 25
"""Steps within which a change of the task has to be found."""

AT_THE_END = 5
"""Tasks at the beginning and at the end that means are taken over."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """What is done for a network.

    Arguments:
        label: in figures.
        norm: whether it has LayerNorm.
        projected: whether all its matrices, the read-out too, are held at their initial norms.
        schedule: constant; decay: one cosine over all tasks; known: a cosine for each task; detected: a cosine that
            begins anew when a change detector says so.
        remedy: none; shrink: shrink and perturb at each change, with fresh moments; init: L2-init.
        fresh: whether it is not trained at all.
    """

    label: str
    norm: bool = True
    projected: bool = True
    schedule: str = "constant"
    remedy: str = "none"
    fresh: bool = False


ARMS = {
    "plain": Arm(label="plain", norm=False, projected=False),
    "layernorm": Arm(label="LayerNorm", projected=False),
    "projected": Arm(label="projected"),
    "decay": Arm(label="projected, one decay", schedule="decay"),
    "known": Arm(label="projected, re-warmed at changes", schedule="known"),
    "detected": Arm(label="projected, re-warmed when detected", schedule="detected"),
    "shrink": Arm(label="shrink and perturb", norm=False, projected=False, remedy="shrink"),
    "init": Arm(label="L2-init", norm=False, projected=False, remedy="init"),
    "fresh": Arm(label="fresh, projected", fresh=True),
}


@dataclass(frozen=True, kw_only=True)
class ShufflingConfig:
    """Networks that memorise labels which are drawn anew for each task.

    Arguments:
        arms: some of the arms.
        tasks: number of tasks.
        steps: of each, Adam.
        examples: digits that are memorised.
        batch: digits a step.
        rate: learning rate, the highest one where it changes.
        final: lowest rate of a schedule, as a share of it.
        shrink: what remains of the weights in shrink and perturb.
        perturb: how much of fresh weights is added.
        strength: of L2-init.
        layers: of the network.
        probe: steps of each run of the probe of learning speed.
    """

    arms: tuple[str, ...] = tuple(ARMS)
    tasks: int = 40
    steps: int = 250
    examples: int = 500
    batch: int = 64
    rate: float = 3e-3
    final: float = 1 / 30
    shrink: float = 0.8
    perturb: float = 0.4
    strength: float = 3e-3
    layers: Layers = field(default_factory=Layers)
    probe: int = 250

    def __post_init__(self) -> None:
        if not set(self.arms) <= set(ARMS):
            raise ArgumentError("arms", f"some of {', '.join(ARMS)}", repr(self.arms))


def trials(config: Any) -> Iterator[Trial[ShufflingConfig]]:
    """One trial a network.

    Arguments:
        config: the study's configuration.
    """
    settings: ShufflingConfig = config.shuffling
    for seed in config.dear_range:
        for arm in settings.arms:
            yield Trial(seed, settings, {"arm": arm}, cost=settings.tasks * settings.steps / 1500)


def run(trial: Trial[ShufflingConfig]) -> Outcome:
    """Train one network on all tasks. All arms of a seed see the same tasks and batches.

    Records: what the probe of plasticity says of the network after its last task: learning speed beside fresh networks
    at the peak rate, `speed`, at the current one, `speed_current`, and with norms put back, `speed_restored`, each
    where it was measured, and the `remedy`. But for the arm `fresh`: accuracy at the end of tasks, mean of the `first`
    and of the `last` five; the same while they are learnt, `online`; share of `dead` units and sum of the `norm`s of
    matrices at the end, and at the `start`; of the change detector the changes that it `found` soon, the `changes` that
    there were, and its `false` alarms.
    Curve: `tasks` (`end` and `online` accuracy, `dead` and `norm` by task).
    """
    from holdfast.studies.digits import CLASSES, digits
    from holdfast.studies.plasticity.digits import network
    from holdfast.studies.plasticity.measures import norms
    from holdfast.studies.plasticity.streams import SPLIT

    config, seed, arm = trial.config, trial.seeds[0], ARMS[str(trial.labels["arm"])]
    images = digits(seed, SPLIT, extra="plasticity").images[: config.examples]
    model = network(images.shape[1], CLASSES, config.layers, norm=arm.norm, seed=seed)
    start = norms(model)
    rows, alarms, optimizer = memorise(model, images, config, arm, seed)
    probed = _probed(model, optimizer, images, config, arm, seed)
    if arm.fresh:
        return Outcome([probed])
    record: dict[str, Any] = {
        **probed,
        "first": _mean(rows[:AT_THE_END], "end"),
        "last": _mean(rows[-AT_THE_END:], "end"),
        "online": _mean(rows[-AT_THE_END:], "online"),
        "dead": float(rows[-1]["dead"] or 0.0),
        "start": start,
        "norm": float(rows[-1]["norm"] or 0.0),
    }
    if arm.schedule == "detected":
        found, false = hits(alarms, config.steps, config.tasks)
        record |= {"found": found, "changes": config.tasks - 1, "false": false}
    return Outcome([record], {"tasks": rows})


def memorise(
    model: nn.Sequential, images: Tensor, config: ShufflingConfig, arm: Arm, seed: int
) -> tuple[list[Record], list[int], Optimizer]:
    """Train a network on one task after the other.

    Arguments:
        model: with its initial weights; trained in place.
        images: what it memorises labels of.
        config: how.
        arm: what is done for it.
        seed: of labels and batches.

    Returns:
        A row a task, the steps after which the schedule began anew by itself, and the optimiser.
    """
    import torch

    from holdfast.optim import Cusum, L2Init, Projector, Rewarm, reset_moments, shrink_and_perturb_
    from holdfast.studies.digits import CLASSES, Labelled, accuracy, batches_of, learn
    from holdfast.studies.plasticity.digits import network, random_labels
    from holdfast.studies.plasticity.measures import dead_units, norms
    from holdfast.studies.plasticity.streams import BATCHES, FRESH

    optimizer = torch.optim.Adam(model.parameters(), lr=config.rate, fused=True)
    if arm.projected:
        Projector(model, optimizer, include="all")
    if arm.remedy == "init":
        L2Init(model, optimizer, strength=config.strength)
    schedule: Rewarm | None = None
    if arm.schedule != "constant":
        schedule = Rewarm(
            optimizer,
            peak=config.rate,
            final=config.rate * config.final,
            period=config.steps * (config.tasks if arm.schedule == "decay" else 1),
            trigger=Cusum() if arm.schedule == "detected" else None,
        )
    rows: list[Record] = []
    for task in range(0 if arm.fresh else config.tasks):
        if task and arm.schedule == "known" and schedule is not None:
            schedule.trigger()
        if task and arm.remedy == "shrink":
            fresh = network(images.shape[1], CLASSES, config.layers, norm=arm.norm, seed=_stream(seed, FRESH, task))
            shrink_and_perturb_(model, fresh, shrink=config.shrink, perturb=config.perturb)
            reset_moments(optimizer)
        data = Labelled(images, random_labels(len(images), seed, task))
        batches = batches_of(len(images), config.steps, config.batch, seed, BATCHES, task)
        online = []
        for loss, right in learn(model, optimizer, data, batches):
            online.append(right)
            if schedule is not None:
                schedule.step(loss)
        rows.append(
            {
                "task": task + 1,
                "end": accuracy(model, data),
                "online": sum(online) / len(online),
                "dead": dead_units(model, images),
                "norm": norms(model),
            }
        )
        progress.report((task + 1) / config.tasks, accuracy=float(rows[-1]["end"] or 0.0))
    events = schedule.events if schedule is not None and arm.schedule == "detected" else ()
    return rows, [event.step for event in events if event.kind == "rewarmed"], optimizer


def _probed(
    model: nn.Sequential, optimizer: Optimizer, images: Tensor, config: ShufflingConfig, arm: Arm, seed: int
) -> dict[str, Any]:
    """What the probe of plasticity says."""
    import torch

    from holdfast.probes.plasticity import PlasticitySettings, probe_plasticity
    from holdfast.studies.digits import CLASSES
    from holdfast.studies.plasticity.digits import network, random_labels

    def fresh() -> nn.Module:
        weights = int(torch.randint(1 << 31, ()))
        return network(images.shape[1], CLASSES, config.layers, norm=arm.norm, seed=weights)

    settings = PlasticitySettings(steps=config.probe, batch=config.batch, seed=seed, progress=False)
    examples = images, random_labels(len(images), seed)
    report = probe_plasticity(model, fresh, examples, optimizer=optimizer, peak=config.rate, settings=settings)
    speeds = {"speed": report.peak, "speed_current": report.current, "speed_restored": report.restored}
    return {name: speed.ratio for name, speed in speeds.items() if speed is not None} | {"remedy": report.remedy}


def _stream(seed: int, *stream: int) -> int:
    """A seed of its own for one purpose of a seed."""
    from holdfast.lab.seeds import rng_for

    return int(rng_for(seed, *stream).integers(1 << 31))


def hits(alarms: Sequence[int], steps: int, tasks: int) -> tuple[int, int]:
    """How many changes of the task were found soon, and how many alarms found none.

    Arguments:
        alarms: steps of the optimiser after which there was one.
        steps: of a task.
        tasks: number of tasks.
    """
    changes = dict.fromkeys(range(steps, steps * tasks, steps), False)
    false = 0
    for alarm in alarms:
        change = (alarm - 1) // steps * steps
        if change in changes and alarm - change <= SOON and not changes[change]:
            changes[change] = True
        else:
            false += 1
    return sum(changes.values()), false


def _mean(rows: Sequence[Record], metric: str) -> float:
    return sum(float(row[metric] or 0.0) for row in rows) / len(rows)


def _values(results: Results, arm: str, metric: str = "last") -> Values:
    return results.by_seed(metric, part="shuffling", arm=arm)


def _below(results: Results, arm: str, threshold: float) -> Evidence:
    return mean_of(_values(results, arm), threshold=threshold, alternative="less", bounds=(0, 1), name=ARMS[arm].label)


def _projected(results: Results) -> Evidence:
    high = mean_of(_values(results, "projected"), threshold=0.7, bounds=(0, 1), name=ARMS["projected"].label)
    return all_of([high, _below(results, "plain", 0.2)])


def _decay(results: Results) -> Evidence:
    return _below(results, "decay", 0.25)


def _layernorm(results: Results) -> Evidence:
    return within(_values(results, "layernorm"), 0.35, 0.65, ARMS["layernorm"].label, bounds=(0, 1))


def _detected(results: Results) -> Evidence:
    config: ShufflingConfig = results.config.shuffling
    changes, steps = config.tasks - 1, config.tasks * config.steps
    found = Values.of(lambda number: number / changes, _values(results, "detected", "found"))
    false = Values.of(lambda number: number / steps, _values(results, "detected", "false"))
    return all_of(
        [
            mean_of(
                found, threshold=(changes - 1.5) / changes, cases=changes, name="the share of changes that are found"
            ),
            mean_of(
                false,
                threshold=1.5 / steps,
                alternative="less",
                cases=steps,
                name="the share of steps with a false alarm",
            ),
        ]
    )


def _speeds(results: Results) -> Evidence:
    return all_of(
        [
            mean_of(_values(results, "plain", "speed"), threshold=0.2, alternative="less", name="plain"),
            within(_values(results, "layernorm", "speed"), 0.25, 0.55, ARMS["layernorm"].label),
            mean_of(_values(results, "projected", "speed"), threshold=0.8, name="projected"),
        ]
    )


def _decay_speeds(results: Results) -> Evidence:
    peak, current = (_values(results, "decay", metric) for metric in ("speed", "speed_current"))
    return all_of(
        [
            mean_of(peak, threshold=0.9, name="the speed at the peak rate"),
            mean_of(current, threshold=0.2, alternative="less", name="the speed at the last rate"),
        ]
    )


def _fresh_speed(results: Results) -> Evidence:
    return within(_values(results, "fresh", "speed"), 0.93, 1.07, ARMS["fresh"].label)


def _online(results: Results) -> Evidence:
    values = (_values(results, arm, "online") for arm in ("detected", "projected"))
    return paired_difference(*values, names=(ARMS["detected"].label, ARMS["projected"].label))


def _rivals(results: Results) -> Evidence:
    return all_of(
        [
            paired_difference(
                _values(results, "projected"), _values(results, rival), names=("projected", ARMS[rival].label)
            )
            for rival in ("shrink", "init")
        ]
    )


CLAIMS = (
    Claim(
        "shuffling-projected",
        "After 40 tasks of random labels a plain network remembers at most .2 of the last ones; one with LayerNorm and "
        "its norms held, at the same constant learning rate, at least .7.",
        _projected,
        paper=f"plain networks lose their accuracy, projected ones keep it ({NAP})",
        family="shuffling",
        headline=True,
        plain="a plain network loses the ability to learn, one whose weights are held at their length keeps it",
        figure="shuffling",
        scale="laptop",
    ),
    Claim(
        "shuffling-decay",
        "With its norms held a network whose learning rate decays once over all tasks remembers at most .25: a decayed "
        "effective learning rate is enough to lose plasticity.",
        _decay,
        paper="one continuous decay does worst (figure 5)",
        family="shuffling",
        headline=True,
        plain="a learning rate that decays is enough for a network to lose the ability to learn",
        figure="shuffling",
        scale="laptop",
    ),
    Claim(
        "shuffling-layernorm",
        "LayerNorm alone slows the loss and does not stop it: between .35 and .65.",
        _layernorm,
        paper=f"slows the drop ({NAP})",
        family="shuffling",
        scale="laptop",
    ),
    Claim(
        "shuffling-detected",
        "The change detector finds all but one of the changes of the task or more within 25 steps, with at most one "
        "false alarm.",
        _detected,
        paper="no figures; parameters not given",
        family="shuffling-detector",
        scale="laptop",
    ),
    Claim(
        "shuffling-online",
        "While tasks are learnt, re-warming at detected changes is more accurate than a constant rate.",
        _online,
        paper=OURS,
        family="shuffling",
        scale="laptop",
    ),
    Claim(
        "shuffling-rivals",
        "Projection at a constant rate remembers more than tuned shrink and perturb, and more than tuned L2-init, each "
        "on a plain network.",
        _rivals,
        paper=OURS,
        family="shuffling",
        scale="laptop",
    ),
    Claim(
        "probe-speeds",
        "The probe's learning speed beside fresh networks, after 40 tasks: plain at most .2, LayerNorm .25 to .55, "
        "projected at least .8.",
        _speeds,
        paper=OURS,
        family="shuffling-probe",
        scale="laptop",
    ),
    Claim(
        "probe-decay",
        "After one decay over all tasks it is at least .9 at the peak rate, and at most .2 at the last one.",
        _decay_speeds,
        paper="re-warming brings back the ability to learn (section 5)",
        family="shuffling-probe",
        scale="laptop",
    ),
    Claim(
        "probe-fresh",
        "Of a fresh network it is between .93 and 1.07.",
        _fresh_speed,
        paper=OURS,
        family="shuffling-probe",
        scale="laptop",
    ),
)


def draw_tasks(results: Results, axes: Axes) -> list[Record]:
    """Accuracy at the end of each task, a line an arm."""
    rows: list[Record] = []
    for number, (arm, settings) in enumerate(ARMS.items()):
        curve = results.curve("tasks", part="shuffling", arm=arm)
        tasks = sorted({int(row["task"] or 0) for row in curve})
        values = {task: [float(row["end"] or 0.0) for row in curve if row["task"] == task] for task in tasks}
        style: dict[str, Any] = {
            "linestyle": "-" if settings.remedy == "none" else "--",
            "linewidth": 1.4,
            "color": f"C{number}",
        }
        points = draw_over_seeds(axes, values, bounds=SHARE, label=settings.label, **style)
        rows += [
            {"arm": arm, "task": x, "accuracy": mean, "low": low, "high": high, "seeds": n}
            for x, mean, low, high, n in points
        ]
    if rows:
        axes.axhline(0.1, color=GREY, linewidth=0.8, linestyle=":", label="chance")
    axes.set_xlabel("task")
    axes.set_ylabel("accuracy at the end of the task")
    legend(axes, columns=2)
    return rows


part = Part(
    "shuffling",
    trials,
    run,
    claims=CLAIMS,
    figures=(
        Figure(
            "shuffling",
            "Random labels for 500 digits are drawn anew for each task; accuracy on them at its end. Means over seeds.",
            draw_tasks,
        ),
    ),
    needs={"sklearn": "holdfast[plasticity]"},
)
