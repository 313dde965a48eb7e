"""What a training run of Rainbow is made of. The command line takes it, a run keeps it."""

from __future__ import annotations

import dataclasses
import re
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from holdfast.errors import ArgumentError, count_of
from holdfast.models.training.recipe import Recipe, flag
from holdfast.rl.macros import Macros, MacroWarning, all_sequences, random_macros, read_macros, repeat
from holdfast.rl.rainbow.environments import settings_for
from holdfast.rl.rainbow.settings import ATARI, MASP, RainbowSettings

if TYPE_CHECKING:
    import gymnasium


@dataclass(frozen=True, kw_only=True)
class PlayRecipe:
    """What is played."""

    env: str = "MinAtar/Breakout-v1"
    """MinAtar/GAME-v1, ALE/GAME-v5, retro/GAME, or an id of Gymnasium's whose observation is a vector."""
    steps: int = 1_000_000
    """Primitive steps in all: actions of the environment, of which a macro takes several."""
    slots: int = 1
    """Environments that are played in turn."""
    macros: tuple[str, ...] = ()
    """Macro-actions besides the primitive ones: repeat:2,4 (each action so many times), all:3 (every sequence of that
    length), random:32:2:6 (so many, of lengths from 2 to 6), or a file of them."""
    time_limit: int | None = None
    """Primitive steps after which a game is cut off, instead of those of the game."""
    seed: int = 0
    """Of games, weights, noise, random macros, and of what is drawn from the replay."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to run: cpu, cuda, or auto, which is cuda where there is one."""

    def __post_init__(self) -> None:
        for name in ("steps", "slots"):
            count_of(flag(name), getattr(self, name), least=1)
        count_of("--seed", self.seed)
        if self.slots > 1 and settings_for(self.env) is ATARI and not self.env.startswith("ALE/"):
            raise ArgumentError("--slots", "1 for a game of stable-retro, which has one emulator a process", self.slots)
        if self.time_limit is not None:
            count_of("--time-limit", self.time_limit, least=1)

    def actions(self, env: gymnasium.Env[Any, Any]) -> Macros:
        """Primitives and macros.

        Arguments:
            env: of primitive actions.

        Errors:
            ArgumentError: macros that cannot be made of these.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", MacroWarning)  # a list without macros is the base agent, as asked for
            actions = Macros.of(env, ())
        for text in self.macros:
            actions = actions | self._macros(text, env)
        return actions

    def _macros(self, text: str, env: gymnasium.Env[Any, Any]) -> Macros:
        """One of the options --macros."""
        if match := re.fullmatch(r"repeat:(\d+(?:,\d+)*)", text):
            return repeat(env, *map(int, match[1].split(",")))
        if match := re.fullmatch(r"all:(\d+)", text):
            return all_sequences(env, int(match[1]))
        if match := re.fullmatch(r"random:(\d+):(\d+):(\d+)", text):
            count, shortest, longest = map(int, match.groups())
            return random_macros(env, count, shortest, longest, self.seed)
        if Path(text).is_file():
            return read_macros(Path(text))
        raise ArgumentError("--macros", "repeat:2,4, all:3, random:32:2:6, or a file of macros", text)


@dataclass(frozen=True, kw_only=True)
class LearningRecipe:
    """How it is learned. What is not said is as suits the environment; all counts are of primitive steps."""

    lr: float | None = None
    """Learning rate of Adam."""
    discount: float | None = None
    """Of a primitive step."""
    n_step: int | None = None
    """Decisions whose rewards are added up before bootstrapping."""
    hidden: int | None = None
    """Width of the hidden layers."""
    batch: int | None = None
    """Transitions of an update."""
    capacity: int | None = None
    """Observations that are kept; on pictures 28 kB each."""
    learning_starts: int | None = None
    """Steps before the first update."""
    train_every: int | None = None
    """Steps for one update."""
    target_every: int | None = None
    """Steps between two copies of the network that targets are from."""
    epsilon_start: float | None = None
    """Share of random decisions at first, besides the noise."""
    epsilon_end: float | None = None
    """And in the end."""
    epsilon_steps: int | None = None
    """Steps in which it falls from the one to the other."""
    eta: float = 0.0
    """Strength of the similarity penalty (MASP); 0: none."""
    similarity: str = "sinkhorn"
    """How the similarity of actions is made: sinkhorn, raw, or a file of one (.npz), which stays as it is."""
    start: float | None = None
    """Mean diagonal of the similarity at first."""
    meta: bool = False
    """Learn the similarity while training."""
    meta_every: int = 10
    """Updates of the agent for one of the similarity."""
    meta_lr: float = 0.003
    """Learning rate of the similarity."""

    def settings(self, env: str) -> RainbowSettings:
        """With what suits an environment where nothing is said.

        Arguments:
            env: its id.

        Errors:
            ArgumentError: a setting is out of range.
        """
        names = {part.name for part in dataclasses.fields(RainbowSettings)}
        changes = {name: value for name, value in vars(self).items() if name in names and value is not None}
        kind: Literal["sinkhorn", "raw"] = "raw" if self.similarity == "raw" else "sinkhorn"
        if self.similarity not in ("sinkhorn", "raw"):
            if not Path(self.similarity).is_file():
                raise ArgumentError("--similarity", "sinkhorn, raw, or a file of a similarity", self.similarity)
            if self.meta:
                raise ArgumentError("--meta", "a similarity that is learned: sinkhorn or raw", self.similarity)
        try:
            masp = MASP(
                eta=self.eta,
                kind=kind,
                start=self.start,
                meta=self.meta,
                meta_every=self.meta_every,
                meta_lr=self.meta_lr,
            )
            return dataclasses.replace(settings_for(env), masp=masp, **changes)
        except ArgumentError as error:
            raise ArgumentError(flag(error.argument), error.expected, error.got) from None


@dataclass(frozen=True, kw_only=True)
class IntervalsRecipe:
    """How often a run looks up, in primitive steps."""

    log_every: int = 5_000
    """Between two points of the curve."""
    save_every: int = 100_000
    """Between two checkpoints, which hold the whole replay."""

    def __post_init__(self) -> None:
        for name in ("log_every", "save_every"):
            count_of(flag(name), getattr(self, name), least=1)


@dataclass(frozen=True, kw_only=True)
class RainbowRecipe(Recipe):
    """All settings of a training run."""

    kind = "rainbow"

    play: PlayRecipe = field(default_factory=PlayRecipe)
    """What is played."""
    learning: LearningRecipe = field(default_factory=LearningRecipe)
    """How it is learned."""
    intervals: IntervalsRecipe = field(default_factory=IntervalsRecipe)
    """How often a run looks up."""

    def settings(self) -> RainbowSettings:
        """Of the agent."""
        return self.learning.settings(self.play.env)

    def with_steps(self, steps: int) -> Any:
        """With another budget.

        Arguments:
            steps: primitive steps.
        """
        return dataclasses.replace(self, play=dataclasses.replace(self.play, steps=steps))
