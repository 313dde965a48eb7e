"""Lists of macro-actions: the primitive actions first, then fixed sequences of them, in the order of declaration.

What is learned of actions, Q values and similarities, goes by this order, so a list is kept beside it, with its hash.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import operator
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsIndex

import numpy as np

from holdfast.errors import ArgumentError, count_of

if TYPE_CHECKING:
    import gymnasium

NOOP = "NOOP"
"""What the Arcade Learning Environment, and others after it, call the action that does nothing."""


LARGEST = 65_536
"""Of a list of all sequences: Q values of more actions are no use."""


class MacroWarning(UserWarning):
    """Macro-actions that work, but perhaps not as meant."""


@dataclass(frozen=True)
class Macros:
    """The actions of an agent: primitives 0 … p-1, then macros p … n-1, each of at least two primitives.

    Arguments:
        primitives: number of primitive actions.
        sequences: the macros; none: the agent is the base agent.
        names: of the primitives, as the environment has them; `None`: unknown.

    Errors:
        ArgumentError: a macro that is too short, has an action that there is not, or comes twice.
    """

    primitives: int
    sequences: tuple[tuple[int, ...], ...] = ()
    names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        count_of("primitives", self.primitives, least=1)
        if self.names is not None and len(self.names) != self.primitives:
            raise ArgumentError("names", f"those of {self.primitives} primitives", f"{len(self.names)}")
        seen: dict[tuple[int, ...], int] = {}
        for index, macro in enumerate(self.sequences):
            where = f"sequences[{index}]"
            if len(macro) < 2:
                raise ArgumentError(where, "at least two primitive actions", repr(macro))
            if not all(type(action) is int and 0 <= action < self.primitives for action in macro):
                raise ArgumentError(where, f"actions from 0 to {self.primitives - 1}", repr(macro))
            if macro in seen:
                raise ArgumentError(where, f"another macro than sequences[{seen[macro]}]", repr(macro))
            seen[macro] = index
        if self.names is not None and NOOP in self.names:
            noop = self.names.index(NOOP)
            idle = [macro for macro in self.sequences if 2 * macro.count(noop) > len(macro)]
            if idle:
                words = f"{len(idle)} of {len(self.sequences)} macros do nothing most of the time, such as {idle[0]}"
                warnings.warn(words, MacroWarning, stacklevel=3)

    @classmethod
    def of(cls, primitives: int | gymnasium.Env[Any, Any], sequences: Iterable[Iterable[SupportsIndex]]) -> Macros:
        """A list of sequences, with the names of an environment's actions where it tells them.

        Arguments:
            primitives: number of primitive actions, or an environment with such.
            sequences: the macros; a warning if there are none. `Macros(n)` is the list without macros.

        Errors:
            ArgumentError: as for the class; actions that are no ids from 0 on.
        """
        count, names = _primitives(primitives)
        macros = tuple(tuple(map(operator.index, sequence)) for sequence in sequences)
        if not macros:
            warnings.warn("no macros: this is the base agent", MacroWarning, stacklevel=2)
        return cls(count, macros, names)

    def __len__(self) -> int:
        """Number of actions, primitives and macros."""
        return self.primitives + len(self.sequences)

    def __getitem__(self, action: int) -> tuple[int, ...]:
        """The primitives of an action."""
        return self.actions[action]

    def __iter__(self) -> Iterator[tuple[int, ...]]:
        """The primitives of each action."""
        return iter(self.actions)

    def __or__(self, other: Macros) -> Macros:
        """The macros of both, each once, those of `other` last.

        Errors:
            ArgumentError: other primitives.
        """
        if (self.primitives, self.names or other.names) != (other.primitives, other.names or self.names):
            raise ArgumentError(
                "other", f"macros of {self.primitives} actions {self.names or ''}".rstrip(), repr(other)
            )
        known = set(self.sequences)
        new = tuple(macro for macro in other.sequences if macro not in known)
        return Macros(self.primitives, self.sequences + new, self.names or other.names)

    @cached_property
    def actions(self) -> tuple[tuple[int, ...], ...]:
        """The primitives of each action, those of a primitive being itself."""
        return tuple((primitive,) for primitive in range(self.primitives)) + self.sequences

    @property
    def longest(self) -> int:
        """Primitive steps of the longest action."""
        return max(map(len, self.actions))

    @property
    def meanings(self) -> tuple[str, ...]:
        """Each action in words, such as `UP UP FIRE`; primitives without names are numbers."""
        names = self.names or tuple(map(str, range(self.primitives)))
        return tuple(" ".join(names[primitive] for primitive in action) for action in self.actions)

    @property
    def sha256(self) -> str:
        """Hash of the actions in their order, whatever they are called."""
        return hashlib.sha256(json.dumps([list(action) for action in self.actions]).encode()).hexdigest()

    def difference(self, other: Macros) -> str:
        """In words, the first thing in which another list differs; empty: it is the same, as far as names are known."""
        if len(self) != len(other):
            return f"{len(other)} actions, here {len(self)}"
        for index, (ours, theirs) in enumerate(zip(self, other, strict=True)):
            if ours != theirs:
                return f"action {index} = {theirs}, here {ours}"
        for index, (mine, name) in enumerate(zip(self.names or (), other.names or (), strict=False)):
            if mine != name:
                return f"action {index} called {name}, here {mine}"
        return ""

    def to_json(self) -> str:
        """As text that `from_json` and `read_macros` read."""
        document = {"primitives": self.primitives, "names": self.names, "macros": self.sequences}
        return json.dumps(document | {"meanings": self.meanings, "sha256": self.sha256}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Macros:
        """Of a text that `to_json` wrote; a list written by hand needs `primitives` and `macros` alone.

        Errors:
            ArgumentError: it is no such text, or its hash is not that of its actions.
        """
        try:
            document = json.loads(text)
            names = document.get("names")
            macros = tuple(tuple(macro) for macro in document["macros"])
            read = cls(document["primitives"], macros, None if names is None else tuple(names))
        except ArgumentError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ArgumentError("text", "a JSON object with primitives and macros", f"{text[:40]!r}") from error
        if document.get("sha256", read.sha256) != read.sha256:
            raise ArgumentError("sha256", f"{read.sha256}, the hash of the actions", str(document["sha256"]))
        return read


def repeat(primitives: int | gymnasium.Env[Any, Any], *lengths: int) -> Macros:
    """Each primitive action repeated.

    Arguments:
        primitives: number of primitive actions, or an environment with such.
        lengths: times, such as 2, 4, 8: one macro of each action and length, in this order.

    Errors:
        ArgumentError: a length below 2, or none.
    """
    if not lengths:
        raise ArgumentError("lengths", "at least one", "none")
    count, names = _primitives(primitives)
    return Macros(count, tuple((action,) * length for length in lengths for action in range(count)), names)


def all_sequences(primitives: int | gymnasium.Env[Any, Any], length: int) -> Macros:
    """Every sequence of a length: with p primitives p^length macros, in lexicographic order.

    Arguments:
        primitives: number of primitive actions, or an environment with such.
        length: at least 2.

    Errors:
        ArgumentError: the length; more than 65,536 macros.
    """
    count, names = _primitives(primitives)
    count_of("length", length, least=2)
    if count**length > LARGEST:
        raise ArgumentError("length", f"one with at most {LARGEST} sequences of {count} actions", length)
    return Macros(count, tuple(itertools.product(range(count), repeat=length)), names)


def random_macros(
    primitives: int | gymnasium.Env[Any, Any], count: int, shortest: int, longest: int, seed: int
) -> Macros:
    """Different random sequences, of uniform lengths and actions; one that was drawn before is drawn again.

    Arguments:
        primitives: number of primitive actions, or an environment with such.
        count: of macros.
        shortest: length, at least 2.
        longest: length.
        seed: of the draws.

    Errors:
        ArgumentError: the lengths; there are not as many sequences.
    """
    actions, names = _primitives(primitives)
    count_of("count", count, least=1)
    count_of("shortest", shortest, least=2)
    count_of("longest", longest, least=shortest)
    possible = sum(actions**length for length in range(shortest, longest + 1))
    if possible < count:
        raise ArgumentError("count", f"at most {possible}, as many sequences as there are", count)
    rng, macros = np.random.default_rng(seed), dict[tuple[int, ...], None]()
    while len(macros) < count:
        length = int(rng.integers(shortest, longest, endpoint=True))
        macros[tuple(rng.integers(actions, size=length).tolist())] = None
    return Macros(actions, tuple(macros), names)


def mined(
    primitives: int | gymnasium.Env[Any, Any],
    trajectories: Iterable[Iterable[SupportsIndex]],
    count: int,
    length: int,
    *,
    collapse: bool = True,
) -> Macros:
    """The most frequent sequences of recorded play, within episodes; equally frequent ones in lexicographic order.

    Arguments:
        primitives: number of primitive actions, or an environment with such.
        trajectories: the actions of each episode, in order.
        count: of macros.
        length: of each, at least 2.
        collapse: whether an action that is held counts once: what is found is then the order in which play changes
            from one action to the next. Otherwise mere repetitions, which `repeat` makes, are the most frequent.

    Errors:
        ArgumentError: an action that there is not; fewer different sequences than that.
    """
    actions, names = _primitives(primitives)
    count_of("count", count, least=1)
    count_of("length", length, least=2)
    found: Counter[tuple[int, ...]] = Counter()
    for episode, trajectory in enumerate(trajectories):
        play = list(map(operator.index, trajectory))
        if not all(0 <= action < actions for action in play):
            raise ArgumentError(
                f"trajectories[{episode}]", f"actions from 0 to {actions - 1}", f"{min(play)} … {max(play)}"
            )
        if collapse:
            play = [action for action, _ in itertools.groupby(play)]
        found.update(zip(*(play[start:] for start in range(length)), strict=False))
    if len(found) < count:
        raise ArgumentError("count", f"at most {len(found)}, as many sequences as were played", count)
    ranked = sorted(found, key=lambda macro: (-found[macro], macro))
    return Macros(actions, tuple(ranked[:count]), names)


def read_macros(path: Path) -> Macros:
    """A list from a file that holds the text of `Macros.to_json`.

    Errors:
        ArgumentError: it cannot be read, or holds something else.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ArgumentError("path", "a file of JSON that can be read", f"{path}") from error
    macros = Macros.from_json(text)
    if not macros.sequences:
        warnings.warn(f"{path}: no macros: this is the base agent", MacroWarning, stacklevel=2)
    return macros


def _primitives(primitives: int | gymnasium.Env[Any, Any]) -> tuple[int, tuple[str, ...] | None]:
    """Number of primitive actions, and their names where the environment tells them.

    Errors:
        ArgumentError: the environment's actions are no ids from 0 on.
    """
    if isinstance(primitives, int | np.integer):
        return int(primitives), None
    space = primitives.action_space
    number, start = getattr(space, "n", None), getattr(space, "start", None)
    if not isinstance(number, int | np.integer) or start != 0:
        raise ArgumentError("primitives", "an environment whose actions are ids from 0 on", repr(space))
    tell = getattr(primitives.unwrapped, "get_action_meanings", None)
    names = tuple(map(str, tell())) if callable(tell) else None
    return int(number), names if names is not None and len(names) == number else None
