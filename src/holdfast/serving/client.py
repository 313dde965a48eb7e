"""A client for a control loop: one session, over one connection that is kept."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from holdfast.errors import ArgumentError, HoldfastError
from holdfast.serving.protocol import Answer, StepRequest

ATTEMPTS = 3
"""Times that an answer is asked for once the connection was lost."""


class ServerError(HoldfastError):
    """The server did not carry out what it was asked.

    Arguments:
        status: of HTTP.
        document: what it said.
    """

    def __init__(self, status: int, document: Mapping[str, Any]) -> None:
        self.status, self.document = status, dict(document)
        super().__init__(str(document.get("error", f"the server answered with status {status}")))

    def __reduce__(self) -> tuple[type[ServerError], tuple[int, dict[str, Any]]]:
        """Rebuild from the parts: an error must survive the way back from a worker process."""
        return type(self), (self.status, self.document)


class UnknownSession(ServerError):
    """The session is over: it was closed or given up, or the server began anew. What it remembered is lost."""


class OutOfOrder(ServerError):
    """Somebody else has stepped the session: `document["expected"]` is the step that comes next."""


class Unreachable(HoldfastError):
    """There is no answer from the server. Whether it has read the step is not known; `act` may be called again."""


class Client:
    """One session. It is for one thread of one process.

        with Client("http://127.0.0.1:8700") as policy:
            answer = policy.act(observation)
            while ...:
                observation, reward, done = environment(answer.action)
                answer = policy.act(observation, reward, done)

    Where the connection is lost within a step, the client asks what became of it before anything else: a step that the
    server has read is never sent again, its answer is asked for, and it says so (`Answer.recovered`).

    Arguments:
        address: of the server, such as `http://127.0.0.1:8700`.
        domain: of the model; `None`: its only one.
        target_return: to reach in an episode, in the environment's units; `None`: the domain's.
        token: where the server needs one.
        timeout_s: seconds without an answer after which the connection counts as lost.

    Errors:
        ArgumentError: no such address.
        Unreachable: there is no answer from it.
        ServerError: the server opens no session.
    """

    def __init__(
        self,
        address: str,
        *,
        domain: str | None = None,
        target_return: float | None = None,
        token: str = "",
        timeout_s: float = 10.0,
    ) -> None:
        parts = urlsplit(address)
        try:
            port = parts.port
        except ValueError:
            port = -1
        if parts.scheme not in ("http", "https") or not parts.hostname or port == -1:
            raise ArgumentError("address", "http://HOST:PORT", address)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(parts.hostname, port, timeout=timeout_s)
        self._headers = {"Content-Type": "application/json"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        asked = {"domain": domain, "target_return": target_return}
        try:
            given = {key: value for key, value in asked.items() if value is not None}
            opened = self._asked("POST", "/v1/sessions", given)
        except HoldfastError:
            self._connection.close()
            raise
        self.session: str = opened["session"]
        self.domain: str = opened["domain"]
        self.deadline_ms: float | None = opened["deadline_ms"]
        self.step = 0
        """Number of the next step."""
        self._uncertain: StepRequest | None = None

    def act(self, observation: Any, reward: float | None = None, done: bool = False) -> Answer:
        """The next action.

        Arguments:
            observation: numbers of the domain's shape; bytes of pictures as uint8.
            reward: that answered the last action; `None`: it is not known.
            done: whether the last action ended its episode, so that this observation begins the next one.

        Errors:
            Unreachable: there is no answer. Call again with the same arguments: the step is not taken twice.
            UnknownSession: the session is over.
            OutOfOrder: somebody else has stepped it.
            ServerError: the step is refused, and leaves no trace: the next one has the same number.
            ArgumentError: the step before has no answer yet, and this is another one.
        """
        seen = np.asarray(observation)
        if seen.dtype != np.uint8:
            with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused as such
                seen = seen.astype(np.float32)
        given = None if reward is None else float(reward)
        request = StepRequest(step=self.step, observation=seen, reward=given, done=bool(done))
        path, uncertain = f"/v1/sessions/{self.session}/steps", self._uncertain
        if uncertain is not None:
            if uncertain.document() != request.document():
                message = f"step {self.step} as it was, since it has no answer yet"
                raise ArgumentError("observation, reward and done", message, "others")
            answer = self._recovered(path, request)
        else:
            self._uncertain = request
            try:
                answer = Answer.of(self._asked("POST", path, request.document()))
            except ServerError:
                self._uncertain = None
                raise
            except Unreachable:
                answer = self._recovered(path, request)
        self._uncertain = None
        self.step += 1
        return answer

    def close(self) -> None:
        """End the session, and the connection. A server that does not answer gives it up by itself."""
        try:
            self._asked("DELETE", f"/v1/sessions/{self.session}", None)
        except (ServerError, Unreachable):
            pass
        finally:
            self._connection.close()

    def __enter__(self) -> Client:
        """The client."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    def _recovered(self, path: str, request: StepRequest) -> Answer:
        """The answer to a step that the server may have read or not."""
        for attempt in range(ATTEMPTS):
            try:
                status = self._asked("GET", f"/v1/sessions/{self.session}", None)
                expected, last = status["expected"], status["last"]
                if expected == request.step + 1 and last is not None:
                    return Answer.of(last, recovered=True)
                if expected != request.step:
                    message = f"step {request.step}: the session expects {expected}, somebody else has stepped it"
                    raise OutOfOrder(409, {"error": message, "reason": "out of order", "expected": expected})
                return Answer.of(self._asked("POST", path, request.document()))
            except Unreachable:
                if attempt == ATTEMPTS - 1:
                    raise
            except OutOfOrder as error:
                # The first request may have been read only now: if so, this one was refused and changed nothing.
                if attempt == ATTEMPTS - 1 or error.document.get("expected") != request.step + 1:
                    self._uncertain = None
                    raise
            except ServerError:
                self._uncertain = None
                raise
        raise AssertionError

    def _asked(self, method: str, path: str, document: Any) -> dict[str, Any]:
        """One request and its answer; it is sent once.

        Errors:
            Unreachable: there is no answer.
            ServerError: it is a refusal.
        """
        body = None if document is None else json.dumps(document).encode()
        try:
            self._connection.request(method, path, body, self._headers)
            with self._connection.getresponse() as response:
                status, content = response.status, response.read()
            answer = json.loads(content)
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._connection.close()
            raise Unreachable(f"no answer from {self._connection.host}: {type(error).__name__}: {error}") from error
        if not isinstance(answer, dict) or status >= 400:
            known = {"unknown session": UnknownSession, "out of order": OutOfOrder}
            told = answer if isinstance(answer, dict) else {}
            raise known.get(told.get("reason", ""), ServerError)(status, told)
        return answer
