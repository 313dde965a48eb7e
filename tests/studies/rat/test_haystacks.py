"""Haystacks: what is asked can be answered by reading, and what is drawn is drawn fairly."""

from __future__ import annotations

import pytest
import torch

from holdfast.errors import ArgumentError
from holdfast.lab.seeds import generator_for
from holdfast.studies.rat.haystacks import VALUES_OF, Haystacks, Vocabulary, sample_haystacks
from holdfast.studies.rat.training import IGNORED

VOCABULARY = Vocabulary(keys=12, values=5, noise=3)


def sampled(task: str, needles: int = 3, time: int = 96, batch: int = 40, seed: int = 0) -> Haystacks:
    return sample_haystacks(task, batch, time, needles, VOCABULARY, generator_for(seed, 1))


def answered_by_reading(haystacks: Haystacks, task: str) -> torch.Tensor:
    """Answers of somebody who looks each question's key up among the needles, token by token."""
    guesses = torch.full_like(haystacks.targets, -1)
    for row, tokens in enumerate(haystacks.tokens.tolist()):
        values: dict[int, list[int]] = {}
        reading = 0
        for key, value, kind in tokens:
            if kind == VOCABULARY.needle and key:
                reading = key
            if kind == VOCABULARY.needle and value:
                values.setdefault(reading, []).append(value - 1)
        asked, place = 0, 0
        for time, (key, _, kind) in enumerate(tokens):
            if kind == VOCABULARY.question:
                asked, place = (key, 0) if key else (asked, place + 1)
                guesses[row, time] = values[asked][place]
    return guesses


@pytest.mark.parametrize("task", VALUES_OF)
@pytest.mark.parametrize("needles", [1, 3, 5])
def test_reading_answers_everything(task: str, needles: int) -> None:
    haystacks = sampled(task, needles)
    right = haystacks.right(answered_by_reading(haystacks, task))
    assert right.shape == (40, needles)
    assert right.all()


@pytest.mark.parametrize("task", VALUES_OF)
def test_one_wrong_token_is_a_wrong_answer(task: str) -> None:
    haystacks = sampled(task)
    guesses = answered_by_reading(haystacks, task)
    last = (haystacks.targets[0] != IGNORED).nonzero()[-1]
    guesses[0, last] = (guesses[0, last] + 1) % VOCABULARY.values
    right = haystacks.right(guesses)
    assert (~right).sum() == 1
    assert not right[0, -1]


@pytest.mark.parametrize("task", VALUES_OF)
def test_what_stands_where(task: str) -> None:
    haystacks, behind = sampled(task, needles=4), VALUES_OF[task]
    keys, values, kinds = haystacks.tokens.unbind(-1)
    asked = (haystacks.targets != IGNORED).sum(1)
    assert (asked == 4 * max(1, behind)).all(), "all tokens of all values"
    assert ((kinds == VOCABULARY.needle).sum(1) == 4 * (1 + behind)).all(), "needles do not overlap"
    assert ((kinds == VOCABULARY.question).sum(1) == asked).all()
    questions = kinds == VOCABULARY.question
    for row in range(len(keys)):
        needles = keys[row, ~questions[row]]
        assert sorted(needles[needles > 0].tolist()) == sorted(set(needles[needles > 0].tolist()))
        questioned = keys[row, questions[row]]
        assert sorted(questioned[questioned > 0].tolist()) == sorted(needles[needles > 0].tolist())
    assert (questions.long().diff(dim=1) >= 0).all(), "questions come last"
    if task == "joint":
        assert ((keys > 0) == (values > 0))[kinds == VOCABULARY.needle].all()
        assert (values[questions] == 0).all(), "no question tells its answer"


def test_needles_stand_anywhere_and_questions_come_in_any_order() -> None:
    haystacks = sampled("joint", needles=2, time=12, batch=400)
    keys, _, kinds = haystacks.tokens.unbind(-1)
    assert set((kinds == VOCABULARY.needle).nonzero()[:, 1].tolist()) == set(range(10))
    first = keys.gather(1, (kinds == VOCABULARY.needle).long().argmax(1, keepdim=True))[:, 0]
    share = (keys[:, -2] == first).double().mean().item()
    assert 0.35 < share < 0.65, "six standard deviations of 400 fair draws"
    assert set(haystacks.targets[:, -1].tolist()) == set(range(VOCABULARY.values))


def test_the_same_seed_draws_the_same() -> None:
    first, again, other = sampled("apart"), sampled("apart"), sampled("apart", seed=1)
    assert torch.equal(first.tokens, again.tokens)
    assert torch.equal(first.targets, again.targets)
    assert not torch.equal(first.tokens, other.tokens)


@pytest.mark.parametrize(
    ("changes", "argument"),
    [({"task": "lost"}, "task"), ({"needles": 13}, "needles"), ({"task": "string", "time": 40}, "needles")],
)
def test_what_cannot_be_drawn(changes: dict[str, object], argument: str) -> None:
    with pytest.raises(ArgumentError, match=argument):
        sampled(**({"task": "joint"} | changes))  # type: ignore[arg-type]


def test_just_enough_room() -> None:
    haystacks = sampled("string", needles=2, time=2 * 9 + 2 * 8)
    assert haystacks.right(answered_by_reading(haystacks, "string")).all()
