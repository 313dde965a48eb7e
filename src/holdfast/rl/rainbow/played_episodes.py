"""Episodes that can be played again: each begins from a seed of its own, and what was done in it is remembered.

So an environment in the middle of an episode can be put back after a crash without any knowledge of its insides: the
episode is begun from its seed, and its actions are taken once more. It takes an environment whose episodes depend on
their seed and their actions alone.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from holdfast.errors import ArgumentError

GO_ON = -1
"""Stands among actions for a reset that goes on with the game that was begun: after a lost life."""


class EpisodicLife(gymnasium.Wrapper[Any, Any, Any, Any]):
    """A lost life ends an episode, and the next one goes on with the game; a seed begins a new game.

    Arguments:
        env: an environment of the Arcade Learning Environment; action 0 does nothing.
    """

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env)
        self._lives = 0
        self.game_over = True
        """Whether the next reset begins a new game."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        observation: Any
        over = self.game_over or seed is not None
        if not over:
            observation, _, terminated, truncated, info = self.env.step(0)
            over = bool(terminated or truncated)
        if over:
            observation, info = self.env.reset(seed=seed, options=options)
        self.game_over = False
        self._lives = self._left()
        return observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Act."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        lives, self.game_over = self._left(), bool(terminated or truncated)
        lost, self._lives = lives < self._lives, lives
        return observation, reward, bool(terminated or lost), bool(truncated), info

    def _left(self) -> int:
        unwrapped: Any = self.env.unwrapped
        return int(unwrapped.ale.lives())


class PlayedEpisodes(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Seeds every game, and remembers what was done in it.

    Arguments:
        env: whose episodes depend on their seed and actions alone, with ids as actions.
        seed: of all episodes.
        slot: number of the environment among those with the same seed.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], seed: int, slot: int = 0) -> None:
        super().__init__(env)
        self._seed, self._slot = seed, slot
        self._games, self._played = 0, list[int]()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode; its seed is the wrapper's, whatever comes from above."""
        if self._games and not self._over():
            self._played.append(GO_ON)
            return self.env.reset(options=options)
        self._games += 1
        self._played = []
        return self._begin()

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Act."""
        self._played.append(int(action))
        observation, reward, terminated, truncated, info = self.env.step(action)
        return observation, reward, bool(terminated), bool(truncated), info

    def played(self) -> dict[str, Any]:
        """What `play_again` needs: the number of the game, and what was done in it."""
        return {"games": self._games, "played": list(self._played)}

    def play_again(self, states: tuple[dict[str, Any], ...]) -> Any:
        """Put an environment back to where it was.

        Arguments:
            states: what `played` returned, of all environments with the same seed by their number.

        Returns:
            The observation there.

        Errors:
            ArgumentError: there is none for this environment.
        """
        if self._slot >= len(states):
            raise ArgumentError("states", f"one for slot {self._slot}", f"{len(states)}")
        state = states[self._slot]
        self._games, self._played = int(state["games"]), [int(action) for action in state["played"]]
        observation, _ = self._begin()
        for action in self._played:
            if action == GO_ON:
                observation, _ = self.env.reset()
            else:
                observation, *_ = self.env.step(action)
        return observation

    def _begin(self) -> tuple[Any, dict[str, Any]]:
        drawn = np.random.SeedSequence([self._seed, 5, self._slot, self._games]).generate_state(1)
        return self.env.reset(seed=int(drawn[0]) >> 1)

    def _over(self) -> bool:
        try:
            return bool(self.env.get_wrapper_attr("game_over"))
        except AttributeError:
            return True
