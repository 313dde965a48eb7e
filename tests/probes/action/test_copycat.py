"""An index of what there is to copy: high where an expert repeats itself, nothing where actions are independent."""

from __future__ import annotations

import io
import itertools
import json
import math
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from holdfast import bar
from holdfast.errors import ArgumentError
from holdfast.models.action.discretise import Vocabulary
from holdfast.models.action.domain import Continuous, Discrete, Domain, Image, Vector
from holdfast.models.action.trajectories import Trajectories, Trajectory
from holdfast.probes.action import CopycatReport, Rollouts, probe_copycat
from holdfast.probes.action.copy_model import CopyModel
from holdfast.probes.action.copycat import _steps, _windows
from holdfast.probes.action.repeats import Recorder, repeats
from tests.models.action import tiny

SPACES = {"continuous": Continuous((-1.0, -2.0), (1.0, 6.0)), "discrete": Discrete(5)}


def drawn(space, random, time):
    if isinstance(space, Discrete):
        return random.integers(space.n, size=(time, 1))
    low, high = np.array(space.low), np.array(space.high)
    return (low + (high - low) * random.random((time, space.dims))).astype(np.float32)


def trajectories(kind, seed, space="continuous", number=12, time=100):
    """Experts that act independently of what is seen, or repeat themselves, or do what they see."""
    random, space = np.random.default_rng(seed), SPACES[space]
    items = []
    for _ in range(number):
        seen, actions = random.normal(size=(time, 3)).astype(np.float32), drawn(space, random, time)
        if kind == "repeating":
            for step in range(1, time):
                kept = random.random(actions.shape[1]) < 0.9
                actions[step] = np.where(kept, actions[step - 1], actions[step])
        elif kind == "seeing":
            seen[:, 0] = random.integers(5, size=time)
            actions = seen[:, :1].astype(np.int64)
        items.append(Trajectory(observations=seen, actions=actions, rewards=np.ones(time, np.float32), terminated=True))
    return Trajectories.of(Domain(name="made-up", observation=Vector(3), action=space), items)


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("progress", [True, False])
def test_a_bar_is_shown_where_it_is_wanted(monkeypatch, progress):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr(bar, "SHOW_AFTER_S", 0.0)
    probe_copycat(trajectories("independent", seed=1, number=6, time=20), progress=progress)
    assert ("small networks" in sys.stderr.getvalue()) is progress


@pytest.mark.parametrize("space", SPACES)
def test_an_expert_that_repeats_itself_is_copied(space):
    found = probe_copycat(trajectories("repeating", seed=0, space=space))
    assert found.index_interval[0] > 0.5
    assert found.index_interval[0] <= found.index <= found.index_interval[1]
    assert found.shortcut
    assert found.same_bin == pytest.approx(0.92 if space == "discrete" else 0.9, abs=0.03)
    assert found.verdict.startswith("Copying is a shortcut here: knowing the last action saves")
    assert "leave past actions out of the policy's context" in found.verdict


@pytest.mark.parametrize("space", SPACES)
def test_independent_actions_have_no_index(space):
    found = probe_copycat(trajectories("independent", seed=1, space=space))
    assert abs(found.index) < 0.05
    assert not found.shortcut
    assert found.loss_without == pytest.approx(found.chance, abs=0.05)
    assert found.chance == pytest.approx(math.log(5 if space == "discrete" else 32))


def test_an_expert_that_does_what_it_sees_leaves_nothing_to_copy(monkeypatch):
    monkeypatch.setattr("holdfast.probes.action.copy_model.STEPS", 400)
    found = probe_copycat(trajectories("seeing", seed=2, space="discrete", number=8, time=50))
    assert found.loss_without < 0.3 * found.chance
    assert not found.shortcut


def test_it_is_a_function_of_its_seed_and_leaves_random_states():
    data = trajectories("independent", seed=3, number=6, time=20)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    found = probe_copycat(data, seed=1)
    assert torch.equal(torch.rand(3), expected)
    assert found == probe_copycat(data, seed=1)
    assert (found.trajectories, found.steps) == (6, 120)


def test_what_is_known_before_a_decision():
    data = trajectories("independent", seed=4, space="discrete", number=2, time=5)
    labels = (data.items[1].actions + 1) % 5
    items = (data.items[0], replace(data.items[1], labels=labels))
    steps, choices = _steps(items, data.domain, 32, history=3)
    assert choices == 5
    assert torch.equal(steps.action[5:], torch.from_numpy(labels))  # what is to be learnt
    assert torch.equal(steps.previous[6:], torch.from_numpy(items[1].actions[:-1]))  # what was taken before
    assert steps.acted.tolist() == 2 * [False, True, True, True, True]
    assert steps.trajectory.tolist() == 5 * [0] + 5 * [1]
    now, before, two_before, there, both = steps.seen.split((3, 3, 3, 1, 1), 1)
    assert torch.equal(before[6:], now[5:-1])
    assert torch.equal(two_before[7:], now[5:-2])
    assert not before[5].any()  # nothing of the other trajectory
    assert not two_before[5:7].any()
    assert there[:, 0].tolist() == 2 * [0, 1, 1, 1, 1]
    assert both[:, 0].tolist() == 2 * [0, 0, 1, 1, 1]


def test_only_one_network_reads_the_last_action():
    data = trajectories("independent", seed=5, number=2, time=6)
    steps, choices = _steps(data.items, data.domain, 8, history=2)
    others = replace(steps, previous=(steps.previous + 3) % 8)
    torch.manual_seed(0)
    for reads_action in (False, True):
        model = CopyModel(steps.seen.shape[1], 2, choices, reads_action=reads_action)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter)
        one, other = model(steps), model(others)
        assert torch.equal(one[0], other[0])  # at the first step there is none
        assert torch.equal(one[1:], other[1:]) != reads_action
    # The bias stands at the distance from the last action.
    model.last.weight.data.zero_()
    model.last.bias.data.zero_()
    place = steps.previous[3, 1]
    expected = model.distance[1, 7 - place : 15 - place]
    torch.testing.assert_close(model(steps)[3, 1], expected)


def test_ones_own_models_are_compared_on_whole_trajectories():
    data = trajectories("independent", seed=6, number=3, time=70)
    domain = replace(data.domain, name="arm", reward_scale=2.0)
    data = data.with_domain(domain)
    models = tuple(
        tiny.model(tiny.BACKBONES["mlstm"], domains=(domain,), image=None, past_actions=past) for past in (False, True)
    )
    found = probe_copycat(data, models=models)
    assert found.own_models
    assert found.steps == 210
    expected = []
    for model in models:
        with torch.no_grad():
            losses = [model.loss(_windows(item, domain, returns=True)) for item in data.items]
        assert [int(loss.elements) for loss in losses] == [140, 140, 140]
        expected.append(sum(float(loss.mean) for loss in losses) / 3)
    assert (found.loss_without, found.loss_with) == pytest.approx(expected)
    assert found.index == pytest.approx(1 - expected[1] / expected[0])
    with pytest.raises(ArgumentError, match="models: expected one without and one with past actions"):
        probe_copycat(data, models=models[::-1])


def test_windows_hold_the_whole_trajectory_in_order():
    item = trajectories("independent", seed=7, number=1, time=70).items[0]
    batch = _windows(item, Domain(name="x", observation=Vector(3), action=SPACES["continuous"]), returns=True)
    assert batch.valid.shape == (2, 50)
    np.testing.assert_array_equal(batch.observation[batch.valid], item.observations)
    np.testing.assert_array_equal(batch.action[batch.valid], item.actions)
    np.testing.assert_array_equal(batch.returns_to_go[batch.valid], np.arange(70, 0, -1))


class Sticky:
    """Goes on with what it did, but every fifth step."""

    def __init__(self, slots):
        self.count, self.slots = -1, slots

    def reset(self):
        self.count = -1

    def act(self, observation, reward, done):
        self.count += 1
        return np.full(self.slots, (self.count // 5) % 2)


@pytest.mark.parametrize("mode", ["NEXT_STEP", "SAME_STEP"])
def test_episodes_of_a_policy_are_counted_one_by_one(mode):
    gymnasium = pytest.importorskip("gymnasium")
    vector = pytest.importorskip("gymnasium.vector")

    class Short(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(-1, 1, (3,), np.float32)
        action_space = gymnasium.spaces.Discrete(5)

        def __init__(self):
            self.actions: list[list[int]] = []

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            self.actions.append([])
            return np.zeros(3, np.float32), {}

        def step(self, action):
            self.actions[-1].append(int(action))
            return np.zeros(3, np.float32), 1.0, len(self.actions[-1]) == 12, False, {}

    environments = [Short(), Short()]
    vectors = vector.SyncVectorEnv(
        [lambda each=each: each for each in environments], autoreset_mode=getattr(vector.AutoresetMode, mode)
    )
    data = trajectories("repeating", seed=8, space="discrete", number=6, time=30)
    found = probe_copycat(data, Sticky(2), environments=vectors, episodes=6)
    whole = [episode for each in environments for episode in each.actions[:3]]
    assert [len(episode) for episode in whole] == 6 * [12]
    same = sum(one == other for episode in whole for one, other in itertools.pairwise(episode))
    assert found.rollouts is not None
    assert found.rollouts.policy_repeats == pytest.approx(same / 66)
    assert (found.rollouts.episodes, found.rollouts.policy_return, found.rollouts.expert_return) == (6, 12, 30)
    assert found.rollouts.excess == pytest.approx(found.rollouts.policy_repeats - found.same_bin)
    assert "the policy repeats its last action" in found.verdict
    vectors.close()


def test_repeats_are_those_of_neighbours():
    assert repeats(torch.tensor([[1, 5], [1, 5], [2, 5], [1, 5]])) == (4, 6)
    assert repeats(torch.tensor([[1]])) == (0, 0)


def test_a_recorder_shows_how_its_policy_thinks_that_episodes_begin():
    policy = Sticky(1)
    policy.config = object()

    class Environments:
        num_envs, metadata = 1, {}

    space = Domain(name="x", observation=Vector(1), action=Discrete(2))
    assert Recorder(policy, Environments(), 1, space, Vocabulary(2, 2, 0)).config is policy.config


def report(without, informed, steps=(100.0,) * 20, **changes):
    rest = {
        "chance": 3.5, "own_models": False, "same_bin": 0.6, "same_bin_by_chance": 0.1, "mean_move": 0.2,
        "rollouts": None, **changes,
    }  # fmt: skip
    return CopycatReport.of(np.array(without), np.array(informed), np.array(steps), **rest)


def test_sentences_follow_from_the_interval():
    random = np.random.default_rng(0)
    without = 100 * (2 + 0.1 * random.normal(size=20))
    assert report(without, 0.4 * without).index == pytest.approx(0.6)
    assert "saves 60% [0.60, 0.60] of the held-out loss" in report(without, 0.4 * without).verdict
    assert report(without, 0.99 * without).verdict.startswith("The last action is no news here")
    assert report(without, 1.2 * without).verdict.startswith("The last action is of no help here")
    spread = without * (0.95 + 0.2 * random.normal(size=20))
    assert report(without, spread).verdict.startswith("Not told by these data")
    nothing = report(0.001 * without, 0.0001 * without)
    assert math.isnan(nothing.index)
    assert nothing.verdict == "There is nothing to copy: what is seen decides the action (a loss of 0.002 nats)."
    assert math.isnan(report([100.0], [50.0], steps=[10.0]).index_interval[0])


def test_rollouts_are_told_beside_the_expert():
    def of(policy, expert):
        sides = [[(round(share * 100), 100)] * 10 for share in (policy, expert)]
        return Rollouts.of(*sides, policy_return=1.0, expert_return=2.0)

    without = np.full(20, 200.0)
    more = report(without, 0.4 * without, rollouts=of(0.97, 0.93))
    assert more.verdict.endswith("; the policy repeats its last action more often than the expert (97% and 93%).")
    assert "as often as the expert" in report(without, without, rollouts=of(0.9, 0.9)).verdict
    assert "less often than" in report(without, without, rollouts=of(0.5, 0.9)).verdict
    document = json.loads(json.dumps(more.to_dict()))
    assert document["rollouts"]["excess"] == pytest.approx(0.04)
    assert "mean return of the expert" in str(more)
    assert all(len(line) <= 100 for line in str(more).splitlines())


def test_a_picture_shows_the_losses():
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    report(np.full(20, 200.0), np.full(20, 80.0)).plot(axes)
    assert [bar.get_height() for bar in axes.patches] == [3.5, 2.0, 0.8]


def test_what_does_not_fit_is_refused():
    data = trajectories("independent", seed=9, number=5, time=10)
    with pytest.raises(ArgumentError, match="trajectories: expected at least 6, for some are held out, got 5"):
        probe_copycat(data)
    with pytest.raises(ArgumentError, match="bins: expected a whole number of at least 2"):
        probe_copycat(data, bins=1)
    with pytest.raises(ArgumentError, match="environments: expected a policy and environments, or none of both"):
        probe_copycat(data, Sticky(1))
    domain = Domain(name="game", observation=Image(1, 4, 4), action=Discrete(2))
    item = Trajectory(
        observations=np.zeros((9, 1, 4, 4), np.uint8), actions=np.zeros((9, 1), int), rewards=None, terminated=True
    )
    with pytest.raises(ArgumentError, match="trajectories: expected vectors as observations"):
        probe_copycat(Trajectories.of(domain, [item] * 6))
