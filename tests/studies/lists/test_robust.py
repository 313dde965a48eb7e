"""Part `robust`: votes with the noise that is asked for, no method beyond the ceiling, and its claims."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import kendalltau

from holdfast.lab import Outcome, Record, Results, Trial
from holdfast.lab.trial import as_outcome
from holdfast.studies.lists.robust import JUDGED_NOISE, METHODS, RobustConfig, kendall_error, noisy_votes, part
from holdfast.studies.lists.study import study
from tests.studies.lists.toy import TOY
from tests.studies.tools import assert_drawn, assert_repeats, judged, results_of


@pytest.fixture(scope="module")
def results() -> Results:
    return results_of(study, TOY, "robust")


def test_kendall_error() -> None:
    rng = np.random.default_rng(0)
    for _ in range(5):
        order, truth = rng.permutation(30), rng.permutation(30)
        tau = kendalltau(np.argsort(order), np.argsort(truth)).statistic
        assert kendall_error(order, truth) == pytest.approx((1 - tau) / 2)
    assert kendall_error(truth[::-1], truth) == 1


def test_votes_have_the_noise_that_is_asked_for() -> None:
    truth, support = noisy_votes(200, 0.1, 3, np.random.default_rng(0))
    ranked = support[np.ix_(truth, truth)]
    upper = np.triu_indices(200, 1)
    assert (ranked[upper] + ranked.T[upper] == 3).all()
    assert ranked.T[upper].mean() == pytest.approx(0.3, abs=0.02)
    assert not np.diag(support).any()


def test_without_noise_every_method_is_right() -> None:
    trial = Trial(0, RobustConfig(sizes=(12,), noise=(0.0,), votes=(1,), lists=3))
    rows = as_outcome(part.run(trial)).records
    assert {row["method"]: row["right"] for row in rows} == dict.fromkeys((*METHODS, "ceiling"), 1.0)
    assert {row["kendall"] for row in rows if row["method"] != "ceiling"} == {0.0}


def test_no_method_passes_the_ceiling(results: Results) -> None:
    for n in (8, 64):
        for p in TOY.robust.noise:
            for votes in TOY.robust.votes:
                at: dict[str, Any] = {"seed": 1, "n": n, "p": p, "votes": votes}
                right = {row["method"]: float(row["right"] or 0) for row in results.where(**at)}
                assert max(right.values()) == right["ceiling"]


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
        found = judged(study, made_up_lists(local=0.1 * sign, three=0.1 * sign))
        names = [name for name in found if name.startswith(("local-", "three-votes-"))]
        assert len(names) == 8
        assert {str(found[name].status) for name in names} == {status}


def test_a_trial_twice_is_the_same(results: Results) -> None:
    assert_repeats(part, *results.outcomes[0])


def test_figures(results: Results) -> None:
    assert_drawn(part.figures, results)
