"""One thread decides: in batches, in order within a session, whatever goes wrong in another."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.serving.engine import Engine, Job, chosen
from holdfast.serving.sessions import Lane
from holdfast.serving.stepper import Step
from tests.serving.recorder import UNREADABLE, Recorder


def job(lane: Lane, number: float = 0.0, told: Any = None) -> Job:
    step = Step(domain="arm", memory=None, observation=np.array([number, 0.0]), reward=0.0, done=False)
    return Job(lane=lane, step=step, tell=lambda outcome: told.put((number, outcome)))


@given(st.lists(st.integers(0, 4), max_size=30), st.integers(1, 6))
def test_a_batch_holds_a_session_once_and_keeps_the_order_of_each(of_lane: list[int], most: int) -> None:
    lanes = [Lane(name) for name in range(5)]
    waiting = [job(lanes[lane], number) for number, lane in enumerate(of_lane)]
    everything: list[Job] = []
    rest, rounds = waiting, 0
    while rest:
        batch, left = chosen(rest, most)
        assert 0 < len(batch) <= most
        assert len({id(each.lane) for each in batch}) == len(batch)
        assert len(batch) + len(left) == len(rest)
        everything, rest, rounds = everything + batch, left, rounds + 1
    for lane in lanes:
        assert [each for each in everything if each.lane is lane] == [each for each in waiting if each.lane is lane]
    if waiting:
        longest = max(map(of_lane.count, set(of_lane)))
        assert rounds <= longest + len(waiting) // most  # as few as there can be


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def engine(recorder: Recorder) -> Iterator[Engine]:
    engine = Engine(recorder)
    engine.start()
    yield engine
    recorder.gate.set()
    engine.close()
    assert not engine.alive


def test_what_waits_becomes_one_batch(engine: Engine, recorder: Recorder) -> None:
    told: queue.Queue[Any] = queue.Queue()
    lanes = [Lane((place,)) for place in range(4)]
    recorder.gate.clear()
    engine.submit(job(lanes[0], 0, told))
    assert recorder.entered.acquire(timeout=60)
    for number, lane in enumerate([*lanes, lanes[1]], 1):
        engine.submit(job(lane, number, told))
    recorder.gate.set()
    outcomes = [told.get(timeout=60) for _ in range(6)]
    assert [number for number, _ in outcomes] == [0, 1, 2, 3, 4, 5]
    assert recorder.batches == [1, 4, 1]
    assert [len(lane.memory) for lane in lanes] == [3, 3, 2, 2]
    assert lanes[1].memory[1][0] == (2.0, 0.0)
    assert lanes[1].memory[2][0] == (5.0, 0.0)


def test_a_step_that_fails_harms_no_other_session_and_ends_its_own(engine: Engine) -> None:
    told: queue.Queue[Any] = queue.Queue()
    good, bad = Lane(()), Lane(())
    for lane, number in ((bad, UNREADABLE), (good, 1.0), (bad, 2.0), (good, 3.0)):
        engine.submit(job(lane, number, told))
    outcomes = dict(told.get(timeout=60) for _ in range(4))
    assert str(outcomes[UNREADABLE][1]) == "unlucky"
    assert str(outcomes[2.0][1]) == "an earlier step of the session could not be read"
    assert outcomes[1.0][1] is outcomes[3.0][1] is None
    assert (len(good.memory), bad.memory, bad.broken, good.broken) == (2, (), True, False)


def test_a_fault_of_the_stepper_is_told_and_the_thread_goes_on(engine: Engine, recorder: Recorder) -> None:
    told: queue.Queue[Any] = queue.Queue()
    lane = Lane(())
    whole = recorder.act
    recorder.act = lambda steps: 1 / 0  # type: ignore[method-assign,assignment]
    engine.submit(job(lane, 1.0, told))
    assert "the model failed: ZeroDivisionError" in str(told.get(timeout=60)[1][1])
    recorder.act = whole  # type: ignore[method-assign]
    lane.broken = False
    engine.submit(job(lane, 2.0, told))
    assert told.get(timeout=60)[1][1] is None
    assert len(lane.memory) == 1


def test_closing_decides_what_waits(recorder: Recorder) -> None:
    told: queue.Queue[Any] = queue.Queue()
    engine, lane = Engine(recorder), Lane(())
    for number in range(3):
        engine.submit(job(lane, number, told))
    engine.start()
    engine.close()
    assert len(lane.memory) == 3
    assert not engine.alive
    assert told.qsize() == 3
