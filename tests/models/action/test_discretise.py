"""Actions as ids and back: the published values, bounds of all kinds, and what is refused."""

from __future__ import annotations

import pytest
import torch

from holdfast.errors import ArgumentError
from holdfast.models.action.discretise import Vocabulary
from holdfast.models.action.domain import Continuous, Discrete, Domain, Vector

PUBLISHED = Vocabulary(discrete=18, bins=256, dims=8)
UNIT = Continuous((-1.0,), (1.0,))
VALUES = torch.tensor([[-1.0], [-0.5], [0.0], [0.5], [1.0]])


def test_ids_and_decoded_values_are_those_of_the_published_bins():
    ids = PUBLISHED.ids(VALUES, UNIT)
    assert ids.flatten().tolist() == [18, 82, 146, 210, 273]
    centres = PUBLISHED.actions(ids, UNIT).flatten().tolist()
    assert centres == [-0.99609375, -0.49609375, 0.00390625, 0.50390625, 0.99609375]
    assert PUBLISHED.actions(ids, UNIT, "left").flatten().tolist() == [-1.0, -0.5, 0.0, 0.5, 0.9921875]
    assert PUBLISHED.size == 274


def test_a_round_trip_is_half_a_bin_off_at_most_and_unbiased():
    actions = torch.rand(100_000, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1
    error = PUBLISHED.actions(PUBLISHED.ids(actions, UNIT), UNIT).double() - actions
    assert error.abs().max() <= 1 / 256 + 1e-7  # the centre is told in float32
    assert error.mean().abs() < 1e-4
    left = PUBLISHED.actions(PUBLISHED.ids(actions, UNIT), UNIT, "left").double() - actions
    assert left.mean() == pytest.approx(-1 / 256, rel=0.05)


def test_bounds_are_those_of_each_dimension():
    space, vocabulary = Continuous((-2.0, 0.0, 10.0), (6.0, 1e-3, 11.0)), Vocabulary(4, 10, 3)
    low, high = torch.tensor(space.low), torch.tensor(space.high)
    share = torch.rand(1000, 3, generator=torch.Generator().manual_seed(0))
    actions = low + share * (high - low)
    ids = vocabulary.ids(actions, space)
    assert ids.min() == 4
    assert ids.max() == 13
    assert ((vocabulary.actions(ids, space) - actions).abs() <= (high - low) / 20 * (1 + 1e-4)).all()
    assert vocabulary.ids(torch.stack([low, high]), space).tolist() == [[4, 4, 4], [13, 13, 13]]
    beyond = vocabulary.ids(torch.stack([low - 1, high + 1]), space)
    assert beyond.tolist() == [[4, 4, 4], [13, 13, 13]]
    assert torch.equal(vocabulary.ids(vocabulary.actions(ids, space), space), ids)


def test_discrete_actions_are_their_ids():
    space, actions = Discrete(5), torch.tensor([[0.0], [4.0], [2.0]])
    ids = PUBLISHED.ids(actions, space)
    assert ids.tolist() == [[0], [4], [2]]
    assert torch.equal(PUBLISHED.actions(ids, space), ids)


@pytest.mark.parametrize(
    ("action", "space", "message"),
    [
        (5.0, Discrete(5), "action: expected ids from 0 to 4, got 5"),
        (-1.0, Discrete(5), "action: expected ids from 0 to 4, got -1"),
        (1.5, Discrete(5), "action: expected ids from 0 to 4, got 1.5"),
        (float("nan"), Discrete(5), "action: expected ids from 0 to 4, got nan"),
        (float("nan"), UNIT, "action: expected numbers, got NaN"),
    ],
)
def test_what_is_no_action_is_refused(action, space, message):
    with pytest.raises(ArgumentError, match=message):
        PUBLISHED.ids(torch.tensor([[0.0], [action]]), space)


@pytest.mark.parametrize("decode", ["centre", "left"])
def test_an_id_of_the_other_kind_is_no_action(decode):
    with pytest.raises(ArgumentError, match="ids: expected ids from 18 to 273"):
        PUBLISHED.actions(torch.tensor([[17]]), UNIT, decode)
    with pytest.raises(ArgumentError, match="ids: expected ids from 0 to 4"):
        PUBLISHED.actions(torch.tensor([[5]]), Discrete(5), decode)
    with pytest.raises(ArgumentError, match="decode: expected centre or left, got 'right'"):
        PUBLISHED.actions(torch.tensor([[18]]), UNIT, "right")


def test_domains_beyond_the_vocabulary_are_refused_by_name():
    for action, message in [
        (Discrete(19), "domain hand: expected at most 18 discrete actions, as the vocabulary has, got 19"),
        (Continuous((0.0,) * 9, (1.0,) * 9), "domain hand: expected at most 8 action dimensions, .* got 9"),
    ]:
        with pytest.raises(ArgumentError, match=message):
            PUBLISHED.check(Domain(name="hand", observation=Vector(2), action=action))


@pytest.mark.parametrize(
    ("low", "high"), [((0.0,), (0.0,)), ((1.0,), (0.0,)), ((-float("inf"),), (1.0,)), ((0.0,), (float("nan"),))]
)
def test_bounds_that_enclose_nothing_are_refused(low, high):
    with pytest.raises(ArgumentError, match="bounds of action dimension 0: expected finite, low < high"):
        Continuous(low, high)
    with pytest.raises(ArgumentError, match="high: expected 2 bounds"):
        Continuous((0.0, 0.0), (1.0,))
