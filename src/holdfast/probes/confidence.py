"""How stubborn a language model is, and how easily swayed: a few thousand short questions, and one report.

The probe asks (`holdfast.confidence.run`) and analyses (`holdfast.confidence.analyze`); `report_of_results` says
later what a store holds, without asking anybody.
"""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.confidence import Analysis, Plan, Question, RepeatNoise, Responder, Results, Store, analyze, run
from holdfast.confidence.analysis import WIDTH
from holdfast.confidence.duplicates import duplicates_for, noise_of_contrasts
from holdfast.confidence.intervals import RESAMPLES
from holdfast.confidence.results import refuse_nothing
from holdfast.confidence.store import described

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LARGE = 0.5
"""Share of an interval's width that noise of equal prompts may make by itself before there is a warning: more than a
quarter of the variance is then the server's."""

NOISY = {
    "choice_bias": "choice bias",
    "ownership_bias": "ownership bias",
    "weight_same": "weight of agreement",
    "weight_opposite": "weight of contradiction",
}
"""Estimates whose intervals are compared with that noise."""

TERMS = {
    "log-odds": "ln(p / (1 - p)): 0 is a coin toss, +1 is 73%, +2 is 88%; evidence adds up in them",
    "choice bias": "what seeing its own earlier answer adds to it, with no new evidence; more than 0: it clings",
    "ownership bias": "how much of that is lost when the same answer is said to be another model's",
    "weight of agreement": "effect of agreeing advice over its worth ln(a / (1 - a)), a: the adviser's accuracy",
    "weight of contradiction": "the same of contradicting advice; above 1 it is easily swayed, below 1 stubborn",
    "mere contradiction": "fall on any contradiction, however bad the adviser",
    "contradiction / agreement": "ratio of the two weights, which needs no calibration",
    "first place": "leaning towards the option that is shown first",
    "calibrated": "divided by a temperature, so that first answers are right as often as they claim",
    "minds changed": "share of trials that end with another answer than the first one; ideal: of an ideal observer",
    "change of p": "mean change of the probability of the first answer",
    "AUROC": "chance that a right first answer has more confidence than a wrong one",
}
"""What the words of a report mean."""


@dataclass(frozen=True)
class ConfidenceReport:
    """What the probe found.

    Arguments:
        analysis: of the trials.
        asked: what was asked of whom, in a line.
        warnings: about the run itself, in sentences; those about the numbers are in `analysis.warnings`.
        noise: by how much log-odds of equal prompts differ; `None`: not measured.
    """

    analysis: Analysis
    asked: str
    warnings: tuple[str, ...] = ()
    noise: RepeatNoise | None = None

    @property
    def verdict(self) -> str:
        """One sentence: whether the model departs from an ideal observer, how far, and what to try."""
        return self.analysis.sentence

    def explain(self) -> str:
        """What the words of the report mean, one on a line."""
        width = max(map(len, TERMS))
        return "\n".join(f"{term:<{width}}  {text}" for term, text in TERMS.items())

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists, dicts and numbers, ready for JSON: what is not finite becomes `None`."""
        noise = None if self.noise is None else dataclasses.asdict(self.noise)
        about = {"verdict": self.verdict, "asked": self.asked, "run_warnings": list(self.warnings), "noise": noise}
        return {**about, **self.analysis.to_dict()}

    def plot(self, ax: Axes) -> None:
        """Draw how often minds are changed, by advice and by what is shown of the earlier answer.

        Arguments:
            ax: Matplotlib axes to draw into.
        """
        from holdfast.confidence.figures import plot_change_of_mind

        plot_change_of_mind(self.analysis, ax)

    def __str__(self) -> str:
        """The verdict, what supports it, and what was asked; `explain` says what the words mean."""
        lines = [*textwrap.wrap(self.asked, WIDTH)]
        for warning in self.warnings:
            lines += textwrap.wrap(warning, WIDTH, initial_indent="! ", subsequent_indent="  ")
        return "\n".join([str(self.analysis), "", *lines])


def probe_confidence(
    responder: Responder,
    plan: Plan | Sequence[Question],
    store: Store | Path | str,
    *,
    tell: Callable[[str], None] = lambda line: None,
    progress: bool = True,
    price: tuple[float, float] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> ConfidenceReport:
    """Ask a model whether it sticks to its answers, and whether it weighs advice by its worth.

    Every question is asked alone, and then again in new conversations that show or hide the first answer, or say that
    it is another model's, with advice that agrees, contradicts, or names nothing. Only requests that the store has no
    answer to are sent: after any end the same call goes on where it was.

    Arguments:
        responder: the model: `holdfast.confidence.responders.huggingface.HuggingFaceResponder` in process,
            `ChatResponder`, `SystemOneResponder` or `SampledResponder` behind an endpoint, `SimulatedResponder` to try
            the probe on an observer with known biases.
        plan: what is asked; of questions alone the pilot design is made, 38 requests a question of two options, with 20
            duplicates where they say something (`holdfast.confidence.duplicates`).
        store: file where answers are kept.
        tell: called with lines for the user: what it will take, before the first request, and what was reused.
        progress: show a bar with the time left, where there is a terminal.
        price: of a million prompt tokens and of a million completion tokens, for what is told.
        resamples: draws of questions that intervals come from.
        seed: of the draws.

    Errors:
        UnusableAnswers: the model wants to write something other than a label, or too many answers are invalid.
        ArgumentError: questions that cannot be asked, or a store that cannot be written.
        HoldfastError: what the responder raises. Answers so far are kept.

    Source: arXiv 2507.03120, and doi 10.1038/s42256-026-01217-9; the contrasts in log-odds are ours.
    """
    whole = plan if isinstance(plan, Plan) else Plan(tuple(plan), duplicates=duplicates_for(responder.backend))
    kept = store if isinstance(store, Store) else Store(store)
    samples = max(responder.backend.samples, 1)
    tell(f"{whole.estimate(price, samples=samples)}; answers are kept in {kept.path}")
    results = run(whole, responder, kept, tell=tell, progress=progress)
    return report_of_results(results, resamples=resamples, seed=seed)


def report_of_results(results: Results, *, resamples: int = RESAMPLES, seed: int = 0) -> ConfidenceReport:
    """The same report from `holdfast.confidence.results_of` a store, without asking anybody.

    Arguments:
        results: of a run, whole or not.
        resamples: draws of questions that intervals come from.
        seed: of the draws.

    Errors:
        UnusableAnswers: no question has what an analysis needs; the message says how to go on.
    """
    refuse_nothing(results)
    analysis = analyze(results.trials, resamples=resamples, seed=seed)
    warnings = (*results.warnings, *_of_noise(results, analysis))
    return ConfidenceReport(analysis, _asked(results), warnings, results.noise)


def _asked(results: Results) -> str:
    this, noise = results.run, results.noise
    if noise is not None:
        floor = f"; equal prompts differ by {noise.deviation:.2g} log-odds (standard deviation of {noise.duplicates})"
    else:
        floor = "; equal prompts have equal answers" if this.backend.deterministic else ""
    return f"Run {this.id}: {described(this)}; {results.answered:,} of {this.plan.requests:,} readings{floor}."


def _of_noise(results: Results, analysis: Analysis) -> Iterator[str]:
    """Whether the noise of equal prompts is large beside the intervals."""
    if results.noise is None or not results.noise.deviation:
        return
    widths = noise_of_contrasts(results.trials, results.noise.deviation)
    large = []
    for name, words in NOISY.items():
        estimate = getattr(analysis, name)
        width = (estimate.high - estimate.low) / 2
        if estimate.known and widths[name] > LARGE * width:
            large.append(f"{words} is known to ±{width:.2g}, of which noise alone makes ±{widths[name]:.2g}")
    if large:
        yield (
            f"answers to equal prompts differ by {results.noise.deviation:.2g} log-odds, which is large beside the "
            f"intervals: {'; '.join(large)}. Ask fewer at a time, or a server whose answers do not depend on what "
            "else it is asked"
        )
