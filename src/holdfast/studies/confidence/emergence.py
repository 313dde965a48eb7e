"""Part `emergence`: a choice-supportive boost in a model that saw no biased author. Our own exploration, no claim of
the paper.

Every author of the transcripts decides by a private percept of the question and has no bias: at stage 1 it has a
percept x1 with mean m towards the right option and variance 1, at stage 2 another one, x2, which correlates with the
first by r, and each time it names the option that the percept favours. What it sees of its earlier answer changes
nothing for it.
The reader of such transcripts does not know the percept: for it, an answer that is shown tells of the author, and who
answered so before is likely to do so again. A model that is trained to predict the next word therefore shows

    P(stay | own answer shown) = Phi2(m, m; r) / Phi(m)        P(stay | hidden) = Phi(m)

with Phi2 the distribution function of two standard normals with correlation r: a boost, which looks like a bias, from
r > 0 alone.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.lab import Claim, Evidence, Figure, Outcome, Part, Results, Trial, equivalent, mean_of, progress
from holdfast.lab.figures import GREY, draw_over_seeds, legend, seed_mean
from holdfast.lab.results import Values
from holdfast.lab.seeds import rng_for
from holdfast.studies.confidence.language_model import AUTHORS, Recipe, Targets, train, untrained, word_tokenizer

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float, Int
    from matplotlib.axes import Axes

    from holdfast.confidence import Plan, Question, Trials
    from holdfast.lab import Record
    from holdfast.llm import Message

MARGIN = 0.15
"""Log-odds by which the boost may differ from the closed form; fixed on development seeds."""


@dataclass(frozen=True, kw_only=True)
class EmergenceConfig:
    """Language models that are trained on the answers of many unbiased authors.

    Arguments:
        correlations: r, between the percepts of an author at both stages; a trial each.
        means: m, of percepts towards the right option; questions take them in turn.
        questions: cities that are asked about, one question each.
        authors: who answer each prompt of a step, drawn anew every time.
        template: wording.
        recipe: the models, and how they are trained.
    """

    correlations: tuple[float, ...] = (0.0, 0.5, 0.8)
    means: tuple[float, ...] = (0.5, 1.0)
    questions: int = 30
    authors: int = 64
    template: str = "plain"
    recipe: Recipe = field(default_factory=lambda: Recipe(steps=400, learning_rate=2e-3))


QUICK = EmergenceConfig(
    correlations=(0.0, 0.8),
    questions=8,
    authors=16,
    recipe=Recipe(steps=40, warmup=5, learning_rate=3e-3, curve_every=5),
)
GPU = EmergenceConfig(
    correlations=(0.0, 0.25, 0.5, 0.8, 0.95),
    means=(0.25, 0.5, 1.0),
    questions=400,
    recipe=Recipe(device="cuda", layers=4, dim=256, steps=3_000, batch=128, warmup=100, curve_every=50),
)
"""Not tried yet."""


@dataclass(frozen=True)
class Prompt:
    """A prompt of the transcripts.

    Arguments:
        messages: the conversation.
        mean: m of its question.
        displayed: whether the answer that it displays as the author's own is the right one; `None`: it displays none.
        right: place of the right option.
    """

    messages: list[Message]
    mean: float
    displayed: bool | None
    right: int


def trials(config: Any) -> Iterator[Trial[EmergenceConfig]]:
    """One trial a model.

    Arguments:
        config: the study's configuration.
    """
    settings: EmergenceConfig = config.emergence
    for seed in list(config.seed_range)[: config.model_seeds]:
        for correlation in settings.correlations:
            labels = {"correlation": correlation}
            yield Trial(seed, settings, labels, cost=settings.recipe.cost, gpu=settings.recipe.gpu)


def run(trial: Trial[EmergenceConfig]) -> Outcome:
    """Train one model and probe it.

    Record: `boost`, what it adds to the log-odds of its first answer to show it, with the ends `boost_low` and
    `boost_high` of the interval over questions; `expected`, the mean over questions of the same by the closed form;
    `stay_shown`, `stay_hidden`, `expected_stay_shown`, `expected_stay_hidden`, mean probabilities of the first answer;
    `loss` at the end of training; `parameters`. Curve: `learning`.
    """
    from holdfast.confidence import Store, analyze
    from holdfast.confidence import run as ask
    from holdfast.confidence.responders.huggingface import HuggingFaceResponder

    config, seed = trial.config, trial.seeds[0]
    correlation = float(trial.labels["correlation"] or 0.0)
    plan = plan_of(config, seed)
    prompts = prompts_of(plan, config.means)
    conversations = [prompt.messages for prompt in prompts]
    tokenizer = word_tokenizer(conversations)
    model = untrained(config.recipe, tokenizer, seed)
    targets = authors_of(prompts, correlation, config.authors, seed)
    curve = train(model, tokenizer, conversations, targets, config.recipe, seed)
    with tempfile.TemporaryDirectory() as folder:
        responder = HuggingFaceResponder(model, tokenizer, name="trained")
        found = ask(plan, responder, Store(Path(folder, "store.jsonl")), progress=False).trials
    progress.report(1.0)
    boost = analyze(found).choice_bias
    record = {
        "boost": boost.value,
        "boost_low": boost.low,
        "boost_high": boost.high,
        **stays(found, plan, config.means, correlation),
        "loss": curve[-1]["loss"],
        "parameters": sum(tensor.numel() for tensor in model.parameters()),
    }
    return Outcome([record], {"learning": curve})


def plan_of(config: EmergenceConfig, seed: int) -> Plan:
    """What the model is asked: no adviser, the own answer shown or hidden."""
    from holdfast.confidence import TEMPLATES, Plan, TrialDesign, latitude_questions

    design = TrialDesign(
        displays=("shown", "hidden"),
        advice=("neutral",),
        templates=(TEMPLATES[config.template],),
        neutral="absent",
    )
    return Plan(tuple(latitude_questions(config.questions, seed)), design)


def prompts_of(plan: Plan, means: tuple[float, ...]) -> list[Prompt]:
    """Every prompt: stage 1, stage 2 with the answer hidden, and with either option displayed as the author's own."""
    from holdfast.confidence.templates import first_prompt, second_prompt

    (template,) = plan.design.templates
    prompts = []
    for question, mean in zip(plan.questions, means_of(plan.questions, means), strict=True):
        for order in ((0, 1), (1, 0)):
            right = order.index(right_of(question))
            prompts.append(Prompt(first_prompt(question, order, template), mean, None, right))
            for displayed in (None, 0, 1):
                display: Any = "hidden" if displayed is None else "shown"
                messages = second_prompt(
                    question, order, template, display, displayed=displayed, advised=None, accuracy=None
                )
                own = None if displayed is None else displayed == right_of(question)
                prompts.append(Prompt(messages, mean, own, right))
    return prompts


def means_of(questions: tuple[Question, ...], means: tuple[float, ...]) -> list[float]:
    """m of each question."""
    return [means[place % len(means)] for place in range(len(questions))]


def right_of(question: Question) -> int:
    """The right option of a question that has one."""
    assert question.answer is not None
    return question.answer


def authors_of(prompts: list[Prompt], correlation: float, authors: int, seed: int) -> Targets:
    """Answers of authors who stand behind prompts: the share of those that name A and B.

    Where an answer is displayed, they are authors who gave that answer.

    Arguments:
        prompts: all of them.
        correlation: between percepts of both stages.
        authors: for each prompt of a step.
        seed: of the authors.
    """
    import numpy as np
    from scipy.special import ndtr, ndtri

    mean = np.array([prompt.mean for prompt in prompts])
    right = np.array([prompt.right for prompt in prompts])
    wrong_at_first = ndtr(-mean)
    # Quantiles of first percepts: all, those of authors who were wrong, and those of authors who were right.
    low = np.where([prompt.displayed is True for prompt in prompts], wrong_at_first, 0.0)
    high = np.where([prompt.displayed is False for prompt in prompts], wrong_at_first, 1.0)

    def shares(rows: Int[np.ndarray, " batch"], step: int) -> Float[np.ndarray, "batch labels"]:
        rng = rng_for(seed, AUTHORS, step)
        shape = len(rows), authors
        first = ndtri(low[rows, None] + (high - low)[rows, None] * rng.uniform(size=shape))
        noise = rng.standard_normal(shape)
        second = mean[rows, None] + correlation * first + np.sqrt(1 - correlation**2) * noise
        are_right = (second > 0).mean(axis=1)
        return np.asarray(np.where(right[rows, None] == np.arange(2), are_right[:, None], 1 - are_right[:, None]))

    return shares


def closed_form(
    mean: Float[np.ndarray, " questions"], correlation: float
) -> tuple[Float[np.ndarray, " questions"], Float[np.ndarray, " questions"]]:
    """P(stay | shown) and P(stay | hidden) of a perfect reader.

    Arguments:
        mean: of percepts towards the first answer.
        correlation: r, between the stages.
    """
    import numpy as np
    from scipy.stats import multivariate_normal, norm

    pair = multivariate_normal(mean=[0.0, 0.0], cov=[[1.0, correlation], [correlation, 1.0]])
    hidden = norm.cdf(mean)
    return np.array([float(pair.cdf([m, m])) for m in mean]) / hidden, np.asarray(hidden)


def expected_boost(mean: Float[np.ndarray, " questions"], correlation: float) -> float:
    """What showing the first answer adds to its log-odds for a perfect reader, a mean over questions."""
    from scipy.special import logit

    shown, hidden = closed_form(mean, correlation)
    return float((logit(shown) - logit(hidden)).mean())


def stays(trials: Trials, plan: Plan, means: tuple[float, ...], correlation: float) -> dict[str, float]:
    """Probabilities of the first answer, found and expected, and the boost expected: means over questions."""
    import numpy as np
    from scipy.special import expit

    of_question = dict(zip((question.id for question in plan.questions), means_of(plan.questions, means), strict=True))
    mean = np.array([of_question[str(name)] for name in trials.question])
    toward_choice = np.where(trials.choice == trials.answer, mean, -mean)
    shown, hidden = trials.display == "shown", trials.display == "hidden"
    stay = expit(trials.final_log_odds)
    by_display = closed_form(toward_choice[shown], correlation)
    return {
        "expected": expected_boost(toward_choice[shown], correlation),
        "stay_shown": float(stay[shown].mean()),
        "stay_hidden": float(stay[hidden].mean()),
        "expected_stay_shown": float(by_display[0].mean()),
        "expected_stay_hidden": float(by_display[1].mean()),
    }


def _boost(results: Results, correlation: float, metric: str = "boost") -> Values:
    return results.by_seed(metric, part="emergence", correlation=correlation)


def _appears(results: Results) -> Evidence:
    return mean_of(_boost(results, max(results.config.emergence.correlations)), threshold=0.0, name="the boost")


def _grows(results: Results) -> Evidence:
    """The smallest step from one correlation to the next."""
    tables = [_boost(results, correlation) for correlation in sorted(results.config.emergence.correlations)]
    steps = Values.of(lambda *boosts: min(after - before for before, after in pairwise(boosts)), *tables)
    return mean_of(steps, threshold=0.0, name="the smallest step")


def _none_without(results: Results) -> Evidence:
    nothing = _boost(results, 0.0)
    return equivalent(nothing, Values.of(lambda boost: 0.0, nothing), margin=MARGIN, names=("the boost", "nothing"))


def _as_expected(results: Results) -> Evidence:
    """The largest difference from the closed form over the correlations."""
    tables = [
        Values.of(
            lambda found, expected: abs(found - expected), *(_boost(results, r, m) for m in ("boost", "expected"))
        )
        for r in results.config.emergence.correlations
    ]
    largest = Values.of(max, *tables) if len(tables) > 1 else tables[0]
    return mean_of(largest, threshold=MARGIN, alternative="less", name="the largest difference")


OURS = "not in the paper: an exploration of ours"

CLAIMS = (
    Claim(
        "emergence-boost",
        "A language model that was trained on unbiased authors alone shows a choice-supportive boost (boost > 0 at the "
        "largest correlation of percepts).",
        _appears,
        paper=OURS,
        family="emergence",
        headline=True,
        plain="a language model learns to favour its own answer from authors without a bias",
        figure="emergence",
        scale="laptop",
    ),
    Claim(
        "emergence-grows",
        "The boost grows with the correlation between an author's percepts at both stages (the smallest step from one "
        "correlation to the next is > 0).",
        _grows,
        paper=OURS,
        family="emergence",
        scale="laptop",
    ),
    Claim(
        "emergence-none",
        f"Where percepts do not correlate there is no boost (within {MARGIN:g} of 0).",
        _none_without,
        paper=OURS,
        family="emergence",
        scale="laptop",
    ),
    Claim(
        "emergence-closed-form",
        "The boost is that of a perfect reader, Phi2(m, m; r) / Phi(m) against Phi(m) (the largest difference over "
        f"correlations is below {MARGIN:g} log-odds).",
        _as_expected,
        paper=OURS,
        family="emergence",
        scale="laptop",
    ),
)


def draw_boost(results: Results, axes: Axes) -> list[Record]:
    """The boost against the correlation of percepts, found and by the closed form."""
    import numpy as np

    config: EmergenceConfig = results.config.emergence
    rows: list[Record] = []
    found = {r: list(_boost(results, r).values()) for r in sorted(config.correlations)}
    expected = {r: list(_boost(results, r, "expected").values()) for r in sorted(config.correlations)}
    look: dict[str, Any] = {"color": "C0", "marker": "o", "linestyle": "none", "label": "trained models"}
    for point in draw_over_seeds(axes, found, dots=True, **look):
        axes.vlines(point.x, point.low, point.high, color="C0", linewidth=1.6)
        closed = seed_mean(expected[point.x], point.x).mean
        rows.append({"correlation": point.x, "boost": point.mean, "low": point.low, "high": point.high})
        rows[-1] = {**rows[-1], "closed form": closed, "seeds": point.seeds}
    if rows:
        grid = np.linspace(0.0, max(config.correlations), 40)
        curve = [expected_boost(np.array(config.means), float(r)) for r in grid]
        axes.plot(grid, curve, color=GREY, linestyle="--", label="closed form", zorder=0)
        axes.axhline(0.0, color="black", linewidth=0.8)
    axes.set_xlabel("correlation of an author's percepts, r")
    axes.set_ylabel("boost of the answer that is shown, log-odds")
    legend(axes)
    return rows


part = Part(
    "emergence",
    trials,
    run,
    claims=CLAIMS,
    figures=(
        Figure(
            "emergence",
            "A boost without a bias (our own exploration, no claim of the paper): what it adds to the log-odds of a "
            "model's first answer to show it as its own, where all authors of its training were unbiased, against the "
            "correlation of their percepts at both stages. Dots are models, circles means with 95 % intervals.",
            draw_boost,
        ),
    ),
    needs={"transformers": "holdfast[hf]"},
)
