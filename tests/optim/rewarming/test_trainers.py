"""Trainings by Lightning and by the Trainer of Hugging Face go on after kill -9 as if nothing had been."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import holdfast.optim
from holdfast.optim import Projector, Rewarm, RewarmWarning
from holdfast.optim.rewarming.attachments import Attachments

SAVED, TRIGGERED, STEPS = 73, 91, 273
HERE = Path(__file__).parent


def trainings(library: str, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What one process found, which was then killed in a training, and another that went on from its checkpoint."""
    for part, status in (("killed", -signal.SIGKILL), ("resumed", 0)):
        ran = subprocess.run(
            [sys.executable, str(HERE / f"train_{library}.py"), part, str(folder)],
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path.cwd())},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert ran.returncode == status, ran.stderr
    found, resumed = (json.loads((folder / f"{name}.json").read_text()) for name in ("whole", "resumed"))
    return found, resumed


def expected() -> list[str]:
    """Rates of the plain schedule, of which a cycle begins by hand at one step."""
    parameter = nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([parameter], lr=1e-3)
    rewarm = Rewarm(optimizer, peak=1e-2, final=1e-4, warmup=5, period=100, peaks=[0.02])
    rates = []
    for step in range(STEPS):
        if step == TRIGGERED:
            rewarm.trigger()
        rates.append(optimizer.param_groups[0]["lr"].hex())
        optimizer.step()
        rewarm.step()
    return rates


def goes_on_bit_for_bit(whole: dict[str, Any], resumed: dict[str, Any]) -> None:
    """Rates, weights, norms to hold, and what the detector remembers of the losses."""
    assert whole["rates"] == expected()
    assert len(resumed["rates"]) == STEPS - SAVED == 200
    assert resumed["rates"] == whole["rates"][SAVED:]
    for part in ("rewarm", "projector", "weights"):
        assert resumed[part] == whole[part], part
    assert whole["rewarm"]["trigger"]["seen"] == 50
    assert [event[0] for event in whole["rewarm"]["events"]] == [TRIGGERED]
    assert resumed["elr"].keys() == whole["elr"].keys()


def holds_norms(whole: dict[str, Any]) -> None:
    (name, target), *others = whole["projector"]["targets"].items()
    assert (name, others) == ("net.0.weight", [])
    assert torch.tensor(whole["weights"][name]).norm().item() == pytest.approx(target, rel=1e-5)


def hears_the_losses_beside_the_trainer_s_own_schedule(own: dict[str, Any], whole: dict[str, Any]) -> None:
    assert own["rates"] == expected()
    # The Trainer's optimiser is a fused one, and ours is not.
    assert own["rewarm"]["trigger"] == pytest.approx(whole["rewarm"]["trigger"], rel=1e-4)


def counts_steps_where_gradients_are_summed_up(summed: dict[str, Any]) -> None:
    assert summed["rewarm"]["last_epoch"] == 12
    assert summed["rewarm"]["trigger"]["seen"] == 12


def says(words: list[str], *beginnings: str) -> None:
    assert len(words) == len(beginnings)
    assert all(word.startswith(beginning) for word, beginning in zip(words, beginnings, strict=True)), words


def test_lightning(tmp_path: Path) -> None:
    pytest.importorskip("lightning")
    found, resumed = trainings("lightning", tmp_path)
    whole, own = found["whole"], found["own"]
    goes_on_bit_for_bit(whole, resumed)
    holds_norms(whole)
    hears_the_losses_beside_the_trainer_s_own_schedule(own, whole)
    counts_steps_where_gradients_are_summed_up(found["summed"])
    assert {"elr/net.0", "angular/net.0", "elr/spread"} <= set(whole["columns"])
    assert "lr-Adam" in own["columns"]
    says(
        found["refusals"],
        "rewarm: expected a projector",
        "optimizer: expected a number below 1",
        "rewarm: expected no other scheduler",
    )


def test_the_trainer_of_hugging_face(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    found, resumed = trainings("huggingface", tmp_path)
    whole = found["whole"]
    goes_on_bit_for_bit(whole, resumed)
    holds_norms(whole)
    hears_the_losses_beside_the_trainer_s_own_schedule(found["own"], whole)
    counts_steps_where_gradients_are_summed_up(found["summed"])
    assert whole["logged"] == whole["rates"]
    logged = found["logged"]["rewarm"]["trigger"]  # a loss function outside of the model: its losses are in the log
    assert logged["seen"] == 50
    assert logged["mean"] > 0
    says(
        found["refusals"],
        "rewarm: expected no second schedule",
        "projector: expected one without masters",
        "trigger: expected a training that tells its loss",
    )


# -- what both share ---------------------------------------------------------------------------------------------------


def training() -> tuple[nn.Module, torch.optim.Optimizer]:
    model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 1))
    return model, torch.optim.SGD(model.parameters(), lr=0.1)


def test_a_checkpoint_of_a_training_without_a_part_is_said() -> None:
    attachments = Attachments(projector=Projector)
    attachments.load_state_dict({})
    with pytest.warns(RewarmWarning, match="no state of projector"):
        attachments.attach(*training(), None, resumed=True)


def test_a_second_training_begins_anew() -> None:
    attachments = Attachments(Projector, rewarm=lambda optimizer: Rewarm(optimizer, peak=0.1, final=0.01, period=10))
    model, optimizer = training()
    attachments.attach(model, optimizer, None, resumed=False)
    for _ in range(3):
        optimizer.step()
        attachments.hear(None)
    first = attachments.rewarm
    attachments.attach(
        model, optimizer, None, resumed=False
    )  # two projectors of a layer are refused, were it still there
    assert attachments.rewarm is not first
    assert attachments.rewarm.last_epoch == 0


def test_the_callbacks_are_there_for_those_who_have_the_library() -> None:
    assert not {"LightningCallback", "HuggingFaceCallback"} & set(holdfast.optim.__all__), "a star needs no trainer"
    assert holdfast.optim.LightningCallback.__name__ == "LightningCallback"
    assert holdfast.optim.HuggingFaceCallback.__name__ == "HuggingFaceCallback"
    with pytest.raises(AttributeError, match="no attribute 'KerasCallback'"):
        _ = holdfast.optim.KerasCallback  # type: ignore[attr-defined]
    script = (
        "import sys, holdfast.optim\n"
        "assert not {'lightning', 'transformers'} & set(sys.modules)\n"
        "sys.modules['lightning'] = None\n"
        "try:\n    holdfast.optim.LightningCallback\n"
        "except ImportError as error:\n    print(error)\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert "holdfast[lightning]" in ran.stdout, ran.stderr
