"""Part `language`: which mixer predicts text best, trained on the same windows in the same order.

At scale `laptop` bytes of the standard library's source; at scale `paper` the published recipe, section 4 and the
configuration files of arXiv 2507.04416.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from holdfast.lab import Claim, Evidence, Figure, Outcome, Part, Results, Trial, all_of, paired_difference, progress
from holdfast.lab.figures import draw_over_seeds, legend
from holdfast.lab.results import Values
from holdfast.studies.rat.arms import style
from holdfast.studies.rat.corpus import corpus_of, validation_windows
from holdfast.studies.rat.text_models import TextModels, losses, trained

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from holdfast.lab import Record
    from holdfast.studies.rat.study import RATStudyConfig

ARMS = ("attention", "rat4", "rat16", "rat64", "rnn", "attention-window", "rat16-window")

PLACES = 16
"""Groups of positions of a window whose losses are told apart."""


@dataclass(frozen=True, kw_only=True)
class LanguageConfig(TextModels):
    """Language models with different mixers.

    Arguments:
        arms: some of the arms.
    """

    arms: tuple[str, ...] = ARMS


def trials(config: RATStudyConfig) -> Iterator[Trial[LanguageConfig]]:
    """One trial a model."""
    settings = config.language
    for seed in list(config.seed_range)[: config.text_seeds]:
        for arm in settings.arms:
            yield Trial(seed, settings, {"arm": arm}, cost=settings.cost, gpu=settings.recipe.gpu)


def run(trial: Trial[LanguageConfig]) -> Outcome:
    """Train and test one model.

    Record: `loss`, in nats a token of the text kept back, a mean over whole windows; `parameters`; `text`, which tells
    one text from another. Curves: `language` (training loss by step), `context` (loss by position in the window).
    """
    config, arm = trial.config, str(trial.labels["arm"])
    corpus = corpus_of(config.text)
    model, curve = trained(config, corpus, arm, trial.seeds[0])
    inputs, targets = validation_windows(corpus, config.text, config.time)
    nats = losses(model, inputs, targets, config.recipe, config.time)
    loss = nats.nanmean().item()
    progress.report(1.0, loss=loss)
    context: list[Record] = []
    for place in nats.tensor_split(min(PLACES, config.time), dim=1):
        context.append({"position": sum(int(row["width"] or 0) for row in context), "width": place.shape[1]})
        context[-1] = {**context[-1], "loss": place.nanmean().item()}
    parameters = sum(tensor.numel() for tensor in model.parameters())
    record = {"loss": loss, "parameters": parameters, "text": corpus.digest}
    return Outcome([record], {"language": curve, "context": context})


def _loss(results: Results, arm: str) -> Values:
    return results.by_seed("loss", part="language", arm=arm)


def _worse(results: Results, worse: str, better: str) -> Evidence:
    """The loss of one arm is above that of another."""
    return paired_difference(_loss(results, worse), _loss(results, better), names=(worse, better))


def _worse_than(worse: str, better: str, results: Results) -> Evidence:
    return _worse(results, worse, better)


def _rnn_worst(results: Results) -> Evidence:
    return all_of([_worse(results, "rnn", arm) for arm in ("attention", "rat16", "rat64")])


def _close(results: Results) -> Evidence:
    values = (_loss(results, arm) for arm in ("rat16", "attention"))
    return paired_difference(*values, threshold=0.02, alternative="less", names=("rat16", "attention"))


CLAIMS = (
    Claim(
        "language-rnn",
        "The gated recurrence over the whole window is a worse language model than attention, RAT16 and RAT64 (each "
        "difference of losses > 0).",
        _rnn_worst,
        paper="perplexity 7.82 against 7.61 and 7.67: +0.027 and +0.019 nats (pre-training table)",
        family="language",
        headline=True,
        plain="recurrence alone models language worse than RAT and attention do",
        figure="language",
        scale="laptop",
    ),
    Claim(
        "language-64",
        "RAT64 has a higher loss than RAT16 (difference > 0).",
        partial(_worse_than, "rat64", "rat16"),
        paper="worse with every larger chunk, 16 to 256 (figure only)",
        family="language",
        headline=True,
        plain="RAT models language worse with chunks of 64 tokens than of 16",
        figure="language",
        scale="laptop",
    ),
    Claim(
        "language-4",
        "RAT16 has a higher loss than RAT4 (difference > 0).",
        partial(_worse_than, "rat16", "rat4"),
        paper="worse with every larger chunk, 16 to 256 (figure only); 4 is not shown",
        family="language",
        scale="laptop",
    ),
    Claim(
        "language-attention",
        "Attention has a lower loss than RAT16 (difference RAT16 less attention > 0).",
        partial(_worse_than, "rat16", "attention"),
        paper="7.67 against 7.61: +0.008 nats (pre-training table)",
        family="language gap",
        scale="laptop",
    ),
    Claim(
        "language-close",
        "RAT16 costs less than 0.02 nats against attention.",
        _close,
        paper="7.67 against 7.61: +0.008 nats (pre-training table)",
        family="language gap",
        scale="laptop",
    ),
    Claim(
        "language-hybrid",
        "Alternating with attention in a window, RAT16 has a lower loss than full attention has (difference > 0).",
        partial(_worse_than, "attention-window", "rat16-window"),
        paper="7.57 against 7.61: -0.005 nats (pre-training table)",
        family="language gap",
        scale="laptop",
    ),
)


def draw_language(results: Results, axes: Axes) -> list[Record]:
    """Loss of each arm less that of attention, seed by seed."""
    rows: list[Record] = []
    arms: list[str] = [arm for arm in results.config.language.arms if arm != "attention"]
    base = _loss(results, "attention")
    for place, arm in enumerate(arms):
        values = [value - base[seed] for seed, value in _loss(results, arm).items() if seed in base]
        look = {**style(arm), "linestyle": "none"}
        for point in draw_over_seeds(axes, {place: values}, dots=True, marker="D", markersize=6, **look):
            axes.vlines(place, point.low, point.high, color=look["color"], linewidth=1.6)
            losses_of = list(_loss(results, arm).values())
            rows.append(
                {
                    "arm": arm,
                    "loss": sum(losses_of) / len(losses_of),
                    "less attention": point.mean,
                    "low": point.low,
                    "high": point.high,
                    "seeds": point.seeds,
                }
            )
    if rows:
        axes.axhline(0.0, color=style("attention")["color"], linewidth=1.0)
    axes.set_xticks(range(len(arms)), [arm.replace("-", "-\n") for arm in arms])
    axes.set_ylabel("loss less attention's, nats a token")
    return rows


def draw_curves(curve: str, x: str, label: str, results: Results, axes: Axes) -> list[Record]:
    """A curve of each arm: means over seeds."""
    rows: list[Record] = []
    for arm in results.config.language.arms:
        by_place: dict[int, list[float]] = {}
        for point in results.curve(curve, part="language", arm=arm):
            by_place.setdefault(int(point[x] or 0), []).append(float(point["loss"] or 0.0))
        points = draw_over_seeds(axes, dict(sorted(by_place.items())), linewidth=1.4, **style(arm))
        rows += [{"arm": arm, x: at, "loss": mean, "seeds": seeds} for at, mean, _, _, seeds in points]
    axes.set_xlabel(label)
    axes.set_ylabel("loss, nats a token")
    legend(axes)
    return rows


part = Part(
    "language",
    trials,
    run,
    claims=CLAIMS,
    figures=(
        Figure(
            "language",
            "Language models on the same text: loss of each arm less that of attention. Diamonds are means over seeds, "
            "lines their 95 % intervals, dots seeds.",
            draw_language,
        ),
        Figure(
            "learning",
            "Training loss of the language models; means over seeds.",
            partial(draw_curves, "language", "step", "step"),
        ),
        Figure(
            "context",
            "Loss by position in the window: what an arm makes of more context. Means over seeds.",
            partial(draw_curves, "context", "position", "position in the window"),
        ),
    ),
)
