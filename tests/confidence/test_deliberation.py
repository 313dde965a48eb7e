"""Hiding answers in a history, and weighing advice outside of the model."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
from scipy.special import expit, log_expit

from holdfast.confidence import (
    NoLogprobs,
    Reconsider,
    UnusableAnswers,
    ask_with,
    attribute_to_other,
    fit_temperature,
    fuse,
    mask_own_answer,
)
from holdfast.confidence.observers import draw_evidence
from holdfast.confidence.responders import Answer, Ask, Backend
from holdfast.errors import ArgumentError

HISTORY = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Is it A or B?"},
    {"role": "assistant", "content": "My answer: B", "name": "me"},
    {"role": "user", "content": "Another model says A. And now?"},
]


def test_an_earlier_answer_is_masked_and_the_next_turn_says_so() -> None:
    before = copy.deepcopy(HISTORY)
    masked = mask_own_answer(HISTORY)
    assert before == HISTORY
    assert [message["role"] for message in masked] == [message["role"] for message in HISTORY]
    assert masked[2] == {"role": "assistant", "content": "xx", "name": "me"}
    assert masked[3]["content"].endswith("Another model says A. And now?")
    assert "masked as xx" in masked[3]["content"]
    assert masked[:2] == HISTORY[:2]
    assert not any("My answer: B" in message["content"] for message in masked)


def test_the_masked_history_does_not_depend_on_the_answer() -> None:
    other = copy.deepcopy(HISTORY)
    other[2]["content"] = "My answer: A"
    assert mask_own_answer(other) == mask_own_answer(HISTORY)


def test_an_answer_is_said_to_be_another_models() -> None:
    quoted = attribute_to_other(HISTORY)
    assert quoted[2]["content"] == "xx"
    assert "A different language model answered: My answer: B" in quoted[3]["content"]


@pytest.mark.parametrize("rewrite", [mask_own_answer, attribute_to_other])
def test_a_history_that_ends_with_an_answer_gets_a_turn(rewrite: Any) -> None:
    rewritten = rewrite(HISTORY[:3])
    assert rewritten[-1]["role"] == "user"
    assert "masked as xx" in rewritten[-1]["content"]
    assert rewrite(HISTORY[:2]) == HISTORY[:2]


def test_what_is_no_text_is_refused() -> None:
    with pytest.raises(ArgumentError, match="content is text"):
        mask_own_answer([{"role": "assistant", "content": [{"type": "text"}]}])
    with pytest.raises(ArgumentError, match="role"):
        mask_own_answer([{"content": "hello"}])
    with pytest.raises(ArgumentError, match="each a dict with role and content, got 'h'"):
        mask_own_answer("hello")


def accuracy_and_loss(log_odds: np.ndarray, correct: np.ndarray) -> tuple[float, float]:
    """Of answers given by the sign of log-odds of the first choice, which was right or not."""
    signed = np.where(correct, log_odds, -log_odds)
    return float((signed > 0).mean()), float(-log_expit(signed).mean())


@pytest.mark.parametrize(
    ("accuracy", "fused", "stubborn"),
    [(0.7, (0.8226, 0.3755), (0.7768, 0.4305)), (0.9, (0.9271, 0.2080), (0.9164, 0.2379))],
)
def test_fusion_against_a_model_that_clings(
    accuracy: float, fused: tuple[float, float], stubborn: tuple[float, float]
) -> None:
    """On 400,000 questions with advice that is as good as it says; standard error .0006."""
    rng = np.random.default_rng(7)
    evidence, answer = draw_evidence(rng, 400_000)
    correct = (evidence >= 0) == (answer == 0)
    confidence = np.abs(evidence)
    right_advice = rng.random(len(evidence)) < accuracy
    advice = np.where(right_advice == correct, "same", "opposite")
    after = fuse(confidence, advice, accuracy)
    measured = accuracy_and_loss(after, correct)
    assert measured[0] == pytest.approx(fused[0], abs=0.003)
    assert measured[1] == pytest.approx(fused[1], abs=0.005)
    clinging = accuracy_and_loss(after + 1.0, correct)
    assert clinging[0] == pytest.approx(stubborn[0], abs=0.003)
    assert clinging[1] == pytest.approx(stubborn[1], abs=0.005)


def test_fusion_calibrates_first() -> None:
    assert float(fuse(2.5, "opposite", 0.8, temperature=2.5)) == pytest.approx(1 - math.log(4))
    rng = np.random.default_rng(0)
    evidence, answer = draw_evidence(rng, 50_000)
    correct = (evidence >= 0) == (answer == 0)
    temperature = fit_temperature(3 * np.abs(evidence), correct)
    assert temperature == pytest.approx(3.0, rel=0.05)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.inf, math.nan])
def test_impossible_temperatures_are_refused(temperature: float) -> None:
    with pytest.raises(ArgumentError, match="temperature"):
        fuse(1.0, "same", 0.7, temperature)
    with pytest.raises(ArgumentError, match="temperature"):
        Reconsider(lambda messages: 0.0, temperature)


class Model:
    """Answers with fixed log-odds, and clings to what it sees itself to have said."""

    def __init__(self, log_odds: float, bias: float = 3.0) -> None:
        self.log_odds, self.bias = log_odds, bias
        self.asked: list[list[dict[str, Any]]] = []

    def __call__(self, messages: list[dict[str, Any]]) -> float:
        self.asked.append(messages)
        own = [message["content"] for message in messages if message["role"] == "assistant"]
        return self.log_odds + sum(self.bias if content == "A" else -self.bias for content in own)


QUESTION = [{"role": "user", "content": "A or B?"}]


@pytest.mark.parametrize(
    ("log_odds", "advised", "accuracy", "choice", "after"),
    [
        (1.0, 1, 0.9, 1, 1.0 - math.log(9)),
        (1.0, 1, 0.6, 0, 1.0 - math.log(1.5)),
        (-1.0, 0, 0.9, 0, -1.0 + math.log(9)),
        (-1.0, 1, 0.9, 1, -1.0 - math.log(9)),
        (1.0, None, 0.9, 0, 1.0),
    ],
)
def test_reconsidering(log_odds: float, advised: int | None, accuracy: float, choice: int, after: float) -> None:
    model = Model(log_odds)
    outcome = Reconsider(model)(QUESTION, advised, accuracy)
    assert outcome.choice == choice
    assert outcome.log_odds == pytest.approx(after)
    assert outcome.probability == pytest.approx(expit(abs(after)))
    assert outcome.first_choice == outcome.model_choice == (0 if log_odds >= 0 else 1)
    assert outcome.changed == (choice != outcome.first_choice)
    assert model.asked[0] == QUESTION
    assert len(model.asked) == 2


def test_the_model_itself_need_not_be_asked() -> None:
    model = Model(5.0)
    outcome = Reconsider(model, temperature=2.5)(QUESTION, 1, 0.8, compare=False)
    assert outcome.model_choice is None
    assert len(model.asked) == 1
    assert outcome.first_probability == pytest.approx(expit(2.0))
    assert outcome.log_odds == pytest.approx(2.0 - math.log(4))


def test_reconsidering_needs_numbers() -> None:
    with pytest.raises(ArgumentError, match="ask"):
        Reconsider(lambda messages: math.nan)(QUESTION, 0, 0.7)
    with pytest.raises(ArgumentError, match="advised"):
        Reconsider(lambda messages: 1.0)(QUESTION, 2, 0.7)


class Scripted:
    """A responder that gives one answer to everything."""

    def __init__(self, answer: Answer, source: Any = "logprobs") -> None:
        self.backend, self.scripted, self.asked = Backend("scripted", "test", source=source), answer, []

    def answer(self, asks: Any) -> Any:
        for ask in asks:
            self.asked.append(ask)
            yield self.scripted


def test_a_responder_is_asked_once_for_each_message_list() -> None:
    responder = Scripted(Answer("reconsider", (-0.2, -1.7), 1.0))
    outcome = Reconsider(ask_with(responder))(QUESTION, 1, 0.9)
    assert outcome.log_odds == pytest.approx(1.5 - math.log(9))
    assert outcome.model_choice == 0
    assert [len(ask.messages) for ask in responder.asked] == [1, 3]
    assert responder.asked[0] == Ask("reconsider", tuple(QUESTION), ("A", "B"), ("A", "B"))
    texts = ask_with(responder, options=("north", "south"))
    texts(QUESTION)
    assert responder.asked[-1].options == ("north", "south")


def test_what_is_no_log_odds_is_not_fused() -> None:
    for answer, words in (
        (Answer("", problem="refusal"), "no answer to reconsider: refusal"),
        (Answer("", (-2.0, -3.0), 0.2, tokens=(("The", -0.3),)), "labels hold 20% .*'The'"),
        (Answer("", (-0.1, -5.0), 0.9, missing=(1,)), "only a bound of B is known"),
    ):
        with pytest.raises(UnusableAnswers, match=words):
            ask_with(Scripted(answer))(QUESTION)
    bound = ask_with(Scripted(Answer("", (-0.1, -5.0), 0.9, missing=(1,))), accept_bounds=True)
    assert bound(QUESTION) == pytest.approx(4.9)
    with pytest.raises(ArgumentError, match="bare choices"):
        ask_with(Scripted(Answer("", (1.0, 0.0)), "choices"))
    with pytest.raises(ArgumentError, match="content is text"):
        ask_with(Scripted(Answer("", (0.0, 0.0), 1.0)))([{"role": "user", "content": [{"type": "text"}]}])


def test_a_model_in_process_reconsiders() -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from holdfast.confidence.responders.huggingface import HuggingFaceResponder
    from tests.confidence import tiny

    model, tokenizer = tiny.gpt2(), tiny.tokenizer()
    # What the last layer norm adds to everything is what the letters, and they alone, are made to stand for.
    model.transformer.ln_f.bias.data.fill_(1)
    model.lm_head.weight.data[tokenizer.convert_tokens_to_ids(["A", "a", "B", "b"])] += 0.5
    outcome = Reconsider(ask_with(HuggingFaceResponder(model, tokenizer)))(QUESTION, 1, 0.8)
    text = tokenizer.apply_chat_template(QUESTION, tokenize=False, add_generation_prompt=True)
    with torch.no_grad():
        logits = model(**tokenizer(text, return_tensors="pt", add_special_tokens=False)).logits[0, -1].double()
    pairs = ("A", "a"), ("B", "b")
    a, b = (logits[tokenizer.convert_tokens_to_ids(list(pair))].logsumexp(0).item() for pair in pairs)
    assert outcome.log_odds == pytest.approx(a - b - math.log(4), abs=1e-4)


def test_a_model_behind_an_endpoint_reconsiders() -> None:
    pytest.importorskip("aiohttp")
    pytest.importorskip("tenacity")
    import json

    from holdfast.confidence import ChatResponder
    from holdfast.llm import Endpoint
    from tests.llm.hostile_server import HostileServer

    def reply(number: int, path: str, headers: Any, body: Any) -> tuple[int, bytes]:
        top = [{"token": token, "logprob": value} for token, value in (("A", -0.2231), (" A", -2.9957), ("B", -2.3026))]
        content = [{**top[0], "top_logprobs": top}] if number < 3 else None
        choice = {"message": {"content": "A"}, "finish_reason": "length", "logprobs": {"content": content}}
        return 200, json.dumps({"choices": [choice]}).encode()

    with HostileServer(reply) as server:
        endpoint = Endpoint("m", base_url=server.base_url, api_key_env=None)
        reconsider = Reconsider(ask_with(ChatResponder(endpoint)))
        outcome = reconsider(QUESTION, 1, 0.9)
        assert server.requests == 2
        assert outcome.first_probability == pytest.approx(0.894737, abs=1e-4)
        assert outcome.log_odds == pytest.approx(math.log(8.5) - math.log(9), abs=1e-3)
        assert outcome.choice == 1
    with HostileServer(lambda *_: reply(9, "", None, None)) as server:
        reconsider = Reconsider(ask_with(ChatResponder(Endpoint("m", base_url=server.base_url, api_key_env=None))))
        with pytest.raises(NoLogprobs):
            reconsider(QUESTION, 1, 0.9)
