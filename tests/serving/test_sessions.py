"""Steps come in order or not at all, and sessions that are left alone make room."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from holdfast.serving import Answer
from holdfast.serving.protocol import Refusal, StepRequest
from holdfast.serving.sessions import MOST_BEHIND, Session, Sessions
from tests.serving.recorder import ARM


class Clock:
    """Goes forward when it is told to."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def step(number: int) -> StepRequest:
    return StepRequest(step=number, observation=np.zeros(2, np.float32), reward=None, done=False)


def answer(sessions: Sessions, session: Session, number: int) -> None:
    sessions.answer(session, Answer(step=number, action=0), None)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sessions(clock: Clock) -> Sessions:
    return Sessions(2, 10.0, clock)


@pytest.mark.parametrize("wrong", [0, 1, 3, 10])
def test_only_the_next_step_is_taken_on(sessions: Sessions, wrong: int) -> None:
    session = sessions.open(ARM, memory := object())
    for number in range(2):
        sessions.accept(session, step(number))
        answer(sessions, session, number)
    before = copy.copy(vars(session))
    with pytest.raises(Refusal, match=f"step {wrong} .*: expected step 2") as refused:
        sessions.accept(session, step(wrong))
    assert (refused.value.status, refused.value.details) == (409, {"expected": 2, "answered": True})
    assert vars(session) == before
    assert session.lane.memory is memory
    sessions.accept(session, step(2))


def test_nothing_is_taken_on_before_the_last_step_is_answered(sessions: Sessions) -> None:
    session = sessions.open(ARM, None)
    sessions.accept(session, step(0))
    before = copy.copy(vars(session))
    for number in (0, 1):
        with pytest.raises(Refusal) as refused:
            sessions.accept(session, step(number))
        assert refused.value.details == {"expected": 1, "answered": False}
    assert vars(session) == before


def test_a_step_that_is_taken_back_is_expected_again(sessions: Sessions) -> None:
    session = sessions.open(ARM, None)
    sessions.accept(session, step(0))
    session.lane.broken = True
    sessions.take_back(session)
    assert (session.expected, session.answered, session.lane.broken) == (0, True, False)
    sessions.accept(session, step(0))


def test_a_session_that_is_left_alone_is_given_up(clock: Clock) -> None:
    gone: list[None] = []
    sessions = Sessions(2, 10.0, clock, lambda: gone.append(None))
    left, kept = sessions.open(ARM, None), sessions.open(ARM, None)
    with pytest.raises(Refusal, match="all 2 sessions are in use") as refused:
        sessions.open(ARM, None)
    assert refused.value.status == 503
    clock.now += 6
    assert sessions.get(kept.id) is kept
    clock.now += 6
    third = sessions.open(ARM, None)
    assert set(sessions.by_id) == {kept.id, third.id}
    assert len(gone) == 1
    with pytest.raises(Refusal, match="unknown session") as refused:
        sessions.get(left.id)
    assert refused.value.status == 404
    clock.now += 10.5
    sessions.evict()
    assert (len(sessions), len(gone)) == (0, 3)


def test_a_session_that_waits_for_an_answer_is_kept(clock: Clock, sessions: Sessions) -> None:
    session = sessions.open(ARM, None)
    sessions.accept(session, step(0))
    clock.now += 1000
    sessions.evict()
    assert len(sessions) == 1
    answer(sessions, session, 0)
    sessions.evict()
    assert sessions.get(session.id) is session
    clock.now += 11
    sessions.evict()
    assert len(sessions) == 0


def test_ids_cannot_be_guessed(sessions: Sessions) -> None:
    ids = set()
    for _ in range(50):
        session = sessions.open(ARM, None)
        ids.add(session.id)
        sessions.close(session)
        sessions.close(session)
    assert len(ids) == 50
    assert min(map(len, ids)) >= 22  # 128 bits


def test_a_session_ends_when_the_model_cannot_keep_up(sessions: Sessions) -> None:
    session = sessions.open(ARM, None)
    for number in range(MOST_BEHIND):
        sessions.accept(session, step(number))
        answer(sessions, session, number)
    with pytest.raises(Refusal, match="it cannot keep up") as refused:
        sessions.accept(session, step(MOST_BEHIND))
    assert refused.value.status == 503
    with pytest.raises(Refusal, match="unknown session"):
        sessions.get(session.id)
