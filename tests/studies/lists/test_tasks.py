"""List tasks: the batches say what plain Python says, the law holds where it should, and texts can be read back."""

from __future__ import annotations

import numpy as np
import pytest

from holdfast.errors import ArgumentError
from holdfast.studies.lists.tasks import (
    CONTROLS,
    EMPTY,
    EQUIVARIANT,
    TASKS,
    ListTokens,
    filter_augment,
    find_task,
    sample_batch,
    sample_lists,
    shuffled_labels,
    to_lists,
    to_rows,
)

every_task = pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)


def rng(seed=0) -> np.random.Generator:
    return np.random.default_rng(seed)


def lists(repeats, count=300, longest=9) -> list[list[int]]:
    return to_lists(sample_lists(count, (0, longest), rng(), values=20, repeats=repeats))


def breaks_the_law(task, xs) -> bool:
    return any(task([x for x in xs if x != v]) != [y for y in task(xs) if y != v] for v in set(xs))


@every_task
@pytest.mark.parametrize("repeats", [False, True])
def test_a_batch_is_answered_as_its_lists_one_by_one(task, repeats):
    xs = lists(repeats)
    assert to_lists(task.rows(to_rows(xs))) == [task(each) for each in xs]


@pytest.mark.parametrize(
    ("name", "xs", "ys"),
    [
        ("reverse", [3, 1, 2], [2, 1, 3]),
        ("sort", [3, 1, 2], [1, 2, 3]),
        ("id+reverse", [3, 1, 2], [3, 1, 2, 2, 1, 3]),
        ("partition", [3, 2, 1, 4], [2, 4, 3, 1]),
        ("inflate 2", [3, 1], [3, 3, 1, 1]),
        ("nub", [3, 1, 3, 1, 2], [3, 1, 2]),
        ("frequency sort", [3, 1, 3, 2], [1, 2, 3, 3]),
        ("rotate left", [3, 1, 2], [1, 2, 3]),
        ("riffle", [0, 1, 2, 3, 4], [0, 3, 1, 4, 2]),
        ("tail", [3, 1, 2], [1, 2]),
        ("least first", [3, 2, 1, 4], [1, 3, 2, 4]),
    ],
)
def test_by_hand(name, xs, ys):
    assert find_task(name)(xs) == ys
    assert to_lists(find_task(name).rows(np.array([xs]))) == [ys]


@every_task
def test_the_law_holds_for_the_equivariant_tasks_alone(task):
    broken = [breaks_the_law(task, xs) for xs in lists(repeats=True) + lists(repeats=False)]
    assert any(broken) != task.equivariant
    assert (task in EQUIVARIANT) == task.equivariant == (task not in CONTROLS)


@every_task
def test_copies_and_repeats_are_what_they_say(task):
    without = lists(repeats=False)
    most = max(task(xs).count(x) for xs in without for x in xs)
    assert most == task.copies
    plain = all(task(xs) in (xs, sorted(xs)) for xs in without)
    assert plain == (task.repeats or task.name == "sort")


def test_samples_are_distinct_uniform_and_of_all_lengths():
    xs = sample_lists(6000, (1, 3), rng(), values=5)
    found = to_lists(xs)
    assert all(len(set(each)) == len(each) for each in found)
    lengths = np.bincount([len(each) for each in found])
    assert lengths[0] == 0
    assert lengths[1:].min() > 1800
    pairs = np.zeros((5, 5))
    for each in found:
        if len(each) > 1:
            pairs[each[0], each[1]] += 1
    off = pairs[~np.eye(5, dtype=bool)]
    assert np.trace(pairs) == 0
    assert ((off - off.mean()) ** 2 / off.mean()).sum() < 43.8  # chi-square, 19 degrees of freedom, p = 0.001


def test_samples_with_repeats_repeat():
    xs = sample_lists(200, 8, rng(), values=30, repeats=True)
    assert xs.shape == (200, 8)
    assert all(len(set(each)) <= 4 for each in to_lists(xs))


def test_the_same_seed_gives_the_same_batch():
    tokens = ListTokens(("sort", "nub"))
    one, two, other = (sample_batch(tokens, 16, (1, 6), rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.tokens, two.tokens)
    assert not np.array_equal(one.tokens, other.tokens)


@pytest.mark.parametrize("length", [4, (1, 6)])
def test_a_batch_is_read_back(length):
    names = ("reverse", "id+reverse", "tail", "nub")
    tokens = ListTokens(names, values=40)
    batch = sample_batch(tokens, 200, length, rng())
    seen = dict.fromkeys(names, 0)
    for row, answer in zip(batch.tokens.tolist(), batch.answer, strict=True):
        name = names[row[0] - 43]
        seen[name] += 1
        separator, stop = row.index(tokens.separator), row.index(tokens.stop)
        xs, ys = row[1:separator], row[separator + 1 : stop]
        assert ys == find_task(name)(xs)
        assert row[stop + 1 :] == [tokens.pad] * (len(row) - stop - 1)
        assert np.flatnonzero(answer).tolist() == list(range(separator + 1, stop + 1))
    assert set(seen.values()) == {50}
    assert batch.tokens.max() < tokens.size


def test_prompts_are_what_texts_begin_with():
    tokens = ListTokens(("sort", "reverse"), values=10)
    xs = np.array([[4, 2, 7]])
    text = tokens.batch(np.array([tokens.task("reverse")]), xs, find_task("reverse").rows(xs)).tokens
    np.testing.assert_array_equal(tokens.prompts("reverse", xs), text[:, :5])
    np.testing.assert_array_equal(text[0], [14, 4, 2, 7, 11, 7, 2, 4, 12])


@pytest.mark.parametrize("task", EQUIVARIANT, ids=lambda task: task.name)
def test_filtered_pairs_are_right_again(task):
    xs = sample_lists(300, (0, 8), rng(), values=20, repeats=task.repeats)
    shorter, answers = filter_augment(xs, task.rows(xs), rng(1))
    assert to_lists(answers) == [task(each) for each in to_lists(shorter)]
    assert shorter.shape == xs.shape
    lengths, before = (np.bincount((rows != EMPTY).sum(axis=1), minlength=9) for rows in (shorter, xs))
    assert lengths[0] > before[0]
    assert lengths[8] < before[8]


def test_filtering_makes_wrong_pairs_of_a_control():
    task = find_task("rotate left")
    xs = sample_lists(300, (3, 8), rng(), values=20)
    shorter, answers = filter_augment(xs, task.rows(xs), rng(1))
    assert to_lists(answers) != [task(each) for each in to_lists(shorter)]


def test_shuffled_answers_have_the_elements_and_no_order():
    xs = np.tile([5, 1, 3], (6000, 1))
    xs[::2, 2] = EMPTY
    ys = shuffled_labels(xs, rng())
    np.testing.assert_array_equal(np.sort(ys, axis=1), np.sort(xs, axis=1))
    np.testing.assert_array_equal(ys[::2, 2], EMPTY)
    orders = np.unique(ys[1::2], axis=0, return_counts=True)[1]
    assert len(orders) == 6
    assert orders.min() > 400
    assert not np.array_equal(shuffled_labels(xs, rng(1)), ys)


def test_shuffled_batches_reach_the_tokens():
    tokens = ListTokens(("sort",))
    batch = sample_batch(tokens, 100, 6, rng(), shuffled=True)
    ys = batch.tokens[:, 8:14]
    np.testing.assert_array_equal(np.sort(ys), np.sort(batch.tokens[:, 1:7]))
    assert (ys == np.sort(ys)).all(axis=1).sum() < 5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: find_task("shuffle"), "task: expected one of reverse, sort"),
        (lambda: ListTokens(()), "tasks: expected different names"),
        (lambda: ListTokens(("sort", "sort")), "tasks: expected different names"),
        (lambda: ListTokens(("sort",), values=0), "values: expected at least 1"),
        (lambda: ListTokens(("sort",)).task("nub"), "task: expected one of sort, got nub"),
        (lambda: sample_lists(0, 3, rng()), "batch: expected at least 1"),
        (lambda: sample_lists(3, (3, 2), rng()), "length: expected the least length"),
        (lambda: sample_lists(3, 9, rng(), values=8), "length: expected at most 8 for 8 values"),
        (lambda: sample_lists(3, 19, rng(), values=8, repeats=True), "length: expected at most 16"),
    ],
)
def test_mistakes_are_named(make, message):
    with pytest.raises(ArgumentError, match=message):
        make()
