"""What the probe says where it is known what is right."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from holdfast.errors import ArgumentError
from holdfast.probes.macros import MacrosReport, MacrosSettings, logged_values, probe_macros, similarity_of
from holdfast.probes.macros.demonstration import loops_on_a_grid
from holdfast.rl.macros import Macros, random_macros
from holdfast.rl.similarity import load_similarity, masp_penalty, save_similarity

STATES = 300
SEEDS = range(100, 105)
FAST = MacrosSettings(resamples=30)


def values_of(seed: int, *columns: np.ndarray) -> np.ndarray:
    """Columns with a state value that is much larger than their differences."""
    return np.concatenate(columns, 1) + 100 * np.random.default_rng(1000 + seed).normal(size=(STATES, 1))


def groups_of(report: MacrosReport) -> list[tuple[int, ...]]:
    return [group.actions for group in report.groups]


@pytest.mark.parametrize("seed", SEEDS)
def test_duplicates_are_found(seed: int):
    rng = np.random.default_rng(seed)
    base = rng.normal(size=(STATES, 5))
    copies = base[:, [0, 0, 0, 2, 2, 4, 4, 4, 4]] + 0.05 * rng.normal(size=(STATES, 9))
    report = probe_macros(values_of(seed, base, copies), settings=FAST)
    assert groups_of(report) == [(0, 5, 6, 7), (1,), (2, 8, 9), (3,), (4, 10, 11, 12, 13)]
    assert report.interval == (5, 5)
    assert report.finding == "overloading"
    assert report.verdict.startswith("Actions are overloading this learner")
    assert report.retention > 0.95
    assert report.groups[0].correlation > 0.9
    assert report.groups[0].together == 1
    assert report.effective == pytest.approx(5 + 9 / 11, rel=1e-5)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_cluster_of_junk_without_any_correlation_is_found(seed: int):
    rng = np.random.default_rng(seed)
    q = values_of(seed, rng.normal(size=(STATES, 8)), -1 + 0.1 * rng.normal(size=(STATES, 24)))
    macros = random_macros(4, 28, 3, 4, seed)
    report = probe_macros(q, macros=macros, episode=np.arange(STATES) // 10, settings=FAST)
    assert groups_of(report) == [*((action,) for action in range(8)), tuple(range(8, 32))]
    assert report.finding == "overloading"
    assert report.verdict.startswith("Macros are overloading")
    assert report.units == 30
    assert report.redundant == tuple(range(9, 32))


@pytest.mark.parametrize("seed", SEEDS)
def test_independent_actions_do_not_overload(seed: int):
    rng = np.random.default_rng(seed)
    q = rng.normal(size=(STATES, 24))
    first, second = (q + 0.3 * rng.normal(size=q.shape) for _ in range(2))
    report = probe_macros(values_of(seed, first), second=values_of(seed + 1, second), settings=FAST)
    assert report.finding == "not overloading"
    assert report.interval[0] >= 22
    assert report.verdict.startswith("Actions are not overloading this learner")
    alone = probe_macros(values_of(seed, first), settings=FAST)
    assert alone.finding == "one agent"
    assert alone.verdict.startswith("It cannot be told from one agent")


@pytest.mark.parametrize("seed", SEEDS)
def test_a_second_agent_tells_copies_under_noise(seed: int):
    """Noise half as large as the signal: one agent's values all differ."""
    rng = np.random.default_rng(seed)
    q = rng.normal(size=(STATES, 4))[:, [0, 1, 2, 3] + [0] * 5 + [3] * 7]
    first, second = (q + 0.5 * rng.normal(size=q.shape) for _ in range(2))
    assert probe_macros(first, settings=FAST).finding == "one agent"
    report = probe_macros(first, second=second, settings=FAST)
    assert groups_of(report) == [(0, *range(4, 9)), (1,), (2,), (3, *range(9, 16))]
    assert report.finding == "overloading"
    # Less the mean over 16 actions signal has a variance of 1 - Σ (size / 16)², noise 15/16 of its own.
    signal, noise = 1 - (6**2 + 1 + 1 + 8**2) / 16**2, 0.5**2 * 15 / 16
    assert report.agreement == pytest.approx(signal / (signal + noise), abs=0.05)


def test_illegal_actions_count_nowhere():
    rng = np.random.default_rng(3)
    base = rng.normal(size=(STATES, 4))
    q = base[:, [0, 1, 2, 3, 3, 3, 3, 3, 3]]
    legal = rng.random(q.shape) < 0.6
    legal[:, :2] = True
    infinite = np.where(legal, q, -np.inf)
    report = probe_macros(infinite, settings=FAST)
    assert groups_of(report) == [(0,), (1,), (2,), (3, 4, 5, 6, 7, 8)]
    masked = probe_macros(np.where(legal, q, np.nan), mask=legal, settings=FAST)
    assert masked.to_dict() == report.to_dict()


def test_the_numbers_do_not_depend_on_scale_or_state_value():
    rng = np.random.default_rng(5)
    q = rng.normal(size=(STATES, 3))[:, [0, 1, 2, 2, 2]] + 0.2 * rng.normal(size=(STATES, 5))
    report, other = (probe_macros(x, settings=FAST) for x in (q, 7 * q + rng.normal(size=(STATES, 1))))
    assert other.interval == report.interval
    assert other.residuals == pytest.approx(report.residuals)
    assert other.retentions == pytest.approx(report.retentions)


def test_the_fitted_matrix_has_the_reported_penalty_and_can_be_loaded(tmp_path: Path):
    values, macros = loops_on_a_grid()
    report = probe_macros(values, macros=macros, settings=FAST)
    sigma = similarity_of(report).matrix()
    save_similarity(tmp_path / "s.npz", similarity_of(report))
    assert torch.equal(load_similarity(tmp_path / "s.npz", macros).matrix(), sigma)
    q = torch.from_numpy(values.q)
    share = masp_penalty(q, sigma.double()) / (q - q.mean(1, keepdim=True)).square().sum(1).mean()
    # In all states, not in those held out.
    assert float(share) == pytest.approx(report.residual, rel=0.2)
    with pytest.raises(ArgumentError, match="actions: expected a similarity of the same actions"):
        load_similarity(tmp_path / "s.npz", Macros(4, macros.sequences[::-1], macros.names))


def test_the_demonstration_has_the_loops_in_one_group():
    values, macros = loops_on_a_grid(100)
    report = probe_macros(values, macros=macros, settings=FAST)
    assert report.finding == "overloading"
    assert any(group.actions == tuple(range(8, 32)) for group in report.groups)
    assert report.rule is not None
    assert (report.rule.sequences, report.rule.holds) == (256, True)
    assert report.coverage is not None
    assert sum(report.coverage.samples) == len(values.q)
    assert "n < |A|^L = 4^4 = 256 holds for n = 32" in str(report)
    assert any("primitive actions share a group" in note for note in report.notes)


def test_a_report_is_a_sentence_tables_json_and_a_picture():
    rng = np.random.default_rng(0)
    q = rng.normal(size=(STATES, 2))[:, [0, 1, 1, 1, 1]]
    q[:10] = 0
    report = probe_macros(q, action=np.zeros(STATES, dtype=int), settings=FAST)
    assert report.finding == "untried"
    assert "for 4 of its 5 actions were never taken" in report.verdict
    assert str(report).replace("\n", " ").startswith(report.verdict)
    assert "10 states left out" in str(report)
    plain = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert plain["coverage"]["never"] == 0.8
    assert plain["by_tolerance"]["0.05"] == 2
    assert plain["groups"][1]["actions"] == [1, 2, 3, 4]
    axes = Figure().subplots()
    report.plot(axes)
    assert axes.get_title() == "5 actions, 2 groups"
    assert "lead kept" in report.explain()


def test_most_states_are_drawn_at_random_where_there_are_many():
    q = np.random.default_rng(0).normal(size=(STATES, 3))
    report = probe_macros(q, settings=MacrosSettings(states=100, resamples=20))
    assert report.states == 100
    assert f"100 of {STATES} states looked at" in str(report)


GOOD = np.random.default_rng(0).normal(size=(50, 3))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"q": GOOD[0]}, "q: expected numbers of shape"),
        ({"q": GOOD[:, :1]}, "q: expected numbers of shape"),
        ({"q": GOOD[:39]}, "q: expected at least 40 states in which actions differ, got 39 of 39"),
        ({"q": GOOD, "episode": np.arange(50) % 4}, "q: expected at least 5 episodes in which actions differ, got 4"),
        ({"q": np.where(np.arange(150).reshape(50, 3) == 76, np.nan, GOOD)}, r"q\[25, 1\]: expected a finite number"),
        ({"q": np.where(np.arange(150).reshape(50, 3) == 76, np.inf, GOOD)}, r"q\[25, 1\]: expected a finite number"),
        ({"q": np.where(np.arange(50)[:, None] == 7, -np.inf, GOOD)}, r"q\[7\]: expected at least one legal action"),
        ({"q": np.where(np.arange(3) == 2, -np.inf, GOOD)}, "action 2, which never is"),
        ({"q": np.full((50, 3), 2.0)}, "q: expected values that differ between actions"),
        ({"q": (1e6 + 0.01 * GOOD).astype(np.float32)}, "q: expected values that differ between actions"),
        ({"q": np.arange(3) + GOOD[:, :1]}, "q: expected differences between actions that change"),
        ({"q": GOOD, "mask": np.ones((50, 2), dtype=bool)}, "mask: expected booleans of shape"),
        ({"q": GOOD, "mask": np.ones((50, 3))}, "mask: expected booleans of shape"),
        ({"q": GOOD, "action": np.full(50, 3)}, r"action\[0\]: expected an action from 0 to 2, got 3"),
        ({"q": GOOD, "action": np.zeros(50)}, "action: expected whole numbers"),
        ({"q": GOOD, "mask": GOOD < 9, "action": np.zeros(49, dtype=int)}, "action: expected whole numbers"),
        ({"q": GOOD, "episode": np.zeros(50)}, "episode: expected numbers or words"),
        ({"q": GOOD, "macros": Macros(2)}, "macros: expected a list of 3 actions"),
        ({"q": GOOD, "second": GOOD}, "second: expected another agent's values"),
        ({"q": GOOD, "second": -GOOD}, "second: expected values that agree with q"),
        ({"q": GOOD, "second": GOOD[:40]}, "shape"),
        ({"q": logged_values(GOOD), "mask": GOOD < 9}, "mask: expected None"),
    ],
)
def test_what_it_cannot_tell_it_refuses(arguments: dict[str, object], message: str):
    with pytest.raises(ArgumentError, match=message):
        probe_macros(**arguments, settings=FAST)


def test_an_illegal_action_cannot_have_been_taken():
    q = np.where(np.arange(150).reshape(50, 3) == 31, -np.inf, GOOD)
    with pytest.raises(ArgumentError, match=r"action\[10\]: expected a legal action, got 1"):
        logged_values(q, action=np.ones(50, dtype=int))


@pytest.mark.parametrize(
    ("name", "value"), [("tolerance", 0.0), ("tolerance", 0.5), ("strength", 0.0), ("resamples", 19), ("states", 39)]
)
def test_settings_are_checked(name: str, value: float):
    with pytest.raises(ArgumentError, match=name):
        MacrosSettings(**{name: value})
