"""The line through times of steps; no assertion on how fast this machine is."""

from __future__ import annotations

import math

import numpy as np
import pytest

from holdfast.errors import ArgumentError
from holdfast.probes.rat import decode_latency
from holdfast.probes.rat.latency import fitted
from tests.probes.rat import models

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

LENGTHS = (100, 200, 400, 800)


def test_a_line_is_found_again():
    noise = np.random.default_rng(0).normal(scale=0.01, size=(21, 4))
    latency = fitted(LENGTHS, 2 + 0.01 * np.array(LENGTHS) + noise)
    assert latency.grows
    assert latency.fixed == pytest.approx(2, abs=0.03)
    assert latency.per_token == pytest.approx(0.01, abs=1e-4)
    assert latency.doubles == pytest.approx(latency.fixed / latency.per_token)
    for value, (low, high) in (
        (latency.fixed, latency.fixed_interval),
        (latency.per_token, latency.per_token_interval),
        (latency.doubles, latency.doubles_interval),
    ):
        assert low <= value <= high
        assert low < high
    assert latency.medians == pytest.approx([3, 4, 6, 10], abs=0.03)


def test_a_slope_within_the_noise_is_none():
    noise = np.random.default_rng(0).normal(scale=1.0, size=(21, 4))
    latency = fitted(LENGTHS, 5 + noise)
    assert not latency.grows
    assert latency.doubles_interval[1] == math.inf
    falling = fitted(LENGTHS, 5 - 0.001 * np.array(LENGTHS) + noise / 1000)
    assert falling.doubles == math.inf
    assert not falling.grows


def test_times_that_jump_follow_no_line():
    jump = np.tile([2.0, 10.0, 10.0, 10.0], (21, 1))
    latency = fitted((128, 256, 512, 1024), jump)
    assert latency.per_token_interval[0] > 0
    assert not latency.linear
    assert not latency.grows


def test_one_slow_round_does_not_decide():
    times = np.tile(2 + 0.01 * np.array(LENGTHS), (21, 1))
    times[5] = 1000
    assert fitted(LENGTHS, times).per_token == pytest.approx(0.01)


@pytest.mark.parametrize("make", [models.llama, models.mamba, models.jamba])
def test_steps_go_on_from_their_texts(make):
    model, given = make(), []
    handle = model.register_forward_pre_hook(
        lambda module, arguments, options: given.append(options["input_ids"].shape[1]), with_kwargs=True
    )
    latency = decode_latency(model, models.tokens(40), lengths=(10, 40), rounds=7)
    handle.remove()
    assert given == [10, 40] + 16 * [1]
    assert (latency.lengths, latency.rounds) == ((10, 40), 7)
    assert min(latency.medians) > 0


def test_the_cache_grows_by_a_token_a_step(monkeypatch):
    states = []
    from holdfast.probes.rat import latency

    class Kept(latency._State):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            states.append(self)

    monkeypatch.setattr(latency, "_State", Kept)
    decode_latency(models.llama(), models.tokens(40), lengths=(10, 40), rounds=7)
    assert [state.cache.get_seq_length() for state in states] == [18, 48]


def test_a_table_of_positions_leaves_room_for_the_steps():
    assert decode_latency(models.gpt2(), models.tokens(96), rounds=7).lengths == (7, 14, 28, 56)
    with pytest.raises(ArgumentError, match="lengths: expected at most 56, for 8 steps behind, got 60"):
        decode_latency(models.gpt2(), models.tokens(96), lengths=(10, 60), rounds=7)
    with pytest.raises(ArgumentError, match="rounds: expected a whole number of at least 7, got 3"):
        decode_latency(models.gpt2(), models.tokens(96), rounds=3)
