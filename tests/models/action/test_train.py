"""Training of the action model: that it learns, that a killed run goes on exactly, several processes, mistakes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from holdfast.errors import ArgumentError
from holdfast.models.action.checkpoint import load_model
from holdfast.models.action.model import ActionModel
from holdfast.models.action.recipe import (
    ActionDataRecipe,
    ActionIntervalRecipe,
    ActionModelRecipe,
    ActionOptimisationRecipe,
    ActionRecipe,
)
from holdfast.models.action.train import MODEL, Run, learning_rate, train, weight_decay_groups
from holdfast.models.training.loss import TrainingError
from holdfast.models.training.run_folder import COMPLETE, RunFolder
from holdfast.nn import MIXERS
from tests.models.action.sources import CONTEXT, MadeUp
from tests.models.action.tiny import ARM, GAME, MAZE


def recipe(**changes: Any) -> ActionRecipe:
    """A model of a few thousand weights and twelve steps; changes are of its optimisation."""
    optimisation = {"steps": 12, "batch": 4, "accumulate": 2, "lr": 1e-2, "device": "cpu", **changes}
    return ActionRecipe(
        data=ActionDataRecipe(context=CONTEXT),
        model=ActionModelRecipe(backbone="schedule", mixers="rnn", layers=1, dim=16, heads=2, bins=8),
        optimisation=ActionOptimisationRecipe(**optimisation),
        intervals=ActionIntervalRecipe(log_every=2, eval_every=6, save_every=3),
    )


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A run from beginning to end."""
    out = tmp_path_factory.mktemp("runs") / "uninterrupted"
    return out, train(recipe(), MadeUp(), out, quiet=True)


def assert_equal_runs(out: Path, other: Path) -> None:
    """The same weights bit by bit, and the same curve."""
    ours, theirs = (load_model(path / MODEL).state_dict() for path in (out, other))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    accounts = [json.loads((path / "training.json").read_text()) for path in (out, other)]
    assert accounts[0]["curve"] == accounts[1]["curve"]


def test_a_run_learns_and_leaves_a_model_with_its_account(uninterrupted):
    out, report = uninterrupted
    assert {path.name for path in out.iterdir()} == {MODEL, "loss.svg", "run.json", "training.json"}
    assert json.loads((out / "training.json").read_text()) == report
    training = [point["training"] for point in report["curve"] if "training" in point]
    assert training[-1] < training[0] - 0.5
    assert [point["step"] for point in report["curve"] if "training" in point] == [1, 2, 4, 6, 8, 10, 12]
    assert [point["step"] for point in report["curve"] if "validation" in point] == [6, 12]
    model = load_model(out / MODEL)
    assert set(report["domains"]) == {"arm", "maze"}
    for name, loss in report["domains"].items():
        found = [model.loss(batch) for batch in MadeUp().validation(100) if batch.domain.name == name]
        by_hand = sum(part.mean * part.elements for part in found) / sum(part.elements for part in found)
        assert loss == pytest.approx(by_hand.item(), rel=1e-5)
    assert report["validation_loss"] == pytest.approx(sum(report["domains"].values()) / 2)
    assert report["batches"] == 24


def test_every_batch_is_taken_once_and_in_order(tmp_path):
    source = MadeUp()
    train(recipe(steps=4, accumulate=3), source, tmp_path / "out", quiet=True)
    assert source.asked == list(range(12))


def test_a_run_that_broke_off_goes_on_exactly(uninterrupted, tmp_path, monkeypatch):
    """Interrupted between checkpoints, then in the middle of writing one, then to the end."""
    out, folder = tmp_path / "out", RunFolder(tmp_path / "out")
    with pytest.raises(KeyboardInterrupt):
        train(recipe(), MadeUp(stop_at=15), out, quiet=True)
    assert folder.last_checkpoint()[0].name == "checkpoint-6"
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "complete", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            train(recipe(), MadeUp(), out, resume=True, quiet=True)
    half = folder.checkpoints / "checkpoint-9"
    assert half.is_dir()
    assert not (half / COMPLETE).exists()
    source = MadeUp()
    with pytest.warns(UserWarning, match="checkpoint-9 was half-written"):
        train(recipe(), source, out, resume=True, quiet=True)
    assert source.asked == list(range(12, 24))
    assert_equal_runs(out, uninterrupted[0])
    assert train(recipe(), MadeUp(), out, resume=True, quiet=True) == json.loads((out / "training.json").read_text())


def test_two_checkpoints_are_kept_until_the_run_is_done(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(recipe(), MadeUp(stop_at=23), tmp_path / "out", quiet=True)
    assert {path.name for path in (tmp_path / "out" / "checkpoints").iterdir()} == {"checkpoint-6", "checkpoint-9"}


def test_two_processes_train_what_one_does(uninterrupted, tmp_path):
    """The same batches, gradients that are summed in another order; AdamW turns rounding into steps."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    ran = subprocess.run(
        [*launcher, "-m", "tests.models.action.two_processes", str(tmp_path / "out")],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    report = json.loads((tmp_path / "out" / "training.json").read_text())
    assert report["environment"]["processes"] == 2
    for ours, theirs in zip(report["curve"], uninterrupted[1]["curve"], strict=True):
        assert ours.get("domains", {}) == pytest.approx(theirs.get("domains", {}), abs=2e-3)
        plain = [{name: value for name, value in point.items() if name != "domains"} for point in (ours, theirs)]
        assert plain[0] == pytest.approx(plain[1], abs=2e-3)
    assert report["domains"] == pytest.approx(uninterrupted[1]["domains"], abs=2e-3)


def test_bfloat16_learns_about_the_same(uninterrupted, tmp_path):
    report = train(recipe(precision="bfloat16"), MadeUp(), tmp_path / "out", quiet=True)
    assert report["environment"]["precision"] == "bfloat16"
    assert report["validation_loss"] != uninterrupted[1]["validation_loss"]
    assert report["validation_loss"] == pytest.approx(uninterrupted[1]["validation_loss"], rel=0.1)
    assert {value.dtype for value in load_model(tmp_path / "out" / MODEL).state_dict().values()} == {torch.float32}


def test_other_settings_or_other_data_do_not_go_on(uninterrupted, tmp_path):
    out, _ = uninterrupted
    for changed, source, resume, message in [
        (recipe(), MadeUp(), False, "--output: expected a new folder, or --resume"),
        (recipe(lr=1.0), MadeUp(), True, "--lr: expected 0.01, which the run was begun with, got 1.0"),
        (recipe(), MadeUp(data=1), True, "--resume: expected the data that the run was begun with, got others"),
    ]:
        with pytest.raises(ArgumentError, match=message):
            train(changed, source, out, resume=resume, quiet=True)
    beginning = json.loads((out / "run.json").read_text())
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(ArgumentError, match=r"--resume: expected a run of this version .* without its recipe"):
        train(recipe(), MadeUp(), tmp_path, resume=True, quiet=True)
    beginning["environment"]["threads"] = 99
    (tmp_path / "run.json").write_text(json.dumps(beginning))
    (tmp_path / "training.json").write_bytes((out / "training.json").read_bytes())
    with pytest.warns(UserWarning, match=r"differ in rounding.* threads"):
        train(recipe(), MadeUp(), tmp_path, resume=True, quiet=True)


def test_the_rate_rises_and_falls():
    optimisation = ActionOptimisationRecipe(lr=2.0, warmup=0.2)
    rates = [learning_rate(step, 10, optimisation) for step in range(10)]
    assert rates[:3] == [1.0, 2.0, 2.0]
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert rates[6] == pytest.approx(1.0)
    assert 0 < rates[9] < 0.1
    assert learning_rate(0, 10, ActionOptimisationRecipe(lr=2.0, warmup=0.0)) == 2.0
    assert learning_rate(9, 10, ActionOptimisationRecipe(lr=2.0, warmup=1.0)) == 2.0


@pytest.mark.parametrize("backbone", ["mamba", "xlstm", "schedule"])
def test_weight_decay_is_of_matrices_and_kernels_alone(backbone):
    shape = ActionModelRecipe(
        backbone=backbone,
        mixers=",".join(MIXERS),
        layers=len(MIXERS),
        dim=16,
        heads=2,
        slstm_at=(1,) if backbone == "xlstm" else (),
        past_actions=True,
    )
    model = ActionModel(shape.config((ARM, MAZE, GAME), CONTEXT))
    groups = weight_decay_groups(model, 0.3)
    assert [group["weight_decay"] for group in groups] == [0.3, 0.0]
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed, free = ({names[id(parameter)] for parameter in group["params"]} for group in groups)
    assert decayed | free == set(names.values())
    assert {"vectors.linear.weight", "images.linear.weight", "images.layers.0.weight", "head.linear.weight"} <= decayed
    assert {"tokens.actions.weight", "tokens.norm.weight", "head.linear.bias", "tokens.returns.bias"} <= free
    assert not any(name.endswith("A_log") for name in decayed)
    assert all(model.get_parameter(name).ndim >= 2 for name in decayed)


def test_minutes_are_counted_in_steps_once(tmp_path, monkeypatch):
    monkeypatch.setattr("holdfast.models.training.pace.time_of", lambda work, device: (work(), 2.0)[1])
    report = train(recipe(steps=None, minutes=0.5), MadeUp(), tmp_path / "out", quiet=True)
    # A step takes 2 s; every 6 steps the validation data is looked at, in 5 batches of 2 s.
    assert report["steps"] == round(30 / (2 + 5 / 6 * 2))
    assert f"--steps {report['steps']}" in report["command"]


def test_a_run_without_a_loss_stops(tmp_path, monkeypatch):
    monkeypatch.setattr(Run, "_step", lambda self: float("nan"))
    with pytest.raises(TrainingError, match="the loss is nan after 1 steps; try a smaller --lr"):
        train(recipe(), MadeUp(), tmp_path / "out", quiet=True)


class Without(MadeUp):
    def validation(self, size: int) -> Any:
        return iter(())


@pytest.mark.parametrize(
    ("change", "source", "message"),
    [
        (
            {"model": ActionModelRecipe(backbone="schedule", dim=10)},
            MadeUp(),
            "--dim: expected a multiple of the 4 heads",
        ),
        ({"model": ActionModelRecipe(slstm_at=(4,))}, MadeUp(), "--slstm-at: expected different numbers below the 4"),
        ({"model": ActionModelRecipe(state_width=4)}, MadeUp(), "domain arm: expected observations that fit"),
        ({"model": ActionModelRecipe(backbone="schedule", mixers="rats")}, MadeUp(), "--mixers: expected a sequence"),
        ({}, Without(), "data: expected a domain with at least two trajectories"),
    ],
)
def test_a_mistake_is_told_before_anything_is_written(tmp_path, change, source, message):
    with pytest.raises(ArgumentError, match=message):
        train(replace(recipe(), **change), source, tmp_path / "out", quiet=True)
    assert not (tmp_path / "out").exists()


def test_shares_that_do_not_divide_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ArgumentError, match="--accumulate: expected a multiple of the 2 processes, got 3"):
        train(recipe(accumulate=3), MadeUp(), tmp_path / "out", quiet=True)
    monkeypatch.delenv("WORLD_SIZE")
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ArgumentError, match="FSDP"):
        train(recipe(), MadeUp(), tmp_path / "out", quiet=True)


def test_a_recipe_is_a_command_and_back():
    asked = replace(recipe(), model=ActionModelRecipe(backbone="mamba", returns=False, past_actions=True))
    assert ActionRecipe.from_dict(json.loads(json.dumps(asked.to_dict()))) == asked
    words = asked.command.split()
    assert words[:3] == ["holdfast", "train", "action"]
    assert {"--no-returns", "--past-actions", "--backbone", "mamba"} <= set(words)
    with pytest.raises(ArgumentError, match="--slstm-at: expected no block, unless --backbone is xlstm"):
        ActionModelRecipe(backbone="mamba", slstm_at=(1,))
