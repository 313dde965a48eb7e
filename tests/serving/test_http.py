"""The server behind a real address, and the client that a control loop uses."""

from __future__ import annotations

import http.client
import json
import pickle
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("prometheus_client")

from holdfast.errors import ArgumentError
from holdfast.rl.stepping import Policy, PolicyConfig
from holdfast.serving import Client, OutOfOrder, ServerError, UnknownSession, Unreachable
from holdfast.serving.run import check_token, listening, serving
from holdfast.serving.server import Server, ServerConfig
from holdfast.serving.stepper import PolicyStepper
from tests.models.action.tiny import ARM, BACKBONES, model
from tests.serving.recorder import ARM as SHORT_ARM
from tests.serving.recorder import UNREADABLE, Recorder, chosen

TOKEN = "a-token-of-some-length"


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def server(recorder: Recorder) -> Server:
    return Server(recorder)


@pytest.fixture
def address(server: Server, recorder: Recorder) -> Iterator[str]:
    with serving(server) as address:
        yield address
        recorder.gate.set()


def only(server: Server) -> Any:
    """The one session."""
    (session,) = server.sessions.by_id.values()
    return session


def ask(address: str, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    """Ask by hand."""
    connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=60)
    content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    given = {"Content-Type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, content, given)
    with connection.getresponse() as response:
        status, text = response.status, response.read()
    connection.close()
    return status, json.loads(text) if text[:1] in (b"{", b"[") else text.decode()


class Faulty:
    """A connection that breaks where it is told to.

    Arguments:
        whole: the connection.
        faults: of the requests to come: `before`: nothing arrives; `after`: the answer is lost; empty: none.
    """

    def __init__(self, whole: Any, *faults: str) -> None:
        self.whole, self.faults = whole, list(faults)
        self.sent: list[str] = []

    def request(self, method: str, *rest: Any) -> None:
        self.fault = self.faults.pop(0) if self.faults else ""
        if self.fault == "before":
            raise ConnectionResetError("broken")
        self.sent.append(method)
        self.whole.request(method, *rest)

    def getresponse(self) -> Any:
        if self.fault == "after":
            self.whole.getresponse().read()
            raise http.client.RemoteDisconnected("broken")
        return self.whole.getresponse()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.whole, name)


def test_a_loop_gets_the_actions_of_its_policy() -> None:
    whole, rng = model(BACKBONES["xlstm"]), np.random.default_rng(0)
    alone = Policy(whole, PolicyConfig(domain="arm", slots=1, autoreset="same_step", target_return=-3.0))
    with (
        serving(Server(PolicyStepper(whole))) as address,
        Client(address, domain="arm", target_return=-3.0) as client,
        Client(address, domain="game") as other,
    ):
        reward, done = None, False
        for number in range(20):
            seen = rng.standard_normal(5)
            answer = client.act(seen, reward, done)
            expected = alone.act(seen[None], None if reward is None else np.array([reward]), np.array([done]))[0]
            assert (answer.step, answer.fallback, answer.recovered) == (number, False, False)
            assert isinstance(answer.action, np.ndarray)
            assert answer.action.dtype == np.float32
            assert np.array_equal(answer.action, expected)
            reward, done = None if number % 5 == 2 else float(rng.standard_normal()), number % 7 == 6
        action = other.act(rng.integers(0, 256, (1, 16, 16), np.uint8)).action
        assert isinstance(action, int)
        assert 0 <= action < 5
        assert client.domain == ARM.name


def test_a_nan_is_refused_by_name_and_leaves_no_trace(address: str, server: Server) -> None:
    with Client(address) as client:
        client.act([0.0, 1.0])
        memory = only(server).lane.memory
        for seen, reward, message in (
            ([0.0, np.nan], 0.0, r"observation\[1\]: expected a finite number, got nan"),
            ([1e39, 0.0], 0.0, r"observation\[0\]: expected a finite number, got inf"),
            ([0.0, 0.0], np.inf, "reward: expected a finite number, got inf"),
            ([0.0], 0.0, "observation: expected 8 bytes"),
        ):
            with pytest.raises(ServerError, match=message) as refused:
                client.act(seen, reward)
            assert refused.value.status == 422
        with pytest.raises(ServerError, match="step 1 cannot be read: unlucky") as refused:
            client.act([UNREADABLE, 0.0], 0.0)
        assert (refused.value.status, client.step) == (500, 1)
        assert only(server).lane.memory is memory
        assert client.act([0.0, 1.0], 0.0).step == 1


def test_two_clients_of_one_session(address: str, server: Server) -> None:
    first, second = Client(address), Client(address)
    second.session = first.session
    first.act([0.0, 0.0])
    memory = only_of(server, first).lane.memory
    with pytest.raises(OutOfOrder, match="step 0 was taken on already: expected step 1") as refused:
        second.act([1.0, 1.0])
    assert refused.value.document["expected"] == 1
    assert only_of(server, first).lane.memory is memory
    assert first.act([0.0, 0.0], 0.0).step == 1
    first.close()
    with pytest.raises(UnknownSession):
        second.act([1.0, 1.0])
    second.close()


def only_of(server: Server, client: Client) -> Any:
    return server.sessions.by_id[client.session]


@pytest.mark.parametrize(
    ("faults", "sent", "recovered"),
    [
        (("before",), ["GET", "POST"], False),
        (("after",), ["POST", "GET"], True),
        (("after", "before", "after"), ["POST", "GET", "GET"], True),
        (("before", "", "after"), ["GET", "POST", "GET"], True),
        (("before", "before", "", "before"), ["GET", "GET", "POST"], False),
    ],
)
def test_a_connection_that_breaks_takes_no_step_twice(
    address: str, server: Server, faults: tuple[str, ...], sent: list[str], recovered: bool
) -> None:
    with Client(address) as client:
        client.act([0.0, 0.0])
        whole = client._connection
        client._connection = faulty = Faulty(whole, *faults)  # type: ignore[assignment]
        answer = client.act([0.0, 1.0], 0.5)
        assert (answer.step, answer.recovered, faulty.sent) == (1, recovered, sent)
        session = only(server)
        assert [record[0] for record in session.lane.memory[1:]] == [(0.0, 0.0), (0.0, 1.0)]
        assert np.array_equal(answer.action, chosen(SHORT_ARM, session.lane.memory))
        client._connection = whole
        assert client.act([0.0, 2.0], 0.5).step == 2


def test_a_step_without_an_answer_is_asked_about_and_no_other_is_taken(address: str, server: Server) -> None:
    with Client(address) as client:
        whole = client._connection
        client._connection = Faulty(whole, "after", *["before"] * 6)  # type: ignore[assignment]
        for _ in range(2):
            with pytest.raises(Unreachable, match="no answer from"):
                client.act([0.0, 1.0])
        client._connection = whole
        with pytest.raises(ArgumentError, match="expected step 0 as it was, since it has no answer yet"):
            client.act([0.0, 2.0])
        answer = client.act([0.0, 1.0])
        assert (answer.step, answer.recovered) == (0, True)
        assert len(only(server).lane.memory) == 2


def test_a_request_that_arrives_after_it_was_asked_about(address: str, server: Server) -> None:
    """It is refused the second time, and its answer is asked for."""
    with Client(address) as client:

        class Late(Faulty):
            def request(self, method: str, path: str, *rest: Any) -> None:
                if method == "POST" and self.sent == ["GET"]:  # the first arrives now
                    self.whole.request(method, path, *rest)
                    self.whole.getresponse().read()
                super().request(method, path, *rest)

        whole = client._connection
        client._connection = late = Late(whole, "before")  # type: ignore[assignment]
        answer = client.act([0.0, 1.0])
        assert (answer.recovered, late.sent) == (True, ["GET", "POST", "GET"])
        assert len(only(server).lane.memory) == 2
        client._connection = whole


def test_a_lost_answer_is_waited_for(address: str, server: Server, recorder: Recorder) -> None:
    """The step is still with the model when the client asks what became of it."""
    with Client(address) as client:
        recorder.gate.clear()
        whole = client._connection

        class Impatient(Faulty):
            def getresponse(self) -> Any:
                if self.sent == ["POST"]:
                    assert recorder.entered.acquire(timeout=60)
                    self.whole.close()
                    threading.Timer(0.05, recorder.gate.set).start()
                    raise TimeoutError
                return self.whole.getresponse()

        client._connection = impatient = Impatient(whole)  # type: ignore[assignment]
        answer = client.act([0.0, 1.0])
        assert (answer.recovered, impatient.sent) == (True, ["POST", "GET"])
        client._connection = whole
        assert len(only(server).lane.memory) == 2


def test_a_server_that_begins_anew_knows_no_session(recorder: Recorder) -> None:
    with serving(Server(recorder)) as address:
        client = Client(address)
        client.act([0.0, 0.0])
        port = int(address.rpartition(":")[2])
        client._connection.close()
    with pytest.raises(Unreachable):
        client.act([0.0, 1.0], 0.0)
    again = Recorder()
    with serving(Server(again), port=port):
        with pytest.raises(UnknownSession, match="unknown session: it was closed, given up, or the server began anew"):
            client.act([0.0, 1.0], 0.0)
        client.close()
    assert again.batches == []


def test_a_fallback_says_so(recorder: Recorder) -> None:
    with (
        serving(Server(recorder, ServerConfig(deadline_s=0.001))) as address,
        Client(address) as client,
    ):
        assert client.deadline_ms == 1.0
        recorder.gate.clear()
        answer = client.act([0.0, 0.0])
        recorder.gate.set()
        assert answer.fallback
        assert np.array_equal(answer.action, np.float32([0.0, 1.0]))
        status, text = ask(address, "GET", "/metrics")
        assert status == 200
        assert "holdfast_action_deadline_misses_total 1.0" in text


def test_a_token_is_asked_for(recorder: Recorder) -> None:
    with serving(Server(recorder, ServerConfig(token=TOKEN))) as address:
        for token in ("", "wrong", TOKEN[:-1], TOKEN + "x", "tökén"):
            with pytest.raises(ServerError, match="a token is needed") as refused:
                Client(address, token=token)
            assert refused.value.status == 401
            assert TOKEN not in str(refused.value.document)
        with Client(address, token=TOKEN) as client:
            client.act([0.0, 0.0])
            for path in ("/metrics", f"/v1/sessions/{client.session}"):
                assert ask(address, "GET", path)[0] == 401
        assert ask(address, "GET", "/health") == (200, {"status": "ok"})


def test_requests_that_are_none(address: str, server: Server) -> None:
    with Client(address) as client:
        steps = f"/v1/sessions/{client.session}/steps"
        large = json.dumps({"step": 0, "observation": [0.0] * 10_000}).encode()
        for method, path, body, headers, status, reason in (
            ("POST", steps, {"step": 0}, {"Content_Type": "text/plain"}, 415, "not json"),
            ("POST", steps, b"{", {}, 400, "malformed"),
            ("POST", steps, large, {}, 413, "too large"),
            ("POST", steps, {"step": 0, "observation": [0, 0], "action": 1}, {}, 422, "invalid"),
            ("POST", "/v1/sessions", {"target": 1}, {}, 422, "invalid"),
            ("POST", "/v1/sessions", {"domain": 3}, {}, 422, "invalid"),
            ("POST", "/v1/sessions", {"target_return": "1"}, {}, 422, "invalid"),
            ("POST", "/v1/sessions/none/steps", {"step": 0, "observation": [0, 0]}, {}, 404, "unknown session"),
            ("GET", "/v1/sessions/none", None, {}, 404, "unknown session"),
            ("DELETE", "/v1/sessions/none", None, {}, 404, "unknown session"),
        ):
            got, document = ask(address, method, path, body, **headers)
            assert (got, document["reason"]) == (status, reason)
        assert ask(address, "GET", steps)[0] == 405
        assert ask(address, "GET", "/")[0] == 404
        assert len(server.sessions) == 1
        metrics = ask(address, "GET", "/metrics")[1]
        assert 'holdfast_action_refusals_total{reason="invalid"} 4.0' in metrics
        assert client.act([0.0, 0.0]).step == 0


def test_closing_a_client_closes_its_session(address: str, server: Server) -> None:
    with Client(address) as client:
        assert client.session in server.sessions.by_id
    assert len(server.sessions) == 0
    client.close()


@pytest.mark.parametrize("address", ["", "localhost:80", "ftp://host", "http://", "http://host:port"])
def test_an_address_that_is_none(address: str) -> None:
    with pytest.raises(ArgumentError, match="address: expected http://HOST:PORT"):
        Client(address)


def test_nobody_is_there() -> None:
    with listening("127.0.0.1", 0) as (_, address):
        pass
    with pytest.raises(Unreachable, match="no answer from 127\\.0\\.0\\.1: ConnectionRefusedError"):
        Client(address)


def test_addresses_that_need_a_token_or_cannot_be_used() -> None:
    for host in ("127.0.0.1", "127.1.2.3", "::1", "localhost"):
        assert check_token(host, "", "X") == ""
    for host in ("0.0.0.0", "::", "192.168.0.7", "robot.example"):
        assert check_token(host, TOKEN, "X") == TOKEN
        with pytest.raises(ArgumentError, match=f"host: expected 127.0.0.1 or localhost .*, got {host}, and no X"):
            check_token(host, "", "X")
    for token in ("short", "with space" * 3, "ümlaut" * 4):
        with pytest.raises(ArgumentError, match="X: expected at least 16 ASCII characters") as refused:
            check_token("127.0.0.1", token, "X")
        assert token not in str(refused.value)
    with (
        listening("127.0.0.1", 0) as (listener, _),
        pytest.raises(ArgumentError, match="port: expected one that is free"),
        listening("127.0.0.1", listener.getsockname()[1]),
    ):
        pass
    with pytest.raises(ArgumentError, match="port: expected a number up to 65535"), listening("127.0.0.1", 70000):
        pass


def test_errors_survive_the_way_between_processes() -> None:
    error = OutOfOrder(409, {"error": "late", "expected": 3})
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.status, again.document) == (OutOfOrder, "late", 409, error.document)
