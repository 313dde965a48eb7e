"""Lists of macro-actions, what generates them, and what is refused."""

from __future__ import annotations

import hashlib
import itertools
import json
import warnings

import gymnasium
import numpy as np
import pytest

from holdfast.errors import ArgumentError
from holdfast.rl import Macros, MacroWarning, all_sequences, mined, random_macros, read_macros, repeat


class Named(gymnasium.Env):
    """Three actions with names, as games have them."""

    action_space = gymnasium.spaces.Discrete(3)
    observation_space = gymnasium.spaces.Discrete(1)

    def get_action_meanings(self) -> list[str]:
        return ["NOOP", "FIRE", "UP"]


def test_primitives_come_first():
    macros = Macros.of(3, [[0, 1], np.array([2, 2, 2])])
    assert list(macros) == [(0,), (1,), (2,), (0, 1), (2, 2, 2)]
    assert len(macros) == 5
    assert macros[4] == (2, 2, 2)
    assert macros.longest == 3
    assert macros.meanings == ("0", "1", "2", "0 1", "2 2 2")
    named = Macros.of(Named(), [[1, 2], [2, 2]])
    assert named.meanings == ("NOOP", "FIRE", "UP", "FIRE UP", "UP UP")
    assert Macros(3).longest == 1


def test_the_hash_is_of_the_actions_in_their_order():
    one, other = Macros(2, ((0, 1), (1, 0))), Macros(2, ((1, 0), (0, 1)))
    assert one.sha256 == Macros(2, ((0, 1), (1, 0)), ("LEFT", "RIGHT")).sha256
    assert len({one.sha256, other.sha256, Macros(3, one.sequences).sha256, Macros(2).sha256}) == 4
    # Of the JSON of the actions: other tools can compute it.
    assert Macros(2, ((0, 1),)).sha256 == hashlib.sha256(b"[[0], [1], [0, 1]]").hexdigest()


@pytest.mark.parametrize(
    ("sequences", "message"),
    [
        ([[0]], r"sequences\[0\]: expected at least two primitive actions, got \(0,\)"),
        ([[0, 1], []], r"sequences\[1\]: expected at least two primitive actions, got \(\)"),
        ([[0, 3]], r"sequences\[0\]: expected actions from 0 to 2, got \(0, 3\)"),
        ([[0, -1]], r"sequences\[0\]: expected actions from 0 to 2"),
        ([[0, 1], [1, 1], [0, 1]], r"sequences\[2\]: expected another macro than sequences\[0\], got \(0, 1\)"),
    ],
)
def test_bad_macros_are_refused(sequences, message):
    with pytest.raises(ArgumentError, match=message):
        Macros.of(3, sequences)


def test_other_bad_lists_are_refused():
    with pytest.raises(TypeError):
        Macros.of(3, [[0, 1.5]])
    with pytest.raises(ArgumentError, match="names: expected those of 2 primitives, got 1"):
        Macros(2, (), ("UP",))
    with pytest.raises(ArgumentError, match="primitives: expected a whole number of at least 1"):
        Macros(0)
    for space in (gymnasium.spaces.Box(0, 1), gymnasium.spaces.Discrete(3, start=1), gymnasium.spaces.MultiBinary(2)):
        env = Named()
        env.action_space = space
        with pytest.raises(ArgumentError, match="primitives: expected an environment whose actions are ids from 0 on"):
            Macros.of(env, [[0, 1]])


def test_no_macros_and_idle_macros_are_warned_of():
    with pytest.warns(MacroWarning, match="no macros: this is the base agent"):
        assert len(Macros.of(3, [])) == 3
    with pytest.warns(MacroWarning, match=r"2 of 3 macros do nothing most of the time, such as \(0, 0\)"):
        Macros.of(Named(), [[0, 0], [0, 1], [0, 0, 1]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Macros(3)
        Macros.of(3, [[0, 0]])  # without names nobody knows


def test_lists_are_joined_without_repetitions():
    both = repeat(3, 2) | Macros(3, ((0, 1), (1, 1), (1, 0)))
    assert both.sequences == ((0, 0), (1, 1), (2, 2), (0, 1), (1, 0))
    with pytest.raises(ArgumentError, match="other: expected macros of 3 actions"):
        repeat(3, 2) | repeat(4, 2)
    named = Macros(2, ((0, 1),), ("LEFT", "RIGHT"))
    assert (Macros(2, ((0, 0),)) | named).names == ("LEFT", "RIGHT")
    with pytest.raises(ArgumentError, match="other: expected macros of 2 actions"):
        named | Macros(2, ((0, 0),), ("RIGHT", "LEFT"))


def test_generators_of_repetitions_and_of_all_sequences():
    assert repeat(2, 3, 2).sequences == ((0, 0, 0), (1, 1, 1), (0, 0), (1, 1))
    assert all_sequences(2, 2).sequences == ((0, 0), (0, 1), (1, 0), (1, 1))
    assert len(all_sequences(4, 3)) == 4 + 64
    with pytest.warns(MacroWarning, match="do nothing"):
        assert repeat(Named(), 2).names == ("NOOP", "FIRE", "UP")
    for make, message in [
        (lambda: repeat(2), "lengths: expected at least one"),
        (lambda: repeat(2, 1), "at least two primitive actions"),
        (lambda: repeat(2, 2, 2), "another macro"),
        (lambda: all_sequences(2, 1), "length: expected a whole number of at least 2"),
        (lambda: all_sequences(18, 4), "length: expected one with at most 65536 sequences of 18 actions, got 4"),
    ]:
        with pytest.raises(ArgumentError, match=message):
            make()


def test_random_macros_are_different_and_those_of_their_seed():
    macros = random_macros(4, 50, 2, 5, 100)
    assert len(set(macros.sequences)) == 50
    assert {len(macro) for macro in macros.sequences} == {2, 3, 4, 5}
    assert macros == random_macros(4, 50, 2, 5, 100)
    assert macros != random_macros(4, 50, 2, 5, 101)
    everything = random_macros(2, 12, 2, 3, 100).sequences
    assert set(everything) == {m for length in (2, 3) for m in itertools.product(range(2), repeat=length)}
    for settings, message in [
        ((2, 13, 2, 3, 0), "count: expected at most 12, as many sequences as there are, got 13"),
        ((2, 1, 1, 3, 0), "shortest: expected a whole number of at least 2"),
        ((2, 1, 3, 2, 0), "longest: expected a whole number of at least 3"),
        ((2, 0, 2, 2, 0), "count: expected a whole number of at least 1"),
    ]:
        with pytest.raises(ArgumentError, match=message):
            random_macros(*settings)


def test_mined_macros_are_the_most_frequent_within_episodes():
    play = [[0, 0, 0, 1, 1, 2, 0, 1, 2], np.array([1, 2, 2, 2, 0, 1])]
    assert mined(3, play, 3, 2).sequences == ((0, 1), (1, 2), (2, 0))  # three times, three times, twice
    assert mined(3, play, 1, 3).sequences == ((0, 1, 2),)
    # The end of an episode and the beginning of the next, 2 1, are no sequence.
    with pytest.raises(ArgumentError, match="count: expected at most 3, as many sequences as were played, got 4"):
        mined(3, play, 4, 2)
    assert mined(3, play, 2, 2, collapse=False).sequences == ((0, 1), (1, 2))
    assert (0, 0) in mined(3, play, 6, 2, collapse=False).sequences
    with pytest.raises(ArgumentError, match=r"trajectories\[1\]: expected actions from 0 to 2, got 0 … 3"):
        mined(3, [[0, 1], [3, 0]], 1, 2)


def test_files(tmp_path):
    macros = Macros(2, ((0, 1), (1, 1, 1)), ("LEFT", "RIGHT"))
    path = tmp_path / "macros.json"
    path.write_text(macros.to_json())
    assert read_macros(path) == macros
    assert json.loads(macros.to_json())["meanings"] == ["LEFT", "RIGHT", "LEFT RIGHT", "RIGHT RIGHT RIGHT"]
    path.write_text('{"primitives": 2, "macros": [[0, 1]]}')  # by hand
    assert read_macros(path) == Macros(2, ((0, 1),))
    path.write_text(macros.to_json().replace("1,\n   1,", "0,\n   1,", 1))
    with pytest.raises(ArgumentError, match=r"sha256: expected [0-9a-f]{64}, the hash of the actions"):
        read_macros(path)
    for text in ("", "[]", '{"primitives": 2}', '{"primitives": 2, "macros": 3}', '{"primitives": 2, "macros": [1]}'):
        path.write_text(text)
        with pytest.raises(ArgumentError, match="text: expected a JSON object with primitives and macros"):
            read_macros(path)
    path.write_text('{"primitives": 2, "macros": [[0, 2]]}')
    with pytest.raises(ArgumentError, match=r"sequences\[0\]: expected actions from 0 to 1"):
        read_macros(path)
    path.write_text(Macros(2).to_json())
    with pytest.warns(MacroWarning, match="no macros"):
        read_macros(path)
    for missing in (tmp_path / "none.json", tmp_path):
        with pytest.raises(ArgumentError, match="path: expected a file of JSON that can be read"):
            read_macros(missing)


def test_differences_in_words():
    macros = Macros(2, ((0, 1), (1, 1)), ("LEFT", "RIGHT"))
    assert macros.difference(Macros(2, macros.sequences)) == ""
    assert macros.difference(Macros(2, ((1, 1), (0, 1)))) == "action 2 = (1, 1), here (0, 1)"
    assert macros.difference(Macros(2, ((0, 1),))) == "3 actions, here 4"
    assert macros.difference(Macros(2, macros.sequences, ("LEFT", "JUMP"))) == "action 1 called JUMP, here RIGHT"
