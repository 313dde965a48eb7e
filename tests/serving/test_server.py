"""What is answered, what is refused, and what is remembered, whatever comes late."""

from __future__ import annotations

import asyncio
import contextlib
import copy
from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np
import pytest

pytest.importorskip("starlette")
pytest.importorskip("prometheus_client")

from holdfast.errors import ArgumentError
from holdfast.serving.fallback import Fallback
from holdfast.serving.protocol import Refusal, StepRequest
from holdfast.serving.server import Server, ServerConfig
from tests.serving.recorder import ARM, MAZE, UNREADABLE, Recorder, chosen

SOON = 0.001
"""Seconds of a deadline that is missed, since the model is held up until it is."""

NEVER = 1e6


def request(number: int, first: float = 0.5, **changes: Any) -> StepRequest:
    given: dict[str, Any] = {"reward": 1.0, "done": False, **changes}
    return StepRequest(step=number, observation=np.array([first, number], np.float32), **given)


def run(
    test: Callable[[Server, Recorder], Coroutine[Any, Any, None]], recorder: Recorder | None = None, **settings: Any
) -> Server:
    """Carry out a test in a running server."""
    recorder = recorder or Recorder()
    server = Server(recorder, ServerConfig(**settings))

    async def whole() -> None:
        async with server.running():
            try:
                await test(server, recorder)
            finally:
                recorder.gate.set()

    asyncio.run(asyncio.wait_for(whole(), 120))
    return server


def value(server: Server, name: str) -> float:
    """A number of the metrics."""
    lines = server.metrics.text().decode().splitlines()
    return float(next(line for line in lines if line.startswith(f"holdfast_action_{name} ")).split()[1])


def asked(*numbers: int, carried_out: dict[int, Any] | None = None) -> list[Any]:
    """What a recorder remembers of steps."""
    return [((0.5, float(number)), 1.0, False, (carried_out or {}).get(number)) for number in numbers]


async def settled(server: Server, session: Any) -> None:
    """Until all steps that were taken on have been read."""
    while session.behind:
        await asyncio.sleep(0)


def test_steps_are_answered_by_the_model_in_order() -> None:
    async def test(server: Server, recorder: Recorder) -> None:
        sessions = [server.open(None, target) for target in (None, 7.0)]
        for number in range(4):
            for session in sessions:
                answer = await server.step(session, request(number))
                assert (answer.step, answer.fallback) == (number, False)
                assert np.array_equal(answer.action, chosen(ARM, session.lane.memory))
        for session, target in zip(sessions, (5.0, 7.0), strict=True):
            assert session.lane.memory == (target, *asked(0, 1, 2, 3))

    server = run(test)
    assert value(server, "steps_total") == value(server, "step_seconds_count") == 8
    assert value(server, "deadline_misses_total") == 0
    assert value(server, "sessions") == value(server, "sessions_opened_total") == 2


@pytest.mark.parametrize("deadline", [None, NEVER])
def test_sessions_that_wait_together_are_one_batch(deadline: float | None) -> None:
    async def test(server: Server, recorder: Recorder) -> None:
        sessions = [server.open(None, None) for _ in range(5)]
        recorder.gate.clear()
        steps = [asyncio.create_task(server.step(sessions[0], request(0)))]
        await asyncio.to_thread(recorder.entered.acquire)
        steps += [asyncio.create_task(server.step(session, request(0))) for session in sessions[1:]]
        await asyncio.sleep(0)
        recorder.gate.set()
        await asyncio.gather(*steps)
        assert recorder.batches == [1, 4]

    server = run(test, deadline_s=deadline)
    assert value(server, 'batch_rows_bucket{le="1.0"}') == 1
    assert value(server, "batch_rows_sum") == 5


@pytest.mark.parametrize(
    ("rule", "expected"),
    [("hold", [0.4, 1.8]), ("zero", [0.0, 1.0]), ("-0.5,2", [-0.5, 2.0])],
)
def test_a_late_step_is_answered_by_the_fallback_and_remembered_all_the_same(rule: str, expected: list[float]) -> None:
    async def test(server: Server, recorder: Recorder) -> None:
        session = server.open(None, None)
        await server.step(session, request(0))
        recorder.gate.clear()
        server.config = ServerConfig(deadline_s=SOON, fallback=Fallback(rule))
        answers = [await server.step(session, request(number)) for number in (1, 2)]
        for answer in answers:
            assert answer.fallback
            np.testing.assert_allclose(answer.action, expected, rtol=1e-6)
        assert (session.expected, session.behind) == (3, 2)
        recorder.gate.set()
        await settled(server, session)
        server.config = ServerConfig(deadline_s=NEVER)
        last = await server.step(session, request(3))
        assert not last.fallback
        # The same as without any deadline, but for the actions that were carried out.
        instead = tuple(float(number) for number in np.float64(expected if rule != "hold" else np.float32(expected)))
        assert session.lane.memory == (5.0, *asked(0, 1, 2, 3, carried_out={2: instead, 3: instead}))
        assert np.array_equal(last.action, chosen(ARM, session.lane.memory))
        assert session.carried_out is None

    server = run(test, deadline_s=NEVER)
    assert value(server, "deadline_misses_total") == 2
    assert value(server, "steps_total") == 4


def test_nothing_to_hold_at_a_first_step_and_ids_stay_ids() -> None:
    async def test(server: Server, recorder: Recorder) -> None:
        arm, maze = server.open("arm", None), server.open("maze", 1.0)
        recorder.gate.clear()
        first, second = await server.step(arm, request(0)), await server.step(maze, request(0))
        assert first.fallback
        assert first.document()["action"] == [0.0, 1.0]
        assert second.document() == {"step": 0, "action": 0, "fallback": True}
        recorder.gate.set()

    run(test, Recorder(ARM, MAZE), deadline_s=SOON)


def test_what_is_refused_leaves_no_trace() -> None:
    async def test(server: Server, recorder: Recorder) -> None:
        session = server.open(None, None)
        for number in range(3):
            await server.step(session, request(number))
        memory, before = session.lane.memory, copy.copy(vars(session))
        for number in (2, 0, 4, 400):
            with pytest.raises(Refusal) as refused:
                await server.step(session, request(number))
            assert refused.value.details["expected"] == 3
        assert session.lane.memory is memory
        assert vars(session) == before
        assert len(recorder.batches) == 3

    run(test)


def test_of_two_clients_one_steps_and_the_other_is_told() -> None:
    async def test(server: Server, recorder: Recorder) -> None:
        session = server.open(None, None)
        for number in range(10):
            pair = [server.step(session, request(number, first=who)) for who in (0.5, 0.25)]
            outcomes = await asyncio.gather(*pair, return_exceptions=True)
            refused = [outcome for outcome in outcomes if isinstance(outcome, Refusal)]
            assert len(refused) == 1
            assert refused[0].details["expected"] == number + 1
        assert session.lane.memory == (5.0, *asked(*range(10)))

    run(test)


def test_a_step_that_cannot_be_read_is_expected_again() -> None:
    async def test(server: Server, recorder: Recorder) -> None:
        session = server.open(None, None)
        await server.step(session, request(0))
        memory = session.lane.memory
        with pytest.raises(Refusal, match="step 1 cannot be read: unlucky") as refused:
            await server.step(session, request(1, first=UNREADABLE))
        assert (refused.value.status, refused.value.details) == (500, {"expected": 1})
        assert session.lane.memory is memory
        assert not (await server.step(session, request(1))).fallback
        assert session.lane.memory == (5.0, *asked(0, 1))

    server = run(test)
    assert value(server, "failures_total") == 1


def test_a_late_step_that_cannot_be_read_ends_the_session() -> None:
    """It has been answered: what is remembered would lack a step that was taken."""

    async def test(server: Server, recorder: Recorder) -> None:
        session = server.open(None, None)
        recorder.gate.clear()
        assert (await server.step(session, request(0, first=UNREADABLE))).fallback
        server.config = ServerConfig(deadline_s=NEVER)
        following = asyncio.create_task(server.step(session, request(1)))
        await asyncio.sleep(0)
        recorder.gate.set()
        with pytest.raises(Refusal, match="an earlier step of the session could not be read"):
            await following
        with pytest.raises(Refusal, match="unknown session"):
            server.sessions.get(session.id)
        assert session.lane.memory == (5.0,)

    run(test, deadline_s=SOON)


def test_whoever_asks_what_became_of_a_step_waits_for_its_answer() -> None:
    async def test(server: Server, recorder: Recorder) -> None:
        session = server.open(None, None)
        await server.answered(session)
        recorder.gate.clear()
        step = asyncio.create_task(server.step(session, request(0)))
        await asyncio.to_thread(recorder.entered.acquire)
        waiting = [asyncio.create_task(server.answered(session)) for _ in range(2)]
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(waiting[0]), SOON)
        assert not any(task.done() for task in waiting)
        recorder.gate.set()
        await asyncio.gather(step, *waiting)
        assert session.last is not None
        assert session.last.step == 0

    run(test)


def test_a_session_has_a_domain_and_a_target() -> None:
    async def test(server: Server, recorder: Recorder) -> None:
        assert server.open("maze", 2.0).lane.memory == (2.0,)
        for domain, target, message in (
            (None, None, "domain: expected one of arm, maze, got nothing"),
            ("rack", None, "domain: expected one of arm, maze, got 'rack'"),
            ("maze", None, "target_return: expected a number, got nothing"),
        ):
            with pytest.raises(Refusal, match=message) as refused:
                server.open(domain, target)
            assert refused.value.status == 422
        server.open("arm", None)
        with pytest.raises(Refusal, match="all 2 sessions are in use"):
            server.open("arm", None)

    run(test, Recorder(ARM, MAZE), max_sessions=2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"deadline_s": 0.0}, "deadline_s: expected a positive number, got 0.0"),
        ({"ttl_s": float("inf")}, "ttl_s: expected a positive number, got inf"),
        ({"max_sessions": 0}, "max_sessions: expected a whole number of at least 1, got 0"),
        ({"fallback": "stop"}, "fallback: expected hold, zero, or finite numbers with commas between them, got stop"),
        ({"fallback": "0,nan"}, "fallback: expected hold, zero, or finite numbers"),
        ({"fallback": "0,0.5"}, r"fallback: expected 2 numbers from \(-1.0, 1.0\) to \(1.0, 3.0\), as domain arm has"),
        ({"fallback": "0"}, "fallback: expected 2 numbers"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], message: str) -> None:
    def made() -> Server:
        rule = settings.pop("fallback", "hold")
        return Server(Recorder(), ServerConfig(fallback=Fallback(rule), **settings))

    with pytest.raises(ArgumentError, match=message):
        made()


def test_an_id_can_be_a_fallback() -> None:
    Fallback("2").check([MAZE])
    for rule in ("3", "1.5", "-1", "0,0"):
        with pytest.raises(ArgumentError, match="fallback: expected an id below 3, as domain maze has"):
            Fallback(rule).check([MAZE])


def test_a_token_is_shown_nowhere() -> None:
    assert "secret" not in repr(ServerConfig(token="secret-secret-secret"))
