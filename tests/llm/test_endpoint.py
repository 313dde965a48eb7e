"""An endpoint, over a real socket: what passes is tried again, the key stays hidden, the budget is kept."""

from __future__ import annotations

import asyncio
import pickle
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate

import pytest

from holdfast.errors import ArgumentError, MissingExtraError
from holdfast.llm import AnswerFile, BudgetSpent, Completion, Endpoint, EndpointError, Line, Message
from holdfast.llm.pace import TokenBucket
from holdfast.llm.retries import retry_after
from tests.llm.chat_server import KEY, ChatServer, Reply

pytest.importorskip("aiohttp")
pytest.importorskip("tenacity")


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def endpoint(server: ChatServer, **options) -> Endpoint:
    return Endpoint("stub", **{"base_url": server.base_url, "first_wait_s": 0.01, **options})


def question(xs: list[int]) -> list[Message]:
    items = "\n".join(f"{number}. {x}" for number, x in enumerate(xs, 1))
    return [{"role": "user", "content": f"Sort these.\n\nItems:\n{items}\n\nAnswer with numbers."}]


def ask(model: Endpoint, *lists: list[int]) -> list[str]:
    """The texts of the answers."""
    return [completion.text for completion in model.complete_all([question(xs) for xs in lists])]


def keeping(file: AnswerFile):
    """Asks one question and keeps the answer."""

    def talk(line: Line, xs: list[int]) -> None:
        file.append({"key": str(xs), "answer": line.complete(question(xs)).text})

    return talk


# Requests.


def test_a_completion_is_all_that_the_server_says():
    with ChatServer() as server:
        model = endpoint(server, temperature=None, extra={"top_p": 0.5})
        found = model.complete(question([2, 1]), max_tokens=1, logprobs=True)
        assert found == Completion("[2, 1]", False, found.choice, model="stub")
        assert found.choice["message"] == {"role": "assistant", "content": "[2, 1]"}
        assert (model.usage.requests, model.usage.answers) == (1, 1)
    [body] = server.bodies
    assert body == model.body(question([2, 1]), max_tokens=1, logprobs=True)
    assert {name: body[name] for name in body if name not in ("model", "messages")} == {
        "top_p": 0.5,
        "max_tokens": 1,
        "logprobs": True,
    }


def test_many_short_questions_go_out_together_in_their_order():
    with ChatServer(delay_s=0.02) as server:
        model = endpoint(server, concurrency=6)
        assert ask(model, *([n, 20] for n in range(40))) == ["[1, 2]"] * 21 + ["[2, 1]"] * 19
        assert 2 <= server.at_once <= 6
        assert model.usage.answers == model.usage.requests == 40
        assert ask(model) == []


def test_an_answer_that_was_cut_off_says_so():
    with ChatServer(script=[Reply("[1, 2", finish_reason="length")]) as server:
        assert endpoint(server).complete(question([1, 2, 3])).cut_off


def test_requests_are_spread_over_the_minute(monkeypatch):
    waits = _waits(monkeypatch)
    with ChatServer() as server:
        model = endpoint(server, requests_per_minute=120)
        model.pace = TokenBucket(120, clock=lambda: 100.0)
        ask(model, [2, 1], [3, 1], [4, 1])
    assert sorted(waits) == [0.5, 1.0]


def test_tokens_that_nobody_took_are_kept_up_to_the_capacity():
    now = [0.0]
    bucket = TokenBucket(60, capacity=3, clock=lambda: now[0])
    assert [bucket.take() for _ in range(5)] == [0, 0, 0, 1, 2]
    now[0] = 100.0
    assert [bucket.take() for _ in range(5)] == [0, 0, 0, 1, 2]
    assert [TokenBucket(None).take() for _ in range(3)] == [0, 0, 0]


# Failures of the endpoint.


@pytest.mark.parametrize(
    "failure",
    [
        Reply(status=429, body=b"slow down"),
        Reply(status=500, body=b""),
        Reply(status=503, body=b"overloaded"),
        Reply(status=408, body=b"late"),
        Reply(body=b""),
        Reply(body=b'{"choices": [{"mess'),
        Reply(body=b'{"choices": []}'),
        Reply(body=b'{"error": "overloaded"}'),
        Reply(body=b"[]"),
        Reply(content=[{"type": "text"}, "odd"]),
    ],
)
def test_what_may_pass_is_tried_again(failure):
    with ChatServer(script=[failure, failure]) as server:
        model = endpoint(server)
        assert ask(model, [2, 1]) == ["[2, 1]"]
        assert server.requests == 3
        assert (model.usage.requests, model.usage.retries, model.usage.repairs) == (3, 2, 0)


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (400, "no such model"),
        (403, "not you"),
        (404, "nothing here"),
        (307, "elsewhere"),
        (429, '{"error": {"code": "insufficient_quota"}}'),
    ],
)
def test_what_will_not_pass_is_an_error_at_once(status, text):
    with ChatServer(script=[Reply(status=status, body=text.encode())]) as server:
        with pytest.raises(EndpointError, match=rf"/v1/chat/completions answered {status}: ") as caught:
            ask(endpoint(server), [2, 1])
        assert text in str(caught.value)
        assert server.requests == 1


def test_attempts_end():
    with ChatServer(script=lambda body: Reply(status=503, body=b"overloaded")) as server:
        with pytest.raises(EndpointError, match="answered 503: overloaded"):
            ask(endpoint(server, attempts=3), [2, 1])
        assert server.requests == 3


def test_waits_grow_at_random(monkeypatch):
    with ChatServer(script=[Reply(status=500, body=b"no")] * 4) as server:
        waits = _waits(monkeypatch)
        ask(endpoint(server, first_wait_s=1.0, longest_wait_s=3.0), [2, 1])
    assert len(waits) == 4
    assert len(set(waits)) == 4
    assert all(0 <= wait <= bound for wait, bound in zip(waits, (1, 2, 3, 3), strict=True))


def test_the_server_says_how_long_to_wait(monkeypatch):
    date = formatdate(time.time() + 30, usegmt=True)
    told = [{"Retry-After": "7"}, {"Retry-After": date}, {"Retry-After": "soon"}, {"Retry-After": "-3"}]
    with ChatServer(script=[Reply(status=429, body=b"wait", headers=headers) for headers in told]) as server:
        waits = _waits(monkeypatch)
        ask(endpoint(server, first_wait_s=0.5), [2, 1])
    number, date, none, past = waits
    assert 7 <= number <= 7.5
    assert 27 <= date <= 30.5
    assert 0 <= none <= 2
    assert 0 <= past <= 0.5


@pytest.mark.parametrize(
    ("date", "until", "seconds"),
    [
        ("Sun, 06 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:40 GMT", 3),
        ("Sun, 06 Nov 1994 08:49:37 GMT", "Sun Nov  6 08:49:40 1994", 3),
        ("Fri, 06 Nov 2093 08:49:37 GMT", "Fri, 06 Nov 2093 08:49:30 GMT", 0),
        ("Sun, 06 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:40 -0000", 3),
        ("not a date", "Sun, 06 Nov 1994 08:49:40 GMT", 0),
    ],
)
def test_a_date_to_wait_for_is_one_of_the_servers_clock(date, until, seconds):
    """Its clock may be years from that of this machine, and the old form of dates names no zone."""
    assert retry_after({"date": date, "retry-after": until}) == seconds


def test_a_server_that_asks_for_a_long_wait_is_taken_to_be_closed():
    with ChatServer(script=[Reply(status=429, body=b"tomorrow", headers={"Retry-After": "86400"})]) as server:
        with pytest.raises(EndpointError, match="429: tomorrow"):
            ask(endpoint(server), [2, 1])
        assert server.requests == 1


def _waits(monkeypatch) -> list[float]:
    """The waits that are asked for from now on, each of which takes no time."""
    waits: list[float] = []

    async def no_time(event: asyncio.Event, seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr("holdfast.llm.async_endpoint.event_within", no_time)
    return waits


def test_a_late_answer_is_tried_again():
    with ChatServer(script=[Reply("[2, 1]", delay_s=0.5)]) as server:
        model = endpoint(server, timeout_s=0.2)
        assert ask(model, [2, 1]) == ["[2, 1]"]
        assert model.usage.retries == 1


def test_nobody_there():
    with ChatServer() as server:
        url = server.base_url
    with pytest.raises(
        EndpointError, match=r"no answer from http://127\.0\.0\.1:\d+/v1/chat/completions: ClientConnectorError"
    ):
        ask(Endpoint("stub", base_url=url, attempts=2, first_wait_s=0.01), [2, 1])


def test_one_failure_for_good_ends_the_others(tmp_path):
    def script(body):
        if "1. 13\n" in body["messages"][0]["content"]:
            return Reply(status=400, body=b"unlucky", delay_s=0.05)
        return Reply("[2, 1]", delay_s=0.02)

    with ChatServer(script=script) as server:
        model = endpoint(server, concurrency=2)
        file = AnswerFile(tmp_path / "answers.jsonl")
        with pytest.raises(EndpointError, match="unlucky"):
            model.map(keeping(file), [[number, 0] for number in range(1, 100)])
        assert server.requests < 40, "what had not gone out stays in"
        assert server.requests - 2 <= len(file.read()) <= server.requests - 1, "what was answered is kept"


@pytest.mark.parametrize("doomed", [1, 3])
def test_a_failure_cuts_the_waits_of_others_short(doomed):
    def script(body):
        if f"1. {doomed}\n" in body["messages"][0]["content"]:
            return Reply(status=400, body=b"no", delay_s=0.1)
        return Reply(status=429, body=b"wait", headers={"Retry-After": "50"})

    with ChatServer(script=script) as server:
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(ask, endpoint(server), [1, 0], [2, 0], [3, 0])
            assert "400" in str(asked.exception(timeout=30))
        assert server.requests == 3


# The key.


def test_the_key_goes_to_the_server_and_nowhere_else(monkeypatch, capsys):
    with ChatServer() as server:
        model = endpoint(server)
        [shown] = model.map(lambda line, xs: f"{line.complete(question(xs))} {line}", [[2, 1]])
        assert KEY not in shown + repr(model) + str(vars(model))
        wrong = "sk-someone-else"
        monkeypatch.setenv("OTHER_KEY", wrong)
        with pytest.raises(EndpointError, match=r"answered 401: .*Incorrect API key provided: Bearer \*\*\*") as caught:
            ask(endpoint(server, api_key_env="OTHER_KEY"), [2, 1])
        assert wrong not in str(caught.value)
    assert KEY not in "".join(capsys.readouterr())


def test_a_key_that_is_not_set_is_named(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    with ChatServer() as server:
        with pytest.raises(ArgumentError, match=r"api_key_env: .* got OPENAI_API_KEY, which is not set"):
            ask(endpoint(server), [2, 1])
        with pytest.raises(EndpointError, match="401"):
            ask(endpoint(server, api_key_env=None), [2, 1])


def test_a_key_that_no_header_can_hold_is_not_shown(monkeypatch):
    with ChatServer() as server:
        for secret in ("sk-two\nlines", "sk-two words", "sk-schlüssel"):
            monkeypatch.setenv("OPENAI_API_KEY", secret)
            with pytest.raises(ArgumentError, match="OPENAI_API_KEY, which holds spaces or odd characters") as caught:
                ask(endpoint(server), [2, 1])
            assert secret not in str(caught.value)
        assert server.statuses == []


def test_a_key_at_the_end_of_a_long_refusal_is_not_shown_in_part():
    text = "x" * 290 + KEY
    with ChatServer(script=[Reply(status=400, body=text.encode())]) as server:
        with pytest.raises(EndpointError) as caught:
            ask(endpoint(server), [2, 1])
        assert KEY[:4] not in str(caught.value)


# Counting and budgets.


def test_tokens_and_their_price_are_counted():
    with ChatServer() as server:
        model = endpoint(server, price=(2.0, 8.0))
        ask(model, [3, 1, 2], [2, 1])
        usage = model.usage
        assert (usage.prompt_tokens, usage.completion_tokens) == (server.prompt_tokens, server.completion_tokens)
        assert usage.prompt_tokens > usage.completion_tokens > 0
        assert usage.cost == pytest.approx((2.0 * usage.prompt_tokens + 8.0 * usage.completion_tokens) / 1e6)
        assert endpoint(server).usage.cost is None


def test_requests_end_with_the_budget(tmp_path):
    with ChatServer() as server:
        model = endpoint(server, max_requests=3)
        file = AnswerFile(tmp_path / "answers.jsonl")
        with pytest.raises(BudgetSpent, match="max_requests: 3 are allowed, 3 are spent"):
            model.map(keeping(file), [[number, 0] for number in range(1, 9)])
        assert server.requests == 3
        assert len(file.read()) == 3


def test_attempts_count_against_the_budget():
    with ChatServer(script=[Reply(status=500, body=b"no")] * 9) as server:
        with pytest.raises(BudgetSpent):
            ask(endpoint(server, max_requests=2), [2, 1])
        assert server.requests == 2


def test_the_cost_ends_with_the_budget():
    with ChatServer() as server:
        model = endpoint(server, max_cost=0.01, price=(50.0, 100.0), concurrency=1)
        with pytest.raises(BudgetSpent, match=r"max_cost: 0\.01 are allowed"):
            ask(model, *([number, 0] for number in range(1, 99)))
        dearest = model.usage.cost / model.usage.requests * 1.5
        assert 0.01 <= model.usage.cost <= 0.01 + dearest


def test_a_cost_that_cannot_be_counted_is_not_run_up():
    with ChatServer(script=lambda body: Reply("[2, 1]", usage=False)) as server:
        assert ask(endpoint(server), [2, 1]) == ["[2, 1]"]
        with pytest.raises(EndpointError, match="reports no usage, so that max_cost cannot be kept"):
            ask(endpoint(server, max_cost=1.0, price=(1.0, 1.0)), [2, 1])


def test_errors_survive_a_process():
    for error in (BudgetSpent("max_cost", 0.5, 0.6), EndpointError("busy", True, 3.0)):
        again = pickle.loads(pickle.dumps(error))
        assert (str(again), vars(again)) == (str(error), vars(error))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"base_url": "localhost:8000"}, "base_url: expected an address that starts with http"),
        ({"concurrency": 0}, "concurrency: expected a whole number of at least 1, got 0"),
        ({"attempts": 0}, "attempts: expected a whole number of at least 1, got 0"),
        ({"timeout_s": 0}, "timeout_s: expected more than 0, got 0"),
        ({"requests_per_minute": 0}, "requests_per_minute: expected more than 0, got 0"),
        ({"max_cost": 1.0}, "price: expected a price, as there is a max_cost, got None"),
    ],
)
def test_bad_arguments_are_named(options, message):
    with pytest.raises(ArgumentError, match=message):
        Endpoint("stub", **{"base_url": "http://127.0.0.1:1/v1", **options})


@pytest.mark.parametrize("module", ["aiohttp", "tenacity"])
def test_the_extra_is_named_where_it_is_missing(module, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=rf"{module} is not installed: .*holdfast\[llm\]"):
        Endpoint("stub")


def test_the_transport_needs_nothing_heavy():
    code = "import sys, holdfast.llm; sys.exit(any(name in sys.modules for name in ('torch', 'numpy', 'aiohttp')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
