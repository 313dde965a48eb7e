"""The parts that train, at toy size: every arm runs and repeats, and all arms of a seed see the same."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from holdfast.errors import ArgumentError
from holdfast.lab import Results, Trial
from holdfast.lab.trial import as_outcome
from holdfast.nn import CausalAttention, GatedRNN
from holdfast.studies.rat import language, needles, positions, text_models
from holdfast.studies.rat.arms import Shape, backbone_of
from holdfast.studies.rat.corpus import Corpus, Text
from holdfast.studies.rat.language_model import LanguageModel
from holdfast.studies.rat.study import study
from tests.studies.rat.toy import RECIPE, TOY
from tests.studies.tools import assert_drawn, assert_repeats, results_of

PARTS = {part.name: part for part in (needles.part, language.part, positions.part)}


@pytest.fixture(scope="module")
def results() -> Results:
    return results_of(study, TOY, *PARTS)


@pytest.mark.parametrize("name", PARTS)
def test_a_trial_twice_is_the_same(name: str, results: Results) -> None:
    pairs = [pair for pair in results.outcomes if pair[0].labels["part"] == name]
    assert_repeats(PARTS[name], *next(pair for pair in pairs if str(pair[0].labels["arm"]).startswith("rat16")))


def test_what_is_measured(results: Results) -> None:
    for row in results.where(part="needles"):
        assert 0 <= float(row["accuracy"] or 0) <= 1
        assert row["questions"] == 4 * int(row["needles"] or 0)
    losses = results.where(part="language")
    assert {row["arm"] for row in losses} == set(language.ARMS)
    assert {row["text"] for row in losses} == {losses[0]["text"]}
    for row in losses:
        context = results.curve("context", part="language", arm=row["arm"])
        assert sum(int(point["width"] or 0) for point in context) == 32
        mean = sum(int(point["width"] or 0) * float(point["loss"] or 0) for point in context) / 32
        assert mean == pytest.approx(float(row["loss"] or 0), rel=1e-5)
    by_arm = {str(row["arm"]): int(row["parameters"] or 0) for row in losses}
    assert by_arm["rat4"] == by_arm["rat64"] > by_arm["rnn"] > by_arm["attention"]
    assert {row["length"] for row in results.where(part="positions")} == {16, 32, 128}


def test_figures(results: Results) -> None:
    drawn = [figure for part in PARTS.values() for figure in part.figures if figure.name != "recall-apart"]
    assert_drawn(drawn, results)


@pytest.mark.parametrize(
    ("arm", "mixers", "chunk_size"),
    [
        ("attention", ("attention",) * 4, 32),
        ("rat64", ("rat",) * 4, 64),
        ("rnn", ("rnn",) * 4, 32),
        ("rat16-window", ("rat", "window") * 2, 16),
        ("attention-window", ("attention", "window") * 2, 32),
    ],
)
def test_arms(arm: str, mixers: tuple[str, ...], chunk_size: int) -> None:
    config = backbone_of(arm, Shape(dim=32, heads=8, layers=4), 32)
    assert (config.mixers, config.chunk_size, config.memory) == (mixers, chunk_size, 32)
    shared = backbone_of("gqa8", Shape(dim=32, heads=8, layers=4), 32)
    assert (shared.mixers, shared.kv_heads) == (("attention",) * 4, 1)


@pytest.mark.parametrize("arm", ["mamba", "rat", "rat0", "rat16-tail", "window"])
def test_unknown_arms(arm: str) -> None:
    with pytest.raises(ArgumentError, match="arm"):
        backbone_of(arm, Shape(), 32)


def test_all_arms_see_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, list[Any]] = {}

    def watched(model: torch.nn.Module, recipe: Any, batches: Any, share: float) -> list[Any]:
        embedding = next(module for module in model.modules() if isinstance(module, torch.nn.Embedding))
        seen[arm] = [*batches(0), *batches(3), embedding.weight.detach().clone()]
        return []

    for module, part, config, labels in (
        (needles, needles.part, TOY.needles, {"task": "joint", "needles": 2}),
        (text_models, language.part, TOY.language, {}),
        (text_models, positions.part, TOY.positions, {"positions": "none"}),
    ):
        seen.clear()
        monkeypatch.setattr(module, "train", watched)
        for arm in ("attention", "rat16", "rnn", "rat16-window"):
            part.run(Trial(3, config, {"arm": arm, **labels}))
        first, *others = seen.values()
        assert len(others) == 3
        assert not torch.equal(first[0], first[2]), "steps differ"
        for other in others:
            assert all(map(torch.equal, first, other))


def test_positions_are_those_of_the_label(monkeypatch: pytest.MonkeyPatch) -> None:
    bases: list[set[float | None]] = []

    def watched(model: LanguageModel, *_: Any) -> list[Any]:
        mixers = [block.mixer for block in model.backbone.blocks]  # type: ignore[union-attr]
        bases.append({mixer.rope_theta for mixer in mixers})  # type: ignore[union-attr, arg-type]
        return []

    monkeypatch.setattr(text_models, "train", watched)
    for name in ("none", "rotary"):
        positions.run(Trial(0, TOY.positions, {"arm": "rat16-window", "positions": name}))
    assert bases == [{None}, {10_000.0}]


def test_losses_are_those_of_the_last_tokens() -> None:
    model = LanguageModel(backbone_of("attention", Shape(dim=16, layers=1), 8), 11, 0, 0)
    inputs, targets = torch.randint(0, 11, (2, 5, 8), generator=torch.Generator().manual_seed(0))
    targets[0, -1] = text_models.IGNORED
    nats = text_models.losses(model, inputs, targets, RECIPE, 3)
    expected = -model(inputs).log_softmax(-1)[:, -3:].gather(-1, targets[:, -3:].clamp(min=0).unsqueeze(-1))[..., 0]
    expected[0, -1] = float("nan")
    assert torch.allclose(nats, expected, rtol=0, atol=1e-5, equal_nan=True)


def test_a_model_that_knows_the_rule_answers() -> None:
    """The loss falls and needles are found where one step's worth of context is enough."""
    easy = dataclasses.replace(
        TOY.needles, needles=(1,), time=8, tests=64, recipe=dataclasses.replace(RECIPE, steps=60, batch=32, warmup=5)
    )
    outcome = as_outcome(needles.run(Trial(0, easy, {"task": "joint", "needles": 1, "arm": "attention"})))
    assert float(outcome.records[0]["accuracy"] or 0) > 0.7, "guessing gives 0.25"


def test_models_have_the_mixers() -> None:
    kinds = {
        arm: {type(block.mixer) for block in LanguageModel(backbone_of(arm, Shape(), 8), 5, 0, 0).backbone.blocks}
        for arm in ("attention", "rnn")
    }
    assert kinds == {"attention": {CausalAttention}, "rnn": {GatedRNN}}


def test_one_text_for_all() -> None:
    corpus = Corpus(torch.arange(50).numpy(), torch.arange(50).numpy(), "")
    model, curve = text_models.trained(dataclasses.replace(TOY.language, text=Text(), time=16), corpus, "rnn", 1)
    assert not model.training
    assert [point["step"] for point in curve] == [2, 4]
