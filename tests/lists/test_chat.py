"""A chat model becomes a list function: through failures, malformed answers, kills and budgets, over a real socket."""

from __future__ import annotations

import itertools
import json
import math
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from holdfast.errors import ArgumentError
from holdfast.lists import BadAnswer, ChatFunction, Extension, Oracle, extrapolate
from holdfast.lists.chat_answer import read_answer
from holdfast.llm import AnswerFile, BudgetSpent, Endpoint, EndpointError, Usage
from tests.llm.chat_server import ALL_FAULTS, KEY, ChatServer, Reply
from tests.llm.hostile_server import HostileServer, chat

pytest.importorskip("aiohttp")
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
        function(server, concurrency=6)([[n, 0] for n in range(1, 25)])
        assert 2 <= server.at_once <= 6


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
        "[[3, 1, 2]]",
        "[3, 1, 2,]",
        "[3] > [1] > [2]",
        "The ranking is [3] → [1] → [2].",
        "[**3**, `1`, #2]",
        "[3,\n 1, // the second\n 2]",
        "[3，1、2]",
        "~~[1, 2, 3]~~ [3, 1, 2]",
        "[1, 2, 3] was the input. **Final answer:** [3, 1, 2]",
        "[3, 1, 2]\n\nTo repeat: [3, 1, 2].",
        "I looked at [2, 1] first.\n[3, 1, 2]",
        "Perhaps [1, 2, 3]? No.</think>[3, 1, 2]",
        "<think>Perhaps <think>[1, 2, 3]</think></think>[3, 1, 2]",
        "[THINK]Perhaps [1, 2, 3][/THINK][3, 1, 2]",
        "<|channel|>analysis<|message|>[1, 2, 3]<|end|><|channel|>final<|message|>[3, 1, 2]<|return|>",
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
        ("<think>Perhaps [3, 1, 2]; but", "there is no JSON list in it"),
        ("Perhaps [3, 1, 2].</think> I cannot.", "there is no JSON list in it"),
        ("<|channel|>analysis<|message|>[3, 1, 2]", "there is no JSON list in it"),
        ("[3, 1, 2]\nThe items were [1, 2, 3].", "it holds several lists that differ"),
        ("[1, 2, 3]. Better: [3, 1, 2]", "it holds several lists that differ"),
        ("[[3, 1, 2], [1, 2, 3]]", "it holds several lists that differ"),
        ("Final answer: [3, 1, 2]. Or [1, 2, 3]?", "it holds several lists that differ"),
        ("[3] > [1] > [2], or [1] > [3] > [2]", "it holds several lists that differ"),
        ("[3, 1, 2]. Wait, 1 and 2 are the wrong way round.", "words that follow the list may take it back"),
        ("[3, 1, 2]. Correct that to [3, 2]", "another list follows the answer, and cannot be used"),
        ("[3, 1, 2], no: [3, 2", "another list follows the answer, and has no end"),
        ("[3] > [1]", "it leaves out 2"),
        ("[3,, 1, 2]", '"" is not one of the numbers'),
        ("[3, 1, 2 apples]", '"2 apples" is not one of the numbers'),
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


def test_everything_at_once_goes_wrong_and_comes_right():
    draw = random.Random(5)
    lists = [draw.sample(range(1000), 12) for _ in range(80)]
    with ChatServer(seed=8, faults=ALL_FAULTS) as server:
        f = function(server)
        assert f(lists) == [sorted(xs) for xs in lists]
        assert {0, 200, 429, 500} <= set(server.statuses)
        assert f.usage.repairs >= 3
        assert f.usage.requests == server.requests == 80 + f.usage.retries + f.usage.repairs


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
    assert {"key", "server", "model", "instruction", "items", "answer"} == set(records[0])


@pytest.mark.parametrize(
    "other", [{"model": "other"}, {"instruction": "Sort them."}, {"temperature": 1.0}, {"answer": "items"}]
)
def test_another_question_has_an_answer_of_its_own(other, tmp_path):
    with ChatServer(script=lambda body: Reply("[2, 1]")) as server:
        function(server, cache=tmp_path / "answers.jsonl")([[2, 1]])
        function(server, cache=tmp_path / "answers.jsonl", **other)([[2, 1]])
        assert server.requests == 2


def test_each_server_has_answers_of_its_own(tmp_path):
    with ChatServer() as server, ChatServer(script=lambda body: Reply("[1, 2]")) as other:
        for _ in range(2):
            assert function(server, cache=tmp_path / "answers.jsonl")([[2, 1]]) == [[1, 2]]
            assert function(other, cache=tmp_path / "answers.jsonl")([[2, 1]]) == [[2, 1]]
        assert (server.requests, other.requests) == (1, 1)


def test_another_pace_does_not_make_another_question(tmp_path):
    with ChatServer() as server:
        for concurrency in (1, 4):
            f = function(server, cache=tmp_path / "answers.jsonl", concurrency=concurrency, repairs=concurrency)
            assert f([[2, 1]]) == [[1, 2]]
        assert server.requests == 1


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


RUN = """
import random, sys
from holdfast.lists import ChatFunction

def sort_all(f):
    draw = random.Random(3)
    for level in range(6):
        lists = [draw.sample(range(1000), 8) for _ in range(12)]
        assert f(lists) == [sorted(xs) for xs in lists]

if __name__ == "__main__":
    options = {"model": "stub", "base_url": sys.argv[1], "cache": sys.argv[2]}
    sort_all(ChatFunction(sys.argv[3], first_wait_s=0.01, concurrency=4, **options))
"""


@pytest.mark.parametrize("after", [1, 40])
def test_a_run_that_was_killed_goes_on_where_it_was(after, tmp_path):
    path = tmp_path / "answers.jsonl"
    with ChatServer(delay_s=0.01) as server:
        with subprocess.Popen([sys.executable, "-c", RUN, server.base_url, str(path), SORT]) as run:
            while server.requests < after:
                assert run.poll() is None
                time.sleep(0.002)
            run.send_signal(signal.SIGKILL)
        time.sleep(0.3)
        asked, kept = server.requests, len(AnswerFile(path).read())
        assert asked - 4 <= kept <= asked < 72, "what was under way is lost, and nothing else"
        names: dict = {"__name__": "again"}
        exec(RUN, names)
        again = function(server, cache=path, concurrency=4)
        names["sort_all"](again)
        assert (again.usage.answers, again.usage.cached) == (72 - kept, kept)
        assert server.requests - asked == 72 - kept


# A window model sorts a long list.

NUMBERS = "Sort these numbers, smallest first."
BOUND = 2 * 200 / 20 * math.log2(200 / 20) + 200 / 20


def sort_long_list(server: ChatServer, cache: Path | None, seed: int) -> tuple[Extension, ChatFunction, Oracle]:
    values = random.Random(seed).sample(range(100000), 200)
    f = function(server, NUMBERS, cache=cache, price=(1.0, 4.0))
    oracle = Oracle(f, batched=True)
    long = extrapolate(oracle, 20, mode="distinct", engine="blocks", on_inconsistent="repair")
    return long.explain(values), f, oracle


def kendall_error(order: list[int]) -> float:
    return sum(x > y for x, y in itertools.combinations(order, 2)) / math.comb(len(order), 2)


@pytest.mark.parametrize(("seed", "faults"), [(1, None), (2, ALL_FAULTS)])
def test_a_window_model_that_errs_sorts_a_long_list(seed, faults, tmp_path):
    with ChatServer(seed=seed, wrong=0.01, faults=faults) as server:
        found, f, oracle = sort_long_list(server, tmp_path / "a", seed)
    assert len(set(found.output)) == 200
    assert 0 < kendall_error(found.output) <= 0.005
    assert found.queries <= 1.3 * BOUND
    assert found.longest <= 20
    assert oracle.calls <= 40, "a level of merges goes out together"
    assert f.usage.requests <= (1.3 if faults is None else 1.8) * BOUND


LONG = """
import sys
from types import SimpleNamespace
from tests.lists.test_chat import sort_long_list
sort_long_list(SimpleNamespace(base_url=sys.argv[1]), sys.argv[2], 3)
"""


def test_a_long_sort_that_was_killed_asks_only_for_what_is_missing(tmp_path):
    path = tmp_path / "answers.jsonl"
    with ChatServer(seed=3, wrong=0.01, delay_s=0.01) as server:
        with subprocess.Popen([sys.executable, "-c", LONG, server.base_url, str(path)]) as run:
            while server.requests < 35:
                assert run.poll() is None
                time.sleep(0.002)
            run.send_signal(signal.SIGKILL)
        time.sleep(0.3)
        asked, kept = server.requests, len(AnswerFile(path).read())
        found, f, _ = sort_long_list(server, path, 3)
        whole, other, _ = sort_long_list(server, None, 3)
    assert found.output == whole.output
    assert found.queries == whole.queries == kept + f.usage.answers
    assert asked - 8 <= kept == f.usage.cached
    assert f.usage.requests == f.usage.answers == other.usage.answers - kept


# Arguments.


def test_a_refused_key_and_a_spent_budget_end_the_extension(monkeypatch):
    """They are no answers that a vote could mend, and are asked for once."""
    with ChatServer() as server:
        monkeypatch.setenv("OPENAI_API_KEY", "sk-wrong")
        f = ChatFunction(SORT, model="stub", base_url=server.base_url, first_wait_s=0.01)
        with pytest.raises(EndpointError, match="401"):
            extrapolate(Oracle(f, batched=True), 4, mode="distinct", votes=2)(list(range(20)))
        assert server.requests <= f.endpoint.concurrency
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        f = ChatFunction(SORT, model="stub", base_url=server.base_url, max_requests=3)
        with pytest.raises(BudgetSpent):
            extrapolate(Oracle(f, batched=True), 4, mode="distinct", on_inconsistent="repair")(list(range(20)))
        assert f.usage.requests == 3


@pytest.mark.parametrize("lists", [[3, 1, 2], "text", [[1, 2], 3]])
def test_a_single_list_is_refused(lists):
    f = ChatFunction(SORT, model="stub", base_url="http://127.0.0.1:1/v1")
    with pytest.raises(ArgumentError, match="lists: expected a list of lists"):
        f(lists)


def test_an_endpoint_may_be_shared():
    with ChatServer() as server:
        endpoint = Endpoint("stub", base_url=server.base_url, max_requests=3)
        up, also_up = (ChatFunction(words, endpoint=endpoint) for words in (SORT, "Sort them."))
        assert up([[2, 1], [3, 1]]) == [[1, 2], [1, 3]]
        assert also_up([[2, 1]]) == [[1, 2]]
        assert up.usage == also_up.usage == endpoint.usage
        with pytest.raises(BudgetSpent):
            up([[4, 1]])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"answer": "numbers"}, "answer: expected 'order' or 'items', got numbers"),
        ({"repairs": -1}, "repairs: expected a whole number of at least 0, got -1"),
        ({"concurrency": 0}, "concurrency: expected a whole number of at least 1, got 0"),
        ({"endpoint": Endpoint("stub")}, "endpoint: expected an endpoint, or model, got both"),
    ],
)
def test_bad_arguments_are_named(options, message):
    with pytest.raises(ArgumentError, match=message):
        ChatFunction(SORT, **{"model": "stub", **options})
    with pytest.raises(ArgumentError, match="model: expected the name of a model, or an endpoint, got None"):
        ChatFunction(SORT)


# What the field tests showed.


def test_what_was_cut_off_is_asked_again_whatever_it_holds():
    replies = [Reply("[3, 1, 2]\nFor b beats", finish_reason="length"), Reply("[2, 1, 3]")]
    with ChatServer(script=replies) as server:
        assert function(server)([["a", "b", "c"]]) == [["b", "a", "c"]]
        assert "cut off before its end" in said(server, 1)


def test_a_refusal_is_told_in_the_words_of_the_model():
    with (
        HostileServer(lambda *_: (200, chat(None, refusal="I rank no people."))) as server,
        pytest.raises(BadAnswer, match=r"it is a refusal \(I rank no people\.\)"),
    ):
        function(server, repairs=0)([["a", "b"]])


def test_a_key_that_comes_back_in_an_answer_is_in_no_error_and_no_file(tmp_path):
    def echo(number, path, headers, body):
        return 200, chat(f"You sent {headers['authorization']}")

    with HostileServer(echo) as server, pytest.raises(BadAnswer, match=r"You sent Bearer \*\*\*") as caught:
        function(server, f"Sort with {KEY}.", cache=tmp_path / "a", repairs=0)([["a", "b"]])
    assert KEY not in str(caught.value)
    with ChatServer() as server:
        function(server, f"Sort with {KEY}.", cache=tmp_path / "a")([["a", "b"]])
    assert "Sort with ***." in (tmp_path / "a").read_text()


def test_messages_are_read_in_time_of_their_length():
    # Each would take minutes where every bracket is read to the end of the message.
    places = lambda answer: (None, "no")  # noqa: E731
    for text in ("[1," * 25_000, "<think>" * 25_000, "[" * 50_000, '["' * 25_000, '{"a":[' * 15_000, "~~[" * 25_000):
        for order in (True, False):
            assert read_answer(text, order=order, places=places)[0] is None


def test_lists_of_items_are_read_as_json_with_what_models_add():
    script = [
        Reply("Here: ['fig', \"plum's\", ] // done"),
        Reply('{"items": ["fig"], "why": "see [1] and [2"}'),
        Reply('["pear"]'),
    ]
    with ChatServer(script=script) as server:
        f = function(server, answer="items", repairs=1)
        assert f([["fig", "plum's"]]) == [["fig", "plum's"]]
        assert f([["fig", "pear"]]) == [["pear"]], "a list that has no end follows the first"
        assert said(server, 2).startswith("That cannot be used: another list follows the answer, and has no end.")


def test_a_parse_of_ones_own():
    def parse(text):
        if "bang" in text:
            raise RuntimeError("bang")
        numbers = [int(word) for word in text.split() if word.isdigit()]
        return numbers or None

    script = [Reply("first 2 then 1"), Reply("none"), Reply("1 1"), Reply("2 1"), Reply("bang")]
    with ChatServer(script=script) as server:
        f = function(server, parse=parse)
        assert f([["a", "b"]]) == [["b", "a"]]
        assert f([["c", "d"]]) == [["d", "c"]]
        assert "there is no list in it" in said(server, 2)
        assert "it repeats 1" in said(server, 3)
        with pytest.raises(ArgumentError, match="parse: expected a function of a text, got RuntimeError: bang"):
            f([["e", "f"]])
    with pytest.raises(ArgumentError, match="parse: expected a function, or None"):
        ChatFunction(SORT, model="m", parse="json")


def test_a_cache_that_cannot_be_written_is_found_before_a_request(tmp_path):
    (tmp_path / "file").write_text("")
    with ChatServer() as server:
        for path in (tmp_path, tmp_path / "file" / "below"):
            with pytest.raises(ArgumentError, match="cache: expected a file that can be read and written"):
                function(server, cache=path)([[2, 1]])
        assert server.requests == 0


def test_votes_are_answers_of_their_own_and_outlive_the_program(tmp_path):
    draws = itertools.count()

    def script(body):
        return Reply("[2, 1]" if next(draws) % 2 else "[1, 2]")

    def vote(server):
        f = function(server, cache=tmp_path / "a")
        long = extrapolate(Oracle(f, batched=True), 2, mode="distinct", votes=4, on_inconsistent="repair")
        return long.explain([5, 3])

    with ChatServer(script=script) as server:
        first = vote(server)
        assert server.requests == first.queries == 4
        assert vars(vote(server)) == vars(first)
        assert server.requests == 4, "the second time all votes come from the file"


def test_eight_threads_and_a_hostile_endpoint_lose_nothing(tmp_path):
    lists = [random.Random(number).sample(range(1000), 6) for number in range(60)]
    with ChatServer(seed=4, faults=ALL_FAULTS, delay_s=0.002) as server:
        f = function(server, cache=tmp_path / "a", repairs=3, concurrency=4)
        oracle = Oracle(f, batched=True)
        chance = random.Random(1)
        orders = [chance.sample(range(60), 60) for _ in range(8)]
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda order: oracle.ask([lists[place] for place in order]), orders))
    for order, answer in zip(orders, answers, strict=True):
        assert answer == [sorted(lists[place]) for place in order]
    assert f.usage.answers == 60, "no list was asked for twice"
    assert f.usage.requests == server.requests == 60 + f.usage.retries + f.usage.repairs
    assert len(AnswerFile(tmp_path / "a").read()) == 60
