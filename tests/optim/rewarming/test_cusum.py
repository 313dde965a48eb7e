"""The detector stays silent on losses that do not rise, finds jumps in time, and goes on where it was saved."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch

from holdfast.errors import ArgumentError
from holdfast.optim.rewarming.cusum import Cusum

SEEDS = range(40)
MEAN, SPREAD = 2.0, 0.3
JUMP = 1.5 * SPREAD
BOUND = 103
"""Losses until a jump of 1.5σ is found. On seeds 10,000 to 13,999 the quantiles .99 and .999 of the delay are 47 and 61
(median 24, largest 75): each further factor of ten is 14 more, so one seed in a million is later than 61 + 3 · 14."""


def first_alarm(detector: Cusum, losses: np.ndarray) -> int | None:
    """Number of the first loss, from 1, upon which there is an alarm."""
    return next((number for number, loss in enumerate(losses.tolist(), 1) if detector.update(loss)), None)


def losses(seed: int, count: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(MEAN, SPREAD, count)


def test_losses_that_do_not_change_give_no_alarm() -> None:
    for seed in SEEDS[:10]:
        assert first_alarm(Cusum(), losses(seed, 10_000)) is None


@pytest.mark.parametrize("before", [200, 1000])
def test_a_jump_is_found_in_every_seed(before: int) -> None:
    for seed in SEEDS:
        stream = losses(seed, before + BOUND)
        stream[before:] += JUMP
        found = first_alarm(Cusum(), stream)
        assert found is not None, f"seed {seed}"
        assert before < found, f"seed {seed}: false alarm"


class Naive(Cusum):
    """Mean from 20 losses, a variance that begins at 1, and both follow at 0.05 whatever the sum says."""

    def __init__(self) -> None:
        super().__init__(warmup=20, rate=0.05)

    def update(self, value: float) -> bool:
        if self.collecting:
            self._collect(value)
            if not self.collecting:
                self.variance = 1.0
            return False
        statistic, self.statistic = self.statistic, 0.0  # below half of the threshold: it learns from every loss
        mean, spread = self.mean, math.sqrt(self.variance)
        super().update(value)
        self.statistic = max(0.0, statistic + (value - mean) / spread - self.slack)
        return self.statistic > self.threshold


@pytest.mark.parametrize("before", [200, 1000])
def test_the_naive_detector_misses_every_jump(before: int) -> None:
    """What the test above would let through if it asked for less; a change of labels, 20σ, it finds at once."""
    for seed in SEEDS:
        stream = losses(seed, before + BOUND)
        stream[before:] += JUMP
        assert first_alarm(Naive(), stream) is None, f"seed {seed}"
        stream[before:] += 20 * SPREAD
        assert first_alarm(Naive(), stream) in (before + 1, before + 2)


def test_a_change_that_begins_to_show_is_not_learnt() -> None:
    """Two standard deviations up: S grows by about 1.5 a loss, and nothing is learnt from S = 10 on."""
    detector = Cusum()
    assert first_alarm(detector, losses(3, 300)) is None
    while detector.statistic < 10:
        assert not detector.update(MEAN + 2 * SPREAD)
    mean, variance = detector.mean, detector.variance
    assert not detector.update(MEAN + 2 * SPREAD)
    assert (detector.mean, detector.variance) == (mean, variance)


def test_a_loss_that_falls_gives_no_alarm() -> None:
    time = np.arange(3000)
    for seed in SEEDS[:10]:
        noise = np.random.default_rng(seed).normal(0, 1, len(time))
        curve = 0.1 + 2.2 * np.exp(-time / 300)
        assert first_alarm(Cusum(), curve * (1 + 0.1 * noise)) is None


def test_a_drift_is_followed() -> None:
    """Of one standard deviation in 500 losses: documented, since it cannot be told from a slow training."""
    for seed in SEEDS[:10]:
        assert first_alarm(Cusum(), losses(seed, 5000) + SPREAD / 500 * np.arange(5000)) is None


def test_mean_and_variance_are_those_of_the_first_losses() -> None:
    detector = Cusum()
    stream = losses(0, 50)
    assert first_alarm(detector, stream) is None
    assert detector.mean == pytest.approx(stream.mean(), rel=1e-12)
    assert detector.variance == pytest.approx(stream.var(ddof=1), rel=1e-12)


def test_one_loss_by_hand() -> None:
    """Of 1 and 3: mean 2, variance 2. Then 2 + 3√2 is 3 deviations: S = 2.5, mean and variance follow at 0.1."""
    detector = Cusum(warmup=2, rate=0.1)
    assert not any(detector.update(loss) for loss in (1.0, 3.0, 2 + 3 * math.sqrt(2)))
    assert detector.statistic == pytest.approx(2.5, rel=1e-12)
    assert detector.mean == pytest.approx(2 + 0.3 * math.sqrt(2), rel=1e-12)
    assert detector.variance == pytest.approx(2 + 0.1 * (18 - 2), rel=1e-12)


def test_losses_that_are_no_numbers_are_left_out_and_counted() -> None:
    clean, dirty = Cusum(), Cusum()
    for loss in losses(0, 200).tolist():
        clean.update(loss)
        dirty.update(loss)
        for bad in (math.nan, math.inf, -math.inf):
            assert not dirty.update(bad)
    assert dirty.skipped == 600
    assert {**dirty.state_dict(), "skipped": 0} == clean.state_dict()


def test_equal_losses_are_no_measure_of_spread() -> None:
    detector = Cusum()
    assert first_alarm(detector, np.full(500, 0.0)) is None
    assert detector.collecting
    assert not detector.update(1e-9)
    detector = Cusum()
    stream = np.concatenate([losses(0, 50), np.full(50_000, 2.0)])
    assert first_alarm(detector, stream) is None
    assert not detector.update(2.0 + 2.0**-22)  # float32's last digit is no change


def test_it_goes_on_where_it_was_saved() -> None:
    stream = losses(5, 600)
    stream[300:] += 3 * SPREAD
    whole = Cusum()
    alarms = [whole.update(loss) for loss in stream.tolist()]
    assert sum(alarms) == whole.alarms == 1
    for stop in (20, 130, 305):
        early = Cusum()
        for loss in stream[:stop].tolist():
            early.update(loss)
        buffer = io.BytesIO()
        torch.save(early.state_dict(), buffer)
        buffer.seek(0)
        late = Cusum()
        late.load_state_dict(torch.load(buffer, weights_only=True))
        assert [late.update(loss) for loss in stream[stop:].tolist()] == alarms[stop:]
        assert late.state_dict() == whole.state_dict()


@pytest.mark.parametrize(
    "settings",
    [{"warmup": 1}, {"slack": -0.1}, {"slack": math.nan}, {"threshold": 0.0}, {"rate": 1.0}],
)
def test_settings_outside_their_range_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ArgumentError, match=next(iter(settings))):
        Cusum(**settings)


def test_a_state_of_something_else_is_refused() -> None:
    with pytest.raises(ArgumentError, match="state"):
        Cusum().load_state_dict({"mean": 1.0})


def test_a_loss_in_a_tensor_is_not_kept() -> None:
    detector = Cusum()
    detector.update(torch.tensor(2.0))
    assert type(detector.mean) is float
