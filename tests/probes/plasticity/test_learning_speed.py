"""Parts of the learning-speed ratio, each beside what can be worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from holdfast.errors import ArgumentError
from holdfast.probes.plasticity.learning_speed import (
    batches,
    constant_loss,
    count,
    default_loss,
    gain,
    renewed,
    select,
    speed_ratio,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_gain_counts_what_is_below_a_constant_s_loss():
    assert gain([2.0, 1.0, 3.0, 0.5], 2.0) == pytest.approx((0 + 1 + 0 + 1.5) / 4)
    assert gain([math.nan, math.inf, 1.0], 2.0) == pytest.approx(1 / 3)


def test_classes_are_drawn_anew_and_uniformly_from_those_that_there_are():
    targets = torch.tensor([3, 3, 3, 7, -100]).repeat(400)
    new = renewed(targets, generator())
    assert torch.equal(new < 0, targets < 0)
    counts = [int((new == value).sum()) for value in (3, 7)]
    # 1,600 fair draws of two classes: five standard deviations are 100.
    assert sum(counts) == 1600
    assert abs(counts[0] - 800) < 100
    # Nothing is left of the old classes.
    assert abs(float((new == targets)[targets >= 0].float().mean()) - 0.5) < 0.07


def test_numbers_change_places():
    targets = torch.randn(50, 2)
    new = renewed(targets, generator())
    assert sorted(new.flatten().tolist()) == sorted(targets.flatten().tolist())
    assert {tuple(row) for row in new.tolist()} == {tuple(row) for row in targets.tolist()}
    assert float((new == targets).float().mean()) < 0.2


def test_batches_go_through_all_examples_before_one_comes_again():
    places = batches(10, 4, 5, generator())
    assert places.shape == (5, 4)
    assert sorted(places.flatten()[:10].tolist()) == sorted(places.flatten()[10:].tolist()) == list(range(10))
    assert batches(3, 64, 2, generator()).shape == (2, 3)


def test_the_best_constant_of_the_default_losses():
    classes = torch.tensor([0, 1, 2, 4, -1])
    assert constant_loss(None, torch.zeros(1, 9), classes) == pytest.approx(math.log(4))
    numbers = torch.tensor([[1.0, 10.0], [3.0, 10.0]])
    assert constant_loss(None, torch.zeros(1, 2), numbers) == pytest.approx(0.5)


def test_the_best_constant_of_other_losses_is_searched_for():
    targets = torch.tensor([[1.0], [1.0], [1.0], [0.0]])
    found = constant_loss(F.binary_cross_entropy_with_logits, torch.zeros(2, 1), targets)
    assert found == pytest.approx(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)), abs=1e-5)
    assert constant_loss(F.l1_loss, torch.zeros(2, 1), torch.tensor([[0.0], [4.0], [5.0]])) == pytest.approx(
        5 / 3, abs=0.02
    )


@pytest.mark.parametrize("targets", [torch.ones(4, dtype=torch.long), torch.full((4, 1), 2.5)])
def test_targets_that_are_always_the_same_are_refused(targets):
    with pytest.raises(ArgumentError, match="examples: expected targets that no constant fits"):
        constant_loss(None, torch.zeros(4, 3), targets)


def test_the_default_loss_finds_the_classes():
    logits, labels = torch.randn(4, 6, 3), torch.randint(3, (4, 6))
    labels[0, 0] = -1
    expected = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-1)
    torch.testing.assert_close(default_loss(logits, labels), expected)
    torch.testing.assert_close(default_loss((logits.movedim(2, 1),), labels), expected)
    assert float(default_loss(torch.tensor([[1.0]]), torch.tensor([[3.0]]))) == 4
    with pytest.raises(ArgumentError, match=r"loss: expected a function, since the output has no .* got \(4, 5\) and"):
        default_loss(torch.zeros(4, 5), labels)
    with pytest.raises(ArgumentError, match=r"loss: expected a function, since output and targets differ in shape"):
        default_loss(torch.zeros(4, 1), torch.zeros(4))
    with pytest.raises(ArgumentError, match=r"loss: expected a function, for a model that puts out no tensor, got str"):
        default_loss("words", labels)


def test_examples_of_all_forms_are_counted_and_chosen():
    x = torch.arange(5)
    assert [count(form) for form in (x, (x, x), {"a": x})] == [5, 5, 5]
    assert select({"a": x, "b": 2 * x}, torch.tensor([3, 1]))["b"].tolist() == [6, 2]
    assert select((x, x + 1), slice(2))[1].tolist() == [1, 2]
    with pytest.raises(ArgumentError, match="examples: expected inputs of one length"):
        count((x, x[:2]))
    with pytest.raises(ArgumentError, match="examples: expected inputs that are a tensor"):
        count([1, 2])


def test_the_ratio_and_its_interval():
    """Two draws and two twins: t of one degree of freedom at .975 is 12.7062."""
    twins = torch.tensor([[1.0, 3.0], [2.0, 2.0]])  # of draws; by twin 1.5 and 2.5, in shares .75 and 1.25
    found = speed_ratio(torch.tensor([1.0, 1.2]), twins, rate=0.1, loss=0.5)
    assert found.by_draw == pytest.approx((0.5, 0.6))
    assert found.ratio == pytest.approx(0.55)
    half = 12.7062 * math.sqrt(0.005 / 2 + 0.55**2 * 0.125 / 2)
    assert found.interval == pytest.approx((0.0, 0.55 + half), rel=1e-4)
    alone = speed_ratio(torch.tensor([1.0]), torch.tensor([[2.0, 2.0]]), rate=0.1, loss=0.5)
    assert alone.ratio == 0.5
    assert all(map(math.isnan, alone.interval))
