"""Part `needles`: what is left of single tokens once a chunk has become one state.

Small networks are asked for values that stood at random places of a sequence. The setting of the task `joint` is fixed:
one mixer and one feed-forward layer, in which attention needs no circuit, since key and value are one token.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

from holdfast.lab import Claim, Evidence, Figure, Outcome, Part, Results, Trial, all_of, paired_difference, progress
from holdfast.lab.figures import GREY, SHARE, draw_over_seeds, legend, size_axis
from holdfast.lab.results import Values
from holdfast.lab.seeds import generator_for
from holdfast.studies.rat.arms import Shape, backbone_of, style
from holdfast.studies.rat.haystacks import VALUES_OF, Haystacks, Vocabulary, sample_haystacks
from holdfast.studies.rat.paper import NOT_SHOWN
from holdfast.studies.rat.streams import TEST, TRAIN, WEIGHTS
from holdfast.studies.rat.training import Recipe, precision, train

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from torch import Tensor

    from holdfast.lab import Record
    from holdfast.studies.rat.haystack_net import HaystackNet
    from holdfast.studies.rat.study import RATStudyConfig

ARMS = ("attention", "rat4", "rat16", "rat64", "rnn")

TRAINING_SHARE = 0.95
"""Share of a trial's progress that its training makes."""

GPU_SHARE = 0.25
"""Of a GPU, which such small networks leave idle for the most part."""


@dataclass(frozen=True, kw_only=True)
class NeedlesConfig:
    """Networks that look for needles.

    Arguments:
        arms: some of the arms.
        tasks: joint, apart or string; see `holdfast.studies.rat.haystacks`.
        needles: needles a sequence, with networks of its own for each number; ascending.
        time: tokens of a sequence.
        tests: test sequences, drawn anew for every seed.
        vocabulary: of keys, values and noise.
        shape: of the networks.
        recipe: how they are trained.
    """

    arms: tuple[str, ...] = ARMS
    tasks: tuple[str, ...] = ("joint",)
    needles: tuple[int, ...] = (4, 12, 24)
    time: int = 128
    tests: int = 128
    vocabulary: Vocabulary = field(default_factory=Vocabulary)
    shape: Shape = field(default_factory=Shape)
    recipe: Recipe = field(default_factory=Recipe)


def trials(config: RATStudyConfig) -> Iterator[Trial[NeedlesConfig]]:
    """One trial a network."""
    settings = config.needles
    for seed in config.seed_range:
        for task in settings.tasks:
            for needles in settings.needles:
                for arm in settings.arms:
                    labels: dict[str, str | int] = {"task": task, "needles": needles, "arm": arm}
                    cost = settings.recipe.steps * settings.time * settings.shape.layers / 3000
                    yield Trial(seed, settings, labels, cost=cost, gpu=GPU_SHARE * settings.recipe.gpu)


def run(trial: Trial[NeedlesConfig]) -> Outcome:
    """Train and test one network. Every arm of a seed sees the same sequences.

    Records: `accuracy`, the share of questions that are answered rightly; `questions`, how many there were.
    Curve: `needles` (loss in nats by step).
    """
    import torch

    from holdfast.studies.rat.haystack_net import HaystackNet

    config, seed = trial.config, trial.seeds[0]
    task, needles = str(trial.labels["task"]), int(trial.labels["needles"] or 0)
    backbone = backbone_of(str(trial.labels["arm"]), config.shape, config.time)
    net = HaystackNet(backbone, config.vocabulary, seed, WEIGHTS).to(config.recipe.device)
    draw = partial(_drawn, config, seed, task, needles)

    def batches(step: int) -> tuple[Tensor, Tensor]:
        haystacks = draw(config.recipe.batch, TRAIN, step)
        return haystacks.tokens, haystacks.targets

    net.backbone.checkpointing = config.recipe.recompute
    curve = train(net, config.recipe, batches, TRAINING_SHARE)
    with torch.no_grad():
        right = _answered(net, draw(config.tests, TEST, 0), config.recipe)
    progress.report(1.0, accuracy=right.float().mean().item())
    return Outcome([{"accuracy": right.float().mean().item(), "questions": right.numel()}], {"needles": curve})


def _drawn(config: NeedlesConfig, seed: int, task: str, needles: int, count: int, stream: int, step: int) -> Haystacks:
    generator = generator_for(seed, stream, list(VALUES_OF).index(task), needles, step)
    return sample_haystacks(task, count, config.time, needles, config.vocabulary, generator)


def _answered(net: HaystackNet, haystacks: Haystacks, recipe: Recipe) -> Tensor:
    """Whether each question is answered rightly."""
    import torch

    guesses = []
    for tokens in haystacks.tokens.split(recipe.micro_batch or recipe.batch):
        with precision(recipe.device):
            guesses.append(net(tokens.to(recipe.device)).argmax(-1).cpu())
    return haystacks.right(torch.cat(guesses))


def _accuracy(results: Results, task: str, needles: int, arm: str) -> Values:
    return results.by_seed("accuracy", part="needles", task=task, needles=needles, arm=arm)


def _less(results: Results, task: str, needles: int, better: str, worse: str) -> Evidence:
    """One arm finds more needles than another."""
    values = (_accuracy(results, task, needles, arm) for arm in (better, worse))
    cases = results.config.needles.tests * needles
    return paired_difference(*values, cases=cases, names=(f"{better} at {needles}", f"{worse} at {needles}"))


def _ordered(task: str, place: int, results: Results) -> Evidence:
    """Accuracy falls along attention, RAT4, RAT16, RAT64."""
    needles = results.config.needles.needles[place]
    return all_of([_less(results, task, needles, *pair) for pair in pairwise(ARMS[:4])])


def _rnn_last(results: Results) -> Evidence:
    return _less(results, "joint", results.config.needles.needles[0], "rat64", "rnn")


def _crowded(results: Results) -> Evidence:
    """What RAT16 loses to attention at many needles, less what it loses at few."""
    few, many = results.config.needles.needles[0], results.config.needles.needles[-1]
    lost = [
        Values.of(lambda a, b: a - b, *(_accuracy(results, "joint", needles, arm) for arm in ("attention", "rat16")))
        for needles in (many, few)
    ]
    return paired_difference(*lost, bounds=(-1, 1), names=(f"loss at {many}", f"loss at {few}"))


def _string(results: Results) -> Evidence:
    """RAT64 falls further behind attention where all tokens of a value have to be right."""
    most = results.config.needles.needles[-1]
    lost = [
        Values.of(lambda a, b: a - b, *(_accuracy(results, task, most, arm) for arm in ("attention", "rat64")))
        for task in ("string", "apart")
    ]
    return paired_difference(*lost, bounds=(-1, 1), names=("loss in strings", "loss in single values"))


CLAIMS = (
    Claim(
        "needles-ordered",
        "With the most needles (24; on a GPU 64) attention finds more of them than RAT4, RAT4 more than RAT16, and "
        "RAT16 more than RAT64 (each difference > 0).",
        partial(_ordered, "joint", -1),
        paper="16 tokens a chunk about level with attention, 64 much worse on several needles (retrieval table)",
        family="needles",
        headline=True,
        plain="the longer the chunks of RAT, the fewer of many hidden facts it finds",
        figure="needles",
        scale="laptop",
    ),
    Claim(
        "needles-few",
        "With 4 needles the same order holds.",
        partial(_ordered, "joint", 0),
        paper="16 tokens a chunk about level with attention on single needles (retrieval table)",
        family="needles",
        scale="laptop",
    ),
    Claim(
        "needles-rnn",
        "With 4 needles the recurrence over the whole sequence finds fewer than RAT64 (difference > 0).",
        _rnn_last,
        paper=NOT_SHOWN,
        family="needles",
        scale="laptop",
    ),
    Claim(
        "needles-crowded",
        "RAT16 loses more to attention with the most needles, which share chunks, than with 4 (difference > 0).",
        _crowded,
        paper="single needles hold, several degrade (retrieval table)",
        family="needles",
        scale="laptop",
    ),
    Claim(
        "recall-ordered",
        "Where a value stands behind its key, and the most needles are asked for, the order is the same.",
        partial(_ordered, "apart", -1),
        paper="64 tokens a chunk much worse on several needles (retrieval table)",
        family="recall",
        scale="gpu",
    ),
    Claim(
        "recall-strings",
        "RAT64 falls further behind attention where all 8 tokens of a value have to be right than where it has one.",
        _string,
        paper="degrades on exact match of long values (retrieval table)",
        family="recall",
        scale="gpu",
    ),
)


def draw_needles(task: str, results: Results, axes: Axes) -> list[Record]:
    """Accuracy by number of needles, a line an arm."""
    rows: list[Record] = []
    config: NeedlesConfig = results.config.needles
    for arm in config.arms:
        values = {
            needles: list(_accuracy(results, task, needles, arm).values())
            for needles in results.levels("needles", part="needles", task=task, arm=arm)
        }
        points = draw_over_seeds(
            axes, values, bounds=SHARE, dots=True, marker="o", markersize=4, linewidth=1.6, **style(arm)
        )
        rows += [
            {"arm": arm, "needles": x, "accuracy": mean, "low": low, "high": high, "seeds": seeds}
            for x, mean, low, high, seeds in points
        ]
    if rows:
        axes.axhline(config.vocabulary.values ** -max(1, VALUES_OF[task]), color=GREY, linewidth=0.8, linestyle=":")
    size_axis(axes, sorted({int(row["needles"] or 0) for row in rows}), "needles in a sequence")
    axes.set_ylabel("needles found")
    axes.set_ylim(-0.03, 1.03)
    legend(axes)
    return rows


part = Part(
    "needles",
    trials,
    run,
    claims=CLAIMS,
    figures=(
        Figure(
            "needles",
            "Values asked for by their keys, one token each, at random places of a sequence: the larger the chunk, the "
            "fewer are found. Lines are means over seeds, dots are seeds; dotted: guessing.",
            partial(draw_needles, "joint"),
        ),
        Figure(
            "recall-apart",
            "The same where the value is the token behind its key, which takes two layers.",
            partial(draw_needles, "apart"),
        ),
        Figure(
            "recall-string",
            "The same where a value has 8 tokens, all of which must be right.",
            partial(draw_needles, "string"),
        ),
    ),
)
