"""How stubborn a language model is, and how easily swayed: a few thousand short questions, and one report.

The probe asks (`holdfast.confidence.run`) and analyses (`holdfast.confidence.analyze`); `report_of_results` says
later what a store holds, without asking anybody.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.confidence import Analysis, Plan, Question, Responder, Results, Run, Store, analyze, run
from holdfast.confidence.analysis import WIDTH
from holdfast.confidence.intervals import RESAMPLES
from holdfast.confidence.store import described

if TYPE_CHECKING:
    from matplotlib.axes import Axes

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
    """

    analysis: Analysis
    asked: str
    warnings: tuple[str, ...] = ()

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
        about = {"verdict": self.verdict, "asked": self.asked, "run_warnings": list(self.warnings)}
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
        plan: what is asked; of questions alone the pilot design is made, 38 requests a question.
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
    whole = plan if isinstance(plan, Plan) else Plan(tuple(plan))
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
        ArgumentError: nothing in them can be analysed.
    """
    analysis = analyze(results.trials, resamples=resamples, seed=seed)
    return ConfidenceReport(analysis, _asked(results.run, results.answered), results.warnings)


def _asked(this: Run, answered: int) -> str:
    return f"Run {this.id}: {described(this)}; {answered:,} of {this.plan.requests:,} readings."
