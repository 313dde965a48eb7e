"""Acting step by step is the forward of training, however episodes end, and nothing that is refused leaves a trace."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch

from holdfast.errors import ArgumentError
from holdfast.models.action.batch import Batch
from holdfast.models.action.domain import Domain, Image
from holdfast.models.action.tensor_file import CheckpointError
from holdfast.rl.stepping import InvalidInput, Policy, PolicyConfig
from tests.models.action.tiny import ARM, BACKBONES, GAME, MAZE, model

TOLERANCE = 1e-4


@dataclass(frozen=True)
class Recording:
    """Episodes of random numbers in slots side by side, in the order of time.

    Arguments:
        domain: of all.
        observation: of every slot and step.
        reward: in answer to the action of that step.
        last: whether an episode ends with that step.
    """

    domain: Domain
    observation: np.ndarray
    reward: np.ndarray
    last: np.ndarray

    @classmethod
    def of(cls, domain: Domain, slots: int, steps: int, mean_length: int, seed: int = 0) -> Recording:
        rng = np.random.default_rng(seed)
        shape = (slots, steps, *domain.observation.shape)
        if isinstance(domain.observation, Image):
            observation = rng.integers(0, 256, shape, dtype=np.uint8)
        else:
            observation = rng.standard_normal(shape).astype(np.float32)
        return cls(
            domain, observation, rng.standard_normal((slots, steps)), rng.random((slots, steps)) < 1 / mean_length
        )

    def episodes(self) -> list[tuple[int, int, int]]:
        """Slot, first step and end of each."""
        found = []
        for slot, last in enumerate(self.last):
            ends = [*(np.flatnonzero(last) + 1).tolist(), len(last)]
            begins = [0, *ends[:-1]]
            found += [(slot, begin, end) for begin, end in zip(begins, ends, strict=True) if begin < end]
        return found

    def acted(self, policy: Policy) -> tuple[torch.Tensor, np.ndarray]:
        """Logits and actions of every step, in environments that begin anew within a step."""
        logits, actions, reward, done = [], [], None, None
        for step in range(self.last.shape[1]):
            actions.append(policy.act(self.observation[:, step], reward, done))
            logits.append(policy.logits)
            reward, done = self.reward[:, step], self.last[:, step]
        return torch.stack(logits, 1), np.stack(actions, 1)

    def whole(self, policy: Policy, actions: np.ndarray) -> torch.Tensor:
        """Logits of every step, by the forward of training, an episode a row."""
        episodes = self.episodes()
        longest = max(end - begin for _, begin, end in episodes)
        space = self.domain.action

        def row(of: np.ndarray) -> torch.Tensor:
            rows = np.zeros((len(episodes), longest, *of.shape[2:]), of.dtype)
            for number, (slot, begin, end) in enumerate(episodes):
                rows[number, : end - begin] = of[slot, begin:end]
            return torch.from_numpy(rows)

        reward = row(self.reward)
        target = policy.config.target_return or self.domain.target_return
        before = torch.nn.functional.pad(reward, (1, 0))[:, :-1].cumsum(1)
        batch = Batch(
            domain=self.domain,
            observation=row(self.observation),
            action=row(actions.reshape(*actions.shape[:2], space.dims)),
            valid=row(np.ones_like(self.last)),
            returns_to_go=(target - before).float(),
            reward=reward.float(),
        )
        with torch.no_grad():
            logits, _ = policy.model(batch)
        result = torch.empty(*self.last.shape, *logits.shape[2:])
        for number, (slot, begin, end) in enumerate(episodes):
            result[slot, begin:end] = logits[number, : end - begin]
        return result


def policy(name: str = "rat", domain: str = "arm", slots: int = 8, **changes: Any) -> Policy:
    settings = {key: changes.pop(key) for key in list(changes) if key in PolicyConfig.__dataclass_fields__}
    config = PolicyConfig(domain=domain, slots=slots, **{"autoreset": "same_step", **settings})
    return Policy(model(BACKBONES[name], **changes), config)


@pytest.mark.parametrize("name", BACKBONES)
def test_acting_step_by_step_is_the_forward_of_training(name):
    acting, recording = policy(name), Recording.of(ARM, slots=8, steps=300, mean_length=60)
    steps, actions = recording.acted(acting)
    whole = recording.whole(acting, actions)
    assert whole.std() > 0.3  # else every difference is small
    assert (steps - whole).abs().max() <= TOLERANCE


@pytest.mark.parametrize("name", ["rat", "attention"])
@pytest.mark.parametrize(
    ("domain", "changes"),
    [
        (ARM, {"past_actions": True}),
        (MAZE, {"past_actions": True, "returns": False}),
        (MAZE, {"rewards": False}),
        (ARM, {"returns": False, "rewards": False}),
        (GAME, {}),
        (ARM, {"target_return": -3.0}),
    ],
    ids=["actions", "actions without returns", "no rewards", "observations alone", "pictures", "target"],
)
def test_it_is_so_whatever_the_model_reads(name, domain, changes):
    acting, recording = policy(name, domain.name, 4, **changes), Recording.of(domain, 4, 40, mean_length=12)
    steps, actions = recording.acted(acting)
    assert (steps - recording.whole(acting, actions)).abs().max() <= TOLERANCE
    assert steps.std((0, 1)).max() > 100 * TOLERANCE


def test_a_single_slot_needs_no_mask():
    """One slot is never ragged until it begins anew."""
    acting, recording = policy(slots=1), Recording.of(ARM, 1, 50, mean_length=20)
    steps, actions = recording.acted(acting)
    assert (steps - recording.whole(acting, actions)).abs().max() <= TOLERANCE


@pytest.mark.parametrize("name", ["attention", "rat"])
def test_what_is_kept_does_not_grow_with_the_number_of_episodes(name):
    recording = Recording.of(ARM, slots=2, steps=120, mean_length=1000)
    recording.last[0, 9::10] = recording.last[1, 5::10] = True
    acting, sizes = policy(name, slots=2), []
    reward = done = None
    for step in range(120):
        acting.act(recording.observation[:, step], reward, done)
        reward, done = recording.reward[:, step], recording.last[:, step]
        sizes.append(acting._state.nbytes)
    assert max(sizes[60:]) <= max(sizes[:60])


def test_environments_that_begin_anew_with_the_next_step():
    """Gymnasium's default: the last observation comes with `done`, and the step after ignores the action."""
    recording = Recording.of(ARM, slots=4, steps=40, mean_length=8, seed=3)
    same, later = policy("attention", slots=4), policy("attention", slots=4, autoreset="next_step")
    wanted, _ = recording.acted(same)
    slots, place, ending = np.arange(4), np.zeros(4, int), np.zeros(4, bool)
    reward = done = None
    decided = 0
    for _ in range(40):
        shown = recording.observation[slots, place].copy()
        shown[ending] = np.nan  # the state after the end, which nobody is to read
        later.act(shown, reward, done)
        assert later.logits is not None
        for slot in np.flatnonzero(~ending):
            torch.testing.assert_close(later.logits[slot], wanted[slot, place[slot]], rtol=TOLERANCE, atol=TOLERANCE)
            decided += 1
        reward = np.where(ending, 0.0, recording.reward[slots, place])
        done = recording.last[slots, place] & ~ending
        place, ending = place + ~ending, done
    assert 100 < decided < 160


def test_gymnasium_s_own_vectors_tell_their_mode():
    gymnasium = pytest.importorskip("gymnasium")
    modes = gymnasium.vector.AutoresetMode
    names = [PolicyConfig(domain="arm", slots=1, autoreset=mode).autoreset for mode in modes]
    assert dict(zip(modes, names, strict=True)) == {
        modes.NEXT_STEP: "next_step",
        modes.SAME_STEP: "same_step",
        modes.DISABLED: "same_step",
    }
    with pytest.raises(ArgumentError, match="autoreset: expected next_step or same_step, got 'never'"):
        PolicyConfig(domain="arm", slots=1, autoreset="never")


def remembered(acting: Policy) -> Any:
    """All that a later step depends on."""
    return copy.deepcopy((acting._state, acting._episodes.arrays(), acting._generator.get_state(), acting.held))


def equal(left: Any, right: Any) -> bool:
    """Bit by bit."""
    if isinstance(left, torch.Tensor):
        return torch.equal(left, right)
    if isinstance(left, np.ndarray):
        return np.array_equal(left, right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(equal(left[key], right[key]) for key in left)
    if isinstance(left, tuple | list):
        return len(left) == len(right) and all(map(equal, left, right))
    if hasattr(left, "__dataclass_fields__"):
        return all(equal(getattr(left, field), getattr(right, field)) for field in left.__dataclass_fields__)
    return bool(left == right)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("name", BACKBONES)
def test_what_is_not_finite_is_refused_by_name_and_leaves_no_trace(name, temperature):
    acting, other = (policy(name, slots=4, temperature=temperature) for _ in range(2))
    recording = Recording.of(ARM, slots=4, steps=12, mean_length=4, seed=2)
    reward = done = None
    for step in range(12):
        observation = recording.observation[:, step]
        before = remembered(acting)
        for bad in (np.nan, np.inf, -np.inf):
            wrong = observation.copy()
            wrong[2, 1] = bad
            with pytest.raises(InvalidInput, match=f"observation of slot 2: expected finite numbers, got {bad}"):
                acting.act(wrong, reward, done)
        with pytest.raises(InvalidInput, match="observation of slot 1"):
            acting.act(np.where(np.arange(4)[:, None] == 1, 1e39, observation.astype(float)), reward, done)
        if step and not done[3]:
            lost = np.where(np.arange(4) == 3, np.nan, reward)
            with pytest.raises(InvalidInput, match="reward of slot 3: expected finite numbers, got nan"):
                acting.act(observation, lost, done)
        with pytest.raises(ArgumentError, match="observation: expected numbers of shape"):
            acting.act(observation[:3], reward, done)
        assert equal(remembered(acting), before)
        assert np.array_equal(acting.act(observation, reward, done), other.act(observation, reward, done))
        assert torch.equal(acting.logits, other.logits)
        reward, done = recording.reward[:, step], recording.last[:, step]


@pytest.mark.parametrize("past_actions", [False, True])
@pytest.mark.parametrize("name", ["attention", "rnn"])
def test_a_held_step_is_one_that_was_never_in_the_context(name, past_actions):
    acting = policy(name, slots=3, invalid="hold", past_actions=past_actions)
    recording = Recording.of(ARM, slots=3, steps=20, mean_length=1000, seed=4)
    held = np.zeros((3, 20), bool)
    held[1, [3, 7, 8, 15]] = held[2, 11] = True
    actions, logits, reward = [], [], None
    for step in range(20):
        observation = recording.observation[:, step].copy()
        observation[held[:, step]] = np.nan
        actions.append(acting.act(observation, reward))
        logits.append(acting.logits)
        reward = recording.reward[:, step].copy()
    answered, steps = np.stack(actions, 1), torch.stack(logits, 1)
    for slot, step in zip(*np.nonzero(held), strict=True):
        assert np.array_equal(answered[slot, step], answered[slot, step - 1])
    assert acting.held == held.sum()
    before = np.pad(recording.reward, ((0, 0), (1, 0)))[:, :-1].cumsum(1)
    batch = Batch(
        domain=ARM,
        observation=torch.from_numpy(recording.observation),
        action=torch.from_numpy(answered),
        valid=torch.from_numpy(~held),
        returns_to_go=torch.from_numpy(ARM.target_return - before).float(),
        reward=torch.from_numpy(recording.reward).float(),
    )
    with torch.no_grad():
        whole, _ = acting.model(batch)
    assert (steps - whole)[torch.from_numpy(~held)].abs().max() <= TOLERANCE


def test_a_lost_reward_holds_the_step_too_and_is_no_token():
    acting, recording = policy(slots=1, invalid="hold"), Recording.of(ARM, 1, 8, mean_length=1000)
    answers, logits, reward = [], [], None
    for step in range(8):
        answers.append(acting.act(recording.observation[:, step], reward))
        logits.append(acting.logits)
        reward = recording.reward[:, step] if step != 4 else np.array([np.nan])
    assert np.array_equal(answers[5], answers[4])
    assert acting.held == 1
    got = np.where(np.arange(8) == 4, 0.0, recording.reward)
    batch = Batch(
        domain=ARM,
        observation=torch.from_numpy(recording.observation),
        action=torch.from_numpy(np.stack(answers, 1)),
        valid=torch.arange(8)[None] != 5,
        returns_to_go=torch.from_numpy(ARM.target_return - np.pad(got, ((0, 0), (1, 0)))[:, :-1].cumsum(1)).float(),
        reward=torch.from_numpy(got).float(),
        reward_known=torch.arange(8)[None] != 4,
    )
    with torch.no_grad():
        whole, _ = acting.model(batch)
    assert (torch.stack(logits, 1) - whole)[batch.valid].abs().max() <= TOLERANCE
    with pytest.raises(InvalidInput, match="observation of slot 0"):  # nothing to hold at a first step
        policy(slots=2, invalid="hold").act(np.full((2, 5), np.nan))


def test_a_reward_reaches_the_next_decision_and_not_the_one_before():
    recording = Recording.of(ARM, slots=1, steps=6, mean_length=1000)
    changed = replace(recording, reward=recording.reward.copy())
    changed.reward[0, 2] += 1.0
    one, two = policy(slots=1, returns=False), policy(slots=1, returns=False)
    first, second = recording.acted(one)[0], changed.acted(two)[0]
    assert torch.equal(first[:, :3], second[:, :3])
    assert ((first - second)[:, 3:].abs().amax((0, 2, 3)) > 1e-3).all()


def test_no_reward_is_another_thing_than_a_reward_of_zero():
    recording = Recording.of(ARM, slots=1, steps=3, mean_length=1000)
    recording.reward[:] = 0.0
    logits = []
    for known in (None, np.array([True]), np.array([False])):
        acting = policy(slots=1)
        acting.act(recording.observation[:, 0], None)
        acting.act(recording.observation[:, 1], recording.reward[:, 0], known=known)
        logits.append(acting.logits)
    absent = policy(slots=1)
    absent.act(recording.observation[:, 0])
    absent.act(recording.observation[:, 1])
    assert torch.equal(logits[0], logits[1])
    assert torch.equal(logits[2], absent.logits)
    assert (logits[0] - logits[2]).abs().max() > 1e-3
    # A first step has none, whatever came with it.
    begun = [policy(slots=1) for _ in range(2)]
    for acting, reward in zip(begun, (None, np.array([7.0])), strict=True):
        acting.act(recording.observation[:, 0], reward)
    assert torch.equal(begun[0].logits, begun[1].logits)


@pytest.mark.parametrize("name", BACKBONES)
def test_a_reset_slot_knows_nothing_and_the_others_go_on(name):
    recording = Recording.of(ARM, slots=3, steps=20, mean_length=1000)
    acting, alone = policy(name, slots=3), policy(name, slots=3)
    whole, _ = recording.acted(alone)
    for step in range(10):
        acting.act(recording.observation[:, step], recording.reward[:, step - 1] if step else None)
    acting.reset(np.array([1]))
    fresh = policy(name, slots=1)
    for step in range(10, 20):
        reward = recording.reward[:, step - 1]
        acting.act(recording.observation[:, step], reward)
        fresh.act(recording.observation[1:2, step], reward[1:2])
        torch.testing.assert_close(acting.logits[1], fresh.logits[0], rtol=TOLERANCE, atol=TOLERANCE)
        torch.testing.assert_close(acting.logits[[0, 2]], whole[[0, 2], step], rtol=TOLERANCE, atol=TOLERANCE)


def test_actions_that_were_carried_out_instead_are_what_the_model_reads():
    recording = Recording.of(ARM, slots=2, steps=6, mean_length=1000)
    acting = policy(slots=2, past_actions=True)
    rng, carried, logits = np.random.default_rng(0), [], []
    for step in range(6):
        taken = carried[-1] if step else None
        acting.act(recording.observation[:, step], recording.reward[:, step - 1] if step else None, taken=taken)
        logits.append(acting.logits)
        carried.append(rng.uniform(ARM.action.low, ARM.action.high, (2, 2)).astype(np.float32))
    whole = recording.whole(acting, np.stack(carried, 1))
    assert (torch.stack(logits, 1) - whole).abs().max() <= TOLERANCE


def test_drawn_actions_are_those_of_the_seed():
    recording = Recording.of(ARM, slots=2, steps=10, mean_length=5)
    answers = [recording.acted(policy(slots=2, temperature=1.0, seed=seed))[1] for seed in (1, 1, 2)]
    assert np.array_equal(answers[0], answers[1])
    assert not np.array_equal(answers[0], answers[2])
    again = policy(slots=2, temperature=1.0, seed=1)
    recording.acted(again)
    again.reset()
    assert np.array_equal(recording.acted(again)[1], answers[0])


@pytest.mark.parametrize("name", BACKBONES)
def test_episodes_go_on_in_another_process(name, tmp_path):
    recording = Recording.of(ARM, slots=3, steps=24, mean_length=7, seed=5)
    acting, steps = policy(name, slots=3, temperature=1.0, past_actions=True), []
    reward = done = None
    for step in range(24):
        if step == 11:
            acting.save_state(tmp_path / "state")
            other = policy(name, slots=3, temperature=1.0, past_actions=True)
            other.load_state(tmp_path / "state")
        steps.append(acting.act(recording.observation[:, step], reward, done))
        if step >= 11:
            assert np.array_equal(other.act(recording.observation[:, step], reward, done), steps[-1])
            torch.testing.assert_close(other.logits, acting.logits, rtol=1e-6, atol=1e-6)
        reward, done = recording.reward[:, step], recording.last[:, step]


def test_a_state_that_does_not_fit_is_refused(tmp_path):
    acting, file = policy(slots=3), tmp_path / "state"
    acting.act(np.zeros((3, 5), np.float32))
    acting.save_state(file)
    before = remembered(acting)
    different = policy(slots=3)
    with torch.no_grad():
        different.model.head.linear.bias += 1
    for other, message in [
        (different, "a state of model [0-9a-f]{64}, expected"),
        (policy("attention", slots=3), "a state of model"),
        (policy(slots=2), "a state of slots 3, expected 2"),
        (policy(slots=3, domain="maze"), "a state of domain arm, expected maze"),
        (policy(slots=3, autoreset="next_step"), "a state of autoreset same_step, expected next_step"),
    ]:
        kept = remembered(other)
        with pytest.raises(CheckpointError, match=message):
            other.load_state(file)
        assert equal(remembered(other), kept)
    content = file.read_bytes()
    file.write_bytes(content.replace(b"query", b"keys!"))
    with pytest.raises(CheckpointError, match="checksum"):
        acting.load_state(file)
    file.write_bytes(content[:-5])
    with pytest.raises(CheckpointError, match=f"file truncated at {len(content) - 5} of {len(content)} bytes"):
        acting.load_state(file)
    assert equal(remembered(acting), before)


def test_a_state_of_another_scale_convention_is_refused(tmp_path, monkeypatch):
    acting = policy(slots=1)
    with monkeypatch.context() as patched:
        patched.setattr("holdfast.rl.stepping.SCALE", "key")
        acting.save_state(tmp_path / "state")
    with pytest.raises(CheckpointError, match="a state of scale key, expected query"):
        acting.load_state(tmp_path / "state")


def test_a_policy_that_cannot_be_is_refused():
    with pytest.raises(ArgumentError, match="domain: expected one of arm, maze, game, got 'leg'"):
        policy(domain="leg")
    unknown = replace(ARM, target_return=None)
    with pytest.raises(ArgumentError, match="target_return: expected a number, since domain arm has none, got None"):
        policy(domains=(unknown,))
    assert policy(domains=(unknown,), returns=False, slots=1).act(np.zeros((1, 5))).shape == (1, 2)
    acting = policy(slots=2)
    for reward, done, message in [
        (np.zeros(3), None, r"reward: expected numbers of shape \(2,\)"),
        (np.zeros(2), np.zeros(2), r"done: expected a mask of shape \(2,\), got float64"),
        (np.zeros(2), np.zeros(3, bool), r"done: expected a mask of shape \(2,\)"),
    ]:
        with pytest.raises(ArgumentError, match=message):
            acting.act(np.zeros((2, 5)), reward, done)


def test_logits_that_are_not_finite_are_refused():
    acting = policy(slots=1)
    acting.act(np.zeros((1, 5)))
    with torch.no_grad():
        acting.model.head.linear.bias[0:] = torch.inf
    before = remembered(acting)
    with pytest.raises(Exception, match="the model's logits are no finite numbers"):
        acting.act(np.zeros((1, 5)), np.zeros(1))
    assert equal(remembered(acting), before)
