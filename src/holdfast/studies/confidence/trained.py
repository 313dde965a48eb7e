"""Part `trained`: does the probe find what a language model was trained with?

A model is trained from nothing on the answers of an observer with known parameters, prompt by prompt, and then asked as
anybody's model is: first in process, then, for some of the questions, through an HTTP endpoint. The observer reads
without noise, and its percepts of the two options overlap, so that it is often wrong and changes its mind.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.lab import Claim, Evidence, Figure, Outcome, Part, Results, Trial, equivalent, exact, mean_of, progress
from holdfast.lab.figures import GREY, draw_over_seeds, legend
from holdfast.lab.results import Values
from holdfast.studies.confidence.curves import curves_of
from holdfast.studies.confidence.four import draw_changes, draw_confidence, draw_updates
from holdfast.studies.confidence.language_model import Recipe, train, untrained, word_tokenizer
from holdfast.studies.confidence.paper import OURS

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float
    from matplotlib.axes import Axes

    from holdfast.confidence import Plan, Responder, SimulatedResponder, Store, Trials
    from holdfast.lab import Record
    from holdfast.llm import Message

ARMS = {
    "both": {"bias": 1.0, "weight_same": 0.8, "weight_opposite": 2.0},
    "bayes": {"bias": 0.0, "weight_same": 1.0, "weight_opposite": 1.0},
}
"""What models are trained with: the pattern that the paper describes, and an ideal observer."""

FOUND = {"bias": "choice_bias", "weight_same": "weight_same", "weight_opposite": "weight_opposite"}
"""Parameters of observers, and the estimates of the probe that they should come back as."""

MARGIN = {"bias": 0.15, "weight_same": 0.15, "weight_opposite": 0.25}
"""How far off an estimate may be; that of the last one is a share of the true value."""

SAME_TO = 1e-3
"""Log-odds between two ways to read one model. In float32 a prompt alone and in a batch differ by about 1e-5."""


@dataclass(frozen=True, kw_only=True)
class TrainedConfig:
    """Language models that are trained on the answers of observers.

    Arguments:
        arms: some of the arms.
        questions: cities that are asked about, one question each.
        separation: of the two options of a question, in standard deviations of the observer's percept.
        displays: of the earlier answer.
        accuracies: of the adviser, as stated.
        templates: wordings.
        endpoint_questions: questions that are asked through the endpoint, too.
        recipe: the models, and how they are trained.
    """

    arms: tuple[str, ...] = tuple(ARMS)
    questions: int = 40
    separation: float = 1.4
    displays: tuple[str, ...] = ("shown", "hidden")
    accuracies: tuple[float, ...] = (0.6, 0.7, 0.8, 0.9)
    templates: tuple[str, ...] = ("plain",)
    endpoint_questions: int = 6
    recipe: Recipe = field(default_factory=Recipe)


QUICK = TrainedConfig(
    questions=8,
    accuracies=(0.6, 0.9),
    endpoint_questions=2,
    recipe=Recipe(steps=40, warmup=5, learning_rate=3e-3, curve_every=5),
)
GPU = TrainedConfig(
    questions=400,
    displays=("shown", "hidden", "other"),
    templates=("plain", "review", "form"),
    endpoint_questions=10,
    recipe=Recipe(device="cuda", layers=4, dim=256, steps=8_000, batch=256, warmup=200, curve_every=100),
)
"""About four million weights, three wordings, ownership beside visibility; not tried yet."""


def trials(config: Any) -> Iterator[Trial[TrainedConfig]]:
    """One trial a model.

    Arguments:
        config: the study's configuration.
    """
    settings: TrainedConfig = config.trained
    for seed in list(config.seed_range)[: config.model_seeds]:
        for arm in settings.arms:
            yield Trial(seed, settings, {"arm": arm}, cost=settings.recipe.cost, gpu=settings.recipe.gpu)


def run(trial: Trial[TrainedConfig]) -> Outcome:
    """Train one model and probe it.

    Record: `choice_bias`, `weight_same`, `weight_opposite`, `intercept_opposite` and `position_bias` in log-odds as
    they are read, each with the ends `_low` and `_high` of its interval over questions (the scale of log-odds is that
    of the observer, which is calibrated by construction: no temperature is fitted); `true_bias`, `true_weight_same` and
    `true_weight_opposite`; `accuracy` of first answers; `mass` of the labels; `flags` that the probe raises (its
    intervals are over questions: a deviation of a hundredth that the training left is flagged, too); `loss` at the end
    of training; `endpoint_difference`, the largest between log-odds and between estimates that are read in
    process and through the endpoint, and the number of its `endpoint_readings`; `parameters`. Curves: `learning`,
    `cells` and `updates`.
    """
    from holdfast.confidence import Store, analyze
    from holdfast.confidence import run as ask
    from holdfast.confidence.responders.huggingface import HuggingFaceResponder

    config, seed = trial.config, trial.seeds[0]
    observer = ARMS[str(trial.labels["arm"])]
    plan = plan_of(config, seed)
    conversations, shares = transcripts(observer_of(observer, config, plan, seed), plan)
    tokenizer = word_tokenizer(conversations)
    model = untrained(config.recipe, tokenizer, seed)
    curve = train(model, tokenizer, conversations, lambda rows, step: shares[rows], config.recipe, seed)
    responder = HuggingFaceResponder(model, tokenizer, name="trained")
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder, "in_process.jsonl"))
        results = ask(plan, responder, store, progress=False)
        progress.report(0.95)
        endpoint = through_endpoint(part_of(plan, config.endpoint_questions), responder, store, Path(folder))
    analysis = analyze(results.trials)
    found: dict[str, float] = {}
    for name in (*FOUND.values(), "intercept_opposite", "position_bias"):
        estimate = getattr(analysis, name)
        found |= {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
    record: dict[str, Any] = {
        **found,
        **{f"true_{name}": value for name, value in observer.items()},
        "accuracy": accuracy_of(results.trials),
        "mass": results.mass,
        "flags": " ".join(analysis.flags),
        "loss": curve[-1]["loss"],
        **endpoint,
        "parameters": sum(tensor.numel() for tensor in model.parameters()),
    }
    return Outcome([record], {"learning": curve, **curves_of(analysis)})


def plan_of(config: TrainedConfig, seed: int) -> Plan:
    """What the model is trained on and then asked."""
    from holdfast.confidence import TEMPLATES, Plan, TrialDesign, latitude_questions

    design = TrialDesign(
        displays=config.displays,  # type: ignore[arg-type]
        accuracies=config.accuracies,
        templates=tuple(TEMPLATES[name] for name in config.templates),
    )
    return Plan(tuple(latitude_questions(config.questions, seed)), design)


def part_of(plan: Plan, questions: int) -> Plan:
    """The first questions of a plan."""
    from holdfast.confidence import Plan

    return Plan(plan.questions[:questions], plan.design)


def observer_of(parameters: dict[str, float], config: TrainedConfig, plan: Plan, seed: int) -> SimulatedResponder:
    """The observer whose answers are learned."""
    from holdfast.confidence import Observer, SimulatedResponder

    return SimulatedResponder(
        Observer(noise=0.0, **parameters),
        seed,
        answers={question.text: question.options[question.answer or 0] for question in plan.questions},
        difficulty=lambda prompt: config.separation,
        templates=plan.design.templates,
    )


def transcripts(
    observer: SimulatedResponder, plan: Plan
) -> tuple[list[list[Message]], Float[np.ndarray, "prompts labels"]]:
    """Every prompt of a plan, and the probability of each label with which the observer answers it.

    What stage 2 displays is what the observer chose.
    """
    import numpy as np

    from holdfast.confidence.requests import first_requests, second_requests
    from holdfast.confidence.results import Units
    from holdfast.confidence.store import Run

    this = Run(observer.backend, plan)
    first = list(first_requests(this))
    answers = {answer.key: answer for answer in observer.answer(request.ask() for request in first)}
    second = list(second_requests(this, Units.read(this, answers).choice))
    answers |= {answer.key: answer for answer in observer.answer(request.ask() for request in second)}
    requests = [*first, *second]
    shares = np.exp(np.array([answers[request.key].scores for request in requests]))
    return [request.messages for request in requests], shares


def through_endpoint(plan: Plan, responder: Responder, store: Store, folder: Path) -> dict[str, float]:
    """Ask the same model once more, behind the chat protocol, and compare.

    Arguments:
        plan: what is asked.
        responder: who answers, on both ways.
        store: with the answers in process.
        folder: for the others.
    """
    import numpy as np

    from holdfast.confidence import ChatResponder, Store, analyze
    from holdfast.confidence import run as ask
    from holdfast.confidence.observer_server import ObserverServer, serving
    from holdfast.llm import Endpoint

    server = ObserverServer(responder, templates=plan.design.templates, mass=1.0)
    with serving(server) as url:
        client = ChatResponder(Endpoint("trained", base_url=url, api_key_env=None, concurrency=4))
        there = ask(plan, client, Store(folder / "endpoint.jsonl"), progress=False).trials
    here = ask(plan, responder, store, progress=False).trials
    pairs = [(getattr(here, name), getattr(there, name)) for name in ("initial_log_odds", "final_log_odds")]
    estimates = [[getattr(analyze(way, resamples=100), name).value for name in FOUND.values()] for way in (here, there)]
    pairs.append((np.array(estimates[0]), np.array(estimates[1])))
    return {
        "endpoint_difference": max(float(np.abs(one - other).max()) for one, other in pairs),
        "endpoint_readings": plan.requests,
    }


def accuracy_of(trials: Trials) -> float:
    """Share of questions whose first answer is right."""
    from holdfast.confidence.estimates import first_answers

    return float(first_answers(trials)[1].mean())


def _both(results: Results, arm: str, parameter: str) -> tuple[Values, Values]:
    """An estimate and the truth by seed."""
    of_arm = {"part": "trained", "arm": arm}
    return results.by_seed(FOUND[parameter], **of_arm), results.by_seed(f"true_{parameter}", **of_arm)


def _recovered(parameter: str, results: Results) -> Evidence:
    found, true = _both(results, "both", parameter)
    margin = MARGIN[parameter] * (ARMS["both"][parameter] if parameter == "weight_opposite" else 1.0)
    return equivalent(found, true, margin=margin, names=(FOUND[parameter], "what was trained in"))


def _unbiased(results: Results) -> Evidence:
    """The largest of three deviations, each in units of its margin."""
    pairs = {parameter: _both(results, "bayes", parameter) for parameter in FOUND}
    deviations = [
        Values.of(lambda found, true, margin=MARGIN[name]: abs(found - true) / margin, *pair)
        for name, pair in pairs.items()
    ]
    return mean_of(Values.of(max, *deviations), threshold=1.0, alternative="less", name="the largest deviation")


def _same_through_endpoint(results: Results) -> Evidence:
    rows = results.where(part="trained")
    differences = [float(row["endpoint_difference"] or 0.0) for row in rows]
    if not differences:
        return mean_of(results.by_seed("endpoint_difference", part="trained"), threshold=SAME_TO)
    worst = max(differences)
    return exact(
        holds=worst < SAME_TO,
        effect=worst,
        n=sum(int(row["endpoint_readings"] or 0) for row in rows),
        test="largest difference of log-odds and estimates between both ways, over all readings of all models",
        failed=results.failed(part="trained"),
    )


CLAIMS = (
    Claim(
        "trained-bias",
        "In a language model that was trained with a choice bias of 1 the probe finds that bias, within 0.15.",
        partial(_recovered, "bias"),
        paper=OURS,
        family="trained",
        headline=True,
        plain="the probe finds a bias that was trained into a language model",
        figure="trained-recovery",
        scale="laptop",
    ),
    Claim(
        "trained-same",
        "Of agreeing advice, which it was trained to weigh at 0.8 of its worth, the probe finds that weight, within "
        "0.15.",
        partial(_recovered, "weight_same"),
        paper=OURS,
        family="trained",
        scale="laptop",
    ),
    Claim(
        "trained-opposite",
        "Of contradicting advice, which it was trained to weigh at 2 times its worth, the probe finds that weight, "
        "within 25 %.",
        partial(_recovered, "weight_opposite"),
        paper=OURS,
        family="trained",
        scale="laptop",
    ),
    Claim(
        "trained-control",
        "In the same model, trained on an ideal observer, the probe finds no bias (bias and weight of agreeing advice "
        "within 0.15 of 0 and 1, weight of contradicting advice within 25 % of 1; the largest deviation in units of "
        "these margins is below 1).",
        _unbiased,
        paper=OURS,
        family="trained",
        scale="laptop",
    ),
    Claim(
        "trained-endpoint",
        "Read through an HTTP endpoint, the same models give the same log-odds and estimates as in process, within "
        "0.001.",
        _same_through_endpoint,
        paper=OURS,
        scale="laptop",
    ),
)


def draw_recovery(results: Results, axes: Axes) -> list[Record]:
    """Estimates against what was trained in, a point a model, with intervals over questions."""
    rows: list[Record] = []
    looks = {"bias": ("choice bias", "o"), "weight_same": ("weight of agreement", "s")}
    looks["weight_opposite"] = ("weight of contradiction", "D")
    for place, (parameter, (label, marker)) in enumerate(looks.items()):
        name = FOUND[parameter]
        found = [row for row in results.where(part="trained") if row.get(name) is not None]
        for row in found:
            value, low, high = (float(row[column] or 0.0) for column in (name, f"{name}_low", f"{name}_high"))
            true = float(row[f"true_{parameter}"] or 0.0)
            rows.append(
                {
                    "arm": row["arm"],
                    "seed": row["seed"],
                    "parameter": parameter,
                    "trained in": true,
                    "found": value,
                    "low": low,
                    "high": high,
                }
            )
        mine = [row for row in rows if row["parameter"] == parameter]
        # Side by side, or models of one arm hide each other.
        x = [float(row["trained in"] or 0.0) + 0.03 * (place - 1) for row in mine]
        y = [float(row["found"] or 0.0) for row in mine]
        reach = [
            [max(0.0, sign * (float(row[end] or 0.0) - value)) for row, value in zip(mine, y, strict=True)]
            for end, sign in (("low", -1), ("high", 1))
        ]
        axes.errorbar(x, y, yerr=reach, fmt=marker, color=f"C{place}", markersize=5, alpha=0.8, label=label)
    if rows:
        ends = [
            min(float(row["trained in"] or 0.0) for row in rows),
            max(float(row["trained in"] or 0.0) for row in rows),
        ]
        axes.plot(ends, ends, color=GREY, linestyle="--", zorder=0)
    axes.set_xlabel("trained in")
    axes.set_ylabel("found by the probe")
    legend(axes)
    return rows


def draw_learning(results: Results, axes: Axes) -> list[Record]:
    """Training loss of each arm, means over seeds."""
    rows: list[Record] = []
    for place, arm in enumerate(results.config.trained.arms):
        by_step: dict[int, list[float]] = {}
        for point in results.curve("learning", part="trained", arm=arm):
            by_step.setdefault(int(point["step"] or 0), []).append(float(point["loss"] or 0.0))
        points = draw_over_seeds(axes, dict(sorted(by_step.items())), color=f"C{place}", label=arm)
        rows += [{"arm": arm, "step": at, "loss": mean, "seeds": seeds} for at, mean, _, _, seeds in points]
    if rows:
        axes.set_yscale("log")
    axes.set_xlabel("step")
    axes.set_ylabel("divergence from the observer, nats")
    legend(axes)
    return rows


OF_BOTH = (
    "A language model that was trained here from nothing to answer as an observer with a choice bias of 1 and weights "
    "of 0.8 and 2 does, asked by the probe as any model is. Means over models with 95 % intervals."
)

part = Part(
    "trained",
    trials,
    run,
    claims=CLAIMS,
    figures=(
        Figure(
            "trained-changes",
            f"Share of changed minds by advice and display, in the layout of the paper's Figure 4 (left). {OF_BOTH} "
            "Dashes: an ideal observer with the same first answers.",
            partial(draw_changes, {"part": "trained", "arm": "both"}),
        ),
        Figure(
            "trained-confidence",
            "Change of the probability of the first answer by advice and display, in the layout of the paper's Figure "
            f"4 (right). {OF_BOTH}",
            partial(draw_confidence, {"part": "trained", "arm": "both"}),
        ),
        Figure(
            "trained-updates",
            "Change of log-odds that advice of each stated accuracy makes, against what it is worth. On the broken "
            f"line: an ideal observer. {OF_BOTH}",
            partial(draw_updates, {"part": "trained", "arm": "both"}),
        ),
        Figure(
            "trained-recovery",
            "What the probe finds in language models against what they were trained with: a point a model, with its "
            "95 % interval over questions. On the broken line it finds what is there.",
            draw_recovery,
        ),
        Figure(
            "trained-learning",
            "Training of the language models: divergence of the next token from the answers of the observer; means "
            "over seeds.",
            draw_learning,
        ),
    ),
    needs={"transformers": "holdfast[hf]"},
)
