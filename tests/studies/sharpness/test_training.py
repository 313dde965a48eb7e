"""Training on small sets and testing in every arm, as the parts share it."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from holdfast.lab import Record
from holdfast.studies.sharpness import training
from holdfast.studies.sharpness.arms import ARMS, normalisers, weights
from holdfast.studies.sharpness.item_sets import MAX_RETRIEVAL
from holdfast.studies.sharpness.retrieval_net import MaxRetrievalNet
from holdfast.studies.sharpness.streams import TEST
from tests.studies.sharpness.toy import TOY


def one_hot(logits: torch.Tensor) -> torch.Tensor:
    """All weight on the largest logit."""
    return torch.nn.functional.one_hot(logits.argmax(dim=-1), logits.shape[-1]).to(logits.dtype)


LEARNING = dataclasses.replace(TOY.retrieve, steps=400, width=64, batch_size=64)


@pytest.fixture(scope="module")
def trained() -> tuple[MaxRetrievalNet, list[Record]]:
    """Networks of two seeds that have learned something, and their curve."""
    return training.train(LEARNING, (0, 1), MAX_RETRIEVAL)


def test_evaluation_equals_one_pass_over_all_sets(
    monkeypatch: pytest.MonkeyPatch, trained: tuple[MaxRetrievalNet, list[Record]]
) -> None:
    config, seeds, net = LEARNING, (0, 1), trained[0]
    monkeypatch.setattr(training, "CHUNK", 7 * 64)
    with torch.no_grad():
        records = training.evaluate(net, config, seeds, MAX_RETRIEVAL, lambda n: normalisers(n, 16, [None, None]))
        chunks = list(training.chunks(config, seeds, MAX_RETRIEVAL, TEST, 64, config.sets))
        assert [sets.query.shape[1] for sets in chunks] == [7, 7, 7, 7, 7, 5]
        items, query, winner = (
            torch.cat([getattr(sets, name) for sets in chunks], dim=1) for name in ("items", "query", "winner")
        )
        target = torch.cat([sets.winning_class for sets in chunks], dim=1)
        correct = net(items, query).argmax(dim=-1) == target
        by_argmax = net(items, query, normalise=one_hot).argmax(dim=-1) == target
        weights = net.encode(items, query)[1].softmax(dim=-1)
    assert (~correct & by_argmax).any(), "there is an error by dispersion to tell apart"
    for s in seeds:
        (record,) = [r for r in records if (r["arm"], r["n"], r["seed"]) == ("plain", 64, s)]
        assert record["accuracy"] == pytest.approx(correct[s].double().mean().item(), abs=1e-12)
        for cause, errors in (("ordering", ~correct & ~by_argmax), ("dispersion", ~correct & by_argmax)):
            assert record[f"{cause}_error"] == pytest.approx(errors[s].double().mean().item(), abs=1e-12)
        entropy = torch.special.entr(weights[s]).sum(-1).mean().item()
        assert record["entropy"] == pytest.approx(entropy, abs=1e-5)
        on_winner = weights[s].gather(-1, winner[s, :, None]).mean().item()
        assert record["max_weight"] == pytest.approx(on_winner, abs=1e-6)


def test_settings_of_the_arms_are_those_of_the_task() -> None:
    logits = torch.tensor([[[3.0, *[-2.0] * 255]]], dtype=torch.float64)
    by_arm = dict(zip(ARMS, weights(logits, normalisers(256, 16, [None])), strict=True))
    factors = {
        "plain": 1.0,
        "refit": 1.0,
        "log-n": 2.0,
        "ssmax": 0.43 * math.log(256),
        "yarn": (0.1 * math.log(16) + 1) ** 2,
        "llama4": 1 + 0.1 * math.log(17),
    }
    for arm, factor in factors.items():
        torch.testing.assert_close(by_arm[arm], (factor * logits).softmax(-1), atol=1e-12, rtol=0)
    assert {arm for arm in by_arm if by_arm[arm][0, 0, 0] == 1} == {"entmax", "sparsemax", "hard"}


def test_training_learns(trained: tuple[MaxRetrievalNet, list[Record]]) -> None:
    for seed in (0, 1):
        accuracy = [row["accuracy"] for row in trained[1] if row["seed"] == seed]
        assert accuracy[-1] > 0.8 > 0.5 > accuracy[0]  # type: ignore[operator]
