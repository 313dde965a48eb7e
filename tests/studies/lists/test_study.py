"""The study of list functions: its scales and what its claims need of them."""

from __future__ import annotations

import dataclasses

import pytest

from holdfast.studies.lists.neural.part import ROLES
from holdfast.studies.lists.robust import JUDGED_NOISE
from holdfast.studies.lists.study import study
from tests.studies.lists.toy import TOY


@pytest.mark.parametrize("scale", ["quick", "laptop", "gpu"])
def test_scales(scale: str) -> None:
    config = study.scales[scale]
    trials = list(study.trials(config))
    by_part = {
        part: sorted(trial.seed for trial in trials if trial.labels["part"] == part)
        for part in ("classes", "exact", "robust")
    }
    assert by_part == {"classes": [100], "exact": list(config.seed_range), "robust": list(config.seed_range)}
    networks = [trial for trial in trials if trial.labels["part"] == "neural"]
    seeds = list(config.seed_range)[: config.neural_seeds]
    for positions in config.positions:
        for role in ROLES if positions == "rotary" else ROLES[:3]:
            of_role = [t for t in networks if (t.labels["role"], t.labels["positions"]) == (role, positions)]
            assert [trial.seed for trial in of_role] == seeds
            assert {trial.config.positions for trial in of_role} == {positions}
            assert {trial.gpu for trial in of_role} == {1.0 if scale == "gpu" and role != "comparator" else 0.0}
    assert set(JUDGED_NOISE) <= set(config.robust.noise)
    assert 64 in config.robust.sizes


def test_seeds_do_not_change_a_trial() -> None:
    more = dataclasses.replace(TOY, seeds=4, neural_seeds=3)
    assert [trial for trial in study.trials(more) if trial in list(study.trials(TOY))] == list(study.trials(TOY))
