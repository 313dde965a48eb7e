"""Part `neural`: every role at toy size, a stand-in for a network, and claims on results made by hand."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from holdfast.errors import ArgumentError
from holdfast.lab import Outcome, Record, Results, Trial
from holdfast.lab.trial import as_outcome
from holdfast.studies.lists.model import ListModelConfig, ListTransformer
from holdfast.studies.lists.neural import networks
from holdfast.studies.lists.neural.networks import CONTROLS, TASKS
from holdfast.studies.lists.neural.part import ROLES, part
from holdfast.studies.lists.study import study
from holdfast.studies.lists.tasks import find_task
from tests.studies.lists.toy import SMALL, TOY
from tests.studies.tools import assert_drawn, assert_repeats, judged, results_of


@pytest.fixture(scope="module")
def results() -> Results:
    return results_of(study, TOY, "neural")


@pytest.mark.parametrize("role", ROLES)
def test_a_trial_twice_is_the_same(role: str, results: Results) -> None:
    assert_repeats(part, *next(pair for pair in results.outcomes if pair[0].labels["role"] == role))


def test_figures(results: Results) -> None:
    assert_drawn(part.figures, results)


class Fake(ListTransformer):
    """In the place of a network: right on lists up to some length, backwards on longer ones, and lost on none."""

    def __init__(self, tasks: Sequence[str], longest: int) -> None:
        super().__init__(ListModelConfig(tasks=tuple(tasks), values=SMALL.values, width=8, layers=1, heads=1))
        self.longest = longest

    def answer(self, task: str, lists: Sequence[Sequence[int]]) -> list[list[int]]:
        return [find_task(task)(xs)[:: 1 if len(xs) <= self.longest else -1] if len(xs) else [0] for xs in lists]


def rows_of(function: Callable[..., Any], *arguments: Any) -> list[dict[str, Any]]:
    return list(function(*arguments))


def test_a_network_that_is_right_on_short_lists_is_right_on_long_ones_when_glued() -> None:
    model = Fake(TASKS, SMALL.longest)
    raw = rows_of(networks.decoded, model, TASKS, SMALL, 0)
    assert all(row["exact"] == (row["n"] <= 3) for row in raw if row["task"] != "id+reverse")
    assert {row["kendall"] for row in raw if row["task"] == "reverse" and row["n"] > 3} == {1.0}
    glued = rows_of(networks.glued, model, SMALL, 0, ("blocks", "pairs", "votes 3"), TASKS)
    assert {(row["exact"], row["answered"], row["kendall"]) for row in glued} == {(1.0, 1.0, 0.0)}
    assert {row["n"] for row in glued if row["arm"] == "blocks"} == set(SMALL.lengths)
    assert {row["n"] for row in glued if row["arm"] == "pairs"} == {3, 6, 8, 10}
    assert {row["n"] for row in glued if row["arm"] == "votes 3"} == {3, 6, 8}
    (pairs,) = (row for row in glued if (row["arm"], row["task"], row["n"]) == ("pairs", "sort", 10))
    assert pairs["queries"] == 45


def test_the_probe_sees_where_it_breaks_off() -> None:
    rows = rows_of(networks.probed, Fake(TASKS, 3), SMALL, 0)
    assert {row["n"]: (row["violation"], row["error"]) for row in rows if row["task"] == "reverse"} == {
        2: (0.0, 0.0),
        3: (0.0, 0.0),
        4: (1.0, 1.0),
    }


def test_calibration_refuses_the_controls_and_nothing_else() -> None:
    config = dataclasses.replace(SMALL, longest=6, lengths=(12, 8, 10, 60), probe_lengths=(6, 7))
    for tasks, refused in ((TASKS, 0.0), (CONTROLS, 1.0)):
        rows = rows_of(networks.refusals, Fake(tasks, 6), tasks, config, 0)
        assert {row["task"]: row["refused"] for row in rows} == dict.fromkeys(tasks, refused)


def test_pair_errors_are_by_distance() -> None:
    def answer(task: str, lists: Sequence[list[int]]) -> list[list[int]]:
        """Sort by half the value, so that two neighbours out of four stay as they come."""
        assert (task, {len(xs) for xs in lists}) == ("sort", {SMALL.longest})
        assert all(len(set(xs)) == len(xs) for xs in lists)
        return [sorted(xs, key=lambda x: x // 2) for xs in lists]

    config = dataclasses.replace(SMALL, pair_lists=200)
    rows = rows_of(networks.pair_errors, SimpleNamespace(answer=answer), config, 0)
    assert [row["gap"] for row in rows] == [1, 2, 4, 8, 16, 32]
    assert rows[0]["pair_error"] == pytest.approx(0.25, abs=0.09)
    assert [row["pair_error"] for row in rows[1:]] == [0, 0, 0, 0, 0]
    rows = rows_of(networks.pair_errors, SimpleNamespace(answer=lambda task, lists: [[] for _ in lists]), SMALL, 0)
    assert {row["pair_error"] for row in rows} == {1.0}, "what is missing is wrong"


def test_score() -> None:
    gold = [[1, 2, 2], [3, 1], [4, 5]]
    assert networks.score([[1, 2, 2], [1, 3], None], gold) == {
        "exact": pytest.approx(1 / 3),
        "answered": pytest.approx(2 / 3),
        "kendall": 0.5,
    }
    assert networks.score([[1, 2], None, None], gold)["kendall"] is None
    assert networks.kendall_error([2, 1, 2], [1, 2, 2]) == pytest.approx(1 / 3)
    assert networks.kendall_error([2, 1, 1], [1, 2, 2]) is None


def test_roles_record_what_they_are_for(results: Results) -> None:
    arms = {role: set(results.levels("arm", role=role)) for role in ROLES}
    assert arms == {
        "network": {"raw", "blocks", "pairs", "votes 1", "votes 3"},
        "sham": {"raw", "blocks"},
        "controls": {"raw"},
        "comparator": {"comparator"},
    }
    assert set(results.levels("n", role="comparator")) == {*SMALL.lengths, 40}
    refused = {role: {row["task"] for row in results.where(role=role) if "refused" in row} for role in ROLES}
    assert refused["controls"] == set(CONTROLS)
    assert refused["network"] == set(TASKS)


def test_without_positions_the_network_sees_none() -> None:
    config = dataclasses.replace(SMALL, positions="none")
    model = networks.trained(config, TASKS, 0, steps=2)
    assert model.decoder.config.rotary_share == 0
    assert any(parameter.grad is not None for parameter in model.decoder.parameters())


def test_gpu_scale_at_toy_size() -> None:
    config = dataclasses.replace(study.scales["gpu"], seeds=1, neural_seeds=1)
    assert config.neural.distil_rounds
    toy_sized = dataclasses.replace(SMALL, distil_rounds=2, distil_lists=4, distil_steps=2)
    trials = [t for t in study.trials(dataclasses.replace(config, neural=toy_sized)) if t.labels["part"] == "neural"]
    assert len(trials) == 7
    raw = [trial for trial in trials if trial.labels["role"] == "network"]
    results = Results(
        dataclasses.replace(TOY, neural=toy_sized), [(trial, as_outcome(part.run(trial))) for trial in raw]
    )
    for positions in config.positions:
        assert len(results.where(arm="distilled", positions=positions)) == len(TASKS) * len(SMALL.lengths)
    assert "1 seed" in judged(study, results)["distilled"].reason


@pytest.mark.parametrize(
    ("change", "argument"),
    [
        ({"positions": "learned"}, "positions"),
        ({"lengths": (3, 8, 10, 30)}, "lengths"),
        ({"probe_lengths": (2, 3)}, "probe_lengths"),
        ({"values": 39}, "values"),
    ],
)
def test_settings_that_lack_what_claims_need(change: dict[str, Any], argument: str) -> None:
    with pytest.raises(ArgumentError, match=argument):
        dataclasses.replace(SMALL, **change)


def made_up_networks(
    *,
    raw: float = 0.0,
    blocks: float = 1.0,
    voted: float = 0.0,
    comparator: float = 1.0,
    sham: float = 0.0,
    gap: float = 0.0,
    cliff: float = 0.95,
    near: float = 0.1,
    controls: float = 1.0,
    learned: float = 0.9,
    passed: float = 0.0,
    distilled: float | None = None,
) -> Results:
    """Three seeds, each metric about as given; it is the same in all seeds where it is 0 or 1."""
    many = dataclasses.replace(SMALL, lists=200, probe_lists=200, pair_lists=200, distil_rounds=distilled is not None)
    config = dataclasses.replace(TOY, neural=many)
    outcomes = []
    for seed in range(3):

        def about(value: float, seed: int = seed) -> float:
            return value if value in (0.0, 1.0) else value + 0.002 * (seed - 1)

        rows: dict[str, list[Record]] = {role: [] for role in ROLES}
        for task in TASKS:
            rows["network"].append({"arm": "raw", "task": task, "n": SMALL.twice, "exact": about(raw)})
            for arm in ("blocks", "pairs"):
                rows["network"].append({"arm": arm, "task": task, "n": SMALL.tenfold, "exact": about(blocks)})
            rows["sham"].append({"arm": "blocks", "task": task, "n": SMALL.twice, "exact": about(sham)})
            rows["comparator"].append({"arm": "comparator", "task": task, "n": 40, "exact": about(comparator)})
            rows["network"].append({"task": task, "n": 2, "error": 0.0, "violation": 0.0})
            rows["network"].append({"task": task, "n": 3, "error": 0.3, "violation": about(0.3 - gap)})
            rows["network"].append({"task": task, "n": 4, "error": 1.0, "violation": about(cliff)})
            rows["network"].append({"task": task, "refused": passed})
        for role, tasks in (("network", TASKS), ("controls", CONTROLS)):
            rows[role] += [{"arm": "raw", "task": task, "n": SMALL.longest, "exact": learned} for task in tasks]
        for n in SMALL.vote_lengths:
            rows["network"].append({"arm": "blocks", "task": "sort", "n": n, "exact": 0.2})
            rows["network"].append({"arm": "votes 3", "task": "sort", "n": n, "exact": about(0.2 + voted)})
            rows["network"].append({"arm": "votes 1", "task": "sort", "n": n, "exact": 0.9})
        rows["network"] += [{"gap": 1, "pair_error": about(near)}, {"gap": 16, "pair_error": about(0.05)}]
        rows["controls"] += [{"task": task, "refused": controls} for task in CONTROLS]
        if distilled is not None:
            rows["network"].append({"arm": "distilled", "task": "reverse", "n": SMALL.twice, "exact": about(distilled)})
        for role, of_role in rows.items():
            labels = {"part": "neural", "role": role, "positions": "rotary"}
            outcomes.append((Trial(seed, config.neural, labels), Outcome(of_role)))
        # Other positions must not be mixed with these.
        labels = {"part": "neural", "role": "network", "positions": "none"}
        outcomes.append(
            (Trial(seed, config.neural, labels), Outcome([*rows["network"][:1], {"gap": 1, "pair_error": 1.0}]))
        )
    return Results(config, outcomes)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {"raw-sort": "supported", "blocks-reverse": "supported", "comparator-sort": "supported"}),
        ({}, {"sham-sort": "supported", "violation-sort": "supported", "cliff-reverse": "supported"}),
        ({}, {"controls-network": "supported", "controls-passed": "supported", "distilled": "inconclusive"}),
        ({"raw": 0.5}, {"raw-reverse": "contradicted", "raw-partition": "contradicted"}),
        ({"blocks": 0.5}, {"blocks-reverse": "contradicted", "pairs-id+reverse": "contradicted"}),
        ({"blocks": 0.951}, {"blocks-partition": "inconclusive"}),
        ({"comparator": 0.2}, {"comparator-reverse": "contradicted", "comparator-partition": "contradicted"}),
        ({"sham": 0.5}, {"sham-reverse": "contradicted"}),
        ({"voted": 0.3}, {"votes-near": "supported", "votes-far": "supported"}),
        ({"voted": -0.1}, {"votes-near": "contradicted", "votes-far": "contradicted"}),
        ({"voted": 0.0}, {"votes-near": "inconclusive"}),
        ({"near": 0.2}, {"sort-neighbours": "supported"}),
        ({"near": 0.01}, {"sort-neighbours": "contradicted"}),
        ({"gap": 0.2}, {"violation-sort": "contradicted", "violation-reverse": "contradicted"}),
        ({"gap": -0.2}, {"violation-sort": "contradicted"}),
        ({"cliff": 0.3}, {"cliff-sort": "contradicted", "violation-sort": "supported"}),
        ({"controls": 0.4}, {"controls-network": "contradicted"}),
        ({"passed": 0.6}, {"controls-passed": "contradicted"}),
        ({"learned": 0.2}, {"controls-network": "inconclusive", "controls-passed": "inconclusive"}),
        ({"distilled": 0.9}, {"distilled": "supported"}),
        ({"distilled": 0.1, "raw": 0.5}, {"distilled": "contradicted"}),
    ],
)
def test_claims_on_networks(changes: dict[str, float], expected: dict[str, str]) -> None:
    found = judged(study, made_up_networks(**changes))
    assert {claim: str(found[claim].status) for claim in expected} == expected
