"""Responders behind endpoints: what they send, what they read, and what they say of back ends that cannot be used."""

from __future__ import annotations

import json
import math

import pytest

from holdfast.confidence.extraction import NoLogprobs
from holdfast.confidence.responders.chat import ChatResponder
from holdfast.confidence.responders.interface import Ask
from holdfast.confidence.responders.sampled import NO_OPTION, SampledResponder, named_label
from holdfast.confidence.responders.systemone import LEAST, SystemOneResponder
from holdfast.errors import ArgumentError
from holdfast.llm import Endpoint, EndpointError
from tests.llm.hostile_server import HostileServer

pytest.importorskip("aiohttp")
pytest.importorskip("tenacity")


def endpoint(server: HostileServer, **options) -> Endpoint:
    return Endpoint(
        "m", **{"base_url": server.base_url, "api_key_env": None, "first_wait_s": 0.01, "attempts": 4, **options}
    )


def asks(count: int = 1) -> list[Ask]:
    return [
        Ask(f"k{number}", ({"role": "user", "content": f"{number}?\nA) x\nB) y"},), ("A", "B"), ("x", "y"))
        for number in range(count)
    ]


def listed(*tokens: tuple[str, float | None]) -> list[dict]:
    return [{"token": token, "logprob": value} for token, value in tokens]


def completion(*places: list[dict], content: str | None = "A", finish_reason: str = "length", **message) -> bytes:
    """A chat completion whose tokens are the first of those listed at each place."""
    choice = {"message": {"content": content, **message}, "finish_reason": finish_reason}
    if places:
        choice["logprobs"] = {"content": [{**top[0], "top_logprobs": top} for top in places if top]}
    return json.dumps({"model": "m-1", "system_fingerprint": "f", "choices": [choice]}).encode()


EXAMPLE = listed(("A", -0.2231), (" A", -2.9957), ("B", -2.3026), ("The", -3.9120))


def chat(reply, **options) -> list:
    with HostileServer(lambda number, *_: (200, reply(number) if callable(reply) else reply)) as server:
        return list(ChatResponder(endpoint(server, **options)).answer(asks()))


# The chat protocol.


def test_a_chat_answer_is_read_as_the_example_says():
    bodies = []

    def answer(number, path, headers, body):
        bodies.append(body)
        return 200, completion(EXAMPLE)

    with HostileServer(answer) as server:
        responder = ChatResponder(endpoint(server, extra={"seed": 7}))
        [answer] = responder.answer(asks())
        host = server.base_url.split("/")[2]
    assert answer.scores[0] - answer.scores[1] == pytest.approx(2.140066, abs=1e-4)
    assert answer.mass == pytest.approx(0.95, abs=1e-4)
    assert (answer.problem, answer.missing, answer.attempts) == ("", (), 1)
    assert answer.tokens[0] == ("A", -0.2231)
    assert answer.raw == {"model": "m-1", "system_fingerprint": "f", "finish_reason": "length", "text": "A"}
    params = {"temperature": 0.0, "seed": 7, "logprobs": True, "top_logprobs": 20, "max_tokens": 1}
    assert bodies == [{"model": "m", "messages": list(asks()[0].messages), **params}]
    backend = responder.backend
    assert (backend.model, backend.kind, backend.host, backend.source) == ("m", "chat", host, "logprobs")
    assert backend.params == params


def test_a_missing_label_is_a_bound_and_small_letters_count():
    [answer] = chat(completion(listed(("a", -0.1), ("The", -3.0), ("no", -6.0))))
    assert answer.missing == (1,)
    assert answer.scores == (-0.1, -6.0)


def test_white_space_before_the_label_is_passed_over():
    [answer] = chat(completion(listed(("\n", -0.5), ("A", -3.0)), listed(("B", -0.2), ("A", -2.0)), content="\nB"))
    assert answer.scores == (-2.0, -0.2)
    assert answer.mass == pytest.approx(math.exp(-0.5) * (math.exp(-2.0) + math.exp(-0.2)))


@pytest.mark.parametrize(
    ("reply", "problem"),
    [
        (completion(content=None, refusal="I will not.", finish_reason="stop"), "refusal"),
        (completion(EXAMPLE, content="", finish_reason="content_filter"), "content_filter"),
        (completion(content="", finish_reason="length"), "length"),
        (completion(content="", finish_reason="stop"), "empty"),
    ],
)
def test_a_request_without_an_answer_says_why(reply, problem):
    [answer] = chat(reply)
    assert (answer.problem, answer.scores) == (problem, ())


def test_a_prompt_that_the_filter_refuses_concerns_that_prompt():
    refusal = b'{"error": {"message": "not this", "code": "content_filter"}}'

    def answer(number, path, headers, body):
        return (400, refusal) if body["messages"][0]["content"].startswith("1") else (200, completion(EXAMPLE))

    with HostileServer(answer) as server:
        answers = {answer.key: answer for answer in ChatResponder(endpoint(server)).answer(asks(3))}
    assert {key: answer.problem for key, answer in answers.items()} == {"k0": "", "k1": "content_filter", "k2": ""}


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (completion(), "it names none"),
        (json.dumps({"choices": [{"message": {"content": "A"}, "logprobs": None}]}).encode(), "it names none"),
        (json.dumps({"choices": [{"message": {"content": "A"}, "logprobs": {"content": None}}]}).encode(), "none"),
        (completion(listed(("A", None), ("B", None))), "no log-probabilities"),
        (completion(listed(("A", -9999.0), ("B", -9999.0))), "no log-probabilities"),
        (completion(listed(("A", 0.0), ("B", 0.0))), "all log-probabilities are 0"),
        (completion(listed(("A", 2.5), ("B", 1.0))), "above 0"),
    ],
)
def test_a_back_end_without_log_probabilities_is_named_after_one_request(reply, words):
    with HostileServer(lambda *_: (200, reply)) as server:
        responder = ChatResponder(endpoint(server))
        with pytest.raises(NoLogprobs, match=rf"m at http://.* answers 200 without .*{words}") as caught:
            list(responder.answer(asks(50)))
        assert server.requests == 1
    for alternative in ("systemone", "huggingface", "sampled"):
        assert alternative in str(caught.value)


def test_empty_answers_end_it_too_where_there_is_nothing_else():
    with HostileServer(lambda *_: (200, completion(content=""))) as server:
        answers = ChatResponder(endpoint(server, concurrency=1)).answer(asks(50))
        assert [next(answers).problem, next(answers).problem] == ["length", "length"]
        with pytest.raises(NoLogprobs, match="the first 3 answers are empty"):
            next(answers)
        assert server.requests == 3


def test_a_single_log_probability_is_not_enough():
    choice = {"message": {"content": "A"}, "logprobs": {"content": [{"token": "A", "logprob": -0.1}]}}
    with pytest.raises(NoLogprobs, match="no others in top_logprobs"):
        chat(json.dumps({"choices": [choice]}).encode())


def test_log_probabilities_that_a_server_refuses_are_explained_in_its_words():
    refusal = b'{"error": {"message": "top_logprobs must be at most 5"}}'
    with HostileServer(lambda *_: (400, refusal)) as server:
        with pytest.raises(NoLogprobs, match=r"at most 5\. Ask for fewer than 20"):
            list(ChatResponder(endpoint(server)).answer(asks(9)))
        assert server.requests == 1


def test_what_others_had_is_asked_for_again():
    seen = []

    def answer(number, path, headers, body):
        prompt = body["messages"][0]["content"]
        first = prompt not in seen
        seen.append(prompt)
        return 200, completion() if first and not prompt.startswith("0") else completion(EXAMPLE)

    with HostileServer(answer) as server:
        answers = {answer.key: answer for answer in ChatResponder(endpoint(server)).answer(asks(6))}
    assert all(answer.scores for answer in answers.values())
    assert answers["k0"].errors == ()
    assert answers["k3"].errors == ("malformed",)
    assert answers["k3"].attempts == 2


def test_log_probabilities_that_stay_away_end_the_run():
    with HostileServer(lambda number, *_: (200, completion() if number else completion(EXAMPLE))) as server:
        answers = ChatResponder(endpoint(server, concurrency=1)).answer(asks(6))
        assert next(answers).scores
        with pytest.raises(EndpointError, match="something other than a chat completion with log-probabilities"):
            next(answers)
        assert server.requests == 5


def test_attempts_are_noted():
    statuses = {1: 429, 2: 503}

    def answer(number, *_):
        return (statuses[number], b"later") if number in statuses else (200, completion(EXAMPLE))

    with HostileServer(answer) as server:
        first, second = ChatResponder(endpoint(server)).answer(asks(2))
    assert (first.errors, first.attempts) == ((), 1)
    assert (second.errors, second.attempts) == (("429", "503"), 3)
    assert second.seconds > 0


def test_each_responder_wants_its_protocol():
    with pytest.raises(ArgumentError, match="endpoint: expected one that speaks the chat protocol, got systemone"):
        ChatResponder(Endpoint("m", protocol="systemone"))
    with pytest.raises(ArgumentError, match="endpoint: expected one that speaks the systemone protocol, got chat"):
        SystemOneResponder(Endpoint("m"))


# The systemone protocol.


def systemone(reply, status: int = 200) -> tuple[list, list]:
    bodies = []

    def answer(number, path, headers, body):
        bodies.append({"path": path, **body})
        return status, json.dumps(reply).encode()

    with HostileServer(answer) as server:
        return list(SystemOneResponder(endpoint(server, protocol="systemone")).answer(asks())), bodies


def choice(**probabilities: float) -> dict:
    best = max(probabilities, key=probabilities.__getitem__)
    said = {"type": "choice", "choice": best, "confidence": 0.8, "probabilities": probabilities}
    return {"model": "m-1", "answers": {"answer": said}, "usage": {"input_tokens": 5, "output_tokens": 0}}


def test_probabilities_are_read_and_not_the_confidence():
    [answer], [body] = systemone(choice(y=0.1, x=0.9))
    assert answer.scores == pytest.approx((math.log(0.9), math.log(0.1)))
    assert math.isnan(answer.mass), "they are shares among the options"
    assert answer.raw["model"] == "m-1"
    question = {"type": "choice", "criteria": {"x": None, "y": None}}
    state = asks()[0].messages[0]["content"]
    assert body == {"path": "/v1/systemone", "model": "m", "state": state, "questions": {"answer": question}}


def test_a_probability_of_zero_is_a_bound():
    [answer], _ = systemone(choice(x=1.0, y=0.0))
    assert answer.missing == (1,)
    assert answer.scores == (0.0, math.log(LEAST))


def test_a_tiny_probability_is_no_bound():
    [answer], _ = systemone(choice(x=1.0, y=1e-14))
    assert answer.missing == ()
    assert answer.scores == pytest.approx((0.0, math.log(1e-14)))


def test_a_refusal_is_a_problem_of_one_request():
    [answer], _ = systemone({"model": "m", "answers": {"answer": {"type": "refusal"}}})
    assert (answer.problem, answer.scores) == ("refusal", ())


@pytest.mark.parametrize(
    "reply",
    [
        {"answers": {}},
        choice(x=0.9, z=0.1),
        choice(x=0.9, y=0.4),
        choice(x=-0.1, y=1.1),
        choice(x=float("nan"), y=0.5),
        {"answers": {"answer": {"type": "choice", "choice": "x", "confidence": 0.9}}},
    ],
)
def test_other_answers_are_none(reply):
    with pytest.raises(EndpointError, match="something other than probabilities of the options"):
        systemone(reply)


def test_what_the_server_finds_wrong_is_told():
    detail = [{"loc": ["body", "questions"], "msg": "at most 26 options", "type": "value_error"}]
    with pytest.raises(EndpointError, match=r"answered 422: body\.questions: at most 26 options"):
        systemone({"detail": detail}, status=422)
    with pytest.raises(NoLogprobs, match=r"does not speak the systemone protocol: .* 404: Not Found.*\(chat\)"):
        systemone({"detail": "Not Found"}, status=404)


def test_the_systemone_protocol_takes_one_text_and_26_options():
    responder = SystemOneResponder(Endpoint("m", base_url="http://h/v1", api_key_env=None, protocol="systemone"))
    two = Ask("k", ({"role": "user", "content": "?"},) * 2, ("A", "B"), ("x", "y"))
    with pytest.raises(ArgumentError, match="form: expected the flat form"):
        list(responder.answer([two]))
    many = tuple(map(str, range(27)))
    with pytest.raises(ArgumentError, match="options: expected at most 26"):
        list(responder.answer([Ask("k", ({"role": "user", "content": "?"},), many, many)]))


# Repeated sampling.


def sampled(texts: list[str], **options) -> object:
    with HostileServer(lambda number, *_: (200, completion(content=texts[number]))) as server:
        model = endpoint(server, temperature=1.0, concurrency=1)
        [answer] = SampledResponder(model, samples=len(texts), **options).answer(asks())
    return answer


def test_samples_are_counted():
    answer = sampled(["A"] * 19 + ["B"])
    assert answer.scores[0] == pytest.approx(math.log(19.5 / 21))
    assert answer.scores[0] - answer.scores[1] == pytest.approx(2.564949, abs=1e-6)
    assert (answer.mass, answer.attempts, answer.missing) == (1.0, 20, ())
    never = sampled(["A"] * 4)
    assert never.missing == (1,), "an option that never came has a bound for a share"


def test_samples_without_an_option_are_missing_mass():
    answer = sampled(["A", "b)", "neither", ""])
    assert answer.scores == (math.log(0.5), math.log(0.5))
    assert answer.mass == 0.5
    assert answer.raw["problems"] == {NO_OPTION: 1, "length": 1}
    nothing = sampled(["neither", "none", ""])
    assert (nothing.problem, nothing.scores) == (NO_OPTION, ())


def test_one_sample_is_a_bare_choice():
    answer = sampled(["B"])
    assert answer.scores == (0.0, 1.0)
    assert math.isnan(answer.mass)
    model = Endpoint("m", base_url="http://h/v1", api_key_env=None, temperature=1.0)
    assert SampledResponder(model, samples=1).backend.source == "choices"
    several = SampledResponder(model, samples=20, max_tokens=None).backend
    assert (several.source, several.samples, several.params) == ("sampled", 20, {"temperature": 1.0})
    with pytest.raises(ArgumentError, match="temperature above 0"):
        SampledResponder(Endpoint("m", base_url="http://h/v1", api_key_env=None))


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("A", 0),
        (" b.", 1),
        ("**B**", 1),
        ("(A) because", 0),
        ("A) Oslo", 0),
        ("Answer: B", 1),
        ("Final answer: **A**", 0),
        ("B\nIt lies further north.", 1),
        ("A, since", 0),
        ("A city in the north", None),
        ("A or B", None),
        ("Apple", None),
        ("C", None),
        ("I cannot say", None),
        ("", None),
    ],
)
def test_the_label_in_an_answer(text, place):
    assert named_label(text, ("A", "B")) == place


def test_labels_that_differ_in_case_are_told_apart():
    assert [named_label(text, ("a", "A")) for text in ("a", "A")] == [0, 1]
