"""The comparator: equivariant with any weights, exact far beyond its training lists, and honest when it contradicts
itself."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from holdfast.errors import ArgumentError
from holdfast.nn.list_comparator import ListComparator, comparisons, train_list_comparator

VALUES = 24


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def untrained(seed, copies=1, values=VALUES) -> ListComparator:
    torch.manual_seed(seed)
    return ListComparator(values, copies=copies, embedding=8, width=16)


def draw(count, lengths, values, seed=0, repeats=False) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(lengths[0], lengths[1] + 1, size=count)
    return [rng.choice(values, size, replace=repeats).tolist() for size in sizes]


@pytest.mark.parametrize("repeats", [False, True])
@pytest.mark.parametrize("copies", [1, 3])
def test_any_weights_are_equivariant_where_they_do_not_contradict_themselves(copies, repeats):
    consistent = contradicting = reordered = 0
    for seed in range(6):
        model = untrained(seed, copies)
        lists = draw(25, (2, 7), VALUES, seed, repeats)
        sound = [xs for xs in lists if model.consistent(xs)]
        contradicting += len(lists) - len(sound)
        consistent += len(sound)
        deletions = [(xs, v) for xs in sound for v in set(xs)]
        whole = dict(zip(map(tuple, sound), model.answer(sound), strict=True))
        reordered += sum(ys not in (list(xs), list(xs)[::-1]) for xs, ys in whole.items())
        parts = model.answer([[x for x in xs if x != v] for xs, v in deletions])
        for (xs, v), part in zip(deletions, parts, strict=True):
            assert part == [y for y in whole[tuple(xs)] if y != v]
    assert consistent > 25
    assert contradicting >= 3
    assert reordered > 10


def test_a_contradiction_is_a_cycle_and_breaks_the_law():
    model = untrained(0)
    found = next(xs for xs in draw(500, (3, 3), VALUES) if not model.consistent(xs))
    answers = {tuple(pair): tuple(model.answer([list(pair)])[0]) for pair in (found[:2], found[::2], found[1:])}
    wins = [sum(answer[0] == x for answer in answers.values()) for x in found]
    assert wins == [1, 1, 1]
    assert sorted(model.answer([found])[0]) == sorted(found)


def test_logits_are_antisymmetric():
    model = untrained(1, copies=2).double()
    generator = torch.Generator().manual_seed(0)
    place = torch.stack([torch.randint(n, (2, 50), generator=generator) for n in (VALUES, 2)], dim=-1)
    x, y = (model._embed(each) for each in place)
    one = x.new_ones(50, 1)
    swapped = model.compare(torch.cat([y, x, -one], -1)) - model.compare(torch.cat([x, y, one], -1))
    torch.testing.assert_close(model(*place), -swapped.squeeze(-1), rtol=0, atol=0)


def test_many_lists_are_answered_as_one_by_one():
    model = untrained(2, copies=3)
    lists = [*draw(30, (0, 9), VALUES, repeats=True), []]
    assert model.answer(lists) == [model.answer([xs])[0] for xs in lists]
    assert model.answer([]) == []
    assert model.consistent([])


def test_the_soft_answer_becomes_the_hard_one():
    model = untrained(3, copies=2).double()
    seen = 0
    for xs in draw(40, (2, 6), VALUES, repeats=True):
        hard = model.answer([xs])[0]
        if not model.consistent(xs) or not hard:
            continue
        seen += 1
        values, positions = model.soft_positions(xs, 1e-6)
        assert values[positions.argsort()].tolist() == hard
        torch.testing.assert_close(positions.sort().values, torch.arange(len(hard)).double(), rtol=0, atol=1e-4)
        soft = model.soft_answer(xs, 1e-3)
        assert soft.argmax(-1).tolist() == hard
        torch.testing.assert_close(soft.sum(-1), torch.ones(len(hard)).double())
    assert seen > 10


def test_the_soft_answer_teaches_the_order():
    model = untrained(4, values=6)
    optimiser = torch.optim.Adam([*model.compare.parameters(), *model.value_embedding.parameters()], lr=1e-2)
    with torch.no_grad():  # every value comes out once; only the order is learnt
        model.count.weight.zero_()
        model.count.bias.copy_(torch.tensor([0.0, 1.0]))
    lists = draw(200, (3, 4), 6)
    for xs in lists:
        loss = -model.soft_answer(xs).gather(1, torch.tensor(sorted(xs))[:, None]).log().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    long = draw(30, (6, 6), 6, seed=1)
    assert np.mean([ys == sorted(xs) for xs, ys in zip(long, model.answer(long), strict=True)]) > 0.9


def test_comparisons_are_all_pairs_of_copies():
    found = comparisons([[7, 3, 5]], [[5, 7, 7]], copies=2)
    rows = zip(found.earlier.tolist(), found.later.tolist(), found.before.tolist(), strict=True)
    assert sorted(rows) == [([7, 0], [5, 0], 0.0), ([7, 1], [5, 0], 0.0)]
    assert dict(zip(found.value.tolist(), found.count.tolist(), strict=True)) == {7: 2, 3: 0, 5: 1}


def exact(model, function, length, values, count=12) -> float:
    lists = [np.random.default_rng(seed).permutation(values)[:length].tolist() for seed in range(count)]
    return float(np.mean([ys == function(xs) for xs, ys in zip(lists, model.answer(lists), strict=True)]))


@pytest.mark.parametrize(
    ("function", "copies"),
    [(lambda xs: xs[::-1], 1), (sorted, 1), (lambda xs: [x for x in xs if x % 2] + xs[::-1], 2)],
    ids=["reverse", "sort", "odd ones + reverse"],
)
def test_short_lists_teach_long_ones(function, copies):
    values = 40
    lists = draw(4000, (2, 5), values)
    told = []
    model = train_list_comparator(
        lists,
        [function(xs) for xs in lists],
        values=values,
        copies=copies,
        steps=300,
        batch=512,
        report=lambda share, loss: told.append((share, loss)),
    )
    assert exact(model, function, 32, values) == 1
    assert all(model.consistent(xs) for xs in draw(5, (32, 32), values))
    assert told[-1][0] == 1
    assert told[-1][1] < told[0][1] / 3


def test_shuffled_answers_teach_nothing():
    lists = draw(2000, (2, 5), 20)
    rng = np.random.default_rng(0)
    model = train_list_comparator(
        lists, [rng.permutation(xs).tolist() for xs in lists], values=20, steps=100, batch=256
    )
    assert exact(model, sorted, 16, 20) == exact(model, lambda xs: xs[::-1], 16, 20) == 0


def test_the_seed_decides_everything():
    lists = draw(100, (2, 4), 10)
    answers = [sorted(xs) for xs in lists]
    state = torch.get_rng_state()
    one, two, other = (
        train_list_comparator(lists, answers, values=10, seed=seed, steps=5, batch=32) for seed in (1, 1, 2)
    )
    assert torch.equal(torch.get_rng_state(), state)
    pairs = list(zip(one.parameters(), two.parameters(), other.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b, _ in pairs)
    assert not all(torch.equal(a, c) for a, _, c in pairs)


def test_rates_fall_in_the_last_third():
    lists = draw(100, (2, 4), 10)
    answers = [sorted(xs) for xs in lists]
    models = [
        train_list_comparator(lists, answers, values=10, steps=steps, batch=32, rates=(1e-2, 1e-12))
        for steps in (4, 6, 9)
    ]
    moved = [(b.count.bias - a.count.bias).abs().max().item() for a, b in pairwise(models)]
    assert moved[0] > 1e-3  # 2 against 4 steps at the first rate
    assert moved[1] > 1e-3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ListComparator(0), "values: expected at least 1"),
        (lambda: ListComparator(4, copies=0), "copies: expected at least 1"),
        (
            lambda: untrained(0).answer([[3, VALUES]]),
            f"xs: expected whole numbers from 0 to {VALUES - 1}, got {VALUES}",
        ),
        (lambda: untrained(0).soft_positions([1, 2], 0.0), "temperature: expected a positive number"),
        (lambda: comparisons([[1, 1]], [[1, 1]]), "lists: expected lists without repeated values"),
        (lambda: comparisons([[1, 2]], [[1, 3]]), "answers: expected values of the list"),
        (lambda: comparisons([[1, 2]], [[1, 2, 1]]), "answers: expected at most 1 copies of an element, got 2"),
        (lambda: comparisons([[1, 2]], []), "answers: expected one for each of 1 lists, got 0"),
        (lambda: train_list_comparator([[1, 2]], [[1]], values=3), "answers: expected a list with two elements"),
        (lambda: train_list_comparator([[1, 5]], [[1, 5]], values=3), "lists: expected values from 0 to 2, got 5"),
    ],
)
def test_mistakes_are_named(make, message):
    with pytest.raises(ArgumentError, match=message):
        make()
