from __future__ import annotations

import json
import math

import numpy as np
import pytest
from matplotlib.figure import Figure

from holdfast.models.action.domain import Continuous, Discrete, Domain, Vector
from holdfast.models.action.trajectories import Trajectories, Trajectory, report_on
from tests.models.action.trajectories.episodes import ARM, GRID, episode

TORQUE = Domain(name="torque", observation=Vector(1), action=Continuous((-1.0,), (1.0,)))
SWITCH = Domain(name="switch", observation=Vector(1), action=Discrete(2))


def acting(actions: np.ndarray, **fields) -> Trajectory:
    given = {"rewards": np.ones(len(actions), np.float32), "truncated": True, **fields}
    return Trajectory(observations=np.zeros((len(actions), 1), np.float32), actions=actions, **given)


def repeated(share: float, steps: int, seed: int) -> np.ndarray:
    """Uniform actions, each the one before with a chance of `share`."""
    rng = np.random.default_rng(seed)
    fresh = rng.uniform(-1, 1, steps).astype(np.float32)
    kept = np.maximum.accumulate(np.where(rng.random(steps) < share, 0, np.arange(steps)))
    return fresh[kept]


@pytest.mark.parametrize("share", [0.0, 0.9])
def test_copying_is_measured_against_chance(share):
    steps = 20_000
    report = report_on([Trajectories.of(TORQUE, [acting(repeated(share, steps, seed)) for seed in range(2)])])
    (domain,) = report.domains
    same = share + (1 - share) / 256
    assert abs(domain.same_bin - same) < 6 * math.sqrt(same * (1 - same) / (2 * steps))
    spread = 1 if share == 0 else 10  # runs of ten equal actions: a tenth as many different ones
    assert domain.same_bin_by_chance == pytest.approx(1 / 256 + spread / (2 * steps), rel=0.5)
    # two uniform numbers on [-1, 1] are 2/3 apart, and their standard deviation is 1 / sqrt(3)
    assert domain.mean_move == pytest.approx((1 - share) * 2 / math.sqrt(3), rel=0.05)
    assert domain.repeats == (share > 0.5)
    assert ("leave them out of its context" in report.verdict) == (share > 0.5)


def test_pairs_do_not_cross_trajectories_and_the_last_bin_holds_the_bound():
    items = [acting(np.array([-1.0, -1.0], np.float32)), acting(np.array([1.0, 0.999], np.float32))]
    (domain,) = report_on([Trajectories.of(TORQUE, items)]).domains
    assert domain.same_bin == 1
    assert domain.same_bin_by_chance == 0.5


def test_one_favourite_id_is_no_copying():
    actions = (np.random.default_rng(0).random(5000) < 0.1).astype(np.int64)
    (domain,) = report_on([Trajectories.of(SWITCH, [acting(actions)])]).domains
    assert domain.same_bin == pytest.approx(0.82, abs=0.03)
    assert domain.same_bin_by_chance == pytest.approx(0.82, abs=0.03)
    assert not domain.repeats
    assert math.isnan(domain.mean_move)
    assert (domain.actions, domain.low) == (2, None)


def test_counts_and_quantiles_are_told():
    items = [episode(ARM, 2, rewards=np.array([0.0, total], np.float32)) for total in range(5)]
    items += [episode(ARM, 1), episode(ARM, 3, terminated=False, task="other")]
    report = report_on([Trajectories.of(ARM, items)])
    (domain,) = report.domains
    assert domain.returns == (0, 1, 2, 3, 4)
    assert domain.lengths == (2, 2, 2, 2, 3)
    assert (domain.tasks, domain.returns_unknown, domain.ended) == (2, 1, 5 / 6)
    assert "returns are not all known in arm, which can only be imitated" in report.verdict
    assert "1 trajectories of less than 2 steps are left out" in report.verdict


def test_what_cannot_be_trained_on_is_reported_and_not_refused():
    broken = episode(ARM, 5)
    broken.actions[2, 0] = math.nan
    report = report_on([(ARM, [episode(ARM, 4), broken]), (GRID, [episode(GRID, 1)])])
    assert report.verdict.startswith("These trajectories cannot be trained on: action nan at step 2 of trajectory 1")
    assert report.verdict.endswith("(and 1 domains more).")
    assert [domain.usable for domain in report.domains] == [False, False]
    assert report.domains[0].census.not_finite == 1
    assert json.loads(json.dumps(report.to_dict(), allow_nan=False))["domains"][0]["same_bin"] is None
    assert str(report)


def test_actions_out_of_bounds_are_in_the_sentence():
    item = acting(np.linspace(-1.5, 1.5, 300, dtype=np.float32))
    report = report_on([(TORQUE, [item])])
    assert "33.3% of torque's actions lie outside of the bounds" in report.verdict


def test_the_report_reads_like_a_probe():
    data = [Trajectories.of(domain, [episode(domain, 50, seed) for seed in range(3)]) for domain in (ARM, GRID)]
    report = report_on(data, bins=16)
    lines = str(report).splitlines()
    assert " ".join(lines[: lines.index("")]) == report.verdict == "2 domains with 300 transitions can be trained on."
    assert [line.split()[:3] for line in lines[-2:]] == [["arm", "3", "150"], ["grid", "3", "150"]]
    header = lines[lines.index("") + 1]
    assert all(line.split()[0] in header for line in report.explain().splitlines())
    document = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert document["bins"] == 16
    assert document["domains"][0]["census"]["transitions"] == 150
    ax = Figure().subplots()
    report.plot(ax)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["arm", "grid"]
    assert [bar.get_width() for bar in ax.patches] == [domain.same_bin for domain in report.domains]
