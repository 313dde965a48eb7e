"""One event loop asks an endpoint: how much goes out together, when, through what, and until when."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from holdfast.errors import ArgumentError
from holdfast.llm import BudgetSpent, Endpoint, EndpointError
from holdfast.llm.address import Address
from holdfast.llm.completion import completion_of
from holdfast.llm.transport import proxy_of
from tests.llm.chat_server import KEY, ChatServer, Reply
from tests.llm.hostile_server import HostileServer, chat

pytest.importorskip("aiohttp")
pytest.importorskip("tenacity")


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def endpoint(server: ChatServer | HostileServer, **options) -> Endpoint:
    return Endpoint("stub", **{"base_url": server.base_url, "first_wait_s": 0.01, **options})


def question(number: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"1. {number}\n2. 20\n"}]


def test_results_come_as_they_are_ready_and_carry_their_numbers():
    def script(body):
        number = int(body["messages"][0]["content"].split()[1])
        return Reply(str(number), delay_s=0.3 if number == 0 else 0.0)

    async def ask(model):
        return [
            (number, completion.text)
            async for number, completion in model.each(lambda n: model.complete(question(n)), range(5))
        ]

    async def main():
        async with endpoint(server, concurrency=2).open() as model:
            return await ask(model)

    with ChatServer(script=script) as server:
        answers = asyncio.run(main())
    assert sorted(answers) == [(number, str(number)) for number in range(5)]
    assert answers[-1] == (0, "0"), "the slow one holds nobody up"


def test_no_more_requests_are_under_way_than_allowed_however_many_are_asked_for():
    async def main():
        async with endpoint(server, concurrency=3).open() as model:
            await asyncio.gather(*(model.complete(question(number)) for number in range(12)))

    with ChatServer(delay_s=0.02) as server:
        asyncio.run(main())
        assert server.at_once == 3
        assert server.requests == 12


def test_the_budget_is_exact_however_many_ask_at_once():
    with ChatServer() as server:
        model = endpoint(server, concurrency=16, max_requests=9)
        with ThreadPoolExecutor(3) as pool:
            callers = [pool.submit(model.complete_all, [question(1)] * 40) for _ in range(3)]
        assert {type(caller.exception()) for caller in callers} == {BudgetSpent}
        assert server.requests == model.usage.requests == 9


def test_items_are_taken_when_their_turn_comes():
    taken = []

    def items():
        for number in range(100):
            taken.append(number)
            yield number

    async def ask(model, number):
        if number == 5:
            raise ValueError("five")
        return await model.complete(question(number))

    with ChatServer() as server:
        answered = []

        def listen():
            for number, _ in endpoint(server, concurrency=2).each(ask, items()):
                answered.append(number)

        with pytest.raises(ValueError, match="five"):
            listen()
        assert len(taken) <= 7, "those before it, it, and one beside it"
        begun = [number for number in taken if number != 5][: server.requests]
        assert sorted(answered) == begun, "what was under way has come; what was only taken is given up"


def test_what_is_not_used_yet_counts_as_under_way():
    async def ask(model, number):
        return await model.complete(question(number))

    with ChatServer() as server:
        for used, _ in enumerate(endpoint(server, concurrency=3).each(ask, range(8))):
            time.sleep(0.02)
            assert server.requests <= used + 3
        assert server.requests == 8

    async def main():
        async with endpoint(server, concurrency=3).open() as model:
            used = 0
            async for _ in model.each(lambda number: model.complete(question(number)), range(8)):
                await asyncio.sleep(0.02)
                assert server.requests <= used + 3
                used += 1

    with ChatServer() as server:
        asyncio.run(main())
        assert server.requests == 8


def test_who_stops_listening_ends_the_rest():
    async def ask(model, number):
        return await model.complete(question(number))

    with ChatServer(delay_s=0.02) as server:
        results = endpoint(server, concurrency=2).each(ask, range(1000))
        next(results)
        results.close()
        asked = server.requests
        assert asked < 50
        assert endpoint(server).complete(question(1)).text == "[1, 2]", "the loop is free for others"
        assert server.requests <= asked + 3


def test_a_question_ends_with_its_deadline(monkeypatch):
    with ChatServer(script=lambda body: Reply(status=503, body=b"busy")) as server:
        model = endpoint(server, attempts=1000, first_wait_s=0.05, longest_wait_s=0.05, deadline_s=0.3)
        with pytest.raises(EndpointError, match="answered 503: busy"):
            model.complete(question(1))
        assert 1 < server.requests < 200
    asked = itertools.count()
    with ChatServer(script=lambda body: Reply(status=503, body=b"busy", delay_s=5.0 * (next(asked) > 0))) as server:
        model = endpoint(server, attempts=1000, first_wait_s=0.01, longest_wait_s=0.01, deadline_s=0.5)
        with pytest.raises(EndpointError, match="answered 503: busy"):
            model.complete(question(1))
        assert server.requests == 2, "the second is cut short, and says nothing"
    with ChatServer(delay_s=5.0) as server:
        with pytest.raises(EndpointError, match="not whole within"):
            endpoint(server, deadline_s=0.2, timeout_s=60.0).complete(question(1))
        assert server.requests == 1
    with pytest.raises(ArgumentError, match="deadline_s: expected more than 0"):
        Endpoint("stub", deadline_s=0)


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504, 529])
def test_what_passes(status):
    with ChatServer(script=[Reply(status=status, body=b"later")]) as server:
        assert endpoint(server).complete(question(1)).text == "[1, 2]"
        assert server.requests == 2


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 413, 422])
def test_what_does_not_pass_has_its_status(status):
    with ChatServer(script=[Reply(status=status, body=b"never")]) as server:
        with pytest.raises(EndpointError, match="never") as caught:
            endpoint(server).complete(question(1))
        assert (caught.value.status, server.requests) == (status, 1)


def test_another_protocol_has_a_path_and_a_reader():
    def answer(number, path, headers, body):
        return 200, json.dumps({"path": path, **body}).encode()

    async def ask(model, body):
        return await model.request(body, lambda answer: (answer["path"], answer["state"]), expected="a path")

    with HostileServer(answer) as server:
        model = endpoint(server, protocol="systemone", api_key_env=None, attempts=1)
        assert list(model.each(ask, [{"state": 7}])) == [(0, ("/v1/systemone", 7))]
        with pytest.raises(EndpointError, match=r"/systemone answered with something other than a path: \{\"path\""):
            list(model.each(ask, [{}]))
    with pytest.raises(ArgumentError, match="protocol: expected chat or systemone, got grpc"):
        Endpoint("m", protocol="grpc")


# Proxies.


def test_this_machine_is_asked_without_a_proxy(monkeypatch):
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with ChatServer() as server:
        assert endpoint(server).complete(question(1)).text == "[1, 2]"
    for host in ("localhost", "127.3.2.1", "[::1]", "me.localhost"):
        assert proxy_of(Address.of(f"http://{host}:8000/v1")) is None


def test_others_are_asked_through_the_proxy_of_the_environment(monkeypatch):
    for name in ("NO_PROXY", "no_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with HostileServer(lambda *_: (200, chat("through"))) as server:
        proxy = server.base_url.replace("http://", "http://me:hunter22@").removesuffix("/v1")
        monkeypatch.setenv("http_proxy", proxy)
        model = Endpoint("m", base_url="http://models.invalid/v1", api_key_env=None)
        assert model.complete([{"role": "user", "content": "?"}]).text == "through"
        assert server.paths == ["http://models.invalid/v1/chat/completions"]
        assert server.headers[0]["proxy-authorization"] == "Basic bWU6aHVudGVyMjI="
        monkeypatch.setenv("no_proxy", "models.invalid")
        assert proxy_of(Address.of("http://models.invalid/v1")) is None
    monkeypatch.setenv("all_proxy", "socks5://u:hunter22@there:1")
    with pytest.raises(ArgumentError, match="base_url: expected proxies in the environment that speak HTTP") as caught:
        Endpoint("m", base_url="https://others.invalid/v1", api_key_env=None).complete([])
    assert "hunter22" not in str(caught.value)


# What an answer says of its tokens.


def test_log_probabilities_are_read_as_they_are():
    top = [{"token": "A", "logprob": -0.5}, {"token": " B", "logprob": -2}, {"token": "C", "logprob": None}, "odd"]
    choice = {
        "message": {"content": "A"},
        "finish_reason": "length",
        "logprobs": {"content": [{"token": "A", "logprob": -0.5, "top_logprobs": top}, {"token": "!"}, None]},
    }
    answer = completion_of({"choices": [choice], "model": "m-1", "system_fingerprint": "fp"})
    assert (answer.model, answer.fingerprint, answer.finish_reason, answer.cut_off) == ("m-1", "fp", "length", True)
    first, second = answer.logprobs
    assert (first.token, first.logprob, first.top[:2]) == ("A", -0.5, (("A", -0.5), (" B", -2.0)))
    assert first.top[2][0] == "C"
    assert first.top[2][1] != first.top[2][1], "no number"
    assert (second.token, second.top) == ("!", ())


@pytest.mark.parametrize("logprobs", [None, {}, {"content": None}, [], {"content": {}}, {"content": []}])
def test_answers_without_log_probabilities_have_none(logprobs):
    choice = {"message": {"content": "A"}, "logprobs": logprobs}
    answer = completion_of({"choices": [choice], "model": None})
    assert answer.logprobs == ()
    assert (answer.model, answer.fingerprint, answer.finish_reason) == ("", "", "")


def test_who_has_no_turn_within_the_deadline_does_not_wait_for_it():
    """At one request in ten seconds the second has no turn within one: it ends at once, and nothing is sent."""
    with ChatServer() as server:
        model = endpoint(server, requests_per_minute=6, deadline_s=1.0, concurrency=1)
        assert model.complete(question(1)).text == "[1, 2]"
        with pytest.raises(EndpointError, match=r"no turn to ask .* within deadline_s of 1 s"):
            model.complete(question(2))
        assert (server.requests, model.usage.requests) == (1, 1)
