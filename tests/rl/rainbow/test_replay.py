"""Returns and discounts of decisions that last, what ends an episode, and every mode in which the next one begins."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from holdfast.errors import ArgumentError
from holdfast.rl.macro_actions import Decisions, macro_vector_env
from holdfast.rl.macros import Macros
from holdfast.rl.rainbow.replay import Replay
from holdfast.rl.rainbow.slots import Slots

GAMMA = 0.9


def one(observation: float, reward: float, executed: int, end: str = "", after: float = -1.0) -> tuple:
    """A decision in one slot."""
    return (
        np.array([[observation]], np.float32),
        np.array([0]),
        Decisions(
            made=np.array([True]),
            reward=np.array([reward], np.float64),
            discount=np.array([GAMMA**executed]),
            executed=np.array([executed]),
            terminated=np.array([end == "terminated"]),
            truncated=np.array([end == "truncated"]),
            observation=np.array([[after]], np.float32),
        ),
    )


def stored(replay: Replay) -> dict[float, tuple[float, float, float]]:
    """Return, discount and successor of each transition, by its observation."""
    numbers = np.flatnonzero(replay.tree[np.arange(replay.capacity)] > 0)
    batch = replay.batch(numbers, np.ones(len(numbers)), "cpu")
    rows = zip(batch.observations, batch.returns, batch.discounts, batch.successors, strict=True)
    return {float(o): (float(r), float(d), float(s)) for o, r, d, s in rows}


def replay_of(n_step: int, capacity: int = 100) -> Replay:
    return Replay(capacity, 1, n_step=n_step, discount=GAMMA)


def test_returns_over_macros() -> None:
    """The worked example: macro rewards (1, 0, 2), then a primitive with reward 5, at gamma 0.9."""
    macro = 1 + 0.81 * 2
    replay = replay_of(1)
    replay.add(*one(0, macro, 3))
    replay.add(*one(1, 5, 1))
    assert stored(replay)[0] == pytest.approx((2.62, 0.729, 1))
    replay = replay_of(2)
    for decision in (one(0, macro, 3), one(1, 5, 1), one(2, 0, 1)):
        replay.add(*decision)
    assert stored(replay)[0] == pytest.approx((6.265, 0.6561, 2))


@pytest.mark.parametrize(("end", "discount"), [("terminated", 0.0), ("truncated", 0.81)])
def test_an_end_inside_a_macro(end: str, discount: float) -> None:
    replay = replay_of(3)
    replay.add(*one(0, 1, 2, end, after=7))
    (transition,) = stored(replay).values()
    assert transition[:2] == pytest.approx((1, discount))
    assert transition[2] == (7 if end == "truncated" else 0)


@pytest.mark.parametrize("end", ["terminated", "truncated"])
def test_an_episode_of_five_decisions_has_five_transitions(end: str) -> None:
    replay = replay_of(3)
    for number in range(5):
        replay.add(*one(number, 1, 1, end if number == 4 else "", after=50))
    assert replay.transitions == 5
    left = 0.0 if end == "terminated" else 1.0
    full = (1 + 0.9 + 0.81, 0.729)
    expected = {
        0: (*full, 3),
        1: (*full, 4),
        2: (full[0], 0.729 * left, 50 if left else 2),
        3: (1.9, 0.81 * left, 50 if left else 3),
        4: (1.0, 0.9 * left, 50 if left else 4),
    }
    assert stored(replay) == {number: pytest.approx(row) for number, row in expected.items()}
    replay.add(*one(100, 3, 1))  # the next episode: nothing of it gets into the last
    assert stored(replay) == {number: pytest.approx(row) for number, row in expected.items()}


def test_what_is_overwritten_is_never_drawn() -> None:
    replay = replay_of(3, capacity=12)
    rng = np.random.default_rng(0)
    for number in range(200):
        replay.add(*one(number, number, 1, "truncated" if rng.random() < 0.2 else "", after=number + 0.5))
        for observation, (total, discount, successor) in stored(replay).items():
            steps = round(np.log(discount) / np.log(GAMMA))
            assert total == pytest.approx(sum(GAMMA**k * (observation + k) for k in range(steps)), rel=1e-5)
            assert successor in (observation + steps, observation + steps - 0.5)
            assert observation > number - 12


class Counting(gymnasium.Env):
    """Observation (episode, step); reward 1; ends after as many steps as a list says, which are cut off if negative."""

    def __init__(self, lengths: list[int]) -> None:
        self.observation_space = gymnasium.spaces.Box(-1, 1000, (2,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(2)
        self.lengths, self.episode, self.time = lengths, -1, 0

    def seen(self) -> np.ndarray:
        return np.array([self.episode, self.time], np.float32)

    def reset(self, *, seed=None, options=None):
        self.episode, self.time = self.episode + 1, 0
        return self.seen(), {}

    def step(self, action):
        self.time += 1
        length = self.lengths[self.episode % len(self.lengths)]
        over = self.time == abs(length)
        return self.seen(), 1.0, over and length > 0, over and length < 0, {}


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize("n_step", [1, 3])
def test_nothing_leaks_into_the_next_episode(mode: AutoresetMode, n_step: int) -> None:
    lengths = [[7, -7, 1], [-4, 5]]
    macros = Macros(2, ((0, 0, 0),))
    vector = macro_vector_env(
        [lambda lengths=each: Counting(lengths) for each in lengths], macros, gamma=GAMMA, autoreset_mode=mode
    )
    slots, replay = Slots(vector), Replay(500, 2, n_step=n_step, discount=GAMMA)
    slots.reset()
    rng, played = np.random.default_rng(0), 0
    for _ in range(60):
        seen, actions = slots.observations, rng.integers(3, size=2)
        made = slots.step(actions)
        replay.add(seen, actions, made)
        played += int(made.made.sum())
    assert (played == 120) == (mode != AutoresetMode.NEXT_STEP)
    filled = min(replay.count, 500)
    numbers = np.flatnonzero(replay.tree[np.arange(filled)] > 0)
    assert played - 2 * n_step <= len(numbers) == replay.transitions <= played
    batch = replay.batch(numbers, np.ones(len(numbers)), "cpu")
    steps_seen = set()
    for before, after, total, discount in zip(
        batch.observations.tolist(),
        batch.successors.tolist(),
        batch.returns.tolist(),
        batch.discounts.tolist(),
        strict=True,
    ):
        if discount == 0:  # all that was left of an episode, which had one reward a step
            longest = max(length for each in lengths for length in each)
            assert total in [pytest.approx(sum(GAMMA**k for k in range(n))) for n in range(1, longest + 1)]
            continue
        assert before[0] == after[0], "across an end"
        steps = int(after[1] - before[1])
        steps_seen.add(steps)
        assert (total, discount) == pytest.approx((sum(GAMMA**k for k in range(steps)), GAMMA**steps))
    assert max(steps_seen) >= 3
    assert any(after in ([1.0, 7.0], [0.0, 4.0]) for after in batch.successors.tolist()), "no final observation"


def test_macros_belong_inside() -> None:
    plain = gymnasium.vector.SyncVectorEnv([lambda: Counting([3])])
    with pytest.raises(ArgumentError, match="inside each environment"):
        Slots(plain)


def test_a_state_is_of_this_replay_or_refused() -> None:
    replay = replay_of(3)
    empty = replay_of(3)
    empty.load_state_dict(replay.state_dict())
    assert empty.count == 0
    for number in range(30):
        replay.add(*one(number, number, 1 + number % 2))
    copy = replay_of(3)
    copy.load_state_dict(replay.state_dict())
    assert stored(copy) == stored(replay)
    replay.update(np.array([3]), np.array([9.0]))
    copy.update(np.array([3]), np.array([9.0]))
    for _ in range(3):
        a, b = replay.sample(4, 0.5), copy.sample(4, 0.5)
        assert (a.numbers == b.numbers).all()
        assert a.weights.tolist() == b.weights.tolist()
        replay.add(*one(99, 0, 1))
        copy.add(*one(99, 0, 1))
    assert stored(copy) == stored(replay)
    old = {name: value for name, value in replay.state_dict().items() if name != "discounts"}
    with pytest.raises(ArgumentError, match="discounts"):
        replay_of(3).load_state_dict(old)
    with pytest.raises(ArgumentError, match="capacity 50"):
        replay_of(3, 50).load_state_dict(replay.state_dict())


def test_weights_undo_what_priorities_do() -> None:
    replay = replay_of(1)
    for number in range(20):
        replay.add(*one(number, 0, 1))
    replay.update(np.arange(19), np.arange(1, 20, dtype=np.float64))
    batch = replay.sample(16, 1.0)
    priorities = replay.tree[batch.numbers]
    assert batch.weights.max() == 1
    np.testing.assert_allclose(batch.weights.numpy() * priorities, priorities.min(), rtol=1e-6)
    drawn = replay.sample_uniformly(5000, np.random.default_rng(0)).numbers
    counts = np.bincount(drawn, minlength=20)
    assert counts[19] == 0, "a transition that is not whole"
    # Each of 19 has 263 draws, give or take 16.
    assert abs(counts[:19] - 5000 / 19).max() < 80


def test_a_replay_that_is_empty_or_too_small_is_refused() -> None:
    with pytest.raises(ArgumentError, match="capacity"):
        Replay(9, 1, n_step=3)
    with pytest.raises(ArgumentError, match="whole"):
        replay_of(3).sample(4, 1.0)
    with pytest.raises(ArgumentError, match="whole"):
        replay_of(3).sample_uniformly(4, np.random.default_rng(0))
