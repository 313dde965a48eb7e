"""All that trials say, in one call: estimates, verdicts in plain words, and what could mislead."""

from __future__ import annotations

import dataclasses
import math
import textwrap
from dataclasses import dataclass
from typing import Any

import numpy as np

from holdfast.confidence.calibration import Calibration, calibrate
from holdfast.confidence.cells import Cell, ChangeOfMind, cell_table, change_of_mind
from holdfast.confidence.choices import ChoiceModel, choice_design, fit_choices
from holdfast.confidence.comparison import FOLDS, Comparison, compare
from holdfast.confidence.contrasts import COLUMNS, Contrasts, Grid, contrast
from holdfast.confidence.diagnostics import (
    ALL_ESTIMATES,
    CALIBRATED,
    FAR_CENSORED,
    Caution,
    ProbabilityAsymmetry,
    far_from_limit,
    look_at_estimates,
    look_at_readings,
    most_censored,
    probability_asymmetry,
    reliability_of_readings,
    saturation_limit,
    share_censored,
)
from holdfast.confidence.estimates import ABSOLUTE, Estimates, estimate, first_answers
from holdfast.confidence.intervals import RESAMPLES, Estimate, question_weights, refused
from holdfast.confidence.trials import Source, Trials
from holdfast.confidence.verdicts import IDEAL, Verdict, judge, summary, wald_p_values
from holdfast.errors import ArgumentError

WIDTH = 80
"""Columns of the text."""


@dataclass(frozen=True)
class Update:
    """Mean change of log-odds by advice of one stated accuracy, against neutral advice.

    Arguments:
        advice: `"same"` or `"opposite"`; for the latter the change is counted downwards.
        accuracy: stated.
        observed: as reported.
        ideal: what the advice is worth.
    """

    advice: str
    accuracy: float
    observed: Estimate
    ideal: float


@dataclass(frozen=True)
class Analysis:
    """What trials say about a model. Estimates are in log-odds as they were reported; see `calibrated` for the others.

    Arguments:
        sentence: the result in one plain sentence.
        choice_bias: what showing its own earlier answer adds to the log-odds of it; ideal: 0.
        ownership_bias: how much more its own answer adds than the same answer of another model; ideal: 0.
        weight_same: how much agreeing advice counts, against its worth.
        weight_opposite: how much contradicting advice counts, against its worth.
        intercept_opposite: fall of log-odds on any contradiction, whatever the accuracy; ideal: 0.
        ratio: weight of contradicting over that of agreeing advice; ideal: 1.
        position_bias: leaning towards the option that is shown first, in log-odds; ideal: 0.
        calibrated: biases and weights in log-odds that mean what they say: weights of 1 are ideal. Where readings are
            censored, weights are from questions far from the limit alone, and refused where there are none.
        temperature: that reported log-odds are divided by for it, the noise of readings taken out.
        censored_share: the largest share of trials with a reading that is only a bound, over the cells that weights
            come from.
        verdicts: a sentence for each comparison with an ideal observer.
        judged: the same with names, flags and p-values.
        warnings: what could mislead, each with its name.
        cells: change of mind and of confidence for each cell.
        change_of_mind: with the own answer shown against hidden.
        updates: observed and ideal changes for each stated accuracy.
        probability_asymmetry: the ratio that is no bias.
        ratio_unsaturated: the ratio from questions far from the limit of censored readings.
        secondary: all other contrasts by name; see `holdfast.confidence.COLUMNS`.
        template_spread: standard deviation of estimates over wordings; empty: one wording.
        calibration: of first answers; `None`: no answer key, or bare choices.
        reliability: correlation of the two first-stage readings of a question.
        choices: the model of bare choices, where there is nothing but choices.
        comparison: which mechanisms the log-odds need.
        source: where confidences come from.
        trials: number of trials.
        questions: number of questions.
        compared: number of questions that contrasts come from.
    """

    sentence: str
    choice_bias: Estimate
    ownership_bias: Estimate
    weight_same: Estimate
    weight_opposite: Estimate
    intercept_opposite: Estimate
    ratio: Estimate
    position_bias: Estimate
    calibrated: dict[str, Estimate]
    temperature: Estimate
    censored_share: float
    verdicts: tuple[str, ...]
    judged: tuple[Verdict, ...]
    warnings: tuple[Caution, ...]
    cells: tuple[Cell, ...]
    change_of_mind: ChangeOfMind | None
    updates: tuple[Update, ...]
    probability_asymmetry: ProbabilityAsymmetry | None
    ratio_unsaturated: Estimate | None
    secondary: dict[str, Estimate]
    template_spread: dict[str, float]
    calibration: Calibration | None
    reliability: float
    choices: ChoiceModel | None
    comparison: Comparison | None
    source: Source
    trials: int
    questions: int
    compared: int

    @property
    def flags(self) -> tuple[str, ...]:
        """What was found, in one word each; empty: nothing."""
        return tuple(verdict.flag for verdict in self.judged if verdict.flag)

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists, dicts and numbers, ready for JSON: what is not finite becomes `None`."""
        fields = {field.name: plain(getattr(self, field.name)) for field in dataclasses.fields(self)}
        return {**fields, "flags": list(self.flags)}

    def __str__(self) -> str:
        """Return the sentence, then tables for people, on lines of at most 80 columns."""
        return "\n".join(
            [
                *_wrapped(self.sentence),
                "",
                *(line for sentence in self.verdicts for line in _wrapped(sentence, "- ")),
                "",
                *_estimate_table(self),
                "",
                *_cell_lines(self),
                "",
                *_calibration_lines(self),
                *(line for caution in self.warnings for line in _wrapped(f"{caution.name}: {caution.text}", "! ")),
            ]
        ).rstrip()


PRIMARY = ("choice_bias", "ownership_bias", "weight_same", "weight_opposite", "intercept_opposite", "ratio")


def analyze(trials: Trials, *, resamples: int = RESAMPLES, seed: int = 0) -> Analysis:
    """Estimate, judge, and look for what misleads.

    Arguments:
        trials: of one model.
        resamples: draws of questions that intervals come from.
        seed: of the draws, and of the split that calibration is tested on.

    Errors:
        ArgumentError: no valid trial, or no question of which all cells are there.
    """
    if not trials.valid.any():
        raise ArgumentError("trials", "at least one valid trial", f"{len(trials)}, all invalid")
    weights = question_weights(trials.questions, resamples, seed)
    table = cell_table(trials, weights)
    bare = trials.source == "choices"
    calibration = None if bare else _calibration(trials, seed)
    cautions = look_at_readings(trials)
    reported = dict.fromkeys((*COLUMNS, "ratio"), refused("bare choices: see the model of choices"))
    calibrated = dict.fromkeys(ABSOLUTE, refused("bare choices have no unit of log-odds"))
    temperature, unsaturated, choices, contrasts = refused("bare choices"), None, None, None
    updates: tuple[Update, ...] = ()
    spread: dict[str, float] = {}
    if bare:
        choices = fit_choices(choice_design(trials))
        judged_by, p_values = wald_p_values(choices)
    else:
        contrasts = contrast(trials)
        estimates = estimate(trials, contrasts, resamples, seed)
        far = _far(trials, resamples, seed)
        unsaturated = None if far is None else far.ratio
        cautions += look_at_estimates(trials, contrasts, estimates, table, unsaturated)
        reported, calibrated, temperature = dict(estimates.reported), estimates.calibrated, estimates.temperature
        updates, spread, p_values = _updates(contrasts, estimates), _template_spread(trials), dict(estimates.p_values)
        if far is not None:
            calibrated |= {name: far.judged[name] for name in calibrated if name in JUDGED_FAR}
            p_values |= {name: far.p_values[name] for name in JUDGED_FAR}
        reported, calibrated = _refuse(reported, calibrated, cautions)
        judged_by = {name: (calibrated if "weight" in name else reported)[name] for name in IDEAL}
        if far is not None and reported["ratio"].known:
            judged_by["ratio"] = far.judged["ratio"]
    refusal = next((caution.text for caution in cautions if caution.refuses == ALL_ESTIMATES), "")
    if refusal:
        judged_by = dict.fromkeys(IDEAL, refused(refusal))
    judged = judge(judged_by, p_values)
    compared = trials.questions if contrasts is None else contrasts.questions
    return Analysis(
        sentence=summary(judged, refusal, compared),
        **{name: reported[name] for name in (*PRIMARY, "position_bias")},
        calibrated=calibrated,
        temperature=temperature,
        censored_share=most_censored(table).censored,
        verdicts=tuple(verdict.sentence for verdict in judged),
        judged=judged,
        warnings=tuple(cautions),
        cells=table,
        change_of_mind=change_of_mind(trials, weights),
        updates=updates,
        probability_asymmetry=None if bare else probability_asymmetry(trials),
        ratio_unsaturated=unsaturated,
        secondary={name: entry for name, entry in reported.items() if name not in (*PRIMARY, "position_bias")},
        template_spread=spread,
        calibration=calibration,
        reliability=math.nan if bare else reliability_of_readings(trials),
        choices=choices,
        comparison=_comparison(trials, temperature, reported),
        source=trials.source,
        trials=len(trials),
        questions=trials.questions,
        compared=compared,
    )


def plain(value: Any) -> Any:
    """Values as JSON has them: arrays and tuples as lists, dataclasses as dicts, nothing that is not finite."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _calibration(trials: Trials, seed: int) -> Calibration | None:
    """Of first answers with a known right one; bare choices have no confidence."""
    rows, correct = first_answers(trials)
    if not len(rows):
        return None
    return calibrate(trials.initial_log_odds[rows], correct, trials.question_code[rows], seed)


JUDGED_FAR = ("weight_same", "weight_opposite", "ratio")
"""What a limit of readings bends."""


@dataclass(frozen=True)
class Far:
    """What questions far from where readings are censored say.

    Arguments:
        ratio: of the weights.
        judged: weights on calibrated log-odds, and their ratio, as verdicts may use them: refused where readings of
            these questions come to the limit too.
        p_values: of the same.
    """

    ratio: Estimate
    judged: dict[str, Estimate]
    p_values: dict[str, float]

    @classmethod
    def refused(cls, reason: str, ratio: Estimate | None = None) -> Far:
        """No verdicts, and why."""
        nothing = refused(reason)
        return cls(ratio or nothing, dict.fromkeys(JUDGED_FAR, nothing), dict.fromkeys(JUDGED_FAR, math.nan))


def _far(trials: Trials, resamples: int, seed: int) -> Far | None:
    """Weights from questions far from where readings are censored; `None` where none are.

    The weight of agreement meets the limit before that of contradiction, which makes weights too small and their ratio
    too large: an ideal observer would be found fault with.
    """
    limit = saturation_limit(trials)
    if math.isinf(limit):
        return None
    near = np.zeros(trials.questions, bool)
    near[trials.question_code[~far_from_limit(trials, limit)]] = True
    keep = ~near[trials.question_code]
    grid = Grid.of(trials)
    if not (grid.complete & ~near[grid.question]).any():
        return Far.refused("no question is far from the limit of readings")
    estimates = estimate(trials, contrast(trials, keep), resamples, seed)
    ratio = estimates.reported["ratio"]
    if share_censored(trials.where(keep)) > FAR_CENSORED:
        return Far.refused("readings come to their limit even where they begin far from it", ratio)
    return Far(ratio, {**estimates.calibrated, "ratio": ratio}, estimates.p_values)


def _updates(contrasts: Contrasts, estimates: Estimates) -> tuple[Update, ...]:
    worth = contrasts.worth.mean(axis=0)
    return tuple(
        Update(side, float(accuracy), entry, float(ideal))
        for side, entries in zip(("same", "opposite"), estimates.updates, strict=True)
        for accuracy, entry, ideal in zip(contrasts.accuracies, entries, worth, strict=True)
        if entry.known
    )


def _template_spread(trials: Trials) -> dict[str, float]:
    """Standard deviation of the primary estimates over wordings, those with a complete question."""
    names = np.unique(trials.template)
    if len(names) < 2:
        return {}
    parts = [trials.where(np.asarray(trials.template == name)) for name in names]
    usable = [contrast(part) for part in parts if Grid.of(part).complete.any()]
    if len(usable) < 2:
        return {}
    means = {name: [part.mean(name) for part in usable] for name in PRIMARY if name != "ratio"}
    return {name: float(np.std(values, ddof=1)) for name, values in means.items()}


def _comparison(trials: Trials, temperature: Estimate, reported: dict[str, Estimate]) -> Comparison | None:
    """Nested models, where there are calibrated log-odds.

    The temperature is only known to an interval. Of that the value is taken which suits an ideal observer best, the
    mean of both weights, so that an error of the temperature is not taken for one of the weights.
    """
    usable = temperature.known and not (trials.options > 2).any()
    rows = trials.valid & (trials.display != "shown_flipped") & ~(trials.accuracy == 1)
    weights = [reported[name].value for name in ("weight_same", "weight_opposite")]
    if not usable or not np.isfinite(weights).all() or len(np.unique(trials.question[rows])) < FOLDS:
        return None
    return compare(trials, float(np.clip(np.mean(weights), temperature.low, temperature.high)))


def _refuse(
    reported: dict[str, Estimate], calibrated: dict[str, Estimate], cautions: list[Caution]
) -> tuple[dict[str, Estimate], dict[str, Estimate]]:
    """Estimates without those that cautions refuse."""
    for caution in cautions:
        everything, scaled = caution.refuses == ALL_ESTIMATES, caution.refuses == CALIBRATED
        reason = caution.text.partition(":")[0].partition(";")[0]
        reported = {
            name: refused(reason) if everything or name in caution.refuses else entry
            for name, entry in reported.items()
        }
        calibrated = {
            name: refused(reason) if everything or scaled or name in caution.refuses else entry
            for name, entry in calibrated.items()
        }
    return reported, calibrated


def _wrapped(text: str, mark: str = "") -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=mark, subsequent_indent=" " * len(mark))


_LABELS = {
    "choice_bias": ("choice bias", "0"),
    "ownership_bias": ("ownership bias", "0"),
    "weight_same": ("weight of agreement", "1"),
    "weight_opposite": ("weight of contradiction", "1"),
    "intercept_opposite": ("mere contradiction", "0"),
    "ratio": ("contradiction / agreement", "1"),
    "position_bias": ("first place", "0"),
}


def _estimate_table(analysis: Analysis) -> list[str]:
    """Estimates as reported and calibrated, with the ideal value."""
    lines = [f"{'log-odds':25}  {'as reported':20}  {'calibrated':20}  ideal"]
    for name, (label, ideal) in _LABELS.items():
        reported, calibrated = getattr(analysis, name), analysis.calibrated.get(name)
        cells = [_cell_text(reported), "" if calibrated is None else _cell_text(calibrated)]
        lines.append(f"{label:25}  {cells[0]:20}  {cells[1]:20}  {ideal}")
    return lines


def _cell_text(entry: Estimate) -> str:
    return f"{entry.value:.2f} [{entry.low:.2f}, {entry.high:.2f}]" if entry.known else "-"


def _cell_lines(analysis: Analysis) -> list[str]:
    """Change of mind over all accuracies, a line a cell."""
    lines = [f"{'display':13}  {'advice':8}  {'trials':>6}  {'minds changed':>22}  {'ideal':>6}  {'change of p':>11}"]
    for cell in analysis.cells:
        if cell.accuracy is None:
            rate = cell.change_of_mind
            changed = f"{rate.value:.1%} [{rate.low:.1%}, {rate.high:.1%}]"
            ideal, moved = (
                "-" if math.isnan(value) else format(value, form)
                for value, form in ((cell.ideal_change_of_mind, ".1%"), (cell.probability_change, "+.3f"))
            )
            lines.append(f"{cell.display:13}  {cell.advice:8}  {cell.trials:6}  {changed:>22}  {ideal:>6}  {moved:>11}")
    return lines


def _calibration_lines(analysis: Analysis) -> list[str]:
    """How first answers fare, which mechanisms are needed, and an empty line."""
    lines: list[str] = []
    calibration = analysis.calibration
    if calibration is not None:
        # What there is no number for is left out: that first answers are all right, or there is one order, is said.
        scaled = "" if math.isnan(calibration.error_after) else f", after scaling {calibration.error_after:.3f}"
        auroc = "" if math.isnan(calibration.auroc) else f"; AUROC {calibration.auroc:.3f}"
        reliable = "" if math.isnan(analysis.reliability) else f"; reliability of readings {analysis.reliability:.2f}"
        lines += _wrapped(
            f"First answers: {calibration.accuracy:.1%} right at a mean confidence of "
            f"{calibration.mean_confidence:.1%}; calibration error {calibration.error_before:.3f}{scaled}{auroc}; "
            f"temperature {analysis.temperature}{reliable}."
        )
    if analysis.comparison is not None:
        lines += _wrapped(f"Simplest model that held-out questions need: {analysis.comparison.needed}.")
    if analysis.choices is not None:
        model = analysis.choices
        named = ", ".join(f"{name} {entry}" for name, entry in model.coefficients.items())
        lines += _wrapped(f"Model of choices, in units of its own noise: {named}; ratio {model.ratio}.")
    return [*lines, ""] if lines else lines
