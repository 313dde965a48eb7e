"""A chat model becomes a list function: through failures, malformed answers, kills and budgets, over a real socket."""

from __future__ import annotations

import itertools
import json
import math
import pickle
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from pathlib import Path

import pytest
from filelock import FileLock

from holdfast.errors import ArgumentError, MissingExtraError
from holdfast.lists.chat import AnswerFile, BudgetSpent, ChatFunction, EndpointError, Usage
from holdfast.lists.errors import BadAnswer
from holdfast.lists.extend.extrapolate import extrapolate
from holdfast.lists.oracle import Oracle
from tests.lists.chat_server import ALL_FAULTS, KEY, ChatServer, Reply

pytest.importorskip("httpx")
pytest.importorskip("tenacity")

SORT = "Sort these from smallest to largest."


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def function(server: ChatServer, instruction: str = SORT, **options) -> ChatFunction:
    return ChatFunction(instruction, **{"model": "stub", "base_url": server.base_url, "first_wait_s": 0.01, **options})


def said(server: ChatServer, request: int) -> str:
    """The last message of a request."""
    return server.bodies[request]["messages"][-1]["content"]


# The question.


def test_lists_are_sorted_and_the_items_themselves_come_back():
    with ChatServer() as server:
        items = [3, 1.5, 2, 10]
        [answer] = function(server)([items])
    assert answer == [1.5, 2, 3, 10]
    assert {id(item) for item in answer} == {id(item) for item in items}


def test_the_request_is_what_the_protocol_wants():
    with ChatServer() as server:
        function(server, extra={"max_tokens": 50})([["b", "a"]])
        function(server, temperature=None)([["b", "a"]])
    first, second = server.bodies
    assert first["model"] == "stub"
    assert (first["temperature"], first["max_tokens"]) == (0.0, 50)
    assert set(second) == {"model", "messages"}
    [message] = first["messages"]
    assert message["role"] == "user"
    assert message["content"].startswith(f'{SORT}\n\nItems:\n1. "b"\n2. "a"\n\n')


ODD = ["", " ", "a\nb", "2. trap", '"', "]", "\u2028", "\udc80", "ﷺ", "b", "b", None, True, (1, 2), {"k": "v"}, {3}]


def test_odd_items_survive():
    places = [*range(1, len(ODD), 2), *range(0, len(ODD), 2)]
    with ChatServer(script=[Reply(json.dumps([place + 1 for place in places]))]) as server:
        [answer] = function(server)([ODD])
        shown = said(server, 0).split("Items:\n")[1].split("\n\nAnswer")[0]
    assert answer == [ODD[place] for place in places]
    assert len(shown.split("\n")) == len(ODD), "one line for each item"


def test_items_are_described_in_words():
    with ChatServer() as server:
        cities = [{"name": "Rome", "north": 41.9}, {"name": "Oslo", "north": 59.9}]
        function(server, describe=lambda city: f"{city['name']} at {city['north']}°")([cities])
    assert '1. "Rome at 41.9°"\n2. "Oslo at 59.9°"' in said(server, 0)


def test_what_needs_no_model_is_not_asked():
    with ChatServer() as server:
        f = function(server)
        assert f([[], [7], ()]) == [[], [7], []]
        assert f([]) == []
        assert f.usage == Usage()
        assert server.requests == 0


def test_equal_lists_are_asked_once():
    with ChatServer() as server:
        f = function(server)
        assert f([[2, 1], [2, 1], [1, 2]]) == [[1, 2]] * 3
        assert server.requests == 2


def test_requests_go_out_together_and_no_more_than_allowed():
    with ChatServer(delay_s=0.05) as server:
        started = time.perf_counter()
        function(server, concurrency=6)([[n, 0] for n in range(1, 25)])
        assert 2 <= server.at_once <= 6
        assert time.perf_counter() - started < 24 * 0.05


def test_it_is_a_batched_function_for_the_oracle():
    with ChatServer() as server:
        oracle = Oracle(function(server), capacity=3, batched=True)
        assert oracle.ask([[3, 1, 2], [2, 1]]) == [[1, 2, 3], [1, 2]]
        assert (oracle.calls, oracle.queries) == (1, 2)


# The answer.


@pytest.mark.parametrize(
    "content",
    [
        "[3, 1, 2]",
        "```json\n[3,1,2]\n```",
        "```\n[3, 1, 2]\n```\n",
        "Sure! Here you go: [3, 1, 2]. Anything else?",
        '{"order": [3, 1, 2]}',
        '["3", "1", " 2 "]',
        "[3.0, 1.0, 2.0]",
        "The items [1, 2, 3] in the new order:\n[3, 1, 2]",
        "[3, 1, 2]\n\nNote that item [2] was hard.",
        "<think>Perhaps [1, 2, 3]? No.</think>[3, 1, 2]",
        "<think>[3, 1, 2]</think>\n[3, 1, 2]",
        "[a, b] I mean [3, 1, 2]",
        "[[ [3, 1, 2]",
        "[\n  3,\n  1,\n  2\n]",
        [{"type": "text", "text": "[3, 1"}, {"type": "text", "text": ", 2]"}],
    ],
)
def test_an_answer_is_found_in_what_is_around_it(content):
    with ChatServer(script=[Reply(content)]) as server:
        assert function(server, repairs=0)([["a", "b", "c"]]) == [["c", "a", "b"]]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "there is no JSON list in it"),
        (None, "there is no JSON list in it"),
        ("I cannot do that.", "there is no JSON list in it"),
        ("3, 1, 2", "there is no JSON list in it"),
        ("[3, 1", "there is no JSON list in it"),
        ("<think>[3, 1, 2]</think>", "there is no JSON list in it"),
        ("[3, 1]", "it leaves out 2"),
        ("[]", "it leaves out 1, 2, 3"),
        ("[3, 1, 2, 1]", "it repeats 1"),
        ("[3, 3, 1]", "it repeats 3 and it leaves out 2"),
        ("[0, 1, 2]", "0 is not one of the numbers 1 to 3"),
        ("[3, 1, 4]", "4 is not one of the numbers 1 to 3"),
        ("[-1, 1, 2]", "-1 is not one of the numbers 1 to 3"),
        ("[true, 2, 3]", "true is not one of the numbers"),
        ("[1.5, 2, 3]", "1.5 is not one of the numbers"),
        ("[NaN, 2, 3]", "NaN is not one of the numbers"),
        ("[[3, 1, 2]]", r"[3, 1, 2] is not one of the numbers"),
        ('["c", "a", "b"]', '"c" is not one of the numbers'),
    ],
)
def test_a_malformed_answer_is_sent_back_with_what_is_wrong(content, complaint):
    with ChatServer(script=[Reply(content), Reply("[3, 1, 2]")]) as server:
        f = function(server, repairs=1)
        assert f([["a", "b", "c"]]) == [["c", "a", "b"]]
        first, second, third = server.bodies[1]["messages"]
        assert first == server.bodies[0]["messages"][0]
        assert second == {"role": "assistant", "content": content or ""}
        assert third["role"] == "user"
        assert third["content"].startswith(f"That cannot be used: {complaint}.")
        assert "each exactly once" in third["content"]
        assert (f.usage.requests, f.usage.repairs, f.usage.retries, f.usage.answers) == (2, 1, 0, 1)


def test_an_answer_that_stays_malformed_is_an_error():
    with ChatServer(script=[Reply("[1]"), Reply("[1, 1]"), Reply("I give up")]) as server:
        with pytest.raises(BadAnswer, match="answered 'I give up' after 2 re-asks: there is no JSON list") as caught:
            function(server)([["x", "y"]])
        assert caught.value.query == ["x", "y"]
        assert server.requests == 3
        assert len(server.bodies[2]["messages"]) == 5


def test_a_list_that_is_not_answered_costs_the_others_nothing():
    def script(body):
        return Reply("no" if "1. 5\n" in body["messages"][0]["content"] else "[2, 1]")

    with ChatServer(script=script) as server:
        f = function(server, repairs=1)
        lists = [[number, 0] for number in range(1, 11)]
        for _ in range(2):
            with pytest.raises(BadAnswer) as caught:
                f(lists)
            assert caught.value.query == [5, 0]
        assert server.requests == 11, "one question was put again, and nothing was asked a second time"
        others = [xs for xs in lists if xs[0] != 5]
        assert f(others) == [xs[::-1] for xs in others]
        assert server.requests == 11


def test_an_answer_that_was_cut_off_says_so():
    cut_off = "cut off before its end: it ran out of completion tokens"
    with (
        ChatServer(script=[Reply("[1, 2", finish_reason="length")]) as server,
        pytest.raises(BadAnswer, match=cut_off),
    ):
        function(server, repairs=0)([[1, 2, 3]])


def test_items_may_be_dropped_and_repeated_where_the_answer_is_items():
    script = [Reply('["fig", "fig", 3, "3"]'), Reply('["plum"]'), Reply('["fig"]'), Reply("[]")]
    with ChatServer(script=script) as server:
        f = function(server, "Keep what you like.", answer="items")
        assert f([["fig", "pear", 3]]) == [["fig", "fig", 3, 3]]
        assert "JSON list of items, each written exactly as above" in said(server, 0)
        assert f([["fig"]]) == [["fig"]]
        assert said(server, 2).startswith('That cannot be used: "plum" is not one of the items.')
        assert f([["kiwi"]]) == [[]]


def test_items_that_look_the_same_are_refused_where_the_answer_is_items():
    with ChatServer() as server:
        f = function(server, answer="items", describe=lambda item: "same")
        with pytest.raises(ArgumentError, match='describe: expected different words for different items, got "same"'):
            f([[1, 2]])
        assert server.requests == 0


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
        f = function(server)
        assert f([[2, 1]]) == [[1, 2]]
        assert server.requests == 3
        assert (f.usage.requests, f.usage.retries, f.usage.repairs) == (3, 2, 0)


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
            function(server)([[2, 1]])
        assert text in str(caught.value)
        assert server.requests == 1


def test_attempts_end():
    with ChatServer(script=lambda body: Reply(status=503, body=b"overloaded")) as server:
        with pytest.raises(EndpointError, match="answered 503: overloaded"):
            function(server, attempts=3)([[2, 1]])
        assert server.requests == 3


def test_waits_grow_at_random(monkeypatch):
    with ChatServer(script=[Reply(status=500, body=b"no")] * 4) as server:
        waits = _waits(monkeypatch)
        function(server, first_wait_s=1.0, longest_wait_s=3.0)([[2, 1]])
    assert len(waits) == 4
    assert len(set(waits)) == 4
    assert all(0 <= wait <= bound for wait, bound in zip(waits, (1, 2, 3, 3), strict=True))


def test_the_server_says_how_long_to_wait(monkeypatch):
    date = formatdate(time.time() + 30, usegmt=True)
    told = [{"Retry-After": "7"}, {"Retry-After": date}, {"Retry-After": "soon"}, {"Retry-After": "-3"}]
    with ChatServer(script=[Reply(status=429, body=b"wait", headers=headers) for headers in told]) as server:
        waits = _waits(monkeypatch)
        function(server, first_wait_s=0.5)([[2, 1]])
    number, date, none, past = waits
    assert 7 <= number <= 7.5
    assert 27 <= date <= 30.5
    assert 0 <= none <= 2
    assert 0 <= past <= 0.5


def test_a_server_that_asks_for_a_long_wait_is_taken_to_be_closed():
    with ChatServer(script=[Reply(status=429, body=b"tomorrow", headers={"Retry-After": "86400"})]) as server:
        with pytest.raises(EndpointError, match="429: tomorrow"):
            function(server)([[2, 1]])
        assert server.requests == 1


def _waits(monkeypatch) -> list[float]:
    """The waits that are asked for from now on, each of which takes no time."""
    import tenacity

    waits: list[float] = []
    monkeypatch.setattr(tenacity, "sleep_using_event", lambda event: waits.append)
    return waits


def test_a_late_answer_is_tried_again():
    with ChatServer(script=[Reply("[2, 1]", delay_s=0.5)]) as server:
        f = function(server, timeout_s=0.2)
        assert f([[2, 1]]) == [[1, 2]]
        assert f.usage.retries == 1


def test_nobody_there():
    with ChatServer() as server:
        url = server.base_url
    with pytest.raises(
        EndpointError, match=r"no answer from http://127\.0\.0\.1:\d+/v1/chat/completions: ConnectError"
    ):
        ChatFunction(SORT, model="stub", base_url=url, attempts=2, first_wait_s=0.01)([[2, 1]])


def test_one_failure_for_good_ends_the_others(tmp_path):
    def script(body):
        if "1. 13\n" in body["messages"][0]["content"]:
            return Reply(status=400, body=b"unlucky", delay_s=0.05)
        return Reply("[2, 1]", delay_s=0.02)

    with ChatServer(script=script) as server:
        f = function(server, concurrency=2, cache=tmp_path / "answers.jsonl")
        with pytest.raises(EndpointError, match="unlucky"):
            f([[number, 0] for number in range(1, 100)])
        assert server.requests < 40, "what had not gone out stays in"
        kept = len(AnswerFile(tmp_path / "answers.jsonl").read())
        assert kept == f.usage.answers >= 10, "what was answered is kept"


@pytest.mark.parametrize("doomed", [1, 3])
def test_a_failure_cuts_the_waits_of_others_short(doomed):
    def script(body):
        if f"1. {doomed}\n" in body["messages"][0]["content"]:
            return Reply(status=400, body=b"no", delay_s=0.1)
        return Reply(status=429, body=b"wait", headers={"Retry-After": "50"})

    with ChatServer(script=script) as server:
        started = time.perf_counter()
        with pytest.raises(EndpointError, match="400"):
            function(server)([[1, 0], [2, 0], [3, 0]])
        assert time.perf_counter() - started < 10


def test_everything_at_once_goes_wrong_and_comes_right():
    draw = random.Random(5)
    lists = [draw.sample(range(1000), 12) for _ in range(80)]
    with ChatServer(seed=8, faults=ALL_FAULTS) as server:
        f = function(server)
        assert f(lists) == [sorted(xs) for xs in lists]
        assert {0, 200, 429, 500} <= set(server.statuses)
        assert f.usage.repairs >= 3
        assert f.usage.requests == server.requests == 80 + f.usage.retries + f.usage.repairs


def test_the_stub_is_the_same_for_a_seed_and_wrong_about_one_pair_in_a_hundred():
    servers = [ChatServer(seed=seed, wrong=0.01) for seed in (1, 1, 2)]
    pairs = list(itertools.combinations(range(150), 2))
    wrong = [{pair for pair in pairs if not server.before(*pair)} for server in servers]
    for server in servers:
        server._http.server_close()
    assert wrong[0] == wrong[1] != wrong[2]
    assert all(0.006 < len(which) / len(pairs) < 0.014 for which in wrong)
    assert servers[0].order(list(range(20))) == servers[1].order(list(range(20)))


# The key.


def test_the_key_goes_to_the_server_and_nowhere_else(tmp_path, monkeypatch, capsys):
    with ChatServer() as server:
        f = function(server, cache=tmp_path / "answers.jsonl")
        f([[2, 1]])
        assert KEY not in repr(f) + str(vars(f))
        assert KEY not in (tmp_path / "answers.jsonl").read_text()
        wrong = "sk-someone-else"
        monkeypatch.setenv("OTHER_KEY", wrong)
        with pytest.raises(EndpointError, match=r"answered 401: .*Incorrect API key provided: Bearer \*\*\*") as caught:
            function(server, api_key_env="OTHER_KEY")([[2, 1]])
        assert wrong not in str(caught.value)
    assert KEY not in "".join(capsys.readouterr())


def test_a_key_that_is_not_set_is_named(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    with ChatServer() as server:
        with pytest.raises(ArgumentError, match=r"api_key_env: .* got OPENAI_API_KEY, which is not set"):
            function(server)([[2, 1]])
        with pytest.raises(EndpointError, match="401"):
            function(server, api_key_env=None)([[2, 1]])


def test_a_key_that_no_header_can_hold_is_not_shown(monkeypatch):
    with ChatServer() as server:
        for secret in ("sk-two\nlines", "sk-two words", "sk-schlüssel"):
            monkeypatch.setenv("OPENAI_API_KEY", secret)
            with pytest.raises(ArgumentError, match="OPENAI_API_KEY, which holds spaces or odd characters") as caught:
                function(server)([[2, 1]])
            assert secret not in str(caught.value)
        assert server.statuses == []


def test_a_key_at_the_end_of_a_long_refusal_is_not_shown_in_part():
    text = "x" * 290 + KEY
    with ChatServer(script=[Reply(status=400, body=text.encode())]) as server:
        with pytest.raises(EndpointError) as caught:
            function(server)([[2, 1]])
        assert KEY[:4] not in str(caught.value)


# Counting and budgets.


def test_tokens_and_their_price_are_counted():
    with ChatServer() as server:
        f = function(server, price=(2.0, 8.0))
        f([[3, 1, 2], [2, 1]])
        usage = f.usage
        assert (usage.prompt_tokens, usage.completion_tokens) == (server.prompt_tokens, server.completion_tokens)
        assert usage.prompt_tokens > usage.completion_tokens > 0
        assert usage.cost == pytest.approx((2.0 * usage.prompt_tokens + 8.0 * usage.completion_tokens) / 1e6)
        assert function(server).usage.cost is None


def test_requests_end_with_the_budget(tmp_path):
    with ChatServer() as server:
        f = function(server, max_requests=3, cache=tmp_path / "answers.jsonl")
        with pytest.raises(BudgetSpent, match="max_requests: 3 are allowed, 3 are spent"):
            f([[number, 0] for number in range(1, 9)])
        assert server.requests == 3
        assert len(AnswerFile(tmp_path / "answers.jsonl").read()) == 3


def test_attempts_count_against_the_budget():
    with ChatServer(script=[Reply(status=500, body=b"no")] * 9) as server:
        with pytest.raises(BudgetSpent):
            function(server, max_requests=2)([[2, 1]])
        assert server.requests == 2


def test_the_cost_ends_with_the_budget():
    with ChatServer() as server:
        f = function(server, max_cost=0.01, price=(50.0, 100.0), concurrency=1)
        with pytest.raises(BudgetSpent, match=r"max_cost: 0\.01 are allowed"):
            f([[number, 0] for number in range(1, 99)])
        dearest = f.usage.cost / f.usage.requests * 1.5
        assert 0.01 <= f.usage.cost <= 0.01 + dearest


def test_a_cost_that_cannot_be_counted_is_not_run_up():
    with ChatServer(script=lambda body: Reply("[2, 1]", usage=False)) as server:
        assert function(server)([[2, 1]]) == [[1, 2]]
        with pytest.raises(EndpointError, match="reports no usage, so that max_cost cannot be kept"):
            function(server, max_cost=1.0, price=(1.0, 1.0))([[2, 1]])


def test_errors_survive_a_process():
    for error in (BudgetSpent("max_cost", 0.5, 0.6), EndpointError("busy", True, 3.0)):
        again = pickle.loads(pickle.dumps(error))
        assert (str(again), vars(again)) == (str(error), vars(error))


# The cache.


def test_answers_outlive_the_program(tmp_path):
    path = tmp_path / "folder" / "answers.jsonl"
    with ChatServer() as server:
        assert function(server, cache=path)([["b", "a"], ["c", "b"]]) == [["a", "b"], ["b", "c"]]
        f = function(server, cache=path)
        assert f([["c", "b"], ["b", "a"], ["c", "a"]]) == [["b", "c"], ["a", "b"], ["a", "c"]]
        assert server.requests == 3
        assert (f.usage.cached, f.usage.answers) == (2, 1)
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert {"key", "model", "instruction", "items", "answer"} == set(records[0])


@pytest.mark.parametrize(
    "other", [{"model": "other"}, {"instruction": "Sort them."}, {"temperature": 1.0}, {"answer": "items"}]
)
def test_another_question_has_an_answer_of_its_own(other, tmp_path):
    with ChatServer(script=lambda body: Reply("[2, 1]")) as server:
        function(server, cache=tmp_path / "answers.jsonl")([[2, 1]])
        function(server, cache=tmp_path / "answers.jsonl", **other)([[2, 1]])
        assert server.requests == 2


def test_another_server_and_another_pace_do_not_make_another_question(tmp_path):
    for _ in range(2):
        with ChatServer() as server:
            assert function(server, cache=tmp_path / "answers.jsonl", concurrency=1, repairs=0)([[2, 1]]) == [[1, 2]]
    assert server.requests == 0


@pytest.mark.parametrize("damage", [b'{"key": "half', b"\x00\xff\xfe", b"[1]\n", b"null\n", b'{"key": "x"}\n', b"\n\n"])
def test_a_damaged_line_costs_that_line(damage, tmp_path):
    path = tmp_path / "answers.jsonl"
    file = AnswerFile(path)
    file.append({"key": "a", "answer": [1]})
    with path.open("ab") as raw:
        raw.write(damage)
    AnswerFile(path).append({"key": "b", "answer": [2]})
    assert AnswerFile(path).read() == file.read() == {"a": [1], "b": [2]}


def test_a_line_that_is_still_being_written_is_read_once_it_is_whole(tmp_path):
    path = tmp_path / "answers.jsonl"
    line = json.dumps({"key": "a", "answer": [1]}).encode()
    file = AnswerFile(path)
    path.write_bytes(line[:9])
    assert file.read() == {}
    path.write_bytes(line + b"\n")
    assert file.read() == {"a": [1]}


def test_a_writer_waits_while_another_program_writes(tmp_path):
    path = tmp_path / "answers.jsonl"
    with ThreadPoolExecutor() as pool:
        with FileLock(f"{path}.lock"):
            writing = pool.submit(AnswerFile(path).append, {"key": "a", "answer": [1]})
            time.sleep(0.2)
            assert not path.exists()
        writing.result(timeout=10)
    assert AnswerFile(path).read() == {"a": [1]}


def test_an_answer_in_the_file_that_fits_no_more_is_asked_anew(tmp_path):
    path = tmp_path / "answers.jsonl"
    with ChatServer() as server:
        function(server, cache=path)([[2, 1]])
        for wrong in ([0, 0], [0], ["1", "0"], None, [True, False]):
            path.write_text(json.dumps({**json.loads(path.read_text().splitlines()[0]), "answer": wrong}) + "\n")
            assert function(server, cache=path)([[2, 1]]) == [[1, 2]]
        assert server.requests == 6


def test_what_another_program_wrote_meanwhile_is_not_asked(tmp_path):
    with ChatServer() as server:
        one, other = (function(server, cache=tmp_path / "answers.jsonl") for _ in range(2))
        one([[2, 1]])
        other([[3, 1]])
        assert one([[3, 1]]) == other([[3, 1]]) == [[1, 3]]
        assert server.requests == 2


WRITER = """
import sys
from holdfast.lists.chat import AnswerFile
file = AnswerFile(sys.argv[1])
for number in range(int(sys.argv[3])):
    file.append({"key": f"{sys.argv[2]}-{number}", "answer": [number], "items": "x" * 3000})
    print(number, flush=True)
"""


def test_programs_that_write_together_lose_nothing(tmp_path):
    path = tmp_path / "answers.jsonl"
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(name), "60"], stdout=subprocess.DEVNULL)
        for name in range(3)
    ]
    assert [writer.wait(timeout=60) for writer in writers] == [0, 0, 0]
    assert len(path.read_bytes().splitlines()) == 180
    assert len(AnswerFile(path).read()) == 180


def test_a_kill_at_any_instant_loses_nothing_that_was_written(tmp_path):
    path = tmp_path / "answers.jsonl"
    draw = random.Random(11)
    promised = set()
    for name in range(4):
        command = [sys.executable, "-c", WRITER, str(path), str(name), "100000"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            for _ in range(draw.randrange(3, 20)):
                promised.add(f"{name}-{int(writer.stdout.readline())}")
            time.sleep(draw.random() * 0.02)
            writer.send_signal(signal.SIGKILL)
            promised |= {f"{name}-{int(line)}" for line in writer.stdout if line.endswith("\n")}
    kept = AnswerFile(path).read()
    assert promised <= kept.keys()
    assert all(kept[key] == [int(key.split("-")[1])] for key in kept)


RUN = """
import random, sys
from holdfast.lists.chat import ChatFunction
f = ChatFunction(sys.argv[3], model="stub", base_url=sys.argv[1], cache=sys.argv[2], first_wait_s=0.01, concurrency=4)
draw = random.Random(3)
for level in range(6):
    lists = [draw.sample(range(1000), 8) for _ in range(12)]
    assert f(lists) == [sorted(xs) for xs in lists]
print(f.usage.answers, f.usage.cached)
"""


@pytest.mark.parametrize("after", [1, 17, 40])
def test_a_run_that_was_killed_goes_on_where_it_was(after, tmp_path):
    path = tmp_path / "answers.jsonl"
    with ChatServer(delay_s=0.01) as server:
        command = [sys.executable, "-c", RUN, server.base_url, str(path), SORT]
        with subprocess.Popen(command) as run:
            while server.requests < after:
                assert run.poll() is None
                time.sleep(0.002)
            run.send_signal(signal.SIGKILL)
        time.sleep(0.3)
        asked, kept = server.requests, len(AnswerFile(path).read())
        assert asked - 4 <= kept <= asked < 72, "what was under way is lost, and nothing else"
        again = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        assert again.stdout.split() == [str(72 - kept), str(kept)]
        assert server.requests - asked == 72 - kept


# A window model sorts a long list.

LONG = """
import json, random, sys
from holdfast.lists import ChatFunction, extrapolate

url, cache, instruction, seed = sys.argv[1:]
values = random.Random(int(seed)).sample(range(100000), 200)
f = ChatFunction(instruction, model="stub", base_url=url, cache=cache, first_wait_s=0.01, price=(1.0, 4.0))
long = extrapolate(f, 20, mode="distinct", engine="blocks", on_inconsistent="repair", batched=True)
found = long.explain(values)
print(json.dumps({"order": found.output, "queries": found.queries, "calls": long.oracle.calls,
                  "longest": found.longest, "requests": f.usage.requests, "answers": f.usage.answers,
                  "cached": f.usage.cached}))
"""

BOUND = 2 * 200 / 20 * math.log2(200 / 20) + 200 / 20


def sort_long_list(server: ChatServer, cache: Path, seed: int) -> subprocess.Popen:
    command = [
        sys.executable,
        "-c",
        LONG,
        server.base_url,
        str(cache),
        "Sort these numbers, smallest first.",
        str(seed),
    ]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def kendall_error(order: list[int]) -> float:
    return sum(x > y for x, y in itertools.combinations(order, 2)) / math.comb(len(order), 2)


@pytest.mark.parametrize(("seed", "faults"), [(1, None), (2, ALL_FAULTS)])
def test_a_window_model_that_errs_sorts_a_long_list(seed, faults, tmp_path):
    with (
        ChatServer(seed=seed, wrong=0.01, faults=faults) as server,
        sort_long_list(server, tmp_path / "a", seed) as run,
    ):
        found = json.loads(run.communicate(timeout=100)[0])
    assert len(set(found["order"])) == 200
    assert 0 < kendall_error(found["order"]) <= 0.005
    assert found["queries"] <= 1.3 * BOUND
    assert found["longest"] <= 20
    assert found["calls"] <= 40, "a level of merges goes out together"
    assert found["requests"] <= (1.3 if faults is None else 1.8) * BOUND


def test_a_long_sort_that_was_killed_asks_only_for_what_is_missing(tmp_path):
    path = tmp_path / "answers.jsonl"
    with ChatServer(seed=3, wrong=0.01, delay_s=0.02) as server:
        with sort_long_list(server, path, 3) as run:
            while server.requests < 35:
                assert run.poll() is None
                time.sleep(0.002)
            run.send_signal(signal.SIGKILL)
        time.sleep(0.3)
        asked, kept = server.requests, len(AnswerFile(path).read())
        with sort_long_list(server, path, 3) as run:
            found = json.loads(run.communicate(timeout=100)[0])
        with sort_long_list(server, tmp_path / "other", 3) as run:
            whole = json.loads(run.communicate(timeout=100)[0])
    assert found["order"] == whole["order"]
    assert found["queries"] == whole["queries"] == kept + found["answers"]
    assert asked - 8 <= kept == found["cached"]
    assert found["requests"] == found["answers"] == whole["answers"] - kept


# Arguments.


def test_a_refused_key_and_a_spent_budget_end_the_extension(monkeypatch):
    """They are no answers that a vote could mend, and are asked for once."""
    with ChatServer() as server:
        monkeypatch.setenv("OPENAI_API_KEY", "sk-wrong")
        f = ChatFunction(SORT, model="stub", base_url=server.base_url, first_wait_s=0.01)
        with pytest.raises(EndpointError, match="401"):
            extrapolate(f, 4, mode="distinct", votes=2, batched=True)(list(range(20)))
        assert server.requests <= f.concurrency
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        f = ChatFunction(SORT, model="stub", base_url=server.base_url, max_requests=3)
        with pytest.raises(BudgetSpent):
            extrapolate(f, 4, mode="distinct", on_inconsistent="repair", batched=True)(list(range(20)))
        assert f.usage.requests == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"answer": "numbers"}, "answer: expected 'order' or 'items', got numbers"),
        ({"base_url": "localhost:8000"}, "base_url: expected an address that starts with http"),
        ({"concurrency": 0}, "concurrency: expected at least 1, got 0"),
        ({"attempts": 0}, "attempts: expected at least 1, got 0"),
        ({"repairs": -1}, "repairs: expected at least 0, got -1"),
        ({"timeout_s": 0}, "timeout_s: expected more than 0, got 0"),
        ({"max_cost": 1.0}, "price: expected a price, as there is a max_cost, got None"),
    ],
)
def test_bad_arguments_are_named(options, message):
    with pytest.raises(ArgumentError, match=message):
        ChatFunction(SORT, **{"model": "stub", "base_url": "http://127.0.0.1:1/v1", **options})


@pytest.mark.parametrize("lists", [[3, 1, 2], "text", [[1, 2], 3]])
def test_a_single_list_is_refused(lists):
    f = ChatFunction(SORT, model="stub", base_url="http://127.0.0.1:1/v1")
    with pytest.raises(ArgumentError, match="lists: expected a list of lists"):
        f(lists)


@pytest.mark.parametrize("module", ["httpx", "tenacity"])
def test_the_extra_is_named_where_it_is_missing(module, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=rf"{module} is not installed: .*holdfast\[llm\]"):
        ChatFunction(SORT, model="stub")
