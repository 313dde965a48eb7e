"""Rows are found in whatever a model is called with."""

from __future__ import annotations

from collections import UserDict, namedtuple
from typing import Any

import pytest
import torch

from holdfast.probes.watch.rows import sampled

Pair = namedtuple("Pair", ["image", "mask"])
X = torch.arange(20.0).view(10, 2)


@pytest.mark.parametrize(
    ("value", "tensor"),
    [
        (X, lambda v: v),
        ((X, 3), lambda v: v[0]),
        ([X, None], lambda v: v[0]),
        ({"a": {"b": X}, "flag": True}, lambda v: v["a"]["b"]),
        (UserDict(ids=X), lambda v: v["ids"]),
        (((Pair(X, X), {}),), lambda v: v[0][0].mask),
    ],
)  # fmt: skip
def test_every_container_is_sampled_and_left_as_it_was(value: Any, tensor: Any) -> None:
    state = torch.get_rng_state()
    made = sampled(value, 4, seed=7)
    assert torch.equal(state, torch.get_rng_state())
    assert type(made) is type(value)
    rows = tensor(made)
    assert rows.shape == (4, 2)
    assert len(tensor(value)) == 10
    assert torch.equal(rows, X[(rows[:, 0] / 2).long()])
    assert torch.equal(rows, tensor(sampled(value, 4, seed=7)))
    assert not torch.equal(rows, tensor(sampled(value, 4, seed=8)))


def test_what_has_no_rows_comes_whole_and_all_is_a_copy() -> None:
    position, scale, words = torch.arange(3), torch.tensor(2.0), [str(number) for number in range(10)]
    made = sampled((X, position, scale, words, "text", (8, 8)), 20, seed=0)
    assert torch.equal(made[0], X)
    assert torch.equal(made[1], position)
    assert made[2:] == (scale, words, "text", (8, 8))
    for copy, given in zip(made[:3], (X, position, scale), strict=True):
        assert copy.data_ptr() != given.data_ptr()
    few, _, _, some, *_ = sampled((X, position, scale, words), 2, seed=0)
    assert some == [str(int(row[0] / 2)) for row in few]
    assert sampled(({}, 3), 2, seed=0) == ({}, 3)
