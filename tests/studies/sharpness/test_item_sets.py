"""Sets of prioritised items."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.errors import ArgumentError
from holdfast.studies.sharpness.item_sets import ItemSets, sample_item_sets, stack


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def same(a: ItemSets, b: ItemSets) -> bool:
    masks = (a.mask is None and b.mask is None) or (
        a.mask is not None and b.mask is not None and torch.equal(a.mask, b.mask)
    )
    pairs = ((a.items, b.items), (a.query, b.query), (a.winner, b.winner))
    return masks and all(torch.equal(x, y) for x, y in pairs)


def by_hand(priorities: list[float], classes: list[int], visible: int | None = None) -> ItemSets:
    priority = torch.tensor([priorities])
    one_hot = torch.nn.functional.one_hot(torch.tensor([classes]), 3).float()
    items = torch.cat([priority.unsqueeze(-1), one_hot], dim=-1)
    mask = None if visible is None else torch.arange(len(classes))[None] < visible
    if mask is not None:
        items = items * mask.unsqueeze(-1)
    seen = priorities[:visible]
    return ItemSets(items, torch.zeros(1), mask, torch.tensor([seen.index(max(seen))]), 3)


def test_targets_by_hand() -> None:
    sets = by_hand([0.2, 0.9, 0.4, 0.1], [0, 2, 1, 2])
    assert sets.winning_class.tolist() == [2]
    assert sets.class_shares.tolist() == [[0.25, 0.25, 0.5]]


def test_targets_ignore_padding() -> None:
    sets = by_hand([0.2, 0.4, 0.9, 0.8], [0, 1, 2, 2], visible=2)
    assert sets.winning_class.tolist() == [1]
    assert sets.class_shares.tolist() == [[0.5, 0.5, 0.0]]


@settings(deadline=None, max_examples=40)
@given(
    batch=st.integers(1, 5),
    least=st.integers(1, 6),
    more=st.integers(0, 6),
    classes=st.integers(1, 5),
    skewed=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_any_sets(batch: int, least: int, more: int, classes: int, skewed: bool, seed: int) -> None:
    span = (least, least + more)
    sets = sample_item_sets(batch, span, generator=generator(seed), classes=classes, skewed=skewed)
    assert sets.items.shape == (batch, least + more, 1 + classes)
    visible = torch.ones(batch, least + more, dtype=torch.bool) if sets.mask is None else sets.mask
    count = visible.sum(dim=1)
    assert ((count >= least) & (count <= least + more)).all()
    assert torch.equal(sets.items[..., 1:].sum(-1), visible.float())
    assert (sets.items[~visible] == 0).all()
    for i in range(batch):
        priority = sets.items[i, visible[i], 0]
        assert sets.winner[i] == priority.argmax()
        assert sets.winning_class[i] == sets.items[i, sets.winner[i], 1:].argmax()
        shares = sets.items[i, visible[i], 1:].mean(dim=0)
        torch.testing.assert_close(sets.class_shares[i], shares)
    assert same(sets, sample_item_sets(batch, span, generator=generator(seed), classes=classes, skewed=skewed))


def test_seeds_differ() -> None:
    assert not same(sample_item_sets(4, 8, generator=generator(0)), sample_item_sets(4, 8, generator=generator(1)))


def test_sizes_and_classes_are_uniform() -> None:
    sets = sample_item_sets(20_000, (5, 16), generator=generator())
    assert sets.mask is not None
    sizes = sets.mask.sum(dim=1).bincount(minlength=17)[5:]
    assert sizes.shape == (12,)
    # Five standard deviations of a count of 20,000 / 12.
    assert (sizes - 20_000 / 12).abs().max() < 5 * (20_000 / 12) ** 0.5
    classes = sets.winning_class.bincount(minlength=10)
    assert (classes - 2000).abs().max() < 5 * 2000**0.5
    assert 0.49 < sets.query.mean() < 0.51


def test_skewed_sets_have_a_most_frequent_class() -> None:
    even = sample_item_sets(500, 200, generator=generator()).class_shares.amax(dim=1).mean()
    skewed = sample_item_sets(500, 200, generator=generator(), skewed=True).class_shares.amax(dim=1).mean()
    assert even < 0.16
    # The greatest of ten shares drawn uniformly from the simplex has the mean (1 + 1/2 + ... + 1/10) / 10.
    assert 0.27 < skewed < 0.32


def test_view_index_and_stack() -> None:
    sets = sample_item_sets(6, (2, 4), generator=generator())
    folded = sets.view(2, 3)
    assert same(folded[1], sets[3:6])
    assert same(folded[:, 1], sets[1::3])
    assert same(folded.view(6), sets)
    full = sample_item_sets(3, 4, generator=generator())
    both = stack([full, full])
    assert both.mask is None
    assert same(both[0], full)
    assert same(stack([sets[:3], sets[3:]]), folded)


def test_mistakes() -> None:
    for arguments in ({"batch": 0, "size": 3}, {"batch": 1, "size": 0}, {"batch": 1, "size": (0, 3)}):
        with pytest.raises(ArgumentError, match="a positive number, got 0"):
            sample_item_sets(**arguments, generator=generator())
    with pytest.raises(ArgumentError, match=r"size: .* got \(5, 4\)"):
        sample_item_sets(1, (5, 4), generator=generator())
    with pytest.raises(ArgumentError, match="classes"):
        sample_item_sets(1, 4, generator=generator(), classes=0)
    with pytest.raises(ArgumentError, match="sets"):
        stack([])
