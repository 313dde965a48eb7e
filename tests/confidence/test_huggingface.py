"""A model in process: labels are scored exactly, whatever is computed together, and however they are spelled."""

from __future__ import annotations

import dataclasses
import itertools
import random

import pytest
import torch

from holdfast.confidence.experiment import run
from holdfast.confidence.latitude import latitude_questions
from holdfast.confidence.plan import PILOT, Plan
from holdfast.confidence.requests import first_requests, second_requests
from holdfast.confidence.responders import NOT_FINITE, Ask
from holdfast.confidence.responders.huggingface import HuggingFaceResponder
from holdfast.confidence.responders.shared_prefix import LastLogits, attends
from holdfast.confidence.results import UnusableAnswers
from holdfast.confidence.store import Run, Store
from holdfast.confidence.templates import PLAIN
from holdfast.errors import ArgumentError
from tests.confidence.tiny import gpt2, llama, mamba, mistral_with_a_window, tokenizer

TOLERANCE = 1e-4
"""Of logits of order one in float32, after sums over some hundred tokens."""


def rows_that_begin_alike():
    draw = random.Random(0)
    rows = []
    for count in (1, 5, 4):
        beginning = [draw.randrange(300) for _ in range(draw.randrange(20, 40))]
        rows += [beginning + [draw.randrange(300) for _ in range(draw.randrange(3, 9))] for _ in range(count)]
    return rows


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("make", [llama, gpt2, lambda: mistral_with_a_window(16), mamba])
def test_logits_are_those_of_each_prompt_alone(make, share):
    model, rows = make(), rows_that_begin_alike()
    with torch.inference_mode():
        want = [model(torch.tensor([row])).logits[0, -2:] for row in rows]
    seen = []
    for members, logits in LastLogits(model, batch_tokens=150, share=share)(rows, keep=2):
        seen += members
        for row, last in zip(members, logits, strict=True):
            torch.testing.assert_close(last, want[row], atol=TOLERANCE, rtol=TOLERANCE)
    assert sorted(seen) == list(range(len(rows)))


def test_beginnings_are_shared_only_where_a_cache_can_be():
    assert attends(llama())
    assert attends(gpt2())
    assert not attends(mamba())


def test_prompts_are_grouped_where_it_pays():
    logits = LastLogits(llama())
    rows = [[1, 2, 3, 4, 5], [1, 2, 3, 4, 6], [1, 2, 3, 4, 7], [1, 9, 9, 9, 9], [8, 9]]
    assert [(group.rows, group.prefix) for group in logits._groups(rows, 1)] == [([0, 1, 2], 4), ([3], 4), ([4], 1)]


def test_less_is_computed_where_beginnings_are_shared():
    model, tokens = llama(), []
    model.register_forward_pre_hook(lambda module, inputs: tokens.append(inputs[0].numel()))
    rows = [[*range(50), row] for row in range(100, 120)]
    list(LastLogits(model)(rows))
    assert sum(tokens) == 50 + 20


def asks(form="chat", questions=2):
    design = dataclasses.replace(PILOT, templates=(dataclasses.replace(PLAIN, form=form),))
    responder = HuggingFaceResponder(llama(), tokenizer(), chat=form == "chat")
    run = Run(responder.backend, Plan(tuple(latitude_questions(questions)), design))
    every = itertools.chain(first_requests(run), second_requests(run, [0] * questions))
    return [request.ask() for request in every]


def alone(model, tokens, text, labels):
    """Log-probabilities of labels, computed without any of the code under test."""
    ids = tokens(text, add_special_tokens=False)["input_ids"]
    with torch.inference_mode():
        values = model(torch.tensor([ids])).logits[0, -1].log_softmax(dim=-1)
    return [
        float(torch.logsumexp(values[[tokens.convert_tokens_to_ids(piece) for piece in label]], 0)) for label in labels
    ]


@pytest.mark.parametrize("form", ["chat", "flat"])
def test_scores_are_the_probabilities_of_one_token_labels(form):
    model, tokens = llama(seed=1), tokenizer()
    responder = HuggingFaceResponder(model, tokens, chat=form == "chat", window=20)
    questions = asks(form)
    answers = {answer.key: answer for answer in responder.answer(iter(questions))}
    assert len(answers) == len(questions) == 2 * 2 * 19
    for ask in questions[::7]:
        text = ask.messages[0]["content"]
        if form == "chat":
            text = tokens.apply_chat_template(list(ask.messages), tokenize=False, add_generation_prompt=True)
        want = alone(model, tokens, text, [("A", "a"), ("B", "b")])
        answer = answers[ask.key]
        assert answer.scores == pytest.approx(want, abs=TOLERANCE)
        assert answer.mass == pytest.approx(sum(map(torch.exp, torch.tensor(want))).item(), rel=1e-3)
        assert len(answer.tokens) == 5
        assert not answer.missing
        assert not answer.problem


def test_tokens_with_a_space_count_for_their_label():
    model, tokens = llama(seed=2), tokenizer((("Ġ", "A"), ("Ġ", "B")))
    responder = HuggingFaceResponder(model, tokens, chat=False)
    ask = Ask("k", ({"role": "user", "content": "A) 1\nB) 2\nAnswer:"},), ("A", "B"), ("1", "2"))
    (answer,) = responder.answer([ask])
    want = alone(model, tokens, ask.messages[0]["content"], [("A", "a", "ĠA"), ("B", "b", "ĠB")])
    assert answer.scores == pytest.approx(want, abs=TOLERANCE)


@pytest.mark.parametrize("share", [True, False])
def test_labels_of_several_tokens_are_scored_to_their_end(share):
    model, tokens = llama(seed=3), tokenizer()
    labels = ("one", "two", "three")
    prompts = ["A question\nAnswer:", "A question, and a longer one\nAnswer:"]
    questions = [Ask(text, ({"role": "user", "content": text},), labels, labels) for text in prompts]
    responder = HuggingFaceResponder(model, tokens, chat=False, share_prefix=share)
    for answer in responder.answer(questions):
        for label, score in zip(labels, answer.scores, strict=True):
            want = []
            for spelling in (label, f" {label}"):
                ids = tokens(answer.key)["input_ids"]
                end = tokens(spelling)["input_ids"]
                with torch.inference_mode():
                    values = model(torch.tensor([[*ids, *end]])).logits[0].log_softmax(dim=-1)
                want.append(sum(float(values[len(ids) - 1 + place, token]) for place, token in enumerate(end)))
            assert score == pytest.approx(torch.logsumexp(torch.tensor(want), 0).item(), abs=10 * TOLERANCE)


def test_labels_that_change_the_tokens_before_them_are_not_asked_for():
    # ":A" is one token, so that "A" cannot follow ":"; with a space it can.
    tokens = tokenizer(((":", "A"), (":", "B"), (":", "a"), (":", "b"), ("Ġ", "A"), ("Ġ", "B")))
    model = llama(seed=4)
    ask = Ask("k", ({"role": "user", "content": "Answer:"},), ("A", "B"), ("1", "2"))
    (answer,) = HuggingFaceResponder(model, tokens, chat=False).answer([ask])
    assert answer.scores == pytest.approx(alone(model, tokens, "Answer:", [("ĠA",), ("ĠB",)]), abs=TOLERANCE)


def test_labels_that_begin_each_other_are_refused():
    ask = Ask("k", ({"role": "user", "content": "Answer:"},), ("1", "12"), ("x", "y"))
    with pytest.raises(ArgumentError, match="labels whose tokens"):
        list(HuggingFaceResponder(llama(), tokenizer(), chat=False).answer([ask]))


def test_turns_need_a_chat_template():
    with pytest.raises(ArgumentError, match="the flat form"):
        list(HuggingFaceResponder(llama(), tokenizer(chat=False)).answer(asks()))
    with pytest.raises(ArgumentError, match="chat template"):
        HuggingFaceResponder(llama(), tokenizer(chat=False), chat=True)
    strict = tokenizer()
    strict.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(ArgumentError, match=r"roles must alternate.*flat"):
        list(HuggingFaceResponder(llama(), strict).answer(asks()))


def test_numbers_that_are_none_are_said():
    model = llama()
    with torch.no_grad():
        model.lm_head.weight[7, 0] = float("nan")
    answers = list(HuggingFaceResponder(model, tokenizer()).answer(asks(questions=1)))
    assert {answer.problem for answer in answers} == {NOT_FINITE}
    assert {answer.scores for answer in answers} == {()}


def test_a_model_that_writes_something_else_is_refused(tmp_path):
    plan = Plan(tuple(latitude_questions(12)), PILOT)
    store = Store(tmp_path / "store.jsonl")
    with pytest.raises(UnusableAnswers, match=r"the labels hold \d% of the probability: .* \(likeliest: '.+' \(\d+%\)"):
        run(plan, HuggingFaceResponder(llama(), tokenizer(), name="tiny"), store)
    assert len(store.answers()) == 20


def test_a_model_is_left_in_training_if_it_was():
    model = llama().train()
    responder = HuggingFaceResponder(model, tokenizer())
    answers = responder.answer(asks())
    next(answers)
    answers.close()
    assert model.training
    assert all(weights.grad is None for weights in model.parameters())


def test_a_model_is_loaded_from_a_folder(tmp_path):
    llama().save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    loaded = HuggingFaceResponder.load(tmp_path, device="cpu", name="mine")
    direct = HuggingFaceResponder(llama(), tokenizer(), name="mine")
    assert loaded.backend == direct.backend
    assert loaded.backend.params == {"chat": True, "dtype": "float32"}
    questions = asks(questions=1)
    for one, other in zip(loaded.answer(questions), direct.answer(questions), strict=True):
        assert one.scores == pytest.approx(other.scores, abs=1e-6)
    with pytest.raises(ArgumentError, match="a causal language model"):
        HuggingFaceResponder.load(tmp_path / "none")


def test_what_the_model_cannot_read_is_one_line():
    ask = Ask("k", ({"role": "user", "content": "x" * 1100},), ("A", "B"), ("1", "2"))
    with pytest.raises(ArgumentError, match="prompts: expected at most 1024 tokens"):
        list(HuggingFaceResponder(gpt2(), tokenizer()).answer([ask]))
    rotary = llama()
    rotary.config.max_position_embeddings = 64
    assert list(HuggingFaceResponder(rotary, tokenizer()).answer([ask])), "it has no table of places"
    with pytest.raises(ArgumentError, match="tokenizer: expected the tokenizer of the model, which has 50 tokens"):
        list(HuggingFaceResponder(llama(vocabulary=50), tokenizer()).answer([ask]))
    empty = dataclasses.replace(ask, messages=({"role": "user", "content": ""},))
    with pytest.raises(ArgumentError, match="prompts: expected at least one token"):
        list(HuggingFaceResponder(llama(), tokenizer(chat=False)).answer([empty]))


def test_a_model_that_does_not_load_is_one_line(tmp_path):
    llama().save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ArgumentError, match="device: expected a device"):
        HuggingFaceResponder.load(tmp_path, device="abacus")
    with pytest.raises(ArgumentError, match="model: expected a causal language model"):
        HuggingFaceResponder.load(tmp_path, dtype="float99")
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ArgumentError, match="model: expected a causal language model"):
        HuggingFaceResponder.load(tmp_path)
