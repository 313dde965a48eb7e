"""An endpoint that dribbles, echoes keys, bills for nonsense and refuses: limits hold, and secrets stay."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
import time
from types import SimpleNamespace

import pytest

from holdfast.errors import ArgumentError
from holdfast.llm import AnswerFile, BudgetSpent, Endpoint, EndpointError
from holdfast.llm.address import Address, Secrets
from holdfast.llm.background import background_loop
from holdfast.llm.completion import tokens_of, words_of
from tests.llm.hostile_server import HostileServer, chat

pytest.importorskip("aiohttp")
pytest.importorskip("tenacity")

ASK = [{"role": "user", "content": "?"}]
SECRET = "sk-very/secret+key"


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("MY_KEY", SECRET)


def endpoint(base_url: str, **options) -> Endpoint:
    return Endpoint("m", **{"base_url": base_url, "api_key_env": None, "attempts": 1, "first_wait_s": 0.01, **options})


# Time.


def test_the_limit_is_for_the_whole_of_a_request():
    with HostileServer(lambda *_: (200, chat("late")), pause_s=0.05) as server:
        started = time.monotonic()
        with pytest.raises(EndpointError, match=r"not whole within 0\.3 s"):
            endpoint(server.base_url, timeout_s=0.3).complete(ASK)
        assert time.monotonic() - started < 0.05 * len(chat("late")), "it did not wait for the end"


def interrupted_at(seconds: float, work) -> float:
    """Run `work` in this thread, interrupt it as Ctrl-C does, and say how long it went on."""
    sent: list[float] = []

    def interrupt():
        sent.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    timer = threading.Timer(seconds, interrupt)
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            work()
        return time.monotonic() - sent[0]
    finally:
        timer.cancel()


def test_an_interrupt_ends_requests_under_way():
    stop = threading.Event()

    def never(*_):
        stop.wait(30)
        return 200, chat("late")

    with HostileServer(never) as server:
        model = endpoint(server.base_url, timeout_s=60)
        assert interrupted_at(0.2, lambda: model.complete_all([ASK] * 4)) < 15, "not as long as the server takes"
        client = SimpleNamespace(chat=SimpleNamespace(completions=SimpleNamespace(create=lambda **_: stop.wait(30))))
        assert interrupted_at(0.2, lambda: Endpoint("m", client=client).complete(ASK)) < 15
        stop.set()


def test_what_is_under_way_when_another_request_fails_is_finished(tmp_path):
    file = AnswerFile(tmp_path / "a.jsonl")

    def answer(number, path, headers, body):
        if body["messages"][0]["content"] == "bad":
            time.sleep(0.05)
            return 400, b'{"error": {"message": "no"}}'
        time.sleep(0.2)
        return 200, chat("good")

    def talk(line, word):
        file.append({"key": word, "answer": line.complete([{"role": "user", "content": word}]).text})

    with HostileServer(answer) as server, pytest.raises(EndpointError, match="answered 400: no"):
        endpoint(server.base_url, concurrency=4).map(talk, ["bad", "one", "two", "three"])
    assert file.read() == {"one": "good", "two": "good", "three": "good"}


# Secrets.


def test_no_secret_is_in_errors_and_logs(caplog):
    caplog.set_level(logging.DEBUG)

    def echo(number, path, headers, body):
        return 400, f"you sent {path} with {headers}".encode()

    with HostileServer(echo) as server:
        address = server.base_url.replace("http://", "http://user:pass%2Fword@")
        for options in (
            {"api_key_env": "MY_KEY"},
            {"headers": {"X-Api-Key": SECRET}},
            {"headers": {"Authorization": f"Bearer {SECRET}"}},
            {"base_url": f"{server.base_url}?code={SECRET.replace('+', '%2B')}&api-version=7"},
            {"base_url": address},
        ):
            model = endpoint(**{"base_url": server.base_url, **options})
            with pytest.raises(EndpointError, match="answered 400: you sent") as caught:
                model.complete(ASK)
            shown = f"{caught.value} {model!r} {model.url} {caplog.text}"
            for secret in (SECRET, "sk-very", "pass/word", "pass%2Fword", "dXNlcjpwYXNz"):
                assert secret not in shown, options
        assert "api-version=7" in endpoint(f"{server.base_url}?api-version=7&sig=abcdef").url


@pytest.mark.parametrize("address", ["ftp://user:hunter22@host", "http://user:hunter22@ho st/v1", "user:hunter22@host"])
def test_an_address_that_cannot_be_used_does_not_show_its_password(address):
    with pytest.raises(ArgumentError, match="base_url") as caught:
        endpoint(address)
    assert "hunter22" not in str(caught.value).replace("user:hunter22@host", "") or "//" not in address


def test_a_header_that_cannot_be_sent_is_named_and_not_shown():
    for value in (f"{SECRET}\n", "schlüssel-geheim", 5):
        with pytest.raises(ArgumentError, match=r"headers: .* another value of X-Key") as caught:
            endpoint("http://h/v1", headers={"X-Key": value})
        assert str(value).strip() not in str(caught.value)
    with pytest.raises(ArgumentError, match="names of headers"):
        endpoint("http://h/v1", headers={"X Key": "v"})


def test_secrets_are_hidden_in_every_form():
    secrets = Secrets([SECRET, "abc"])
    for form in (SECRET, SECRET.upper(), "sk-very%2Fsecret%2Bkey"):
        assert secrets.hide(f"a {form} b") == "a *** b"
    assert secrets.hide("abc") == "abc", "what is that short is a part of other words"


# Addresses, headers, clients.


@pytest.mark.parametrize(
    ("tail", "path"),
    [
        ("", "/v1/chat/completions"),
        ("/", "/v1/chat/completions"),
        ("?api-version=2024-06-01", "/v1/chat/completions?api-version=2024-06-01"),
        ("/chat/completions?a=b%20c", "/v1/chat/completions?a=b%20c"),
        ("#part", "/v1/chat/completions"),
    ],
)
def test_addresses(tail, path):
    with HostileServer(lambda *_: (200, chat("yes"))) as server:
        assert endpoint(server.base_url + tail, headers={"X-Team": "blue"}).complete(ASK).text == "yes"
        assert server.paths == [path]
        assert server.headers[0]["x-team"] == "blue"
        assert "authorization" not in server.headers[0]


def test_user_and_password_are_sent_as_such():
    assert Address.of("https://user:p%40ss@host/v1").authorization == "Basic dXNlcjpwQHNz"
    with pytest.raises(ArgumentError, match="headers: expected no authorization beside api_key_env"):
        endpoint("https://host/v1", headers={"authorization": "Bearer x"}, api_key_env="MY_KEY")
    with pytest.raises(ArgumentError, match="no user and password beside another key"):
        endpoint("https://user:pass@host/v1", api_key_env="MY_KEY")


class Refused(Exception):
    status_code = 429
    response = SimpleNamespace(headers={"Retry-After": "0"}, text='{"error": {"message": "slow down"}}')


def client(create) -> SimpleNamespace:
    return SimpleNamespace(
        chat=SimpleNamespace(completions=SimpleNamespace(create=create)), base_url="http://h:1/v1/", api_key=SECRET
    )


def test_a_client_object_takes_the_place_of_http():
    asked = []

    def create(**body):
        asked.append(body)
        if len(asked) == 1:
            raise Refused("slow")
        message = SimpleNamespace(content="yes", refusal=None)
        usage = SimpleNamespace(prompt_tokens=3, completion_tokens=2)
        return SimpleNamespace(choices=[SimpleNamespace(message=message, finish_reason="stop")], usage=usage)

    model = Endpoint("m", client=client(create), attempts=2, first_wait_s=0.01, price=(1.0, 1.0))
    assert model.complete(ASK).text == "yes"
    assert asked[1] == {"model": "m", "messages": ASK, "temperature": 0.0}
    assert (model.usage.requests, model.usage.retries, model.usage.prompt_tokens) == (2, 1, 3)
    assert model.url == "http://h:1/v1/chat/completions"


def test_an_asynchronous_client_does_too():
    async def create(**body):
        await asyncio.sleep(0)
        return {"choices": [{"message": {"content": body["messages"][0]["content"]}}]}

    model = Endpoint("m", client=client(create))
    assert [completion.text for completion in model.complete_all([ASK] * 3)] == ["?"] * 3
    assert background_loop().is_running()


def test_what_a_client_raises_is_told_without_its_key():
    def create(**body):
        raise TypeError(f"no argument {SECRET}")

    with pytest.raises(EndpointError, match=r"no answer from .*: TypeError: no argument \*\*\*"):
        Endpoint("m", client=client(create)).complete(ASK)


@pytest.mark.parametrize("options", [{"base_url": "http://h/v1"}, {"headers": {"A": "b"}}, {"api_key_env": "MY_KEY"}])
def test_what_does_not_go_with_a_client_is_refused(options):
    with pytest.raises(ArgumentError, match=f"^{next(iter(options))}: expected none beside a client"):
        Endpoint("m", client=client(print), **options)
    with pytest.raises(ArgumentError, match=r"client: expected an object with chat\.completions\.create"):
        Endpoint("m", client=object())


# Words and bills.


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (
            400,
            b'{"error": {"message": "context too long", "code": "context_length"}}',
            "context too long (context_length)",
        ),
        (403, b'{"message": "not in your country"}', "not in your country"),
        (404, b"<html>nothing here</html>", "<html>nothing here</html>"),
        (200, b'{"error": {"message": "upstream is down"}}', "upstream is down"),
        (200, b'[{"error": {"message": "quota"}}]', "quota"),
        (422, b'{"detail": [{"loc": ["body", "n"], "msg": "odd"}, {"msg": "no"}]}', "answered 422: body.n: odd; no"),
        (404, b'{"detail": "Not Found"}', "answered 404: Not Found"),
        (400, b'{"detail": []}', '{"detail": []}'),
        (200, b"[" * 100_000, "[[[["),
    ],
)
def test_a_refusal_is_in_the_words_of_the_provider(status, body, words):
    with HostileServer(lambda *_: (status, body)) as server, pytest.raises(EndpointError) as caught:
        endpoint(server.base_url).complete(ASK)
    assert words in str(caught.value)
    assert words_of("x" * 1000).endswith("...")


def test_a_filter_and_a_refusal_are_told():
    replies = [chat("", finish_reason="content_filter"), chat(None, refusal="I will not.")]
    with HostileServer(lambda number, *_: (200, replies[number])) as server:
        model = endpoint(server.base_url)
        assert model.complete(ASK).refusal == "the provider's filter stopped the answer"
        assert model.complete(ASK).refusal == "I will not."


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ({"prompt_tokens": 3, "completion_tokens": 2}, (3, 2)),
        ({"input_tokens": 3, "output_tokens": 2}, (3, 2)),
        ({"prompt_tokens": 3, "total_tokens": 5}, (3, 2)),
        ({"total_tokens": 5}, (0, 5)),
        ({"prompt_tokens": 2.5, "completion_tokens": None}, (3, 0)),
        ({"prompt_tokens": float("inf")}, None),
        ({"prompt_tokens": -1, "completion_tokens": "2"}, None),
        ({}, None),
        (None, None),
        ([1], None),
    ],
)
def test_tokens_are_counted_as_they_are_billed(usage, tokens):
    assert tokens_of({"usage": usage}) == tokens


def test_what_is_malformed_is_billed_all_the_same():
    body = b'{"choices": [], "usage": {"prompt_tokens": 1000000, "completion_tokens": 0}}'
    with HostileServer(lambda *_: (200, body)) as server:
        model = endpoint(server.base_url, attempts=5, max_cost=1.5, price=(1.0, 1.0))
        with pytest.raises(BudgetSpent, match=r"max_cost: 1\.5 are allowed, 2 are spent"):
            model.complete(ASK)
        assert server.requests == 2
        assert model.usage.prompt_tokens == 2 * 10**6


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("concurrency", "8"),
        ("timeout_s", float("nan")),
        ("timeout_s", None),
        ("max_cost", "1"),
        ("price", (1.0,)),
        ("price", (1.0, float("inf"))),
        ("temperature", "hot"),
        ("extra", {"x": {1}}),
        ("headers", [1]),
        ("requests_per_minute", True),
    ],
)
def test_what_cannot_be_used_is_named(name, value):
    with pytest.raises(ArgumentError, match=f"^{name}: "):
        endpoint("http://h/v1", **{name: value})
