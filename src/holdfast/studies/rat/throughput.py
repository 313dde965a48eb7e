"""Part `throughput`: how many tokens a second whole models write, when their caches have the same memory.

Weights are random, and states are filled rather than read: neither changes what a step costs. As many sequences are
written at once as their caches fit into the memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from holdfast.lab import Claim, Evidence, Figure, Outcome, Part, Results, Trial, mean_of, progress
from holdfast.lab.figures import GREY, seed_mean
from holdfast.lab.results import Values
from holdfast.studies.clocks import clock_of
from holdfast.studies.rat.arms import Shape, backbone_of, style
from holdfast.studies.rat.paper import NOT_SHOWN
from holdfast.studies.rat.streams import WEIGHTS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from holdfast.lab import Record
    from holdfast.studies.rat.language_model import LanguageModel
    from holdfast.studies.rat.study import RATStudyConfig

ARMS = ("attention", "gqa8", "rat16", "attention-window", "rat16-window")


@dataclass(frozen=True, kw_only=True)
class ThroughputConfig:
    """What is written.

    Arguments:
        device: where; on CUDA in bfloat16.
        shape: of the models.
        vocabulary: number of tokens.
        prompt: tokens before those that are written.
        room: tokens that caches have room for, those of the prompt included.
        steps: tokens that are written and timed, from the prompt's end on.
        memory: bytes for the caches of all sequences.
    """

    device: str = "cpu"
    shape: Shape = field(default_factory=lambda: Shape(dim=256, heads=8, layers=2, window=1024))
    vocabulary: int = 256
    prompt: int = 3072
    room: int = 4096
    steps: int = 8
    memory: int = 1 << 28


def trials(config: RATStudyConfig) -> Iterator[Trial[ThroughputConfig]]:
    """One trial a repetition."""
    settings = config.throughput
    for seed in config.seed_range:
        yield Trial(seed, settings, cost=15.0, gpu=1.0 if settings.device.startswith("cuda") else 0.0)


def run(trial: Trial[ThroughputConfig]) -> Outcome:
    """Let every arm write.

    Records: for each `arm` the `tokens` a second of all sequences together, the number of sequences (`batch`), and the
    bytes of a sequence's caches (`cache`).
    """
    import torch

    from holdfast.studies.rat.language_model import LanguageModel

    config = trial.config
    dtype = torch.bfloat16 if config.device.startswith("cuda") else torch.float32
    records: list[Record] = []
    for number, arm in enumerate(ARMS):
        backbone = backbone_of(arm, config.shape, config.room)
        model = LanguageModel(backbone, config.vocabulary, trial.seeds[0], WEIGHTS).to(config.device, dtype)
        with torch.no_grad():
            cache = model.backbone.init_state(1, limit=config.room).nbytes
            batch = max(1, config.memory // cache)
            seconds = _written(model, config, batch)
        records.append({"arm": arm, "tokens": batch * config.steps / seconds, "batch": batch, "cache": cache})
        progress.report((number + 1) / len(ARMS))
    return Outcome(records)


def _written(model: LanguageModel, config: ThroughputConfig, batch: int) -> float:
    """Seconds for the timed tokens of all sequences; two more are written before, to warm up."""
    import torch

    from holdfast.studies.caches import filled

    clock = clock_of(config.device)
    state = filled(model.backbone.init_state(batch, limit=config.room), config.prompt)
    token = torch.zeros(batch, 1, dtype=torch.long, device=config.device)
    for step in range(config.steps + 2):
        if step == 2:
            begin = clock()
        logits, state = model.step(token, state)
        token = logits[:, -1:].argmax(-1)
    return clock() - begin


def _times_faster(results: Results, fast: str, slow: str) -> Values:
    tokens = (results.by_seed("tokens", part="throughput", arm=arm) for arm in (fast, slow))
    return Values.of(lambda a, b: a / b, *tokens)


def _more(fast: str, slow: str, above: float, results: Results) -> Evidence:
    return mean_of(_times_faster(results, fast, slow), threshold=above, name=f"{fast} / {slow}")


def _gqa(results: Results) -> Evidence:
    values = _times_faster(results, "rat16", "gqa8")
    return mean_of(values, threshold=3.0, alternative="less", name="rat16 / gqa8")


CLAIMS = (
    Claim(
        "throughput-16",
        "With the same memory for caches RAT16 writes more than 5 times as many tokens a second as attention.",
        partial(_more, "rat16", "attention", 5.0),
        paper="31,170 against 3,052 tokens a second: 10.2 (generation table)",
        family="throughput",
        scale="laptop",
    ),
    Claim(
        "throughput-hybrid",
        "Alternating with a window, RAT16 writes more than twice as many as attention.",
        partial(_more, "rat16-window", "attention-window", 2.0),
        paper="13,582 against 4,605 tokens a second: 2.9 (generation table)",
        family="throughput",
        scale="laptop",
    ),
    Claim(
        "throughput-gqa",
        "RAT16 writes less than 3 times as many tokens a second as attention with 8 query heads a key head.",
        _gqa,
        paper=NOT_SHOWN,
        family="throughput",
        scale="laptop",
    ),
)


def draw_throughput(results: Results, axes: Axes) -> list[Record]:
    """Tokens a second, a bar an arm."""
    rows: list[Record] = []
    for place, arm in enumerate(ARMS):
        tokens = results.by_seed("tokens", part="throughput", arm=arm)
        if not tokens:
            continue
        mean = seed_mean(list(tokens.values()))
        look = style(arm)
        axes.bar(place, mean.mean, color=look["color"], alpha=1.0 if look["linestyle"] == "-" else 0.55)
        axes.vlines(place, mean.low, mean.high, color=GREY, linewidth=1.4)
        row: dict[str, str | int | float | None] = {"arm": arm, "tokens a second": mean.mean}
        for name in ("batch", "cache"):
            row[name] = next(iter(results.by_seed(name, part="throughput", arm=arm).values()))
        for baseline in ("attention", "gqa8"):
            ratios = list(_times_faster(results, arm, baseline).values())
            row[f"this / {baseline}"] = sum(ratios) / len(ratios) if ratios else None
        rows.append({**row, "seeds": mean.seeds})
    axes.set_xticks(range(len(ARMS)), [arm.replace("-", "-\n") for arm in ARMS])
    axes.set_ylabel("tokens a second")
    return rows


part = Part(
    "throughput",
    trials,
    run,
    claims=CLAIMS,
    figures=(
        Figure(
            "throughput",
            "Tokens a second of whole models with random weights, whose caches have the same memory. Lines: 95 % "
            "intervals over repetitions.",
            draw_throughput,
        ),
    ),
)
