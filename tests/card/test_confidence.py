"""The card of models that answer questions: simulated observers, and a model of transformers with a chat template."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from holdfast.card import CheckSettings, Outcome, compare
from holdfast.card.card import Card
from holdfast.card.checks import confidence
from holdfast.card.run import check_targets
from holdfast.card.target import Kind, Target, recognise
from holdfast.confidence import PRESETS, SimulatedResponder
from holdfast.confidence.observer_server import Faults, ObserverServer, latitude_answers, serving

GENEROUS = 600.0
ENDPOINT = Target(Kind.ENDPOINT, "http://nowhere/v1", "http://nowhere/v1", "nowhere", {"model": None})


@pytest.fixture(autouse=True)
def few(monkeypatch: Any) -> None:
    """Questions as on a machine that has time for no more, however fast this one is."""
    monkeypatch.setattr(confidence, "SIZES", (20,))


def card_of(target: Target, budget_s: float = GENEROUS, seed: int = 0) -> Card:
    return check_targets([target], CheckSettings(budget_s=budget_s, seed=seed), probes=("confidence",))


def observer(preset: str, seed: int = 0, *, knows: bool = True) -> SimulatedResponder:
    return SimulatedResponder(PRESETS[preset], seed, latitude_answers() if knows else None)


@pytest.fixture
def answered_by(monkeypatch: Any) -> Any:
    """A function that puts a responder in the place of an endpoint, and gives the card."""

    def card(responder: Any, **options: Any) -> Card:
        monkeypatch.setattr(confidence, "_responder", lambda *_: responder)
        return card_of(ENDPOINT, **options)

    return card


def test_an_ideal_observer_behind_an_endpoint_holds() -> None:
    for module in ("uvicorn", "aiohttp"):
        pytest.importorskip(module)
    server = ObserverServer(observer("bayes"))
    with serving(server) as address:
        target = recognise(address)
        assert target.kind is Kind.ENDPOINT
        finding = card_of(target).finding("confidence")
    assert finding.outcome is Outcome.HOLDS, finding.sentence
    assert "17 of 20 first answers are right (85%)" in finding.sentence
    assert server.seen.requests == 20 * 38, "what the pilot asked is asked once"


def test_a_slow_endpoint_is_asked_little_and_told_what_budget_would_do() -> None:
    for module in ("uvicorn", "aiohttp"):
        pytest.importorskip(module)
    server = ObserverServer(observer("bayes"), Faults(slow=1.0, slow_s=0.4))
    with serving(server) as address:
        finding = card_of(recognise(address), budget_s=12.0).finding("confidence")
    assert finding.outcome is Outcome.NOT_TOLD
    assert "760 requests" in finding.sentence
    # Eight at a time of .4 s each take 38 s at the least.
    budget = float(finding.sentence.partition("A budget of ")[2].partition(" s ")[0])
    assert budget > 38
    assert server.seen.requests <= 40
    assert not finding.measures


def test_more_time_asks_more_questions_and_each_set_begins_the_next(answered_by: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(confidence, "SIZES", (20, 30))
    finding = answered_by(observer("bayes")).finding("confidence")
    assert finding.certainty.startswith("30 questions")
    monkeypatch.setattr(confidence, "SIZES", (20,))
    fewer = answered_by(observer("bayes")).finding("confidence")
    assert fewer.measures[0].values == finding.measures[0].values[:20]
    assert fewer.measures[0].units != finding.measures[0].units


def test_who_answers_as_a_coin_is_not_judged(answered_by: Any) -> None:
    asked = []

    class Guessing(SimulatedResponder):
        def answer(self, asks: Any) -> Any:
            for ask in asks:
                asked.append(ask.key)
                yield from super().answer([ask])

    finding = answered_by(Guessing(PRESETS["stubborn"], 0)).finding("confidence")
    assert finding.outcome is Outcome.NOT_TOLD
    assert "of 20 first answers are right" in finding.sentence
    assert len(asked) == 40, "nothing is asked again of who does not know"
    assert not finding.measures


def test_what_is_known_is_a_test_and_no_share() -> None:
    # P(14 or more of 20) is .058, P(15 or more) .021; of 100 the bound is between 58 (.067) and 59 (.044).
    from scipy import stats

    for right, answers, knows in [(14, 20, False), (15, 20, True), (58, 100, False), (59, 100, True)]:
        tail = float(stats.binom.sf(right - 1, answers, 0.5))
        assert confidence.known_from(right, answers).p == pytest.approx(tail)
        assert confidence.known_from(right, answers).beyond_chance is knows
    assert not confidence.known_from(0, 0).beyond_chance


def test_two_observers_are_compared_question_by_question(answered_by: Any) -> None:
    cards = [answered_by(observer(preset)) for preset in ("bayes", "stubborn")]
    assert cards[1].finding("confidence").outcome is Outcome.FAILS
    here, there = (card.finding("confidence").measures[0] for card in cards)
    assert here.units == there.units
    assert len(here.values) == len(there.values) == 20
    assert sum(here.values) / 20 == pytest.approx(here.value)
    assert "choice bias" in [difference.measure for difference in compare(*cards).beyond_noise]


def chat_model(folder: Path, *, labels: float) -> Path:
    """A random model with a chat template, whose tokens are bytes; its logits of A and B are raised by so much."""
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    words = {token: number for number, token in enumerate([*alphabet, "<end>"])}
    inner = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=words, merges=[]))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = tokenizers.decoders.ByteLevel()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<end>")
    tokenizer.chat_template = (
        "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(words),
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=2048,
    )
    model = transformers.LlamaForCausalLM(config)
    with torch.no_grad():
        # The first number of every state is the largest, and only the labels read it.
        model.model.embed_tokens.weight[:, 0] = 1.0
        model.lm_head.weight[:, 0] = 0.0
        for label in "AB":
            model.lm_head.weight[words[label], 0] = labels
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_local_chat_model_is_asked_in_process(tmp_path: Path) -> None:
    finding = card_of(recognise(str(chat_model(tmp_path, labels=4.0)))).finding("confidence")
    assert finding.outcome is Outcome.NOT_TOLD
    assert "first answers are right" in finding.sentence, "random weights know nothing"


def test_a_local_chat_model_that_answers_with_something_else_is_said_to(tmp_path: Path) -> None:
    finding = card_of(recognise(str(chat_model(tmp_path, labels=0.0)))).finding("confidence")
    assert finding.outcome is Outcome.NOT_TOLD
    assert finding.sentence.startswith("Its answers cannot be read: the labels hold")


def test_a_model_without_a_chat_template_is_not_asked(tmp_path: Path) -> None:
    folder = chat_model(tmp_path, labels=0.0)
    (folder / "chat_template.jinja").unlink()
    finding = card_of(recognise(str(folder))).finding("confidence")
    assert finding.outcome is Outcome.INAPPLICABLE
    assert "no chat template" in finding.sentence


@pytest.fixture
def tiring(answered_by: Any, monkeypatch: Any) -> Any:
    """A function that gives the card of an observer that answers in a thousandth of a second, and after so many answers
    in one second each; by a clock of its own."""
    now = 0.0

    def card(lively: int) -> Card:
        class Tiring(SimulatedResponder):
            def answer(self, asks: Any) -> Any:
                nonlocal now, lively
                for answer in super().answer(asks):
                    lively -= 1
                    now += 0.001 if lively >= 0 else 1.0
                    yield answer

        monkeypatch.setattr(confidence, "time", SimpleNamespace(monotonic=lambda: now))
        return answered_by(Tiring(PRESETS["stubborn"], 0, latitude_answers()))

    return card


def test_what_was_answered_in_time_is_judged(tiring: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(confidence, "SIZES", (20, 100))
    finding = tiring(1000).finding("confidence")  # 760 are what twenty questions take
    assert finding.outcome is Outcome.FAILS, finding.sentence
    assert finding.certainty.startswith("20 questions")


def test_a_model_that_becomes_too_slow_is_told_what_budget_would_do(tiring: Any) -> None:
    finding = tiring(100).finding("confidence")
    assert finding.outcome is Outcome.NOT_TOLD, finding.sentence
    assert "760 requests, at 0.9 s each" in finding.sentence
    assert not finding.measures
