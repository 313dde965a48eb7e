"""The parts of the study of plasticity at toy size."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from holdfast.errors import ArgumentError
from holdfast.lab import Part, Trial
from holdfast.lab.trial import as_outcome
from holdfast.studies.plasticity import (
    clamp,
    fitted_q,
    grokking,
    offsets,
    primacy,
    shuffling,
    sweep,
    warm_start,
)
from holdfast.studies.plasticity.clamp import ClampConfig
from holdfast.studies.plasticity.digits import digits, network
from holdfast.studies.plasticity.measures import norms
from holdfast.studies.plasticity.shapes import Addition, Layers
from holdfast.studies.plasticity.study import study
from tests.studies.plasticity.toy import TOY
from tests.studies.tools import assert_drawn, assert_repeats, results_of


@pytest.mark.parametrize(
    ("part", "count"),
    [
        (grokking.part, 11),
        (shuffling.part, 9),
        (primacy.part, 14),
        (warm_start.part, 12),
        (fitted_q.part, 6),
        (clamp.part, 9),
        (sweep.part, 3),
        (offsets.part, 1),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_a_part_runs_and_draws(part: Part[Any], count: int) -> None:
    results = results_of(study, TOY, part.name)
    assert len(results.outcomes) == count
    for _, outcome in results.outcomes:
        for row in outcome.records:
            assert all(math.isfinite(value) for value in row.values() if isinstance(value, float)), row
    assert_drawn(part.figures, results)
    assert_repeats(part, *results.outcomes[0])


def test_norms_are_held_where_an_arm_says_so() -> None:
    for arm, settings in grokking.ARMS.items():
        outcome = as_outcome(grokking.run(Trial(0, TOY.grokking, {"arm": arm})))
        held = outcome.records[0]["norm"] == pytest.approx(1.0, rel=1e-5)
        assert held == settings.projected, arm
        assert [row["step"] for row in outcome.curves["accuracy"]][-1] == TOY.grokking.steps(settings)[1]
    images = digits(0).images[:20]
    for arm, settings_of in shuffling.ARMS.items():
        model = network(64, 10, TOY.shuffling.layers, norm=settings_of.norm, seed=0)
        start = norms(model)
        shuffling.memorise(model, images, TOY.shuffling, settings_of, 0)
        held = norms(model) == pytest.approx(start, rel=1e-5)
        assert held == (settings_of.projected or settings_of.fresh), arm


def test_the_re_warm_raises_the_rate() -> None:
    """Features that hardly move at the low rate do so after the re-warm, and not where there is none."""
    config = dataclasses.replace(TOY.grokking, addition=Addition(modulus=7), probes=20, change_every=4)
    rows = {}
    for arm in ("rewarm", "low"):
        outcome = as_outcome(grokking.run(Trial(0, config, {"arm": arm})))
        rows[arm] = [float(row["kernel"] or 0.0) for row in outcome.curves["change"]]
    assert rows["rewarm"][0] == rows["low"][0]
    assert rows["rewarm"][1] > 5 * rows["low"][1]


def test_arms_of_a_seed_see_the_same_tasks() -> None:
    """At a rate of about 0 all networks with one kind of norm stay what they were: the same accuracy, task by task."""
    config = dataclasses.replace(TOY.shuffling, rate=1e-12)
    images, curves = digits(3).images[:300], {}
    for arm in ("layernorm", "projected"):
        model = network(64, 10, config.layers, norm=True, seed=3)
        rows, _, _ = shuffling.memorise(model, images, config, shuffling.ARMS[arm], 3)
        curves[arm] = [row["end"] for row in rows]
    assert curves["layernorm"] == curves["projected"]
    assert len(set(curves["projected"])) > 1, "labels differ from task to task"


def test_a_task_is_learnt_and_found_out() -> None:
    config = dataclasses.replace(
        TOY.shuffling, tasks=2, steps=120, examples=24, batch=16, rate=1e-2, layers=Layers(width=32, depth=2)
    )
    outcome = as_outcome(shuffling.run(Trial(0, config, {"arm": "detected"})))
    row = outcome.records[0]
    assert float(row["first"] or 0.0) > 0.9
    assert (row["found"], row["changes"], row["false"]) == (1, 1, 0)


def test_primacy_has_a_phase_of_random_labels() -> None:
    config = dataclasses.replace(TOY.primacy, first=60, second=0, rate=1e-2, batch=20, layers=Layers(width=32, depth=1))
    row = as_outcome(primacy.run(Trial(0, config, {"arm": "constant", "norms": "held"}))).records[0]
    assert float(row["memorised"] or 0.0) > 0.8
    assert float(row["accuracy"] or 0.0) < 0.3
    fresh = as_outcome(primacy.run(Trial(0, TOY.primacy, {"arm": "fresh", "norms": "held"}))).records[0]
    assert fresh["memorised"] is None


def test_a_goal_is_learnt() -> None:
    config = dataclasses.replace(
        TOY.fitted_q, side=4, goals=2, steps=150, copy_every=10, rate=1e-2, layers=Layers(width=32, depth=2)
    )
    row = as_outcome(fitted_q.run(Trial(0, config, {"arm": "projected"}))).records[0]
    assert float(row["last_end"] or 0.0) > 0.9
    assert float(row["last"] or 0.0) < float(row["last_end"] or 0.0)


def test_rates_in_other_proportions_than_norms() -> None:
    with pytest.raises(ArgumentError, match="proportions"):
        ClampConfig(norms=(1.0, 2.0), rates=(1e-3, 3e-3))
    with pytest.raises(ArgumentError, match="arms"):
        dataclasses.replace(TOY.shuffling, arms=("norm",))
