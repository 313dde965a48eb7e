"""The study of list functions: every part at toy size, and claims on results made by hand."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import kendalltau

from holdfast.errors import ArgumentError
from holdfast.lab import Outcome, Results, Status, Trial
from holdfast.lab.trial import Record
from holdfast.lab.verdict import judge
from holdfast.lists.functions import FUNCTIONS
from holdfast.studies.lists import exact as _lists_exact
from holdfast.studies.lists import neural as _lists_neural
from holdfast.studies.lists import robust as _lists_robust
from holdfast.studies.lists.claims import JUDGED_NOISE
from holdfast.studies.lists.exact import ALIASES, CONTROLS, QUERIES, ClassesConfig, ExactConfig
from holdfast.studies.lists.model import ListModelConfig, ListTransformer
from holdfast.studies.lists.neural import ROLES, TASKS, NeuralConfig
from holdfast.studies.lists.robust import METHODS, RobustConfig
from holdfast.studies.lists.study import ListsConfig, study
from holdfast.studies.lists.tasks import find_task

SMALL = NeuralConfig(
    values=64,
    longest=3,
    width=16,
    layers=1,
    heads=2,
    steps=3,
    side_steps=2,
    batch=8,
    lengths=(3, 6, 8, 10, 30),
    lists=3,
    votes=(1, 3),
    vote_lengths=(8, 10),
    pairs_longest=10,
    votes_longest=8,
    probe_lengths=(2, 3, 4),
    probe_lists=4,
    pair_lists=4,
    refusal_lists=2,
    comparator_lists=300,
    comparator_steps=20,
    comparator_length=40,
)
TOY = ListsConfig(
    seeds=2,
    neural_seeds=1,
    classes=ClassesConfig(natural=3, order_natural=2, values=3, face_values=(3, 4), longest=4),
    exact=ExactConfig(lists=1, longest_distinct=14, sizes=(16, 64), capacities=(2, 8)),
    robust=RobustConfig(sizes=(8, 64), lists=4),
    neural=SMALL,
)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Tensors are so small here that threads would only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def toy() -> Results:
    """Every trial of the toy configuration."""
    return Results(TOY, [(trial, study.run(trial)) for trial in study.trials(TOY)])


def judged(results: Results) -> dict[str, Any]:
    evidence = [claim.test(results) for claim in study.claims]
    return {verdict.claim: verdict for verdict in judge(study.claims, evidence)}


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
            found = [t for t in networks if (t.labels["role"], t.labels["positions"]) == (role, positions)]
            assert [trial.seed for trial in found] == seeds
            assert {trial.config.positions for trial in found} == {positions}
            assert {trial.gpu for trial in found} == {1.0 if scale == "gpu" and role != "comparator" else 0.0}
    assert set(JUDGED_NOISE) <= set(config.robust.noise)
    assert 1024 in config.exact.sizes


def test_seeds_do_not_change_a_trial() -> None:
    more = dataclasses.replace(TOY, seeds=4, neural_seeds=3)
    assert [trial for trial in study.trials(more) if trial in list(study.trials(TOY))] == list(study.trials(TOY))


@pytest.mark.parametrize("which", ["classes", "exact", "robust", *ROLES])
def test_a_trial_twice_is_the_same(which: str, toy: Results) -> None:
    trial, first = next(
        (trial, outcome) for trial, outcome in toy.outcomes if which in (trial.labels["part"], trial.labels.get("role"))
    )
    torch.rand(7)  # the global state of random numbers is of no concern
    np.random.random(3)
    assert study.run(trial) == first


def test_another_configuration_is_no_part() -> None:
    with pytest.raises(TypeError, match="ListsConfig"):
        study.run(Trial(0, TOY))


# --------------------------------------------------------------------------------- classes and exactness


def test_formulas() -> None:
    assert [_lists_exact.natural_formula(k) for k in range(8)] == [1, 2, 6, 18, 54, 162, 486, 1458]
    assert [_lists_exact.order_natural_formula(k) for k in range(5)] == [1, 4, 20, 100, 500]
    found = [_lists_exact.permutation_formula(n) for n in range(9)]
    assert found == [1, 1, 4, 20, 138, 1182, 12166, 146050, 2003882]
    assert _lists_exact.least_queries(1024, 8) == pytest.approx(573.2, abs=0.1)
    assert _lists_exact.most_queries(1024, 8) == 2 * 128 * 7 + 128


def test_classes_are_counted(toy: Results) -> None:
    counted = {(row["class"], row["size"]): row for row in toy.where(part="classes") if "class" in row}
    assert counted["natural", 3]["counted"] == 18
    assert counted["natural", 3]["of"] == 20
    assert counted["order-natural", 2]["counted"] == 20
    assert counted["permutation type", 3]["counted"] == 20
    assert (counted["gluable", "2, 2, 2"]["counted"], counted["gluable", "2, 2, 2"]["of"]) == (90, 216)
    faces = {(row["faces"], row["values"]): row for row in toy.where(part="classes") if "faces" in row}
    assert [faces[known, 4]["told_apart"] for known in (1, 2, 3)] == [6, 18, 24]
    assert [faces[known, 4]["most_left"] for known in (1, 2, 3)] == [4, 2, 1]


def test_laws_that_hold_and_laws_that_fail(toy: Results) -> None:
    exceptions = {row["law"]: row["exceptions"] for row in toy.where(part="classes") if "law" in row}
    failing = {"h . (f + g) = h . f + h . g", "f . g = g . f", "sort . (g + h) = sort . g + sort . h"}
    assert {law for law, count in exceptions.items() if count} == failing
    assert len(exceptions) == 13


def test_a_counterexample_too_long_for_the_lists_tried_is_no_verdict() -> None:
    short = dataclasses.replace(TOY.classes, longest=3)
    wrong = [row["function"] for row in _lists_exact._verdicts(short) if not row["as_stated"]]
    assert "id if len <= 3 else reverse" in wrong  # its counterexample has four elements


def test_every_extension_is_exact(toy: Results) -> None:
    rows = [row for row in toy.where(part="exact", seed=0) if "mode" in row]
    assert {(row["mode"], row["engine"]) for row in rows} == {
        (mode, engine) for mode, engines in _lists_exact.MODES.items() for engine in engines
    }
    assert not [row for row in rows if row["errors"] or row["overlong"] or row["problem"]]
    by_mode = {mode: {row["function"] for row in rows if row["mode"] == mode} for mode in _lists_exact.MODES}
    assert (len(by_mode["group"]), len(by_mode["positional"])) == (23, 15)
    assert by_mode["relabel rank"] - by_mode["relabel any"] == set(_lists_exact.ORDER_NATURAL)


@pytest.mark.parametrize(
    ("name", "mode", "engine"), [("rotate left", "distinct", "pairs"), ("nub, keep first", "positional", "pairs")]
)
def test_a_function_that_the_mode_is_wrong_for_is_counted_as_an_error(name: str, mode: str, engine: str) -> None:
    (each,) = (each for each in FUNCTIONS if each.name == name)
    row = _lists_exact._cell(each, mode, engine, ExactConfig(lists=20), np.random.default_rng(0))
    assert row["errors"] > 10
    assert row["problem"]


def test_queries_are_those_of_the_prototype() -> None:
    rng = np.random.default_rng(3)
    for name, capacity in (("reverse", 8), ("sort", 32)):
        (each,) = (each for each in FUNCTIONS if each.name == name)
        xs = rng.permutation(1024).tolist()
        queries, answer = _lists_exact._asked("block merge", each.function, xs, capacity)
        assert answer == each.function(xs)
        assert queries == pytest.approx(QUERIES[name][capacity], rel=0.05)


def test_sorted_by_pairs_counts_comparisons() -> None:
    queries, answer = _lists_exact._asked("sorted", sorted, list(range(50)), 2)
    assert (queries, answer) == (49, list(range(50)))
    queries, answer = _lists_exact._asked("sorted", lambda xs: xs[::-1], list(range(50)), 2)
    assert (queries, answer) == (49, list(range(49, -1, -1)))


def test_aliases(toy: Results) -> None:
    rows = {row["control"]: row for row in toy.where(part="exact", seed=0) if "control" in row}
    assert len(rows) == 24
    assert set(CONTROLS) < rows.keys()
    assert rows["rotate left"]["became"] == "[5, 2, 4, 1, 3]"
    assert rows["smallest to front"]["became"] == "[1, 2, 3, 4, 5]"
    assert rows["tail"]["became"] == "WrongMultiplicity"
    assert all(row["refused"] == row["lists"] for row in rows.values())
    assert all(rows[name]["aliased"] == rows[name]["lists"] for name in ALIASES)


# --------------------------------------------------------------------------------- robust


def test_kendall_error() -> None:
    rng = np.random.default_rng(0)
    for _ in range(5):
        order, truth = rng.permutation(30), rng.permutation(30)
        tau = kendalltau(np.argsort(order), np.argsort(truth)).statistic
        assert _lists_robust.kendall_error(order, truth) == pytest.approx((1 - tau) / 2)
    assert _lists_robust.kendall_error(truth[::-1], truth) == 1


def test_votes_have_the_noise_that_is_asked_for() -> None:
    truth, support = _lists_robust.noisy_votes(200, 0.1, 3, np.random.default_rng(0))
    ranked = support[np.ix_(truth, truth)]
    upper = np.triu_indices(200, 1)
    assert (ranked[upper] + ranked.T[upper] == 3).all()
    assert ranked.T[upper].mean() == pytest.approx(0.3, abs=0.02)
    assert not np.diag(support).any()


def test_without_noise_every_method_is_right() -> None:
    rows = _lists_robust.run_robust(RobustConfig(sizes=(12,), noise=(0.0,), votes=(1,), lists=3), 0)
    assert {row["method"]: row["right"] for row in rows} == dict.fromkeys((*METHODS, "ceiling"), 1.0)
    assert {row["kendall"] for row in rows if row["method"] != "ceiling"} == {0.0}


def test_no_method_passes_the_ceiling(toy: Results) -> None:
    for n in (8, 64):
        for p in TOY.robust.noise:
            for votes in TOY.robust.votes:
                at: dict[str, Any] = {"part": "robust", "seed": 1, "n": n, "p": p, "votes": votes}
                right = {row["method"]: float(row["right"] or 0) for row in toy.where(**at)}
                assert max(right.values()) == right["ceiling"]


# --------------------------------------------------------------------------------- neural


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
    raw = rows_of(_lists_neural._decoded, model, TASKS, SMALL, 0)
    assert all(row["exact"] == (row["n"] <= 3) for row in raw if row["task"] != "id+reverse")
    assert {row["kendall"] for row in raw if row["task"] == "reverse" and row["n"] > 3} == {1.0}
    glued = rows_of(_lists_neural._glued, model, SMALL, 0, ("blocks", "pairs", "votes 3"), TASKS)
    assert {(row["exact"], row["answered"], row["kendall"]) for row in glued} == {(1.0, 1.0, 0.0)}
    assert {row["n"] for row in glued if row["arm"] == "blocks"} == set(SMALL.lengths)
    assert {row["n"] for row in glued if row["arm"] == "pairs"} == {3, 6, 8, 10}
    assert {row["n"] for row in glued if row["arm"] == "votes 3"} == {3, 6, 8}
    (pairs,) = (row for row in glued if (row["arm"], row["task"], row["n"]) == ("pairs", "sort", 10))
    assert pairs["queries"] == 45


def test_the_probe_sees_where_it_breaks_off() -> None:
    rows = rows_of(_lists_neural._probed, Fake(TASKS, 3), SMALL, 0)
    assert {row["n"]: (row["violation"], row["error"]) for row in rows if row["task"] == "reverse"} == {
        2: (0.0, 0.0),
        3: (0.0, 0.0),
        4: (1.0, 1.0),
    }


def test_calibration_refuses_the_controls_and_nothing_else() -> None:
    config = dataclasses.replace(SMALL, longest=6, lengths=(12, 8, 10, 60), probe_lengths=(6, 7))
    for tasks, refused in ((TASKS, 0.0), (_lists_neural.CONTROLS, 1.0)):
        rows = rows_of(_lists_neural._refusals, Fake(tasks, 6), tasks, config, 0)
        assert {row["task"]: row["refused"] for row in rows} == dict.fromkeys(tasks, refused)


def test_pair_errors_are_by_distance() -> None:
    def answer(task: str, lists: Sequence[list[int]]) -> list[list[int]]:
        """Sort by half the value, so that two neighbours out of four stay as they come."""
        assert (task, {len(xs) for xs in lists}) == ("sort", {SMALL.longest})
        assert all(len(set(xs)) == len(xs) for xs in lists)
        return [sorted(xs, key=lambda x: x // 2) for xs in lists]

    config = dataclasses.replace(SMALL, pair_lists=200)
    rows = rows_of(_lists_neural._pair_errors, SimpleNamespace(answer=answer), config, 0)
    assert [row["gap"] for row in rows] == [1, 2, 4, 8, 16, 32]
    assert rows[0]["pair_error"] == pytest.approx(0.25, abs=0.09)
    assert [row["pair_error"] for row in rows[1:]] == [0, 0, 0, 0, 0]
    rows = rows_of(
        _lists_neural._pair_errors, SimpleNamespace(answer=lambda task, lists: [[] for _ in lists]), SMALL, 0
    )
    assert {row["pair_error"] for row in rows} == {1.0}, "what is missing is wrong"


def test_score() -> None:
    gold = [[1, 2, 2], [3, 1], [4, 5]]
    assert _lists_neural.score([[1, 2, 2], [1, 3], None], gold) == {
        "exact": pytest.approx(1 / 3),
        "answered": pytest.approx(2 / 3),
        "kendall": 0.5,
    }
    assert _lists_neural.score([[1, 2], None, None], gold)["kendall"] is None
    assert _lists_neural.kendall_error([2, 1, 2], [1, 2, 2]) == pytest.approx(1 / 3)
    assert _lists_neural.kendall_error([2, 1, 1], [1, 2, 2]) is None


def test_roles_record_what_they_are_for(toy: Results) -> None:
    arms = {role: set(toy.levels("arm", part="neural", role=role)) for role in ROLES}
    assert arms == {
        "network": {"raw", "blocks", "pairs", "votes 1", "votes 3"},
        "sham": {"raw", "blocks"},
        "controls": {"raw"},
        "comparator": {"comparator"},
    }
    assert set(toy.levels("n", role="comparator")) == {*SMALL.lengths, 40}
    refused = {role: {row["task"] for row in toy.where(role=role) if "refused" in row} for role in ROLES}
    assert refused["controls"] == set(_lists_neural.CONTROLS)
    assert refused["network"] == set(TASKS)


def test_without_positions_the_network_sees_none() -> None:
    config = dataclasses.replace(SMALL, positions="none")
    model = _lists_neural.trained(config, TASKS, 0, steps=2, report=lambda share, **metrics: None)
    assert model.decoder.config.rotary_share == 0
    assert any(parameter.grad is not None for parameter in model.decoder.parameters())


def test_gpu_scale_at_toy_size() -> None:
    config = dataclasses.replace(study.scales["gpu"], seeds=1, neural_seeds=1)
    assert config.neural.distil_rounds
    toy_sized = dataclasses.replace(SMALL, distil_rounds=2, distil_lists=4, distil_steps=2)
    trials = [t for t in study.trials(dataclasses.replace(config, neural=toy_sized)) if t.labels["part"] == "neural"]
    assert len(trials) == 7
    networks = [trial for trial in trials if trial.labels["role"] == "network"]
    results = Results(dataclasses.replace(TOY, neural=toy_sized), [(trial, study.run(trial)) for trial in networks])
    for positions in config.positions:
        assert len(results.where(arm="distilled", positions=positions)) == len(TASKS) * len(SMALL.lengths)
    assert "1 seed" in judged(results)["distilled"].reason


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


def test_figures(toy: Results) -> None:
    from matplotlib.figure import Figure

    for results in (toy, Results(TOY, [])):
        for figure in study.figures:
            axes = Figure().subplots()
            rows = figure.draw(results, axes)
            assert all(isinstance(row, dict) for row in rows)
            if results is toy:
                assert rows, figure.name
                assert axes.get_ylabel()
                assert not axes.get_title()


# --------------------------------------------------------------------------------- claims, on made-up results


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
    config = dataclasses.replace(TOY, neural=dataclasses.replace(SMALL, distil_rounds=distilled is not None))
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
        for role, tasks in (("network", TASKS), ("controls", _lists_neural.CONTROLS)):
            rows[role] += [{"arm": "raw", "task": task, "n": SMALL.longest, "exact": learned} for task in tasks]
        for n in SMALL.vote_lengths:
            rows["network"].append({"arm": "blocks", "task": "sort", "n": n, "exact": 0.2})
            rows["network"].append({"arm": "votes 3", "task": "sort", "n": n, "exact": about(0.2 + voted)})
            rows["network"].append({"arm": "votes 1", "task": "sort", "n": n, "exact": 0.9})
        rows["network"] += [{"gap": 1, "pair_error": about(near)}, {"gap": 16, "pair_error": about(0.05)}]
        rows["controls"] += [{"task": task, "refused": controls} for task in _lists_neural.CONTROLS]
        if distilled is not None:
            rows["network"].append({"arm": "distilled", "task": "reverse", "n": SMALL.twice, "exact": about(distilled)})
        for role, own in rows.items():
            labels = {"part": "neural", "role": role, "positions": "rotary"}
            outcomes.append((Trial(seed, config.neural, labels), Outcome(own)))
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
    found = judged(made_up_networks(**changes))
    assert {claim: str(found[claim].status) for claim in expected} == expected


def made_up_lists(*, local: float = 0.0, three: float = 0.0) -> Results:
    """Five seeds in which local search and three votes differ by the given amounts, give or take 0.001."""
    outcomes = []
    for seed in range(5):
        noise = 0.0005 * (seed - 2)
        rows: list[Record] = []
        for p in JUDGED_NOISE:
            for votes in (1, 3):
                for method, better in (("merge sort", 0.0), ("copeland + local", local + noise)):
                    right = 0.4 + 0.02 * seed + better + (three + 2 * noise) * (votes == 3)
                    rows.append(
                        {"method": method, "n": 64, "p": p, "votes": votes, "right": right, "kendall": 1 - right}
                    )
        outcomes.append((Trial(seed, TOY.robust, {"part": "robust"}), Outcome(rows)))
    return Results(TOY, outcomes)


def test_claims_on_noise() -> None:
    for sign, status in ((1, "supported"), (-1, "contradicted"), (0, "inconclusive")):
        found = judged(made_up_lists(local=0.1 * sign, three=0.1 * sign))
        names = [name for name in found if name.startswith(("local-", "three-votes-"))]
        assert len(names) == 8
        assert {str(found[name].status) for name in names} == {status}


def with_changes(results: Results, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Results:
    return Results(
        results.config,
        [(trial, Outcome([change(dict(row)) for row in outcome.records])) for trial, outcome in results.outcomes],
    )


COUNTED = {
    "classes-natural": {"class": "natural", "size": 2},
    "classes-permutation": {"class": "permutation type", "size": 2},
    "classes-order": {"class": "order-natural", "size": 1},
    "classes-gluable": {"class": "gluable", "size": "1, 1, 1"},
    "faces": {"faces": 2, "values": 4},
    "no-aliens": {"law": "no value that was not there"},
    "natural-form": {"law": "natural functions are sums of blocks"},
    "closure": {"law": "sums are filter equivariant"},
    "laws": {"law": "examples of compositions"},
    "laws-that-fail": {"law": "f . g = g . f"},
    "exact": {"mode": "group", "engine": "cover", "function": "sort"},
    "capacity": {"mode": "auto", "function": "reverse"},
    "queries-bounded": {"method": "block merge", "task": "sort", "n": 16},
    "queries-merge": {"method": "merge", "task": "sort", "n": 16},
    "aliasing": {"control": "riffle"},
    "refused": {"control": "head"},
    "controls-exact": {"control": "tail"},
}
"""For each claim a row, and below a change of it, that makes it false."""

CHANGES: dict[str, dict[str, Any]] = {
    "faces": {"most_left": 3},
    "no-aliens": {"exceptions": 1},
    "natural-form": {"exceptions": 1},
    "closure": {"exceptions": 1},
    "laws": {"exceptions": 1},
    "laws-that-fail": {"exceptions": 0},
    "exact": {"errors": 1},
    "capacity": {"overlong": 1},
    "queries-bounded": {"queries": 7},
    "queries-merge": {"queries": 70},
    "aliasing": {"aliased": 0},
    "refused": {"refused": 0},
    "controls-exact": {"refused": 0},
}


@pytest.mark.parametrize("claim", COUNTED)
def test_claims_without_chance_hold_and_one_changed_row_breaks_them(claim: str, toy: Results) -> None:
    assert judged(toy)[claim].status is Status.SUPPORTED

    def change(row: dict[str, Any]) -> dict[str, Any]:
        hit = all(row.get(name) == value for name, value in COUNTED[claim].items())
        return row | (CHANGES.get(claim, {"counted": 3}) if hit else {})

    assert judged(with_changes(toy, change))[claim].status is Status.CONTRADICTED


def test_claims_on_verdicts_and_classes_apart(toy: Results) -> None:
    found = judged(toy)
    assert found["verdicts"].status is Status.SUPPORTED
    assert found["classes-apart"].status is Status.SUPPORTED
    wrong = with_changes(toy, lambda row: row | ({"as_stated": False} if row.get("function") == "nub" else {}))
    assert judged(wrong)["verdicts"].status is Status.SUPPORTED, "there is no function of that name"
    wrong = with_changes(toy, lambda row: row | ({"as_stated": False} if row.get("function") == "sort" else {}))
    assert judged(wrong)["verdicts"].status is Status.CONTRADICTED
    nested = with_changes(toy, lambda row: row | ({"map": row["map"] and row["filter"]} if "map" in row else {}))
    assert judged(nested)["classes-apart"].status is Status.CONTRADICTED


@pytest.mark.parametrize(
    ("factor", "status"), [(1.04, "supported"), (0.96, "supported"), (1.06, "contradicted"), (0.9, "contradicted")]
)
def test_claim_on_queries(factor: float, status: str) -> None:
    rows: list[Record] = [
        {
            "task": task,
            "method": "block merge",
            "n": 1024,
            "capacity": 8,
            "queries": factor * QUERIES[task][8],
            "right": True,
        }
        for task in QUERIES
    ]
    results = Results(TOY, [(Trial(0, TOY.exact, {"part": "exact"}), Outcome(rows))])
    assert str(judged(results)["queries"].status) == status


def test_claims_about_what_was_not_run_are_inconclusive() -> None:
    for verdict in judged(Results(TOY, [])).values():
        assert verdict.status is Status.INCONCLUSIVE
        assert verdict.reason
