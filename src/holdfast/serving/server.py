"""The server: sessions, the model's thread and deadlines, behind an ASGI application.

The event loop never computes: it reads requests, hands steps to the model's thread, and answers what comes first, the
action or the deadline. A step that is late has been answered by the fallback; the model reads it all the same, with the
fallback as the action that was carried out. So what is remembered is that of all steps that were taken on, in order,
whatever came late.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.errors import ArgumentError, count_of, require
from holdfast.models.action.domain import Continuous, Discrete, Domain
from holdfast.serving.engine import Engine, Job, Outcome
from holdfast.serving.fallback import Fallback
from holdfast.serving.metrics import Metrics
from holdfast.serving.protocol import (
    Answer,
    Refusal,
    StepRequest,
    check_fields,
    finite_number,
    invalid,
    read_json,
    read_step,
)
from holdfast.serving.sessions import Session, Sessions
from holdfast.serving.stepper import Step, Stepper

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

BYTES = 4096
"""Of a request at most, besides its observation."""

BYTES_A_NUMBER = 32
"""Of an observation, as a list."""

EVERY_S = 1.0
"""After so long sessions that were left alone are looked for, at the latest."""


@dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """How a server answers.

    Arguments:
        deadline_s: seconds from the arrival of a step to its answer, which is the fallback action where the model's is
            not there by then; `None`: the model's is waited for.
        fallback: that action.
        max_sessions: sessions at a time.
        ttl_s: seconds after which a session that nobody asks for anything is given up.
        token: that requests must bring as `Authorization: Bearer TOKEN`; empty: none.

    Errors:
        ArgumentError: a number that is not positive.
    """

    deadline_s: float | None = None
    fallback: Fallback = field(default_factory=Fallback)
    max_sessions: int = 64
    ttl_s: float = 60.0
    token: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        count_of("max_sessions", self.max_sessions, least=1)
        for name in ("deadline_s", "ttl_s"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise ArgumentError(name, "a positive number", value)


class Server:
    """Serves a stepper.

    Arguments:
        stepper: what decides.
        config: how to answer.
        clock: seconds that only go forward, by which sessions grow old.

    Errors:
        MissingExtraError: starlette or prometheus-client is not installed.
        ArgumentError: the fallback is no action of a domain.
    """

    def __init__(
        self, stepper: Stepper, config: ServerConfig | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        require("starlette", "serving")
        self.config = config or ServerConfig()
        self.config.fallback.check(stepper.domains.values())
        self.stepper = stepper
        self.metrics = Metrics(lambda: len(self.sessions))
        self.sessions = Sessions(self.config.max_sessions, self.config.ttl_s, clock, self.metrics.evicted.inc)
        self.engine = Engine(stepper, self.metrics.rows.observe)
        self._answers: dict[str, asyncio.Event] = {}
        numbers = max(int(np.prod(domain.observation.shape)) for domain in stepper.domains.values())
        self.most_bytes = BYTES + BYTES_A_NUMBER * numbers

    @property
    def app(self) -> Starlette:
        """The application."""
        from starlette.applications import Starlette
        from starlette.routing import Route

        return Starlette(
            routes=[
                Route("/health", self._health, methods=["GET"]),
                Route("/metrics", self._guarded(self._metrics), methods=["GET"]),
                Route("/v1/sessions", self._guarded(self._open), methods=["POST"]),
                Route("/v1/sessions/{session}", self._guarded(self._session), methods=["GET"]),
                Route("/v1/sessions/{session}", self._guarded(self._close), methods=["DELETE"]),
                Route("/v1/sessions/{session}/steps", self._guarded(self._step), methods=["POST"]),
            ],
            lifespan=lambda app: self.running(),
        )

    def open(self, domain: str | None, target_return: float | None) -> Session:
        """Begin a session.

        Arguments:
            domain: of the model; `None`: its only one.
            target_return: to reach in an episode; `None`: the domain's.

        Errors:
            Refusal: there is no such domain, no target, or no room.
        """
        domains = self.stepper.domains
        if domain is None and len(domains) == 1:
            domain = next(iter(domains))
        if domain is None or domain not in domains:
            raise invalid("domain", f"one of {', '.join(domains)}", "nothing" if domain is None else repr(domain)[:80])
        try:
            memory = self.stepper.begin(domain, target_return)
        except ArgumentError as error:
            raise invalid(error.argument, error.expected, error.got) from error
        session = self.sessions.open(domains[domain], memory)
        self.metrics.opened.inc()
        return session

    async def step(self, session: Session, request: StepRequest, arrived: float | None = None) -> Answer:
        """Take a step on, and answer it.

        Arguments:
            session: which.
            request: what came.
            arrived: when, by the clock of the event loop; `None`: now.

        Errors:
            Refusal: the step is not the next one, or the model could not read it; it is as if it had not come.
        """
        loop = asyncio.get_running_loop()
        arrived = loop.time() if arrived is None else arrived
        self.sessions.accept(session, request)
        outcome: asyncio.Future[Outcome] = loop.create_future()
        step = Step(
            domain=session.domain.name,
            memory=None,
            observation=request.observation,
            reward=request.reward,
            done=request.done,
            carried_out=session.carried_out,
        )

        def tell(told: Outcome) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(self._read, session, request.step, outcome, told)

        self.engine.submit(Job(lane=session.lane, step=step, tell=tell))
        deadline = None if self.config.deadline_s is None else arrived + self.config.deadline_s
        carried_out = None
        try:
            async with asyncio.timeout_at(deadline):
                action, error = await asyncio.shield(outcome)
        except TimeoutError:
            if outcome.done():  # both came at once
                action, error = outcome.result()
            else:
                last = None if session.last is None else session.last.action
                carried_out = self.config.fallback.action(session.domain, last)
                action, error = _in_units(session.domain, carried_out), None
                self.metrics.misses.inc()
        if error is not None:
            self.sessions.take_back(session)
            self._wake(session)
            raise Refusal("failed", f"step {request.step} cannot be read: {error}", expected=session.expected)
        assert isinstance(action, np.ndarray | np.integer | int)
        answer = Answer(
            step=request.step,
            action=action if isinstance(action, np.ndarray) else int(action),
            fallback=carried_out is not None,
        )
        self.sessions.answer(session, answer, carried_out)
        self._wake(session)
        self.metrics.steps.inc()
        self.metrics.seconds.observe(loop.time() - arrived)
        return answer

    def _read(self, session: Session, step: int, outcome: asyncio.Future[Outcome], told: Outcome) -> None:
        """The model is done with a step, in time or not."""
        session.behind -= 1
        if told[1] is not None:
            self.metrics.failures.inc()
            if step < session.expected - 1 or session.answered:  # it was answered, and cannot be taken back
                self.sessions.close(session)
        if not outcome.done():
            outcome.set_result(told)

    async def answered(self, session: Session) -> None:
        """Wait until all steps of a session that were taken on have been answered."""
        while not session.answered:
            await self._answers.setdefault(session.id, asyncio.Event()).wait()

    def _wake(self, session: Session) -> None:
        event = self._answers.pop(session.id, None)
        if event is not None:
            event.set()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Decide steps, and give sessions up, for as long as the block lasts; once."""

        async def look() -> None:
            while True:
                await asyncio.sleep(min(EVERY_S, self.config.ttl_s))
                self.sessions.evict()

        self.engine.start()
        looking = asyncio.create_task(look())
        try:
            yield
        finally:
            looking.cancel()
            await asyncio.get_running_loop().run_in_executor(None, self.engine.close)

    def _guarded(self, carry_out: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        """With the token checked, and refusals as answers."""

        from starlette.requests import ClientDisconnect
        from starlette.responses import Response as Plain

        async def guarded(request: Request) -> Response:
            try:
                given = request.headers.get("authorization", "")
                if self.config.token and not _same(given, f"Bearer {self.config.token}"):
                    raise Refusal("unauthorized", "a token is needed: Authorization: Bearer TOKEN")
                return await carry_out(request)
            except Refusal as refusal:
                self.metrics.refused(refusal.reason)
                return _json(refusal.document(), refusal.status)
            except ClientDisconnect:  # within its request
                return Plain(status_code=400)

        return guarded

    async def _health(self, request: Request) -> Response:
        alive = self.engine.alive
        return _json({"status": "ok" if alive else "the model's thread has ended"}, 200 if alive else 503)

    async def _metrics(self, request: Request) -> Response:
        from starlette.responses import Response

        return Response(self.metrics.text(), media_type=self.metrics.content_type)

    async def _open(self, request: Request) -> Response:
        document = read_json(await self._body(request) or b"{}")
        check_fields(document, ("domain", "target_return"))
        target, domain = document.get("target_return"), document.get("domain")
        if domain is not None and not isinstance(domain, str):
            raise invalid("domain", "a name", repr(domain)[:80])
        session = self.open(domain, None if target is None else finite_number("target_return", target))
        deadline = self.config.deadline_s
        answer = {
            "session": session.id,
            "domain": session.domain.name,
            "expected": session.expected,
            "deadline_ms": None if deadline is None else deadline * 1e3,
        }
        return _json(answer, 201)

    async def _session(self, request: Request) -> Response:
        session = self.sessions.get(request.path_params["session"])
        await self.answered(session)
        last = None if session.last is None else session.last.document()
        return _json({"session": session.id, "expected": session.expected, "last": last})

    async def _close(self, request: Request) -> Response:
        self.sessions.close(self.sessions.get(request.path_params["session"]))
        return _json({"closed": True})

    async def _step(self, request: Request) -> Response:
        arrived = asyncio.get_running_loop().time()
        body = await self._body(request)
        session = self.sessions.get(request.path_params["session"])
        step = read_step(read_json(body), session.domain.observation.shape)
        return _json((await self.step(session, step, arrived)).document())

    async def _body(self, request: Request) -> bytes:
        """The body, if it is JSON and not too large."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":  # which a web page of somebody else's cannot send
            raise Refusal("not json", f"content-type: expected application/json, got {kind[:80] or 'nothing'}")
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > self.most_bytes:
                raise Refusal("too large", f"body: expected at most {self.most_bytes} bytes")
        return body


def _same(given: str, wanted: str) -> bool:
    """Whether two secrets are equal, in a time that does not tell how much of them is."""
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), wanted.encode())


def _in_units(domain: Domain, action: np.ndarray) -> Any:
    """A fallback action as the model's own would be."""
    match domain.action:
        case Continuous():
            return action.astype(np.float32)
        case Discrete():
            return int(action[0])


def _json(document: dict[str, Any], status: int = 200) -> Response:
    from starlette.responses import Response

    return Response(json.dumps(document), status, media_type="application/json")
