"""The same tokens in contexts of several lengths, and what a table of positions forbids."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from holdfast.errors import ArgumentError
from holdfast.probes.context_length import position_limit
from holdfast.probes.rat import ContextLoss, PositionLoss, position_loss
from tests.probes.rat import models

transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.mark.parametrize("make", [lambda: models.llama(trained=32), models.mamba, models.jamba, models.bloom])
def test_losses_are_those_of_the_last_tokens(make):
    model, ids = make(), models.tokens(128, texts=3)
    found = position_loss(model, ids, trained=32)
    assert [point.context for point in found.points] == [8, 16, 32, 64, 128]
    assert (found.trained, found.base, found.targets, found.texts, found.left_out) == (32, 32, 4, 3, ())
    by_text = {}
    for point in found.points:
        with torch.no_grad():
            logits = model(ids[:, -point.context :]).logits[:, -5:-1].double()
        losses = torch.nn.functional.cross_entropy(logits.mT, ids[:, -4:], reduction="none")
        by_text[point.context] = losses.mean(1)
        assert point.loss == pytest.approx(losses.mean().item(), abs=1e-5)
    for point in found.points:
        change = by_text[point.context] - by_text[32]
        assert point.change == pytest.approx(change.mean().item(), abs=1e-5)
        if point.context != 32:
            low, high = stats.t.interval(0.95, 2, change.mean(), change.std() / math.sqrt(3))
            assert (point.low, point.high) == pytest.approx((low, high), abs=1e-4)
    assert [point.context for point in found.beyond] == [64, 128]


def test_texts_are_read_in_pieces(monkeypatch):
    model, ids = models.llama(), models.tokens(64, texts=5)
    whole = position_loss(model, ids, contexts=(16, 64))
    monkeypatch.setattr("holdfast.probes.rat.reading.LOGITS", 2 * 9 * 97)
    pieces = position_loss(model, ids, contexts=(16, 64))
    assert [point.loss for point in pieces.points] == pytest.approx([point.loss for point in whole.points], abs=1e-5)


def test_contexts_follow_the_trained_length():
    model = models.llama(trained=64)
    assert [p.context for p in position_loss(model, models.tokens(300)).points] == [16, 32, 64, 128, 256]
    # Texts that are shorter than that are read in parts of theirs.
    short = position_loss(model, models.tokens(40))
    assert [p.context for p in short.points] == [5, 10, 20, 40]
    assert short.base == 40
    assert short.beyond == ()
    unknown = position_loss(models.mamba(), models.tokens(40))
    assert (unknown.trained, unknown.base) == (None, 5)


def test_a_table_of_positions_ends():
    found = position_loss(models.gpt2(), models.tokens(256))
    assert [point.context for point in found.points] == [16, 32, 64]
    assert found.left_out == (128, 256)
    assert "64 positions of its table" in found.finding
    with pytest.raises(ArgumentError, match="contexts: expected two or more that the model can read, got 1 of 64, 128"):
        position_loss(models.gpt2(), models.tokens(256), contexts=(64, 128))
    config = transformers.OPTConfig(
        **models.TOKENS, hidden_size=32, ffn_dim=48, num_hidden_layers=1, num_attention_heads=4,
        max_position_embeddings=40, word_embed_proj_dim=32,
    )  # fmt: skip
    assert position_limit(models.made(config)) == 40
    assert position_limit(models.llama(trained=97)) is None  # as many as there are tokens
    assert position_limit(models.mamba()) is None


def test_what_does_not_fit_is_refused():
    model = models.llama()
    for options, message in (
        ({"contexts": (8, 65)}, "contexts: expected lengths of at most 64 tokens"),
        ({"contexts": ()}, "contexts: expected lengths"),
        ({"targets": 0}, "targets: expected a whole number of at least 1"),
        ({"trained": 0}, "trained: expected a whole number of at least 1"),
    ):
        with pytest.raises(ArgumentError, match=message):
            position_loss(model, models.tokens(64), **options)


def found(change, low, trained=256, limit=None, left_out=(), chance=5.5):
    points = (ContextLoss(256, 1.0, 0.0, 0.0, 0.0), ContextLoss(1024, 1.0 + change, change, low, change + 1))
    return PositionLoss(trained, limit, 256, 64, 8, chance, points, left_out)


def test_what_follows_is_computed():
    assert found(0.5, 0.4).finding == "the loss is 0.50 nats a token higher at 4 times the trained length"
    assert "too few to judge" in found(0.5, -0.1).finding
    assert "from 256 to 1,024 tokens" in found(-0.001, -0.1, trained=None).finding
    assert "changes by +0.00 nats" in found(-0.001, -0.1, trained=None).finding
    assert "does not predict" in found(0.5, 0.4, chance=1.05).finding
    assert found(0.01, 0.0).finding == "the loss holds at 4 times the trained length (+0.01 nats a token)"
    assert "0.50" not in found(0.5, 0.4, limit=256, left_out=(2048,)).finding
    base = ContextLoss(256, 1.0, 0.0, 0.0, 0.0)
    short = PositionLoss(512, None, 256, 64, 8, 5.5, (base,), ())
    assert short.finding == "nothing was read beyond the trained length of 512 tokens"
