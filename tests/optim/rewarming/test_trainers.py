"""Trainings by Lightning and by the Trainer of Hugging Face go on after kill -9 as if nothing had been."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import holdfast.optim
from holdfast.optim import Projector, Rewarm, RewarmWarning
from holdfast.optim.rewarming.attachments import Attachments

SAVED, TRIGGERED, STEPS = 73, 91, 273
LIBRARY = {"lightning": "lightning", "huggingface": "transformers"}
HERE = Path(__file__).parent


@dataclass(frozen=True)
class Runs:
    """What the trainings by one library left."""

    library: str
    found: dict[str, Any]
    resumed: dict[str, Any]


@pytest.fixture(scope="module", params=sorted(LIBRARY))
def runs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """One process trains, and is killed; another goes on from its checkpoint."""
    pytest.importorskip(LIBRARY[request.param])
    folder = tmp_path_factory.mktemp(request.param)
    for part, status in (("killed", -signal.SIGKILL), ("resumed", 0)):
        ran = subprocess.run(
            [sys.executable, str(HERE / f"train_{request.param}.py"), part, str(folder)],
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path.cwd())},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert ran.returncode == status, ran.stderr
    found, resumed = (json.loads((folder / f"{name}.json").read_text()) for name in ("whole", "resumed"))
    return Runs(request.param, found, resumed)


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


def test_a_killed_training_goes_on_bit_for_bit(runs: Runs) -> None:
    """Rates, weights, norms to hold, and what the detector remembers of the losses."""
    whole = runs.found["whole"]
    assert whole["rates"] == expected()
    assert len(runs.resumed["rates"]) == STEPS - SAVED == 200
    assert runs.resumed["rates"] == whole["rates"][SAVED:]
    for part in ("rewarm", "projector", "weights"):
        assert runs.resumed[part] == whole[part], part
    assert whole["rewarm"]["trigger"]["seen"] == 50
    assert [event[0] for event in whole["rewarm"]["events"]] == [TRIGGERED]
    assert runs.resumed["elr"].keys() == whole["elr"].keys()


def test_norms_are_held(runs: Runs) -> None:
    whole = runs.found["whole"]
    (name, target), *others = whole["projector"]["targets"].items()
    assert (name, others) == ("net.0.weight", [])
    assert torch.tensor(whole["weights"][name]).norm().item() == pytest.approx(target, rel=1e-5)


def test_a_schedule_of_the_trainer_s_own_gets_the_losses(runs: Runs) -> None:
    own = runs.found["own"]
    assert own["rates"] == expected()
    assert own["rewarm"]["trigger"] == runs.found["whole"]["rewarm"]["trigger"]


def test_steps_are_counted_where_gradients_are_summed_up(runs: Runs) -> None:
    assert runs.found["summed"]["rewarm"]["last_epoch"] == 12
    assert runs.found["summed"]["rewarm"]["trigger"]["seen"] == 12


def test_what_is_logged(runs: Runs) -> None:
    if runs.library == "huggingface":
        assert runs.found["whole"]["logged"] == runs.found["whole"]["rates"]
        # A loss function outside of the model: its losses are in the log.
        assert runs.found["logged"]["rewarm"]["trigger"]["seen"] == 50
        assert runs.found["logged"]["rewarm"]["trigger"]["mean"] > 0
    else:
        assert {"elr/net.0", "angular/net.0", "elr/spread"} <= set(runs.found["whole"]["columns"])
        assert "lr-Adam" in runs.found["own"]["columns"]


def test_refusals(runs: Runs) -> None:
    beginnings = {
        "lightning": [
            "rewarm: expected a projector",
            "optimizer: expected a number below 1",
            "rewarm: expected no other",
        ],
        "huggingface": ["rewarm: expected no second", "projector: expected one without masters", "trigger: expected a"],
    }[runs.library]
    for words, beginning in zip(runs.found["refusals"], beginnings, strict=True):
        assert words.startswith(beginning)


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
    assert {"LightningCallback", "HuggingFaceCallback"} <= set(holdfast.optim.__all__)
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
    assert "holdfast[plasticity]" in ran.stdout, ran.stderr
