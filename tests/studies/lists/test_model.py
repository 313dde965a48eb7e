"""The list model: right on short lists, wrong on long ones, right again when extended, and taught by its extension."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from holdfast.errors import ArgumentError
from holdfast.lists import Oracle, extrapolate
from holdfast.studies.lists.model import (
    ListModelConfig,
    ListTransformer,
    amalgamation_targets,
    as_list_function,
    distil,
    train_list_model,
)
from holdfast.studies.lists.tasks import find_task, sample_lists, to_lists

TASKS = ("reverse", "id+reverse")
CONFIG = ListModelConfig(tasks=TASKS, values=8, longest=3, width=32, heads=2, layers=2, steps=250, batch=64, rate=1e-2)
TINY = replace(CONFIG, steps=3, width=8, batch=4)


@pytest.fixture(scope="module")
def trained() -> ListTransformer:
    return train_list_model(CONFIG, seed=0)


def draw(length, count=40, seed=1) -> list[list[int]]:
    return to_lists(sample_lists(count, length, np.random.default_rng(seed), values=8))


def exact(f, task, lists) -> float:
    return float(np.mean([ys == find_task(task)(xs) for xs, ys in zip(lists, f(lists), strict=True)]))


@pytest.mark.parametrize("task", TASKS)
def test_short_lists_are_learnt_and_long_ones_are_not(trained, task):
    f = as_list_function(trained, task)
    assert all(exact(f, task, draw(length)) > 0.9 for length in (1, 2, 3))
    assert exact(f, task, draw(6)) == 0


@pytest.mark.parametrize("task", TASKS)
def test_the_same_weights_extended_are_right_on_long_lists(trained, task):
    oracle = Oracle(as_list_function(trained, task), batched=True, progress=False)
    extended = extrapolate(oracle, 2, mode="distinct", engine="pairs", calibrate=0)
    assert exact(extended.batch, task, draw(8)) == 1


def test_lists_of_all_lengths_are_answered_in_their_order(trained):
    lists = [[1], [4, 2], [], [3], [2, 7, 1], [6, 5], [1]]
    together = trained.answer("reverse", lists)
    assert together == [trained.answer("reverse", [xs])[0] for xs in lists]
    assert [together[number] for number in (1, 4, 6)] == [[2, 4], [1, 7, 2], [1]]
    assert trained.answer("reverse", []) == []


def test_answers_are_those_of_the_whole_text(trained):
    """Decoding with a cache says what the loss sees without one."""
    xs = [3, 1, 5]
    ys = trained.answer("id+reverse", [xs])[0]
    tokens = trained.tokens
    text = torch.tensor([[tokens.task("id+reverse"), *xs, tokens.separator, *ys]])
    with torch.no_grad():
        following = trained.decoder(text).argmax(-1)[0]
    assert following[4:].tolist() == [*ys, tokens.stop]


def writes_always(token) -> ListTransformer:
    """A model that knows one token: its embedding points where everything points."""
    model = ListTransformer(TINY)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.decoder.norm.weight.fill_(1)
        model.decoder.embedding.weight[:, 0] = 1
        model.decoder.embedding.weight[token, 0] = 2
    return model


@pytest.mark.parametrize(("task", "length"), [("reverse", 3), ("id+reverse", 6)])
def test_an_answer_that_does_not_end_is_too_long(task, length):
    assert writes_always(5).answer(task, [[1, 2, 3]]) == [[5] * (length + 2)]


def test_a_token_that_is_no_value_stays_in_the_answer():
    model = writes_always(TINY.tokens.separator)
    assert model.answer("reverse", [[1]]) == [[TINY.tokens.separator] * 3]
    assert TINY.tokens.separator >= TINY.values
    assert writes_always(TINY.tokens.stop).answer("reverse", [[1, 2]]) == [[]]


def test_the_loss_counts_the_answers_alone():
    model = ListTransformer(TINY)
    tokens = TINY.tokens
    xs, ys = np.array([[1, 2]]), np.array([[2, 1]])
    batch = tokens.batch(np.array([tokens.task("reverse")]), xs, ys)
    with torch.no_grad():
        logits = model.decoder(torch.from_numpy(batch.tokens))[0]
    wanted = [2, 1, tokens.stop]
    by_hand = torch.nn.functional.cross_entropy(logits[3:6], torch.tensor(wanted))
    torch.testing.assert_close(model.loss(batch), by_hand)


def test_the_seed_decides_everything():
    state = torch.get_rng_state()
    one, two, other = (train_list_model(TINY, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert not one.training
    pairs = list(zip(one.parameters(), two.parameters(), other.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b, _ in pairs)
    assert not all(torch.equal(a, c) for a, _, c in pairs)


@pytest.mark.parametrize("change", [{"augment": True}, {"shuffled": True}, {"rate": 2e-2}, {"longest": 5}])
def test_settings_change_the_training(change):
    before, after = (train_list_model(config, seed=1) for config in (TINY, replace(TINY, **change)))
    assert not all(torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True))


def test_progress_is_told():
    told = []
    train_list_model(replace(TINY, steps=120), seed=0, report=lambda share, loss: told.append((share, loss)))
    assert [share for share, _ in told] == [50 / 120, 100 / 120, 1]
    assert all(loss > 0 for _, loss in told)


@pytest.mark.parametrize("capacity", [2, 4])
def test_targets_are_what_glues(capacity):
    lists = draw(7)
    found = amalgamation_targets(lambda queries: [sorted(xs) for xs in queries], lists, capacity)
    assert found.lists == lists
    assert found.answers == [sorted(xs) for xs in lists]
    assert found.kept == 1


def test_targets_leave_out_what_contradicts_itself():
    def beats(xs):  # in a circle: 0 before 1 before 2 before 0; others by size
        if len(xs) == 2 and set(xs) == {0, 2}:
            return [2, 0]
        return sorted(xs)

    found = amalgamation_targets(lambda queries: [beats(xs) for xs in queries], [[1, 0, 2, 5], [5, 2, 0, 3], [4, 1, 0]])
    assert found.lists == [[5, 2, 0, 3], [4, 1, 0]]
    assert found.answers == [[2, 0, 3, 5], [0, 1, 4]]
    assert found.kept == pytest.approx(2 / 3)


def test_distillation_makes_the_weights_right_on_longer_lists():
    model = train_list_model(replace(CONFIG, tasks=("reverse",), steps=200), seed=0)
    before = [parameter.clone() for parameter in model.parameters()]
    told = []
    student, done = distil(
        model, rounds=1, stretch=1, lists=600, steps=300, rate=1e-2, report=lambda share, loss: told.append(share)
    )
    assert [(each.longest, each.kept) for each in done] == [(4, {"reverse": 1.0})]
    assert told[-1] == 1
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert exact(as_list_function(model, "reverse"), "reverse", draw(4)) == 0
    assert exact(as_list_function(student, "reverse"), "reverse", draw(4)) > 0.25
    assert exact(as_list_function(student, "reverse"), "reverse", draw(3)) > 0.9


def test_distillation_without_targets_changes_nothing():
    model = ListTransformer(TINY)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()  # it writes the value 0 and nothing else
    student, done = distil(model, rounds=1, stretch=1, lists=5, steps=1)
    assert done[0].kept == dict.fromkeys(TASKS, 0.0)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), student.parameters(), strict=True))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda model: as_list_function(model, "sort"), "task: expected one of reverse, id"),
        (lambda model: model.answer("reverse", [[8]]), "lists: expected whole numbers from 0 to 7, got 8"),
        (lambda model: replace(TINY, steps=0), "steps: expected a positive number"),
        (lambda model: replace(TINY, longest=9), "longest: expected at most 8"),
        (lambda model: replace(TINY, tasks=("nonsense",)), "task: expected one of"),
        (lambda model: distil(model, rounds=2, stretch=3), "rounds: expected lists of at most 8 elements"),
        (lambda model: distil(model, lists=0), "lists: expected at least 1"),
        (lambda model: amalgamation_targets(lambda x: x, [[1]], 1), "capacity: expected a whole number of at least 2"),
    ],
)
def test_mistakes_are_named(make, message):
    with pytest.raises(ArgumentError, match=message):
        make(ListTransformer(TINY))
