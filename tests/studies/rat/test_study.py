"""The study of RAT: its scales, its claims on results made by hand, and the published recipe at toy size."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from holdfast.lab import Outcome, Record, Results, Trial
from holdfast.lab.trial import as_outcome
from holdfast.studies.rat import cost, language, needles, positions
from holdfast.studies.rat.study import study
from tests.studies.rat.toy import TOY
from tests.studies.tools import judged

LAPTOP = study.scales["laptop"]
PARTS = ("needles", "language", "positions", "cost", "throughput")


@pytest.mark.parametrize("scale", study.scales)
def test_scales(scale: str) -> None:
    config = study.scales[scale]
    trials = list(study.trials(config))
    seeds = {part: {trial.seed for trial in trials if trial.labels["part"] == part} for part in PARTS}
    everyone = set(config.seed_range)
    texts = set(list(config.seed_range)[: config.text_seeds])
    assert seeds == {part: texts if part in ("language", "positions") else everyone for part in PARTS}
    assert {trial.gpu > 0 for trial in trials} == {scale in ("gpu", "paper")}
    assert config.positions.lengths[0] == config.positions.time
    assert config.positions.lengths[-1] == 8 * config.positions.time
    for part in (config.needles, config.language, config.positions):
        assert part.shape.dim % part.shape.heads == 0
    for kind in cost.KINDS:
        lengths = getattr(config.cost, kind)
        assert list(lengths) == sorted(lengths)
    assert config.cost.heads % 8 == config.throughput.shape.heads % 8 == 0


@pytest.mark.parametrize("scale", ["laptop", "gpu", "paper"])
def test_scales_that_judge_have_what_claims_ask_for(scale: str) -> None:
    config = study.scales[scale]
    assert config.seeds >= 3
    assert config.text_seeds >= 3
    assert set(needles.ARMS) <= set(config.needles.arms)
    assert set(language.ARMS) - {"rat4"} <= set(config.language.arms)
    assert "joint" in config.needles.tasks
    assert config.needles.needles[0] == 4


def test_the_published_recipe() -> None:
    """Section 3 of arXiv 2507.04416 and its configuration files."""
    config = study.scales["paper"].language
    recipe, shape = config.recipe, config.shape
    assert (shape.layers, shape.dim, shape.dim // shape.heads, shape.window, shape.qk_groups) == (
        24,
        2048,
        128,
        1024,
        2,
    )
    assert config.time * recipe.batch == 2_097_152
    assert recipe.steps * config.time * recipe.batch == pytest.approx(110e9, rel=1e-4)
    assert recipe.warmup == pytest.approx(0.05 * recipe.steps, abs=1)
    assert (recipe.learning_rate, recipe.last_rate, recipe.betas) == (8e-4, 1e-6, (0.9, 0.95))
    assert (recipe.weight_decay, recipe.decay_all, recipe.clip) == (0.1, True, 1.0)
    assert config.text.windows * config.time == pytest.approx(524_288_000, rel=1e-9)
    assert recipe.batch % recipe.micro_batch == 0


@pytest.mark.parametrize("part", ["language", "positions"])
def test_the_published_recipe_at_toy_size(part: str, tmp_path: Path) -> None:
    """What runs on a cluster, with smaller numbers and on a CPU."""
    path = tmp_path / "tokens.bin"
    np.random.default_rng(0).integers(0, 50, 4000).astype("<u2").tofile(path)
    settings: Any = getattr(study.scales["paper"], part)
    small: dict[str, Any] = {
        "time": 16,
        "shape": dataclasses.replace(settings.shape, dim=16, heads=4, layers=2, window=8),
        "text": dataclasses.replace(settings.text, tokens=str(path), vocabulary=50, windows=4, validation=0.1),
        "recipe": dataclasses.replace(
            settings.recipe, device="cpu", steps=3, batch=4, micro_batch=2, warmup=1, curve_every=1, compiled=False
        ),
    }
    if part == "positions":
        small |= {"lengths": (16, 32), "targets": 8}
    toy = dataclasses.replace(settings, **small)
    labels = {"arm": "rat16-window"} | ({"positions": "rotary"} if part == "positions" else {})
    run = {"language": language.run, "positions": positions.run}[part]
    outcome = as_outcome(run(Trial(100, toy, labels)))
    assert all(math.isfinite(float(row["loss"] or math.nan)) for row in outcome.records)
    assert [point["step"] for point in outcome.curves[part]] == [1, 2, 3]


def test_seeds_do_not_change_a_trial() -> None:
    more = dataclasses.replace(TOY, seeds=4, text_seeds=3)
    assert [trial for trial in study.trials(more) if trial in list(study.trials(TOY))] == list(study.trials(TOY))


ACCURACY = {"attention": 0.95, "rat4": 0.7, "rat16": 0.4, "rat64": 0.2, "rnn": 0.1}
FEW = {"rat4": 0.9, "rat16": 0.7}
LOSS = {
    "attention": 2.0,
    "rat4": 2.005,
    "rat16": 2.01,
    "rat64": 2.03,
    "rnn": 2.2,
    "attention-window": 1.99,
    "rat16-window": 1.98,
}
RISE = {
    ("rat16-window", "none"): 0.1,
    ("rat16-window", "rotary"): 0.9,
    ("attention-window", "none"): 0.3,
    ("attention-window", "rotary"): 1.2,
}
MS = {"attention": 16.0, "gqa8": 2.0, "rat16": 1.0, "rat64": 0.5, "rnn": 0.2}
TOKENS = {"attention": 1.0, "gqa8": 8.0, "rat16": 12.0, "attention-window": 2.0, "rat16-window": 6.0}


def made_up(
    *,
    accuracy: dict[str, float] | None = None,
    few: dict[str, float] | None = None,
    loss: dict[str, float] | None = None,
    rise: dict[tuple[str, str], float] | None = None,
    none: float = 0.5,
    ms: dict[str, float] | None = None,
    slope: float = 1.0,
    short: float = 0.5,
    tokens: dict[str, float] | None = None,
    scatter: float = 0.0002,
    seeds: int = 5,
) -> Results:
    """Results of which every claim holds, but for what is changed.

    Arguments:
        accuracy: by arm, with the most needles.
        few: by arm, with the fewest.
        loss: by arm.
        rise: of the loss to the greatest length, by arm and positions.
        none: how much worse the attention hybrid is without positions.
        ms: by arm, at the greatest length.
        slope: power with which times of RAT grow.
        short: time of attention by that of RAT16 at the shortest length.
        tokens: a second, by arm.
        scatter: of all values over seeds.
        seeds: number of seeds.
    """
    outcomes: list[tuple[Trial[Any], Outcome]] = []
    for seed in range(seeds):
        number = count()

        def noisy(value: float, seed: int = seed, number: Iterator[int] = number) -> float:
            """Symmetric over seeds, and in another direction and size for every value, so that differences scatter."""
            place = next(number)
            return value + scatter * (seed - (seeds - 1) / 2) * (-1) ** place * (1 + place % 5 + place % 3 / 10)

        def add(part: str, rows: list[Record], seed: int = seed, **labels: str | int) -> None:
            outcomes.append((Trial(seed, TOY, {"part": part, **labels}), Outcome(rows)))

        of_few, of_many = (ACCURACY | change for change in (FEW | (few or {}), accuracy or {}))
        for needles_in, accuracies in ((4, of_few), (24, of_many)):
            for task in ("joint", "apart", "string"):
                for arm, value in accuracies.items():
                    worse = 0.05 * (arm == "rat64" and task == "string")
                    row = {"accuracy": noisy(value - worse), "questions": 128 * needles_in}
                    add("needles", [row], task=task, needles=needles_in, arm=arm)
        for arm, value in (LOSS | (loss or {})).items():
            add("language", [{"loss": noisy(value), "parameters": 1, "text": ""}], arm=arm)
        for (arm, kind), more in (RISE | (rise or {})).items():
            worse = none if (arm, kind) == ("attention-window", "none") else 0.0
            rows: list[Record] = [
                {"length": length, "loss": noisy(2 + worse + more * far)}
                for length, far in zip(LAPTOP.positions.lengths, (0.0, 0.2, 0.5, 1.0), strict=True)
            ]
            add("positions", rows, arm=arm, positions=kind)
        rows = []
        for arm, value in (MS | (ms or {})).items():
            for kind in cost.KINDS:
                times = getattr(LAPTOP.cost, kind)
                for time in times:
                    taken = value * (time / times[-1]) ** (slope if arm.startswith("rat") else 2.0)
                    if kind == "prefill" and time == times[0]:
                        taken = short if arm == "attention" else 1.0
                    cache = {"cache": {"attention": 16, "gqa8": 2}.get(arm, 1)} if kind == "decode" else {}
                    rows.append({"kind": kind, "arm": arm, "time": time, "batch": 1, "ms": taken * noisy(1.0), **cache})
        add("cost", rows)
        written = [
            {"arm": arm, "tokens": value * noisy(1.0), "batch": 1, "cache": 1}
            for arm, value in (TOKENS | (tokens or {})).items()
        ]
        add("throughput", written)
    config = dataclasses.replace(
        LAPTOP, needles=dataclasses.replace(LAPTOP.needles, needles=(4, 24), tasks=("joint", "apart", "string"))
    )
    return Results(config, outcomes)


def test_all_claims_can_be_supported() -> None:
    statuses = {name: str(verdict.status) for name, verdict in judged(study, made_up()).items()}
    assert {name for name, status in statuses.items() if status != "supported"} == set()


@pytest.mark.parametrize(
    ("changes", "contradicted"),
    [
        ({"accuracy": {"rat64": 0.5}}, {"needles-ordered", "recall-ordered"}),
        ({"few": {"rat64": 0.8}}, {"needles-few"}),
        ({"few": {"rnn": 0.3}}, {"needles-rnn"}),
        ({"few": {"rat16": 0.3, "rat64": 0.2}}, {"needles-crowded"}),
        ({"loss": {"rnn": 2.02}}, {"language-rnn"}),
        ({"loss": {"rat64": 2.0}}, {"language-64"}),
        ({"loss": {"rat4": 2.05}}, {"language-4"}),
        ({"loss": {"rat16": 1.9, "rat4": 1.89}}, {"language-attention"}),
        ({"loss": {"rat16-window": 2.1}}, {"language-hybrid"}),
        ({"rise": {("attention-window", "none"): 0.05}}, {"positions-flattest"}),
        ({"rise": {("rat16-window", "rotary"): 1.5}}, {"positions-chunk"}),
        ({"rise": {("rat16-window", "rotary"): 0.4}}, {"positions-rotary"}),
        ({"none": 0.05}, {"positions-fewer"}),
        ({"none": -0.5}, {"positions-fewer", "positions-lowest"}),
        ({"ms": {"attention": 3.0}}, {"cost-prefill-16", "cost-prefill-64", "cost-decode-16"}),
        ({"ms": {"rat16": 0.5}}, {"cost-decode-16", "cost-decode-gqa"}),
        ({"slope": 1.8}, {"cost-slope-16", "cost-slope-64"}),
        ({"short": 2.0}, {"cost-loses"}),
        ({"tokens": {"rat16": 3.0}}, {"throughput-16"}),
        ({"tokens": {"rat16-window": 3.0}}, {"throughput-hybrid"}),
        ({"tokens": {"gqa8": 2.0}}, {"throughput-gqa"}),
    ],
)
def test_claims_can_be_contradicted(changes: dict[str, Any], contradicted: set[str]) -> None:
    statuses = {name: str(verdict.status) for name, verdict in judged(study, made_up(**changes)).items()}
    assert contradicted <= {name for name, status in statuses.items() if status == "contradicted"}


def test_claims_are_inconclusive_where_values_scatter() -> None:
    statuses = {name: str(verdict.status) for name, verdict in judged(study, made_up(scatter=0.02)).items()}
    assert {"language-64", "language-attention", "language-close", "language-hybrid"} <= {
        name for name, status in statuses.items() if status == "inconclusive"
    }
    few = {name: str(verdict.status) for name, verdict in judged(study, made_up(seeds=2)).items()}
    assert {status for name, status in few.items() if not name.startswith("cost-cache")} == {"inconclusive"}


def test_figures_of_results_made_by_hand() -> None:
    from matplotlib.figure import Figure

    results = made_up()
    rows = {figure.name: figure.draw(results, Figure().subplots()) for figure in study.figures}
    assert len(rows["needles"]) == 2 * len(ACCURACY)
    by_arm = {row["arm"]: row for row in rows["language"]}
    assert by_arm["rnn"]["less attention"] == pytest.approx(0.2)
    prefill = {(row["arm"], row["tokens"]): row for row in rows["cost-prefill"]}
    assert prefill["rat16", 16384]["attention / this"] == pytest.approx(16.0, rel=0.01)
    assert prefill["rat16", 16384]["gqa8 / this"] == pytest.approx(2.0, rel=0.01)
    written = {row["arm"]: row for row in rows["throughput"]}
    assert written["rat16"]["this / gqa8"] == pytest.approx(1.5, rel=0.01)
    assert len(rows["positions"]) == 16
