"""Part `models`: the paper's claims on language models of your own, in process or behind an endpoint.

No model comes with this part. Name some, in process by path or hub id and behind an endpoint by address and name:

    holdfast run confidence --scale paper --only models \\
        --config.models.models google/gemma-3-12b-it http://127.0.0.1:8000/v1#llama

Questions are the latitudes, or your own as JSONL files. The design is the published one with another model's answer
beside: 2,000 questions, six stated accuracies, own answer shown, hidden, or said to be another model's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from holdfast.lab import Claim, Evidence, Figure, Outcome, Part, Results, Trial, all_of, unusable
from holdfast.lab.verdict import failed_seeds
from holdfast.studies.confidence.curves import curves_of
from holdfast.studies.confidence.four import draw_changes, draw_confidence, draw_updates

if TYPE_CHECKING:
    from holdfast.confidence import Analysis, Estimate, Responder, Trials
    from holdfast.lab import Record
    from holdfast.studies.confidence.study import ConfidenceStudyConfig

LATITUDE = "latitude"


@dataclass(frozen=True, kw_only=True)
class ModelsConfig:
    """Language models to ask.

    Arguments:
        models: by path or hub id, or as ADDRESS#NAME behind an endpoint that speaks the chat protocol.
        questions: files of questions, or `latitude`.
        count: questions of each set.
        accuracies: of the adviser, as stated.
        answers: folder in which answers are kept; what it holds is not asked again.
        key_env: environment variable with the key of endpoints; empty: none.
        concurrency: requests to an endpoint under way together.
        gpu: share of a GPU that a model in process needs.
    """

    models: tuple[str, ...] = ()
    questions: tuple[str, ...] = (LATITUDE,)
    count: int = 2_000
    accuracies: tuple[float, ...] = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    answers: str = "confidence-answers"
    key_env: str = ""
    concurrency: int = 16
    gpu: float = 0.0


def trials(config: ConfidenceStudyConfig) -> Iterator[Trial[ModelsConfig]]:
    """One trial a model and set of questions: intervals are over questions, so that one seed is enough."""
    settings = config.models
    for model in settings.models:
        for questions in settings.questions:
            gpu = 0.0 if "#" in model else settings.gpu
            yield Trial(config.first_seed, settings, {"model": model, "questions": questions}, cost=100.0, gpu=gpu)


def needs(config: ConfidenceStudyConfig) -> dict[str, str]:
    """What asking the models takes: those behind an endpoint a client, the others transformers."""
    remote = {"#" in model for model in config.models.models}
    client = {"aiohttp": "holdfast[llm]", "tenacity": "holdfast[llm]"} if True in remote else {}
    return client | ({"transformers": "holdfast[hf]"} if False in remote else {})


def run(trial: Trial[ModelsConfig]) -> Outcome:
    """Ask a model and analyse.

    Record: each estimate with its interval (`choice_bias`, `choice_bias_low`, `choice_bias_high`, and
    `choice_bias_why` where there is none), the shares of changed minds, first answers that are right, and the
    mechanisms that held-out questions need. Curves: `cells`, `updates`.
    """
    from pathlib import Path

    from holdfast.confidence import Plan, Store, TrialDesign, analyze
    from holdfast.confidence import run as run_plan

    config, model, questions = trial.config, str(trial.labels["model"]), str(trial.labels["questions"])
    responder, template = _responder(config, model)
    design = TrialDesign(accuracies=config.accuracies, templates=(template,))
    plan = Plan(tuple(_questions(config, questions, trial.seeds[0])), design)
    folder = Path(config.answers)
    folder.mkdir(parents=True, exist_ok=True)
    name = "".join(letter if letter.isalnum() else "_" for letter in f"{model} {questions}")
    results = run_plan(plan, responder, Store(folder / f"{name}.jsonl"), progress=False)
    analysis = analyze(results.trials)
    return Outcome([record_of(results.trials, analysis)], curves_of(analysis))


def _responder(config: ModelsConfig, model: str) -> tuple[Responder, Any]:
    """Who answers, and the wording in the form that it can be asked in."""
    from dataclasses import replace

    from holdfast.confidence import TEMPLATES, ChatResponder
    from holdfast.llm import Endpoint

    template = TEMPLATES["plain"]
    if "#" in model:
        address, _, name = model.rpartition("#")
        endpoint = Endpoint(name, base_url=address, api_key_env=config.key_env or None, concurrency=config.concurrency)
        return ChatResponder(endpoint), template
    from holdfast.confidence.responders.huggingface import HuggingFaceResponder

    responder = HuggingFaceResponder.load(model)
    return responder, template if responder.backend.params["chat"] else replace(template, form="flat")


def _questions(config: ModelsConfig, questions: str, seed: int) -> Sequence[Any]:
    from holdfast.confidence import latitude_questions, read_questions

    if questions == LATITUDE:
        return latitude_questions(config.count, seed)
    return read_questions(questions)[: config.count]


ESTIMATES = ("choice_bias", "ownership_bias", "weight_same", "weight_opposite", "ratio")
"""Weights on calibrated log-odds, the others as reported, as the analysis judges them."""


def record_of(answers: Trials, analysis: Analysis) -> Record:
    """What claims are judged by, each estimate with its interval over questions."""
    changed = analysis.change_of_mind
    from holdfast.confidence import Estimate

    unknown = Estimate(math.nan, math.nan, math.nan, "not in this design")
    entries = {name: getattr(analysis, name) for name in ESTIMATES}
    entries |= {name: analysis.calibrated[name] for name in ("weight_same", "weight_opposite")}
    entries["odds"] = changed.odds_ratio if changed else unknown
    entries["rise"] = _rise(answers)
    entries["rank"] = _rank(answers)
    record: dict[str, Any] = {
        "trials": analysis.trials,
        "compared": analysis.compared,
        "changed_shown": changed.shown.value if changed else math.nan,
        "changed_hidden": changed.hidden.value if changed else math.nan,
        "first_right": analysis.calibration.accuracy if analysis.calibration else math.nan,
        "temperature": analysis.temperature.value,
        "needed": analysis.comparison.needed if analysis.comparison else "",
    }
    for name, entry in entries.items():
        record |= {name: entry.value, f"{name}_low": entry.low, f"{name}_high": entry.high, f"{name}_why": entry.reason}
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in record.items()}


def _rise(answers: Trials) -> Estimate:
    """Mean rise of log-odds from stage 1, own answer shown and no advice, with a t interval over questions."""
    import numpy as np
    from scipy import stats

    from holdfast.confidence import Estimate

    rows = answers.valid & (answers.display == "shown") & (answers.advice == "neutral")
    _, code = np.unique(answers.question[rows], return_inverse=True)
    moved = answers.final_log_odds[rows] - answers.initial_log_odds[rows]
    values = np.bincount(code, moved) / np.bincount(code)
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return Estimate(float(values.mean()), float(values.mean() - half), float(values.mean() + half))


def _rank(answers: Trials) -> Estimate:
    """Rank correlation over questions of first confidence and share of changed minds, Fisher's interval."""
    import numpy as np
    from scipy import stats

    from holdfast.confidence import Estimate

    rows = answers.valid & (answers.advice == "opposite")
    _, code = np.unique(answers.question[rows], return_inverse=True)
    count = np.bincount(code)
    confidence = np.bincount(code, answers.initial_log_odds[rows]) / count
    changes = np.bincount(code, answers.change_of_mind[rows]) / count
    value = float(stats.spearmanr(confidence, changes).statistic)
    if not abs(value) < 1 or len(count) < 10:
        return Estimate(math.nan, math.nan, math.nan, "all questions change alike, or they are too few")
    # Bonett and Wright's standard error of a transformed rank correlation.
    half = 1.96 * math.sqrt((1 + value**2 / 2) / (len(count) - 3))
    return Estimate(value, math.tanh(math.atanh(value) - half), math.tanh(math.atanh(value) + half))


def _over_questions(row: Record, name: str, threshold: float, alternative: str) -> Evidence:
    """Evidence from an estimate with a 95 % interval over questions: of the side that faces the threshold."""
    value, low, high = (row[f"{name}{end}"] for end in ("", "_low", "_high"))
    n = int(row["compared"] or 0)
    if not (isinstance(value, float) and isinstance(low, float) and isinstance(high, float)) or not low < high:
        return unusable(str(row[f"{name}_why"]) or f"{name} has no interval", n)
    reach = value - low if value > threshold else high - value
    distance = 1.96 * abs(value - threshold) / reach if reach > 0 else 0.0
    favours = value > threshold if alternative == "greater" else value < threshold
    p_value = math.erfc(distance / math.sqrt(2))
    test = "mean over questions"
    return Evidence(value, low, high, favours, p_value, n, test, threshold=threshold, counts="questions")


def _every_model(name: str, threshold: float, alternative: str, results: Results) -> Evidence:
    """Of every model on every set of questions."""
    rows = results.where(part="models")
    lost = results.failed(part="models")
    if lost:
        return unusable(failed_seeds(lost), len(rows))
    if not rows:
        return unusable("no model was asked: name some as --config.models.models")
    return all_of([_over_questions(row, name, threshold, alternative) for row in rows])


def _claim(
    name: str,
    text: str,
    estimate: str,
    threshold: float,
    alternative: str,
    paper: str,
    **told: Any,
) -> Claim:
    test = partial(_every_model, estimate, threshold, alternative)
    return Claim(name, text, test, paper=paper, family="models", scale="paper", **told)


CLAIMS = (
    _claim(
        "models-clings",
        "With its own earlier answer shown, every model changes its mind less often than with it hidden (odds ratio "
        "below 1).",
        "odds",
        1.0,
        "less",
        "13.1 % against 34.0 %, odds ratio 0.29 (journal version, as quoted by others)",
        headline=True,
        plain="a language model that sees its own earlier answer changes its mind less often",
        figure="models-changes",
    ),
    _claim(
        "models-bias",
        "Seeing its own answer adds to the log-odds of it without any advice (choice bias > 0).",
        "choice_bias",
        0.0,
        "greater",
        "confidence rises more when shown (figure 4)",
    ),
    _claim(
        "models-rise",
        "Confidence in a first answer rises above its first value once it is shown, with no new evidence (change of "
        "log-odds > 0).",
        "rise",
        0.0,
        "greater",
        "it rises (figure 4)",
    ),
    _claim(
        "models-ownership",
        "The same answer adds more when it is said to be the model's own than when it is said to be another model's "
        "(difference > 0).",
        "ownership_bias",
        0.0,
        "greater",
        "no bias towards another model's answer",
    ),
    _claim(
        "models-contradiction",
        "Contradicting advice is over-weighted (calibrated weight > 1).",
        "weight_opposite",
        1.0,
        "greater",
        "two to three times the ideal update (as reported by others)",
        headline=True,
        plain="advice against its answer sways a language model too much",
        figure="models-updates",
    ),
    _claim(
        "models-agreement",
        "Agreeing advice is not over-weighted (calibrated weight < 1.25).",
        "weight_same",
        1.25,
        "less",
        "not over-weighted (abstract)",
    ),
    _claim(
        "models-asymmetric",
        "Contradiction weighs more than agreement does (ratio of weights > 1).",
        "ratio",
        1.0,
        "greater",
        "over-weighted, and agreement not (abstract)",
    ),
    _claim(
        "models-confidence",
        "The lower the first confidence, the more often contradiction changes a mind (rank correlation below 0).",
        "rank",
        0.0,
        "less",
        "initial confidence governs flexibility",
    ),
)

part = Part(
    "models",
    trials,
    run,
    claims=CLAIMS,
    figures=(
        Figure(
            "models-changes",
            "Share of changed minds of your models, means over them, in the layout of the paper's Figure 4 (left). "
            "Dashes: an ideal observer with the same first answers.",
            partial(draw_changes, {"part": "models"}),
        ),
        Figure(
            "models-confidence",
            "Change of their confidence in the first answer, in the layout of the paper's Figure 4 (right).",
            partial(draw_confidence, {"part": "models"}),
        ),
        Figure(
            "models-updates",
            "Change of log-odds, as reported, that advice of each stated accuracy makes in your models, against what "
            "it is worth.",
            partial(draw_updates, {"part": "models"}),
        ),
    ),
    needs=needs,
)
