"""How a batch unpacks into sequences."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import ArgumentError
from holdfast.nn import Layout


@given(st.lists(st.lists(st.booleans(), min_size=5, max_size=5), min_size=1, max_size=4))
def test_live_tokens_move_together_and_back(rows):
    live = torch.tensor(rows)
    layout = Layout.of_mask(live)
    if all(map(all, rows)):
        assert layout is None
        return
    x = torch.arange(1.0, live.numel() + 1).view(*live.shape, 1)
    sequences = layout.unpack(x, -1.0)
    for row, sequence, length in zip(range(len(rows)), sequences, layout.lengths, strict=True):
        assert torch.equal(sequence[:length], x[row][live[row]])
        assert (sequence[length:] == -1).all()
    assert torch.equal(layout.pack(sequences), layout.cleared(x))
    assert layout.last.tolist() == list(range(len(rows)))


def test_documents_become_sequences():
    layout = Layout.of_documents(torch.tensor([0, 2, 5, 6, 10]), 2, 5)
    x = torch.arange(10.0).view(2, 5)
    expected = [[0, 1, -1, -1], [2, 3, 4, -1], [5, -1, -1, -1], [6, 7, 8, 9]]
    assert layout.unpack(x, -1.0).tolist() == expected
    assert torch.equal(layout.pack(layout.unpack(x)), x)
    assert layout.last.tolist() == [1, 3]
    assert layout.packed


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ([0, 4, 9], "rising numbers from 0 to 10, got"),
        ([0, 4, 4, 10], "rising numbers from 0 to 10"),
        ([0, 4, 10], "a document that begins with each row of 5 tokens"),
        ([10], "a tensor of at least two whole numbers"),
        ([0.0, 10.0], "a tensor of at least two whole numbers"),
    ],
)
def test_documents_that_are_none_are_refused(bounds, message):
    with pytest.raises(ArgumentError, match=f"cu_seqlens: expected {message}"):
        Layout.of_documents(torch.tensor(bounds), 2, 5)


@pytest.mark.parametrize("mask", [[[-torch.inf, 0.0, 0.0]], [[2, 0, 1]], [[torch.nan, 1.0, 1.0]]])
def test_a_mask_that_is_added_to_logits_is_not_taken_for_one_of_live_tokens(mask):
    with pytest.raises(ArgumentError, match="attention_mask: expected 1 where a token is live and 0 elsewhere, got"):
        Layout.of_mask(torch.tensor(mask))


@pytest.mark.parametrize("mask", [torch.ones(2, 3, 4), [[1, 0]], None])
def test_a_mask_has_two_dimensions(mask):
    with pytest.raises(ArgumentError, match=r"attention_mask: expected a tensor with two dimensions \(batch, time\)"):
        Layout.of_mask(mask)
