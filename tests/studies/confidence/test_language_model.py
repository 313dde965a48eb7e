"""Small language models: they are trained on what the probe asks, and on nothing else."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from holdfast.confidence import Ask
from holdfast.llm import Message

pytest.importorskip("transformers")

from holdfast.confidence.responders.huggingface import HuggingFaceResponder
from holdfast.studies.confidence.language_model import LABELS, Recipe, train, untrained, word_tokenizer
from tests.studies.confidence.models import RECIPE, TOY, learned

CONVERSATIONS, SHARES = learned("both")
STILL = dataclasses.replace(RECIPE, steps=1, batch=len(CONVERSATIONS), learning_rate=0.0, warmup=0)


def made(recipe: Recipe = RECIPE, seed: int = 0) -> tuple[Any, Any]:
    tokenizer = word_tokenizer(CONVERSATIONS)
    return untrained(recipe, tokenizer, seed), tokenizer


def read(model: Any, tokenizer: Any, conversations: list[list[Message]]) -> np.ndarray:
    """Log-probabilities of the labels, as the probe reads them."""
    asks = [Ask(str(place), tuple(m), LABELS, LABELS) for place, m in enumerate(conversations)]
    answers = {answer.key: answer for answer in HuggingFaceResponder(model, tokenizer).answer(asks)}
    return np.array([answers[str(place)].scores for place in range(len(asks))])


def test_words_are_tokens_and_none_is_unknown() -> None:
    _, tokenizer = made()
    for messages in CONVERSATIONS:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.unk_token_id not in tokens
        assert "?" in tokenizer.convert_ids_to_tokens(tokens)
    assert tokenizer.convert_ids_to_tokens(tokenizer.convert_tokens_to_ids(list(LABELS))) == list(LABELS)


def test_the_loss_is_the_divergence_of_what_the_probe_reads() -> None:
    """So prompts, tokens, padding and labels of training are those of the probe."""
    model, tokenizer = made(STILL)
    scores = read(model, tokenizer, CONVERSATIONS)
    (point,) = train(model, tokenizer, CONVERSATIONS, lambda rows, step: SHARES[rows], STILL, 0)
    divergence = (SHARES * (np.log(SHARES) - scores)).sum(axis=1).mean()
    assert point["loss"] == pytest.approx(divergence, rel=1e-5)
    np.testing.assert_array_equal(read(model, tokenizer, CONVERSATIONS), scores)


def test_training_teaches_each_prompt_its_own_shares() -> None:
    recipe = dataclasses.replace(RECIPE, steps=150, batch=4, learning_rate=1e-2, dim=32)
    rows = [0, 1, 20, 40]
    some, wanted = [CONVERSATIONS[row] for row in rows], np.array([[0.1, 0.9], [0.9, 0.1], [0.5, 0.5], [0.7, 0.3]])
    model, tokenizer = made(recipe)
    before = np.abs(np.exp(read(model, tokenizer, some)) - wanted).max()
    curve = train(model, tokenizer, some, lambda rows, step: wanted[rows], recipe, 0)
    after = np.abs(np.exp(read(model, tokenizer, some)) - wanted).max()
    assert before > 0.8
    assert after < 0.1
    assert [point["step"] for point in curve] == list(range(10, 151, 10))


def test_every_prompt_is_read_equally_often() -> None:
    seen: list[int] = []

    def targets(rows: np.ndarray, step: int) -> np.ndarray:
        seen.extend(rows.tolist())
        return SHARES[rows]

    model, tokenizer = made()
    count = len(CONVERSATIONS)
    train(model, tokenizer, CONVERSATIONS, targets, dataclasses.replace(RECIPE, steps=count, batch=3), 0)
    assert np.bincount(seen, minlength=count).tolist() == [3] * count
    assert seen[:count] != seen[count : 2 * count]


def test_weights_and_order_follow_the_seed() -> None:
    states = torch.random.get_rng_state()
    weights = [untrained(RECIPE, made()[1], seed).lm_head.weight for seed in (0, 0, 1)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert torch.equal(torch.random.get_rng_state(), states)


def test_rates() -> None:
    recipe = Recipe(steps=100, warmup=10, learning_rate=0.5)
    assert [recipe.rate(step) for step in (0, 9, 10)] == pytest.approx([0.05, 0.5, 0.5])
    assert recipe.rate(55) == pytest.approx(0.25)
    assert 0 < recipe.rate(99) < 0.001
    assert (TOY.trained.recipe.gpu, Recipe(device="cuda").gpu) == (0.0, 1.0)
