"""Part `served`: does the way over a network change a number, or lose one where the server misbehaves?

A simulated observer stands behind a real HTTP server on this machine, which sees nothing but the text of a request.
What the whole pipeline (prompts, client, store, extraction, analysis) makes of its answers is compared with the
observer in process, and with its true parameters.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast.lab import Claim, Evidence, Figure, Part, Results, Trial, exact, mean_of, unusable
from holdfast.lab.figures import GREY, legend, seed_mean
from holdfast.lab.results import Values
from holdfast.studies.confidence.curves import known
from holdfast.studies.confidence.paper import OURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from holdfast.lab import Record
    from holdfast.studies.confidence.study import ConfidenceStudyConfig

WAYS = ("chat", "systemone", "storm")
"""Protocols of a server without faults, and the chat protocol of one that is often busy, broken, slow or gone."""

ESTIMATES = ("choice_bias", "ownership_bias", "weight_same", "weight_opposite", "intercept_opposite", "ratio")


@dataclass(frozen=True, kw_only=True)
class ServedConfig:
    """An observer behind a server.

    Arguments:
        ways: over which it is asked.
        questions: that it answers.
        concurrency: requests under way together.
        preset: which observer.
    """

    ways: tuple[str, ...] = WAYS
    questions: int = 50
    concurrency: int = 16
    preset: str = "both"


def trials(config: ConfidenceStudyConfig) -> Iterator[Trial[ServedConfig]]:
    """One trial a way."""
    for seed in list(config.seed_range)[: config.model_seeds]:
        for way in config.served.ways:
            yield Trial(seed, config.served, {"way": way}, cost=3.0)


def run(trial: Trial[ServedConfig]) -> list[Record]:
    """Ask the observer over one way and in process.

    Records: for each estimate its `value`, `low`, `high`, the `truth`, whether the interval `covered` it, and `apart`,
    how far it is from the value in process; then requests that were `planned`, `answered`, sent in all (`requests`) and
    `refused` by faults, prompts that were `hidden`, and `leaks`, those of them that held more than they may.
    """
    import tempfile
    from dataclasses import replace
    from pathlib import Path

    from holdfast.confidence import (
        PRESETS,
        TEMPLATES,
        ChatResponder,
        Plan,
        SimulatedResponder,
        Store,
        SystemOneResponder,
        TrialDesign,
        analyze,
        simulated_questions,
    )
    from holdfast.confidence import run as run_plan
    from holdfast.confidence.observer_server import Faults, ObserverServer, serving
    from holdfast.llm import Endpoint

    config, way, seed = trial.config, str(trial.labels["way"]), trial.seeds[0]
    observer = PRESETS[config.preset]
    template = TEMPLATES["plain"]
    design = TrialDesign(
        accuracies=(0.6, 0.7, 0.8, 0.9),
        templates=(replace(template, form="flat") if way == "systemone" else template,),
    )
    plan = Plan(tuple(simulated_questions(config.questions, seed)), design)
    responder = SimulatedResponder(observer, seed)
    storm = Faults(busy=0.1, broken=0.1, dropped=0.05, slow=0.05, slow_s=0.05, no_logprobs=0.05, seed=seed)
    server = ObserverServer(responder, storm if way == "storm" else Faults())
    with tempfile.TemporaryDirectory() as folder:
        near = analyze(run_plan(plan, responder, Store(Path(folder) / "near.jsonl"), progress=False).trials)
        with serving(server) as address:
            endpoint = Endpoint(
                "observer",
                base_url=address,
                api_key_env=None,
                protocol="systemone" if way == "systemone" else "chat",
                concurrency=config.concurrency,
                first_wait_s=0.005,
                attempts=12,
            )
            asked = SystemOneResponder(endpoint) if way == "systemone" else ChatResponder(endpoint)
            far_results = run_plan(plan, asked, Store(Path(folder) / "far.jsonl"), progress=False)
    far = analyze(far_results.trials)
    truth = {
        "choice_bias": observer.bias,
        "ownership_bias": observer.bias - observer.bias_other,
        "weight_same": observer.weight_same,
        "weight_opposite": observer.weight_opposite,
        "intercept_opposite": observer.shift_opposite,
        "ratio": observer.ratio,
    }
    rows: list[Record] = []
    for name in ESTIMATES:
        here, there = getattr(near, name), getattr(far, name)
        rows.append(
            {
                "estimate": name,
                "truth": truth[name],
                "value": known(there.value),
                "low": known(there.low),
                "high": known(there.high),
                "covered": float(there.low <= truth[name] <= there.high),
                "apart": known(abs(there.value - here.value)),
            }
        )
    seen = server.seen
    counts: Record = {
        "planned": plan.requests,
        "answered": far_results.answered,
        "requests": seen.requests,
        "refused": seen.requests - seen.statuses[200],
        "leaks": len(seen.leaks),
        "hidden": seen.hidden,
    }
    return [*rows, counts]


def _apart(results: Results) -> Evidence:
    """The largest difference between what was read over a network and in process."""
    config = results.config.served
    tables = [
        results.by_seed("apart", part="served", way=way, estimate=name) for way in config.ways for name in ESTIMATES
    ]
    failed = {seed: why for table in tables for seed, why in table.failed.items()}
    missing = next((table.missing for table in tables if table.missing), "")
    if missing:
        return unusable(missing)
    worst = max((value for table in tables for value in table.values()), default=math.nan)
    count = sum(map(len, tables))
    return exact(holds=worst < 1e-9, effect=worst, n=count, test="largest difference from in process", failed=failed)


def _counts(results: Results, name: str, way: str) -> Values:
    return results.by_seed(name, part="served", way=way)


def _planned(results: Results) -> Evidence:
    """Requests that a faultless server got, against the plan; and answers that a storm left out."""
    tables = []
    for way in results.config.served.ways:
        got, planned, leaks = (
            _counts(results, name, way) for name in ("answered" if way == "storm" else "requests", "planned", "leaks")
        )
        tables.append(Values.of(lambda n, plan, leak: abs(n - plan) + leak, got, planned, leaks))
    failed = {seed: why for table in tables for seed, why in table.failed.items()}
    missing = next((table.missing for table in tables if table.missing), "")
    if missing:
        return unusable(missing)
    off = sum(value for table in tables for value in table.values())
    n = sum(map(len, tables))
    return exact(holds=off == 0, effect=off, n=n, test="requests beside the plan, answers lost, leaks", failed=failed)


def _covered(results: Results) -> Evidence:
    tables = [
        results.by_seed("covered", part="served", way=way, estimate=name)
        for way in results.config.served.ways
        for name in ESTIMATES
    ]
    shares = Values.of(lambda *covered: sum(covered) / len(covered), *tables)
    return mean_of(shares, threshold=0.8, bounds=(0, 1), name="share of intervals that hold the truth")


CLAIMS = (
    Claim(
        "served-same",
        "Over HTTP, by either protocol, and from a server that is busy, broken, slow or gone in a third of all cases, "
        "every estimate is the one of the observer in process, to 1e-9.",
        _apart,
        paper=OURS,
        family="served",
    ),
    Claim(
        "served-plan",
        "A faultless server gets exactly the planned requests, no prompt that hides the first answer depends on it in "
        "a byte, and a storm of faults loses no answer.",
        _planned,
        paper=OURS,
        family="served",
    ),
    Claim(
        "served-covered",
        "Intervals hold the observer's true parameters in more than 80 % of cases.",
        _covered,
        paper=OURS,
        family="served",
        scale="laptop",
    ),
)


def draw_served(results: Results, axes: Axes) -> list[Record]:
    """Estimates by way, with the truth."""
    rows: list[Record] = []
    for number, way in enumerate(results.config.served.ways):
        points = []
        for place, name in enumerate(ESTIMATES):
            found = results.where(part="served", way=way, estimate=name)
            if not found:
                continue
            mean = seed_mean([float(row["value"] or 0.0) for row in found], place + 0.2 * (number - 1))
            truth = float(found[0]["truth"] or 0.0)
            points.append(mean)
            axes.hlines(truth, place - 0.4, place + 0.4, color=GREY, linestyle="--", linewidth=1)
            rows.append(
                {
                    "way": way,
                    "estimate": name,
                    "true": truth,
                    "value": mean.mean,
                    "low": mean.low,
                    "high": mean.high,
                    "apart": max(float(row["apart"] or 0.0) for row in found),
                    "seeds": mean.seeds,
                }
            )
        if points:
            reach = [[point.mean - point.low for point in points], [point.high - point.mean for point in points]]
            axes.errorbar(
                [point.x for point in points], [point.mean for point in points], yerr=reach, fmt="o", label=way
            )
    axes.set_xticks(range(len(ESTIMATES)), [name.replace("_", "\n") for name in ESTIMATES])
    axes.set_ylabel("estimate")
    legend(axes)
    return rows


part = Part(
    "served",
    trials,
    run,
    claims=CLAIMS,
    figures=(
        Figure(
            "served",
            "One observer asked over two protocols, and through a storm of faults; dashed: its true parameters. Means "
            "over seeds with 95 % intervals.",
            draw_served,
        ),
    ),
    needs={
        "aiohttp": "holdfast[llm]",
        "starlette": "holdfast[serving]",
        "tenacity": "holdfast[llm]",
        "uvicorn": "holdfast[serving]",
    },
)
