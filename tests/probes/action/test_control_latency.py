"""Steps after any number of timesteps, and what is said of their times; no assertion on how fast this machine is."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from holdfast.errors import ArgumentError
from holdfast.nn import XLSTM, XLSTM_SIZES, XLSTMConfig
from holdfast.probes.action import ControlLatencyReport, Crossover, StepTimes, episode, probe_control_latency
from holdfast.probes.action.control_latency import in_turn
from holdfast.probes.action.episode import Histories, Midway
from holdfast.probes.action.latency_report import crossing
from holdfast.probes.action.rival import parameters_of, rival_of, transformer_of, xlstm_of
from holdfast.probes.fast_forward import kept_bytes, layers_of
from holdfast.rl.stepping import Policy, PolicyConfig
from tests.models.action import tiny

CONSTANT = {"rnn", "mlstm", "slstm", "xlstm", "mamba"}
LENGTHS = (10, 100, 1000, 10_000)
HISTORY = 21
"""Timesteps: more than are read in any case, and with the step before no multiple of a chunk or window."""


@pytest.fixture(params=list(tiny.BACKBONES))
def backbone(request):
    return request.param


@pytest.fixture
def small():
    return tiny.model(tiny.BACKBONES["xlstm"])


def noisy(medians, rounds=60, noise=0.02, seed=0):
    """Times about these medians, with what all lengths of a round have in common."""
    random = np.random.default_rng(seed)
    common = np.exp(noise * random.normal(size=(rounds, 1)))
    return np.asarray(medians) * common * np.exp(noise / 4 * random.normal(size=(rounds, len(medians))))


def steps(medians, lengths=LENGTHS, **changes):
    return StepTimes.of("this policy", 1, lengths, noisy(medians), **changes)


def test_a_state_that_was_forwarded_is_as_large_as_one_that_was_read(backbone):
    model = tiny.model(tiny.BACKBONES[backbone])
    histories = Histories(model, tiny.ARM, 3)
    state, read = histories.after(HISTORY), histories._read(None, HISTORY)
    assert histories.constant == (backbone in CONSTANT)
    assert kept_bytes(state) == kept_bytes(read)
    for layer, like in zip(layers_of(state), layers_of(read), strict=True):
        assert (layer.longest, layer.ragged, layer.limit) == (like.longest, like.ragged, like.limit)
        assert torch.equal(layer.seen, like.seen)


def test_every_step_that_is_timed_is_the_same_one(backbone):
    model = tiny.model(tiny.BACKBONES[backbone])
    policy = Midway(Histories(model, tiny.ARM, 2), HISTORY + 1)
    kept, answers = policy.state_bytes, []
    for _ in range(3):
        assert policy.step() > 0
        # All timesteps before, the decision before, and its reward, the observation and the return-to-go.
        assert layers_of(policy._state)[0].longest == 3 * HISTORY + 2 + 3
        answers.append(policy.logits)
    assert torch.equal(answers[0], answers[1])
    assert torch.equal(answers[0], answers[2])
    assert policy.state_bytes == kept


@pytest.mark.parametrize("name", ["attention", "rat", "xlstm"])
def test_the_decision_that_is_timed_is_that_of_an_episode(name):
    model = tiny.model(tiny.BACKBONES[name])
    timed = Midway(Histories(model, tiny.ARM, 2), 1)
    timed.step()
    walked = Policy(model, PolicyConfig(domain="arm", slots=2, autoreset="next_step"))
    walked.act(timed._seen)
    action = walked.act(timed._seen, timed._given)
    np.testing.assert_array_equal(action, timed._in_units(timed._episodes.action))
    torch.testing.assert_close(walked.logits, timed.logits)


def test_what_attention_keeps_is_really_there(monkeypatch):
    model = tiny.model(tiny.BACKBONES["attention"])
    state = Histories(model, tiny.ARM, 2).after(500)
    for layer in layers_of(state):
        keys = layer.cache.keys[:, :, : layer.cache.used]
        assert keys.shape[2] == 1500
        assert keys.stride(2) == keys.shape[3]  # of its own, and not one key seen many times
        assert bool(keys.abs().sum(-1).min() > 0)
    assert kept_bytes(state) == 2 * 2 * 2 * 1500 * 24 * 4  # layers, keys and values, rows, tokens, width, float32


def test_lengths_that_do_not_fit_are_left_out(small, monkeypatch):
    model = tiny.model(tiny.BACKBONES["attention"])
    monkeypatch.setattr(episode, "free_memory", lambda device: 2**20)
    report = probe_control_latency(model, lengths=(5, 30, 20_000), rounds=7, compare=False)
    assert report.policy[0].lengths == (5, 30)
    why = "the state would take 0.0215 GiB, and 0.000977 GiB are free"
    assert report.left_out == (f"this policy, batch 1, 20,000 timesteps: {why}",)
    with pytest.raises(ArgumentError, match="lengths: expected two lengths whose states fit into memory"):
        probe_control_latency(model, lengths=(30, 20_000), rounds=7, batches=(64,))


def test_the_rival_has_as_many_parameters():
    for config in (*XLSTM_SIZES.values(), XLSTMConfig(dim=128, layers=4, heads=4)):
        with torch.device("meta"):
            size = parameters_of(XLSTM(config))
            title, shape = rival_of(config, size, constant=True)
            other = parameters_of(tiny.ActionModel(tiny.ActionConfig(backbone=shape, domains=(tiny.ARM,))).backbone)
        assert title == "a transformer of this size"
        assert other / size == pytest.approx(1, abs=0.06)
        assert set(shape.mixers) == {"attention"}
    assert (transformer_of(512, 12_939_840).heads, len(transformer_of(512, 12_939_840).mixers)) == (8, 4)
    # One block of an mLSTM is half a block of a transformer.
    assert (transformer_of(64, 6 * 64**2).expansion, len(transformer_of(64, 6 * 64**2).mixers)) == (1, 1)
    assert rival_of(tiny.BACKBONES["attention"], 20_000, constant=False)[0] == "an xLSTM of this size"
    assert xlstm_of(512, 12_939_840) == XLSTM_SIZES["16M"]


def test_a_flat_and_a_growing_step_are_told_apart():
    flat, growing = steps([2, 2, 2, 2]), steps([1, 1.1, 2, 11])
    assert (flat.flat, flat.grows) == (True, False)
    assert (growing.flat, growing.grows, growing.linear) == (False, True, True)
    assert growing.per_timestep == pytest.approx(1e-3, rel=0.05)
    assert growing.per_timestep_interval[0] <= growing.per_timestep <= growing.per_timestep_interval[1]
    assert growing.growth == pytest.approx(11, rel=0.05)
    assert not steps([1, 8, 8, 8]).linear
    assert steps([2, 2, 2, 2.1]).flat  # within 10 %
    assert steps([2, 2, 2, 2.6]).grows


def test_noise_is_seldom_taken_for_growth():
    grown = 0
    for seed in range(100):
        times = np.random.default_rng(seed).lognormal(sigma=1.0, size=(40, 2))
        noise = StepTimes.of("this policy", 1, (10, 100), times)
        assert not noise.flat  # which would be as wrong: so much noise tells nothing
        grown += noise.grows
    assert grown <= 8  # 2.5 are expected


def test_a_percentile_of_few_steps_is_the_slowest():
    times = np.ones((20, 2))
    times[3, 1] = 9
    found = StepTimes.of("this policy", 1, (1, 2), times)
    assert found.p99 == (1, 9)
    assert found.control_rate == pytest.approx(1e3 / 9)


def test_the_crossing_is_the_last_one():
    assert crossing([10, 100, 1000], np.array([-1.0, -1.0, 2.0])) == pytest.approx(400)
    assert crossing([10, 100, 1000], np.array([1.0, -1.0, 1.0])) == pytest.approx(550)
    assert crossing([10, 100], np.array([1.0, 1.0])) == 0
    assert crossing([10, 100], np.array([1.0, -1.0])) == math.inf


def test_a_crossover_is_found_again():
    constant, growing = np.full(4, 3.0), 1 + 1e-3 * np.array(LENGTHS)
    times = [noisy(constant, seed=1), noisy(growing, seed=2)]
    arms = [
        StepTimes.of(name, 1, LENGTHS, of_arm, state_bytes=kept, constant_state=constant_state)
        for name, of_arm, kept, constant_state in (
            ("this policy", times[0], (4000,) * 4, True),
            ("a transformer of this size", times[1], tuple(8 * n for n in LENGTHS), False),
        )
    ]
    found = Crossover.of(*arms, *times)
    assert found.timesteps == pytest.approx(2000, rel=0.05)
    assert found.timesteps_interval[0] <= found.timesteps <= found.timesteps_interval[1]
    assert (found.memory, found.longest) == (500, 10_000)
    short = StepTimes.of("this policy", 1, LENGTHS[:3], times[0][:, :3])
    assert Crossover.of(short, arms[1], times[0][:, :3], times[1]).timesteps == math.inf


def report(policy, rival, at, batch=1):
    crossover = Crossover(batch, at, (at * 0.9, at * 1.1), 10_000, 500.0)
    return ControlLatencyReport((policy,), (rival,), (crossover,), ())


def test_the_sentence_says_what_a_step_costs_and_what_is_faster():
    growing = StepTimes.of("a transformer of this size", 1, LENGTHS, noisy([1, 1, 2, 11]), constant_state=False)
    recurrent = StepTimes.of("an xLSTM of this size", 1, LENGTHS, noisy([3, 3, 3, 3]), constant_state=True)
    flat = StepTimes.of("this policy", 1, LENGTHS, np.full((100, 4), 2.0), constant_state=True)
    known = "A step takes 2 ms at any episode length up to 10,000 timesteps (p99 2 ms: 500 Hz); "
    assert report(flat, growing, 1940.0).verdict == (
        f"{known}a transformer of this size is faster until 1,900 timesteps [1,700, 2,100]."
    )
    rival = "a transformer of this size is"
    assert report(flat, growing, math.inf).verdict == f"{known}{rival} faster up to 10,000 timesteps."
    assert report(flat, growing, 0.0).verdict == f"{known}{rival} slower at every length."
    slow = StepTimes.of("this policy", 1, LENGTHS, np.tile([1.0, 1.0, 2.0, 10.0], (40, 1)), constant_state=False)
    assert report(slow, recurrent, 2500.0).verdict == (
        "A step takes 1 ms after 10 timesteps and 10 ms after 10,000 timesteps (slowest of 40 10 ms: 100 Hz); "
        "an xLSTM of this size is faster from 2,500 timesteps [2,200, 2,800] on."
    )
    assert "is not faster up to 10,000 timesteps" in report(slow, recurrent, math.inf).verdict


@pytest.mark.parametrize("backbone", ["xlstm", "attention", "rat", "window"])
def test_the_whole_of_it_on_a_model(backbone):
    model = tiny.model(tiny.BACKBONES[backbone])
    told: list[str] = []
    found = probe_control_latency(model, domain="maze", lengths=(3, 20), batches=(1, 2), rounds=7, tell=told.append)
    assert [(part.batch, part.lengths, part.rounds) for part in found.policy] == [(1, (3, 20), 7), (2, (3, 20), 7)]
    constant = backbone in CONSTANT
    for policy, rival in zip(found.policy, found.rival, strict=True):
        assert (policy.constant_state, rival.constant_state) == (constant, not constant)
        assert min(*policy.medians, *rival.medians) > 0
        assert (policy.state_bytes[0] == policy.state_bytes[1]) == (constant or backbone == "window")
    assert found.policy[1].state_bytes[1] == 2 * found.policy[0].state_bytes[1]
    assert len(told) == 2
    document = json.loads(json.dumps(found.to_dict()))
    assert document["verdict"] == found.verdict
    assert str(found).startswith("A step takes" if len(found.verdict) < 80 else found.verdict[:20])
    assert all(len(line) <= 80 for line in str(found).splitlines())


def test_a_model_is_left_as_it_was(small):
    small.train()
    small.head.eval()
    before = {name: tensor.clone() for name, tensor in small.state_dict().items()}
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    probe_control_latency(small, lengths=(3, 20), rounds=7)
    assert torch.equal(torch.rand(3), expected)
    assert small.training
    assert not small.head.training
    assert all(torch.equal(before[name], tensor) for name, tensor in small.state_dict().items())


def test_a_policy_brings_its_domain_and_slots_and_stays_where_it_is(small):
    policy = Policy(small, PolicyConfig(domain="maze", slots=3, autoreset="next_step"))
    observation = np.zeros((3, 3), np.float32)
    policy.act(observation)
    state = policy._state
    found = probe_control_latency(policy, lengths=(3, 20), rounds=7, compare=False)
    assert found.policy[0].batch == 3
    assert policy._state is state


def test_models_that_read_past_actions_and_pictures_are_timed():
    model = tiny.model(tiny.BACKBONES["mlstm"], past_actions=True)
    order = model.tokens.order(tiny.ARM.action.dims)
    policy = Midway(Histories(model, tiny.ARM, 2), 30)
    policy.step()
    assert layers_of(policy._state)[0].longest == 29 * order.length + order.decided + order.length
    found = probe_control_latency(model, domain="game", lengths=(3, 20), rounds=7)
    assert found.policy[0].constant_state


class Stranger:
    """A policy of somebody else's."""

    def __init__(self):
        self.resets, self.seen = 0, []

    def reset(self):
        self.resets += 1

    def act(self, observation):
        self.seen.append(observation)
        return 0


def test_a_policy_of_which_nothing_is_known_walks():
    stranger = Stranger()
    found = probe_control_latency(stranger, observation="what is seen", lengths=(20, 30, 50), rounds=100)
    assert stranger.resets == 1
    assert len(stranger.seen) == 60
    assert set(stranger.seen) == {"what is seen"}
    (policy,) = found.policy
    assert (policy.lengths, policy.rounds, policy.state_bytes, policy.batch) == ((20, 30, 50), 10, None, None)
    assert (found.rival, found.crossovers) == ((), ())
    assert found.left_out == ("the state and the crossover: nothing is known of such a policy but its steps",)
    assert "left out: the state and the crossover" in str(found)
    assert json.dumps(found.to_dict())
    assert probe_control_latency(lambda seen: seen, observation=1, lengths=(1, 8), rounds=7).policy[0].rounds == 7


def test_lengths_that_are_not_reached_are_left_out(monkeypatch):
    clock = iter(range(10_000))
    monkeypatch.setattr("holdfast.probes.action.control_latency.time.monotonic", lambda: next(clock))
    found = probe_control_latency(Stranger(), observation=0, lengths=(10, 20, 5000), rounds=7, budget_s=100.0)
    assert found.policy[0].lengths == (10, 20)
    assert found.left_out[0] == "5,000 timesteps: not reached within 100 s"


def test_all_arms_step_in_every_round():
    order: list[str] = []

    class Arm:
        def __init__(self, name):
            self.name = name

        def step(self):
            order.append(self.name)
            return float(len(order))

    times = in_turn({name: Arm(name) for name in "abc"}, rounds=9, budget_s=60.0)
    rounds = [order[start : start + 3] for start in range(0, len(order), 3)]
    assert len(rounds) == 12
    assert all(sorted(turn) == ["a", "b", "c"] for turn in rounds)
    assert len({tuple(turn) for turn in rounds}) > 1  # none is always behind the same one
    assert {name: len(values) for name, values in times.items()} == {"a": 9, "b": 9, "c": 9}
    assert min(values.min() for values in times.values()) > 9  # the first rounds do not count
    assert len(in_turn({"a": Arm("a")}, rounds=50, budget_s=-1.0)["a"]) == 7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lengths": (10,)}, "lengths: expected at least two different numbers"),
        ({"lengths": (0, 10)}, "lengths: expected a whole number of at least 1"),
        ({"rounds": 3}, "rounds: expected a whole number of at least 7"),
        ({"batches": (0,)}, "batches: expected a whole number of at least 1"),
        ({"batches": ()}, "batches: expected at least one"),
        ({"budget_s": 0.0}, "budget_s: expected a positive"),
        ({"domain": "nowhere"}, "domain: expected one of arm, maze, game"),
        ({"observation": 1}, "observation: expected None for an action model"),
    ],
)
def test_what_does_not_fit_a_model_is_refused(small, arguments, message):
    with pytest.raises(ArgumentError, match=message):
        probe_control_latency(small, **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "observation: expected what the policy is to be shown"),
        ({"observation": 0, "batches": (1,)}, "batches: expected None"),
        ({"observation": 0, "domain": "arm"}, "domain: expected None"),
        ({"observation": 0, "lengths": (10, 12)}, "lengths: expected lengths that are 7 timesteps apart"),
    ],
)
def test_what_does_not_fit_a_stranger_is_refused(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        probe_control_latency(Stranger(), **arguments)
    with pytest.raises(ArgumentError, match="policy: expected an action model, or anything with act"):
        probe_control_latency(7, observation=0)


def test_a_picture_shows_both():
    from matplotlib.figure import Figure

    found = report(steps([2, 2, 2, 2], constant_state=True), steps([1, 1, 2, 11], constant_state=False), 1000.0)
    axes = Figure().subplots()
    found.plot(axes)
    assert len(axes.get_legend_handles_labels()[1]) == 2
    assert "decisions in the episode before the one that is timed" in found.explain()
