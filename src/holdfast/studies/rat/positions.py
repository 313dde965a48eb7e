"""Part `positions`: hybrids with and without positions, on texts longer than those that they were trained on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

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
)
from holdfast.lab.figures import GREY, draw_over_seeds, legend, size_axis
from holdfast.lab.results import Values
from holdfast.studies.rat.arms import style
from holdfast.studies.rat.corpus import corpus_of, validation_windows
from holdfast.studies.rat.paper import NOT_SHOWN
from holdfast.studies.rat.text_models import TRAINING_SHARE, TextModels, losses, trained

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from holdfast.lab import Record
    from holdfast.studies.rat.study import RATStudyConfig

ARMS = ("rat16-window", "attention-window")
POSITIONS = ("none", "rotary")


@dataclass(frozen=True, kw_only=True)
class PositionsConfig(TextModels):
    """Language models that are tested beyond the length that they were trained on.

    Arguments:
        lengths: tokens of context, ascending; the first is that of training, the last 8 times as long.
        targets: tokens at the end of each window that are asked for, the same ones at every length.
    """

    lengths: tuple[int, ...] = (256, 512, 1024, 2048)
    targets: int = 64


def trials(config: RATStudyConfig) -> Iterator[Trial[PositionsConfig]]:
    """One trial a model."""
    settings = config.positions
    for seed in list(config.seed_range)[: config.text_seeds]:
        for arm in ARMS:
            for positions in POSITIONS:
                labels = {"arm": arm, "positions": positions}
                yield Trial(seed, settings, labels, cost=1.2 * settings.cost, gpu=settings.recipe.gpu)


def run(trial: Trial[PositionsConfig]) -> Outcome:
    """Train one model, and test it at every length.

    Records: for each `length` the `loss` in nats a token. Curve: `positions` (training loss by step).
    """
    config = trial.config
    rope_theta = 10_000.0 if trial.labels["positions"] == "rotary" else None
    corpus = corpus_of(config.text)
    model, curve = trained(config, corpus, str(trial.labels["arm"]), trial.seeds[0], rope_theta=rope_theta)
    records: list[Record] = []
    for number, length in enumerate(config.lengths):
        inputs, targets = validation_windows(corpus, config.text, length, reach=config.lengths[-1])
        loss = losses(model, inputs, targets, config.recipe, config.targets).nanmean().item()
        records.append({"length": length, "loss": loss})
        progress.report(TRAINING_SHARE + (1 - TRAINING_SHARE) * (number + 1) / len(config.lengths), loss=loss)
    return Outcome(records, {"positions": curve})


def _loss(results: Results, arm: str, positions: str, place: int) -> Values:
    length = results.config.positions.lengths[place]
    return results.by_seed("loss", part="positions", arm=arm, positions=positions, length=length)


def _rise(results: Results, arm: str, positions: str) -> Values:
    """Loss at the greatest length less that at the length of training."""
    return Values.of(lambda far, near: far - near, *(_loss(results, arm, positions, place) for place in (-1, 0)))


def _less_rise(results: Results, less: tuple[str, str], more: tuple[str, str]) -> Evidence:
    rises = (_rise(results, *model) for model in (less, more))
    return paired_difference(*rises, alternative="less", names=(", ".join(less), ", ".join(more)))


RAT_NONE, RAT_ROTARY = (("rat16-window", positions) for positions in POSITIONS)
ATTENTION_NONE, ATTENTION_ROTARY = (("attention-window", positions) for positions in POSITIONS)


def _flattest(results: Results) -> Evidence:
    return all_of([_less_rise(results, RAT_NONE, other) for other in (RAT_ROTARY, ATTENTION_NONE, ATTENTION_ROTARY)])


def _lowest(results: Results) -> Evidence:
    return all_of(
        [
            paired_difference(
                _loss(results, *RAT_NONE, -1),
                _loss(results, *other, -1),
                alternative="less",
                names=(", ".join(RAT_NONE), ", ".join(other)),
            )
            for other in (RAT_ROTARY, ATTENTION_NONE, ATTENTION_ROTARY)
        ]
    )


def _flat(results: Results) -> Evidence:
    return mean_of(_rise(results, *RAT_NONE), threshold=0.25, alternative="less", name="the rise without positions")


def _rotary_breaks(results: Results) -> Evidence:
    return mean_of(_rise(results, *RAT_ROTARY), threshold=0.6, name="the rise with rotary positions")


def _needs_fewer(results: Results) -> Evidence:
    """Without positions, attention is worse than RAT at every length."""
    places = range(len(results.config.positions.lengths))
    return all_of(
        [
            paired_difference(
                _loss(results, *ATTENTION_NONE, place),
                _loss(results, *RAT_NONE, place),
                threshold=0.2,
                names=(", ".join(ATTENTION_NONE), ", ".join(RAT_NONE)),
            )
            for place in places
        ]
    )


def _chunk_positions(results: Results) -> Evidence:
    return _less_rise(results, RAT_ROTARY, ATTENTION_ROTARY)


CURVE = "loss at 4 times the training length (figure): RAT without positions 2.66, with 3.59; attention 3.03, above 3.8"

CLAIMS = (
    Claim(
        "positions-flattest",
        "From the length of training to 8 times that, the loss of the RAT16 hybrid without positions rises less than "
        "with rotary positions, and less than that of both attention hybrids (each difference < 0).",
        _flattest,
        paper=CURVE,
        family="positions",
        headline=True,
        plain="RAT with local attention and no positions holds up best on texts longer than those trained on",
        figure="positions",
        scale="laptop",
    ),
    Claim(
        "positions-lowest",
        "At 8 times the length of training the RAT16 hybrid without positions has the lowest loss of the four "
        "(each difference < 0).",
        _lowest,
        paper=CURVE,
        family="positions",
        scale="laptop",
    ),
    Claim(
        "positions-flat",
        "The loss of the RAT16 hybrid without positions rises by less than 0.25 nats.",
        _flat,
        paper="about 2.6 to 2.66 (figure)",
        family="positions",
        scale="laptop",
    ),
    Claim(
        "positions-rotary",
        "With rotary positions that of the RAT16 hybrid rises by more than 0.6 nats.",
        _rotary_breaks,
        paper="about 2.6 to 3.59 (figure)",
        family="positions",
        scale="laptop",
    ),
    Claim(
        "positions-fewer",
        "RAT needs positions less: without them, the attention hybrid's loss is at least 0.2 nats above that of the "
        "RAT16 hybrid at every length.",
        _needs_fewer,
        paper=NOT_SHOWN,
        family="positions",
        scale="laptop",
    ),
    Claim(
        "positions-chunk",
        "Rotary positions of chunks extrapolate better than those of tokens: the RAT16 hybrid's loss rises less than "
        "the attention hybrid's (difference < 0).",
        _chunk_positions,
        paper="3.59 against more than 3.8 at 4 times the length (figure)",
        family="positions",
        scale="laptop",
    ),
)


def draw_positions(results: Results, axes: Axes) -> list[Record]:
    """Loss by length of context, a line a model."""
    rows: list[Record] = []
    config: PositionsConfig = results.config.positions
    for arm in ARMS:
        for positions in POSITIONS:
            values = {
                length: list(_loss(results, arm, positions, place).values())
                for place, length in enumerate(config.lengths)
            }
            look = {
                **style(arm),
                "label": f"{arm}, {'rotary' if positions == 'rotary' else 'no'} positions",
                "linestyle": "-" if positions == "none" else "--",
            }
            points = draw_over_seeds(axes, values, dots=True, marker="o", markersize=4, linewidth=1.6, **look)
            rows += [
                {"arm": arm, "positions": positions, "length": x, "loss": mean, "low": low, "high": high, "seeds": n}
                for x, mean, low, high, n in points
            ]
    if rows:
        axes.axvline(config.time, color=GREY, linewidth=0.8, linestyle=":", label="length of training")
    size_axis(axes, sorted({int(row["length"] or 0) for row in rows}), "tokens of context")
    axes.set_ylabel("loss of the same last tokens, nats")
    legend(axes)
    return rows


part = Part(
    "positions",
    trials,
    run,
    claims=CLAIMS,
    figures=(
        Figure(
            "positions",
            "Beyond the length of training: loss of the same tokens with more and more context before them. Lines are "
            "means over seeds, dots are seeds.",
            draw_positions,
        ),
    ),
)
