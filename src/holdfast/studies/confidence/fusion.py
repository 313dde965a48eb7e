"""Part `fusion`: what it costs to cling to an answer or to over-weigh contradiction.

Observers with calibrated first answers get advice that is right as often as is stated. Five policies answer: keep the
first answer, ideal fusion (`holdfast.confidence.fuse`), and three models' own second answers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from holdfast.lab import Claim, Evidence, Figure, Part, Results, Trial, all_of, paired_difference
from holdfast.lab.figures import GREY, SHARE, draw_over_seeds, legend
from holdfast.studies.confidence.paper import OURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from holdfast.lab import Record
    from holdfast.studies.confidence.study import ConfidenceStudyConfig

POLICIES = {
    "first": "keep the first answer",
    "fused": "weigh advice outside of the model",
    "stubborn": "own answer shown, choice bias 1",
    "shown": "paper-like, own answer shown",
    "hidden": "paper-like, own answer hidden",
}


@dataclass(frozen=True, kw_only=True)
class FusionConfig:
    """Simulated decisions.

    Arguments:
        cases: for each accuracy.
        accuracies: of the advisers, who are right as often as is stated.
    """

    cases: int = 100_000
    accuracies: tuple[float, ...] = (0.6, 0.7, 0.8, 0.9)


def trials(config: ConfidenceStudyConfig) -> Iterator[Trial[FusionConfig]]:
    """One trial a seed."""
    for seed in config.seed_range:
        yield Trial(seed, config.fusion)


def run(trial: Trial[FusionConfig]) -> list[Record]:
    """Decide by each policy.

    Records: `accuracy_of_answers`, `log_loss` and `changed`, the share of changed minds, for each policy and accuracy
    of the advisers.
    """
    import numpy as np
    from scipy.special import log_expit

    from holdfast.confidence import Observer, fuse
    from holdfast.confidence.observers import draw_evidence

    config = trial.config
    # Without noise of readings, as in the paper's description of an observer.
    stubborn = Observer(noise=0.0, bias=1.0)
    paper_like = Observer(noise=0.0, bias=1.0, weight_same=0.8, weight_opposite=2.5)
    rng = np.random.default_rng(trial.seeds[0])
    rows: list[Record] = []
    for accuracy in config.accuracies:
        evidence, answer = draw_evidence(rng, config.cases)
        choice = np.where(evidence >= 0, 0, 1)
        first = np.abs(evidence)
        helpful = rng.random(config.cases) < accuracy
        advised = np.where(helpful, answer, 1 - answer)
        advice = np.where(advised == choice, "same", "opposite")
        stated = np.full(config.cases, accuracy)
        shown, hidden = (np.full(config.cases, display) for display in ("shown", "hidden"))
        after = {
            "first": first,
            "fused": fuse(first, advice, accuracy),
            "stubborn": first + stubborn.pull(shown, advice, stated),
            "shown": first + paper_like.pull(shown, advice, stated),
            "hidden": first + paper_like.pull(hidden, advice, stated),
        }
        right = choice == answer
        for policy, log_odds in after.items():
            toward_truth = np.where(right, log_odds, -log_odds)
            rows.append(
                {
                    "policy": policy,
                    "advisers": accuracy,
                    "accuracy": float((toward_truth > 0).mean()),
                    "log_loss": float(-log_expit(toward_truth).mean()),
                    "changed": float((log_odds < 0).mean()),
                }
            )
    return rows


def _better(metric: str, results: Results) -> Evidence:
    """Fusion beats each of the other policies at each accuracy of the advisers."""
    sign = 1.0 if metric == "accuracy" else -1.0
    links = []
    for accuracy in results.config.fusion.accuracies:
        fused = results.by_seed(metric, part="fusion", policy="fused", advisers=accuracy)
        for policy in ("stubborn", "shown", "hidden"):
            other = results.by_seed(metric, part="fusion", policy=policy, advisers=accuracy)
            better, worse = (fused, other) if sign > 0 else (other, fused)
            links.append(paired_difference(better, worse, names=("fusion", policy)))
    return all_of(links)


def _hiding(results: Results) -> Evidence:
    """To a paper-like model, hiding its answer does harm at each accuracy."""
    return all_of(
        [
            paired_difference(
                *(
                    results.by_seed("log_loss", part="fusion", policy=policy, advisers=accuracy)
                    for policy in ("hidden", "shown")
                ),
                names=("hidden", "shown"),
            )
            for accuracy in results.config.fusion.accuracies
            if accuracy > 0.6
        ]
    )


CLAIMS = (
    Claim(
        "fusion-loss",
        "Advice that is weighed outside of the model gives a lower log-loss than the answers of a stubborn and of a "
        "paper-like model do, at every accuracy of the advisers (difference > 0).",
        partial(_better, "log_loss"),
        paper=OURS,
        family="fusion",
        headline=True,
        plain="advice that is weighed outside of a model gives better answers than its own weighing",
        figure="fusion-loss",
    ),
    Claim(
        "fusion-accuracy",
        "Advice that is weighed outside of the model gives more right answers, too (difference > 0).",
        partial(_better, "accuracy"),
        paper=OURS,
        family="fusion",
    ),
    Claim(
        "fusion-hiding",
        "To hide its answer from a model that over-weights contradiction, and do nothing about the weights, raises its "
        "log-loss with advisers of 70 % and more (difference > 0).",
        _hiding,
        paper=OURS,
        family="fusion",
    ),
)


def draw_policies(metric: str, label: str, results: Results, axes: Axes) -> list[Record]:
    """A metric of each policy against the accuracy of the advisers, means over seeds."""
    rows: list[Record] = []
    bounds = SHARE if metric == "accuracy" else None
    colours = {"first": GREY, "fused": "C0", "stubborn": "C3", "shown": "C1", "hidden": "C4"}
    for policy, words in POLICIES.items():
        values: dict[float, list[float]] = {}
        for row in results.where(part="fusion", policy=policy):
            values.setdefault(float(row["advisers"] or 0.0), []).append(float(row[metric] or 0.0))
        look: dict[str, Any] = {"color": colours[policy], "linestyle": "--" if policy == "first" else "-"}
        look |= {"marker": "o", "markersize": 4}
        drawn = draw_over_seeds(axes, dict(sorted(values.items())), bounds=bounds, label=words, **look)
        rows += [
            {"policy": words, "accuracy of advisers": at, metric.replace("_", " "): mean, "low": low, "high": high}
            for at, mean, low, high, _ in drawn
        ]
    axes.set_xlabel("accuracy of the advisers, as stated and in truth")
    axes.set_ylabel(label)
    legend(axes)
    return rows


part = Part(
    "fusion",
    trials,
    run,
    claims=CLAIMS,
    figures=(
        Figure(
            "fusion-loss",
            "Log-loss of answers after advice. Both biases cost. To hide the earlier answer from a model that "
            "over-weighs contradiction makes it worse: clinging had held that in check. Means over seeds.",
            partial(draw_policies, "log_loss", "log-loss of the answer, nats"),
        ),
        Figure(
            "fusion-accuracy",
            "Share of right answers after advice; means over seeds.",
            partial(draw_policies, "accuracy", "share of right answers"),
        ),
    ),
)
