"""Macro-actions in environments: what the learner is told, and that nothing runs across a reset, in any mode."""

from __future__ import annotations

import pickle
import subprocess
import sys
from functools import partial
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import Autoreset, RecordEpisodeStatistics, TimeLimit

from holdfast.errors import ArgumentError
from holdfast.rl import (
    EpisodeOver,
    InvalidReward,
    MacroActions,
    Macros,
    decisions,
    macro_vector_env,
    repeat,
)

MACROS = Macros(3, ((0, 1, 2), (2, 2), (1, 1, 1, 1)))
GAMMA = 0.9


class Script(gymnasium.Env):
    """Rewards by a script, so that what is returned can be told by hand.

    The observation is (episode, step of the episode, last action). An episode ends with its script, by termination or
    truncation.

    Arguments:
        episodes: rewards of each, in order; the last one again and again.
        truncated: whether episodes are cut off.
        masks: whether info tells legal actions: action 1 is illegal where the step is odd.
    """

    observation_space = gymnasium.spaces.Box(-1, 1000, (3,), np.float32)
    action_space = gymnasium.spaces.Discrete(3)

    def __init__(self, *episodes: tuple[float, ...], truncated: bool = False, masks: bool = False) -> None:
        self.episodes, self.cut, self.masks = episodes, truncated, masks
        self.episode, self.steps, self.taken = -1, 0, []

    def _seen(self, action: int) -> tuple[np.ndarray, dict[str, Any]]:
        info: dict[str, Any] = {"steps": self.steps}
        if self.masks:
            info["action_mask"] = np.array([1, self.steps % 2 == 0, 1], np.int8)
        return np.array([self.episode, self.steps, action], np.float32), info

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.episode, self.steps = self.episode + 1, 0
        return self._seen(-1)

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        script = self.episodes[min(self.episode, len(self.episodes) - 1)]
        assert isinstance(action, int | np.integer)
        assert self.steps < len(script), "a step after the end"
        reward = script[self.steps]
        self.steps += 1
        self.taken.append((self.episode, action))
        over = self.steps == len(script)
        observation, info = self._seen(action)
        return observation, reward, over and not self.cut, over and self.cut, info


LONG = (1.0, 0.0, 2.0, 5.0, 3.0, 4.0, 7.0, 1.0, 1.0, 1.0)


def test_what_a_macro_returns():
    env = Script(LONG)
    wrapped = MacroActions(env, MACROS, gamma=GAMMA)
    assert wrapped.action_space == gymnasium.spaces.Discrete(6)
    wrapped.reset(seed=0)
    observation, reward, terminated, truncated, info = wrapped.step(np.int64(3))
    assert observation.tolist() == [0, 3, 2]
    assert reward == pytest.approx(2.62, abs=1e-12)
    assert (terminated, truncated) == (False, False)
    macro = info["macro"]
    assert (macro["index"], macro["planned"], macro["executed"]) == (3, 3, 3)
    assert macro["discount"] == pytest.approx(0.729, abs=1e-12)
    assert macro["rewards"].tolist() == [1, 0, 2, 0]
    assert info["steps"] == 3
    _, reward, _, _, info = wrapped.step(0)  # a primitive is a macro of length 1
    assert (reward, info["macro"]["executed"], info["macro"]["discount"]) == (5.0, 1, GAMMA)
    assert 2.62 + macro["discount"] * reward == pytest.approx(6.265, abs=1e-12)
    assert macro["discount"] * info["macro"]["discount"] == pytest.approx(0.6561, abs=1e-12)
    assert [action for _, action in env.taken] == [0, 1, 2, 0]


@pytest.mark.parametrize("truncated", [False, True])
def test_a_macro_stops_where_the_episode_does(truncated):
    wrapped = MacroActions(Script((1.0, 0.0), truncated=truncated), MACROS, gamma=GAMMA)
    wrapped.reset()
    observation, reward, *ends, info = wrapped.step(3)
    assert observation.tolist() == [0, 2, 1]
    assert reward == 1.0
    assert ends == [not truncated, truncated]
    assert (info["macro"]["executed"], info["macro"]["discount"]) == (2, pytest.approx(0.81, abs=1e-12))
    for _ in range(2):
        with pytest.raises(EpisodeOver, match="action 0: the episode is over"):
            wrapped.step(0)
    wrapped.reset()
    assert wrapped.step(0)[0].tolist() == [1, 1, 0]


def test_no_step_before_the_first_reset_and_no_action_that_there_is_not():
    wrapped = MacroActions(Script(LONG), MACROS, gamma=1.0)
    with pytest.raises(EpisodeOver):
        wrapped.step(0)
    wrapped.reset()
    for action in (6, -1, 1.5, "up"):
        with pytest.raises(ArgumentError, match="action: expected an action from 0 to 5"):
            wrapped.step(action)
    assert wrapped.step(3)[1] == 3.0  # without discount


@pytest.mark.parametrize("reward", [float("nan"), float("inf")])
def test_rewards_that_are_no_numbers_are_refused(reward):
    wrapped = MacroActions(Script((1.0, reward, 1.0, 1.0)), MACROS, gamma=GAMMA)
    wrapped.reset()
    with pytest.raises(InvalidReward, match=rf"step 2 of action 3 = \(0, 1, 2\): .*, got {reward}"):
        wrapped.step(3)


def test_masks_become_those_of_all_actions_and_a_macro_ends_before_what_is_illegal():
    env = Script(LONG, masks=True)
    wrapped = MacroActions(env, MACROS, gamma=GAMMA)
    _, info = wrapped.reset()
    assert info["action_mask"].tolist() == [1, 1, 1, 1, 1, 1]
    assert info["action_mask"].dtype == np.int8
    _, reward, _, _, info = wrapped.step(3)  # 0, and then 1 is illegal
    assert (reward, info["macro"]["executed"], info["macro"]["planned"]) == (1.0, 1, 3)
    assert info["action_mask"].tolist() == [1, 0, 1, 1, 1, 0]
    wrapped.step(4)
    assert [action for _, action in env.taken] == [0, 2, 2]
    env.masks = False  # without a mask all is legal again
    wrapped.step(0)
    assert wrapped.step(3)[4]["macro"]["executed"] == 3


def test_a_mask_of_another_length_is_refused():
    class Wrong(Script):
        def _seen(self, action: int) -> tuple[np.ndarray, dict[str, Any]]:
            observation, _ = super()._seen(action)
            return observation, {"action_mask": np.ones(4, np.int8)}

    with pytest.raises(ArgumentError, match="expected a mask of 3 actions, got shape"):
        MacroActions(Wrong(LONG), MACROS, gamma=GAMMA).reset()


def test_primitive_steps_can_be_stored_too():
    class OneArray(Script):
        """Writes each observation over the last one."""

        seen = np.zeros(3, np.float32)

        def _seen(self, action: int) -> tuple[np.ndarray, dict[str, Any]]:
            observation, info = super()._seen(action)
            self.seen[:] = observation
            return self.seen, info

    wrapped = MacroActions(OneArray(LONG), MACROS, gamma=GAMMA, store="macro+primitive")
    wrapped.reset()
    macro = wrapped.step(3)[4]["macro"]
    assert macro["observations"].tolist() == [[0, 1, 0], [0, 2, 1], [0, 3, 2], [0, 3, 2]]
    assert macro["observations"].dtype == np.float32
    assert wrapped.step(0)[4]["macro"]["observations"].tolist() == [[0, 4, 0]] * 4


def test_a_learner_may_interrupt():
    asked = []

    def interrupt(observation: np.ndarray, index: int, executed: int) -> bool:
        asked.append((observation.tolist(), index, executed))
        return executed == 2

    wrapped = MacroActions(Script(LONG), MACROS, gamma=GAMMA, interrupt=interrupt)
    wrapped.reset()
    _, reward, terminated, truncated, info = wrapped.step(5)
    assert (reward, terminated, truncated, info["macro"]["executed"]) == (1.0, False, False, 2)
    assert asked == [([0, 1, 1], 5, 1), ([0, 2, 1], 5, 2)]
    wrapped.step(0)
    wrapped.step(4)
    assert len(asked) == 3  # between steps, never after the last
    assert wrapped.step(0)[1] == 4.0


def test_what_belongs_below_counts_primitive_steps():
    env = RecordEpisodeStatistics(TimeLimit(Script(LONG), 5))
    wrapped = MacroActions(env, MACROS, gamma=GAMMA)
    wrapped.reset()
    wrapped.step(3)
    _, reward, terminated, truncated, info = wrapped.step(5)
    assert (reward, terminated, truncated) == (pytest.approx(5 + 0.9 * 3), False, True)
    assert info["episode"]["l"] == 5
    assert info["episode"]["r"] == 11.0


def test_a_bare_list_of_actions_is_refused():
    """In a process of its own, where the types of arguments are not checked, as with a user."""
    code = (
        "import gymnasium; from holdfast.rl import MacroActions\n"
        "MacroActions(gymnasium.make('CartPole-v1'), [(0,), (1,), (0, 1)], gamma=0.9)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert ran.stderr.endswith("macros: expected Macros, such as Macros.of(2, [(0, 0)]), got list\n")


def test_bad_environments_are_refused():
    continuous, shifted = Script(LONG), Script(LONG)
    continuous.action_space = gymnasium.spaces.Box(0, 1)
    shifted.action_space = gymnasium.spaces.Discrete(3, start=1)
    limited = gymnasium.make("CartPole-v1", max_episode_steps=3)
    wrapped = MacroActions(Script(LONG), MACROS, gamma=GAMMA)
    vector = SyncVectorEnv([partial(Script, LONG)])
    for env, macros, message in [
        (continuous, MACROS, "env: expected actions that are ids from 0 on"),
        (shifted, MACROS, "env: expected actions that are ids from 0 on"),
        (Script(LONG), repeat(4, 2), "macros: expected those of 3 primitive actions, got those of 4"),
        (limited, repeat(2, 4), "macros: expected at most 3 primitives each, the time limit, got 4"),
        (vector, MACROS, "env: expected one environment: put the wrapper inside each one .* got SyncVectorEnv"),
        (Autoreset(Script(LONG)), MACROS, "env: expected Autoreset above the macro-actions"),
        (RecordEpisodeStatistics(Autoreset(Script(LONG))), MACROS, "Autoreset above"),
        (wrapped, Macros(6), "env: expected one list of macro-actions"),
    ]:
        with pytest.raises(ArgumentError, match=message):
            MacroActions(env, macros, gamma=GAMMA)
    for gamma in (0.0, 1.1, float("nan")):
        with pytest.raises(ArgumentError, match="gamma: expected a number above 0, at most 1"):
            MacroActions(Script(LONG), MACROS, gamma=gamma)
    words = Script(LONG)
    words.observation_space = gymnasium.spaces.Discrete(3)
    with pytest.raises(ArgumentError, match="store: expected macro, as observations are no arrays"):
        MacroActions(words, MACROS, gamma=GAMMA, store="macro+primitive")
    above = Autoreset(MacroActions(Script((1.0, 0.0), (3.0, 1.0, 1.0, 1.0)), MACROS, gamma=GAMMA))
    above.reset()
    assert above.step(3)[2]
    observation, reward, *_, info = above.step(3)
    assert (observation.tolist(), reward, "macro" in info) == ([1, 0, -1], 0.0, False)


@pytest.mark.filterwarnings("ignore::UserWarning")  # of unbounded observations, and that it is wrapped
def test_gymnasium_itself_finds_nothing_wrong():
    from gymnasium.utils.env_checker import check_env

    env = gymnasium.make("CartPole-v1")
    wrapped = MacroActions(env, repeat(env, 4), gamma=GAMMA)
    check_env(wrapped, skip_render_check=True)
    assert wrapped.spec.additional_wrappers[-1].kwargs["macros"] == repeat(2, 4)
    again = gymnasium.make(wrapped.spec)
    assert again.action_space == wrapped.action_space


MODES = [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP, AutoresetMode.DISABLED]
SCRIPTS = [
    # Of each environment: the rewards of episodes that end within a macro, at its end, and at once.
    ((1.0, 0.0), (2.0, 1.0, 4.0), (3.0,), (5.0, 5.0, 5.0, 5.0, 5.0)),
    ((4.0, 1.0, 1.0, 2.0, 8.0, 1.0), (1.0, 2.0)),
]


def alone(script: tuple, truncated: bool, actions: list[int]) -> list[tuple]:
    """Transitions of one environment that is reset by hand: the truth."""
    env = MacroActions(Script(*script, truncated=truncated), MACROS, gamma=GAMMA)
    before, _ = env.reset()
    transitions = []
    for action in actions:
        after, reward, terminated, cut, info = env.step(action)
        transitions.append(
            (before.tolist(), action, reward, info["macro"]["discount"], terminated, cut, after.tolist())
        )
        before = env.reset()[0] if terminated or cut else after
    return transitions


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("truncated", [False, True])
@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.value)
def test_side_by_side_nothing_leaks_into_the_next_episode(mode, truncated, asynchronous):
    makers = [partial(Script, *script, truncated=truncated, masks=False) for script in SCRIPTS]
    envs = macro_vector_env(makers, MACROS, gamma=GAMMA, autoreset_mode=mode, asynchronous=asynchronous)
    rng = np.random.default_rng(100)
    stored: list[list[tuple]] = [[] for _ in makers]
    idle = 0
    try:
        before, _ = envs.reset(seed=0)
        before = np.array(before)
        for _ in range(14):
            actions = rng.integers(len(MACROS), size=len(makers))
            answer = envs.step(actions)
            seen = decisions(envs, answer)
            for slot in np.flatnonzero(seen.made):
                ends = (bool(seen.terminated[slot]), bool(seen.truncated[slot]))
                numbers = float(seen.reward[slot]), float(seen.discount[slot])
                after = seen.observation[slot].tolist()
                stored[slot].append((before[slot].tolist(), int(actions[slot]), *numbers, *ends, after))
                assert GAMMA ** int(seen.executed[slot]) == seen.discount[slot]
            for slot in np.flatnonzero(~seen.made):
                assert (seen.executed[slot], seen.reward[slot], seen.discount[slot]) == (0, 0.0, 1.0)
                assert stored[slot][-1][4] or stored[slot][-1][5]
                idle += 1
            before = np.array(answer[0])
            over = seen.terminated | seen.truncated
            if mode is AutoresetMode.DISABLED and over.any():
                before = np.array(envs.reset(options={"reset_mask": over})[0])
    finally:
        envs.close()
    for script, transitions in zip(SCRIPTS, stored, strict=True):
        assert transitions == alone(script, truncated, [transition[1] for transition in transitions])
        assert sum(transition[4] or transition[5] for transition in transitions) >= 3
        assert len({transition[0][0] for transition in transitions}) >= 3  # episodes
    # Only where the next step begins an episode is one lost.
    assert (idle > 0) == (mode is AutoresetMode.NEXT_STEP)


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.value)
def test_masks_side_by_side_are_those_of_the_observation(mode):
    envs = macro_vector_env(
        [partial(Script, (1.0, 1.0, 1.0), masks=True)] * 2, MACROS, gamma=GAMMA, autoreset_mode=mode
    )
    envs.reset()
    seen = decisions(envs, envs.step(np.array([0, 4])))
    assert seen.mask.tolist() == [[1, 0, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1]]
    seen = decisions(envs, envs.step(np.array([0, 4])))  # the second ends after one step of two, its third
    assert seen.terminated.tolist() == [False, True]
    assert seen.observation.tolist() == [[0, 2, 0], [0, 3, 2]]
    assert seen.mask.tolist() == [[1, 1, 1, 1, 1, 1], [1, 0, 1, 1, 1, 0]]


def test_structured_observations_side_by_side():
    class Both(Script):
        observation_space = gymnasium.spaces.Dict(
            {"at": gymnasium.spaces.Discrete(99), "all": Script.observation_space}
        )

        def _seen(self, action: int) -> Any:
            observation, info = super()._seen(action)
            return {"at": self.steps, "all": observation}, info

    envs = macro_vector_env([partial(Both, (1.0, 1.0))] * 2, MACROS, gamma=GAMMA, autoreset_mode="SameStep")
    envs.reset()
    answer = envs.step(np.array([0, 3]))
    seen = decisions(envs, answer)
    assert answer[0]["at"].tolist() == [1, 0]
    assert seen.observation["at"].tolist() == [1, 2]
    assert seen.observation["all"].tolist() == [[0, 1, 0], [0, 2, 1]]


def test_primitive_steps_side_by_side():
    envs = macro_vector_env([partial(Script, LONG)] * 2, MACROS, gamma=GAMMA, store="macro+primitive")
    envs.reset()
    macro = envs.step(np.array([0, 3]))[4]["macro"]
    assert macro["observations"].shape == (2, 4, 3)
    assert macro["rewards"].tolist() == [[1, 0, 0, 0], [1, 0, 2, 0]]


def test_vectors_that_cannot_be_wrapped_inside_are_refused():
    vector = SyncVectorEnv([partial(Script, LONG)])
    for env_fns, message in [
        (vector, "env_fns: expected functions that each make one environment.* got SyncVectorEnv"),
        ([], "env_fns: expected at least one function, got none"),
        ([lambda: vector], "env: expected one environment: put the wrapper inside each one"),
    ]:
        with pytest.raises(ArgumentError, match=message):
            macro_vector_env(env_fns, MACROS, gamma=GAMMA)
    vector.reset()
    with pytest.raises(ArgumentError, match="envs: expected MacroActions inside each environment"):
        decisions(vector, vector.step(np.array([0])))
    inside = SyncVectorEnv([partial(MacroActions, Script(LONG), MACROS, gamma=GAMMA)])  # by hand is fine
    inside.reset()
    assert decisions(inside, inside.step(np.array([3]))).executed.tolist() == [3]


def test_games_that_come_as_vectors_are_refused():
    ale_py = pytest.importorskip("ale_py")
    games = ale_py.AtariVectorEnv(game="breakout", num_envs=2)
    try:
        with pytest.raises(ArgumentError, match="env: expected one environment"):
            MacroActions(games, repeat(4, 2), gamma=GAMMA)
        with pytest.raises(ArgumentError, match="env_fns: expected functions"):
            macro_vector_env(games, repeat(4, 2), gamma=GAMMA)
    finally:
        games.close()


def test_errors_survive_the_way_between_processes():
    for error in (EpisodeOver("a"), InvalidReward("b")):
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again)) == (type(error), str(error))


def test_only_what_acts_on_environments_needs_gymnasium():
    script = (
        "import sys; sys.modules['gymnasium'] = None\n"
        "from holdfast.rl import Macros, SimilarityMatrix, masp_penalty, repeat\n"
        "repeat(4, 2)\n"
        "import holdfast.rl\n"
        "try:\n    holdfast.rl.MacroActions\nexcept ImportError as error:\n    print(error)\n"
        "try:\n    holdfast.rl.nothing\nexcept AttributeError as error:\n    print(error)\n"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert answer.returncode == 0, answer.stderr
    first, second = answer.stdout.splitlines()
    assert first == "gymnasium is not installed: install it with  pip install 'holdfast[rl]'"
    assert second == "module 'holdfast.rl' has no attribute 'nothing'"
