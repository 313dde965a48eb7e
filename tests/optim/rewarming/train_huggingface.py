"""Trainings by the Trainer of Hugging Face, in a process of its own: whole, killed, and going on from there."""

from __future__ import annotations

import json
import os
import signal
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers import Trainer, TrainerCallback, TrainingArguments

from holdfast.errors import ArgumentError
from holdfast.optim import Cusum, EffectiveLR, HuggingFaceCallback, Projector, Rewarm, RewarmWarning

SAVED, KILLED, TRIGGERED, STEPS = 73, 80, 91, 273
SETTINGS: dict[str, Any] = {"peak": 1e-2, "final": 1e-4, "warmup": 5, "period": 100, "peaks": [0.02]}


class Net(nn.Module):
    def __init__(self, *, tells_loss: bool = True) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 1))
        self.tells_loss = tells_loss

    def forward(self, x: torch.Tensor, labels: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        answer = self.net(x)
        if labels is None or not self.tells_loss:
            return {"logits": answer}
        return {"loss": (answer - labels).square().mean(), "logits": answer}


def own_loss(output: Any, labels: torch.Tensor, num_items_in_batch: Any = None) -> torch.Tensor:
    return (output["logits"] - labels).square().mean()


class Watch(TrainerCallback):
    """Notes the rate of each step, calls the trigger at one, and kills the process at another."""

    def __init__(self, callback: HuggingFaceCallback, killed: int | None = None) -> None:
        self.callback, self.killed = callback, killed
        self.rates: list[str] = []

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.rates.append(kwargs["optimizer"].param_groups[0]["lr"].hex())

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == TRIGGERED:
            self.callback.rewarm.trigger()
        if state.global_step == self.killed:
            os.kill(os.getpid(), signal.SIGKILL)


def train(
    folder: Path,
    *,
    killed: int | None = None,
    checkpoint: Path | None = None,
    own: bool = False,
    loss: Any = "forward",
    makes: dict[str, Any] | None = None,
    model: Net | None = None,
    **settings: Any,
) -> dict[str, Any]:
    torch.manual_seed(0)
    model = model or Net()
    x = torch.randn(16, 4, generator=torch.Generator().manual_seed(1))
    data = [{"x": row, "labels": row.sum(0, keepdim=True)} for row in x]  # one batch, again and again
    arguments = TrainingArguments(
        output_dir=str(folder), use_cpu=True, report_to=[], disable_tqdm=True, logging_steps=1, seed=0, data_seed=0,
        per_device_train_batch_size=16, remove_unused_columns=False, dataloader_pin_memory=False,
        **{"max_steps": STEPS, "save_steps": SAVED, **settings},
    )  # fmt: skip
    optimizers: Any = (None, None)
    if own:
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0)
        optimizers = (optimizer, Rewarm(optimizer, **SETTINGS, trigger=Cusum()))
    elif makes is None:
        makes = {"rewarm": lambda optimizer: Rewarm(optimizer, **SETTINGS, trigger=Cusum())}
    parts = {"projector": Projector, "monitor": lambda *both: EffectiveLR(*both, every=20), **(makes or {})}
    callback = HuggingFaceCallback(**parts, loss=loss)
    watch = Watch(callback, killed)
    trainer = Trainer(
        model, arguments, train_dataset=data, callbacks=[callback, watch], optimizers=optimizers,
        compute_loss_func=None if model.tells_loss else own_loss,
    )  # fmt: skip
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    logged = [entry["learning_rate"].hex() for entry in trainer.state.log_history if "learning_rate" in entry]
    return {
        "rates": watch.rates,
        "logged": logged,
        "rewarm": callback.rewarm.state_dict(),
        "projector": callback.attachments.projector.state_dict(),
        "weights": {name: value.tolist() for name, value in model.state_dict().items()},
        "elr": callback.attachments.monitor.last,
    }


def refusals(folder: Path) -> list[str]:
    words = []
    for settings in (
        {"makes": {"rewarm": lambda optimizer: Rewarm(optimizer, **SETTINGS)}, "own": True},
        {"makes": {"projector": lambda *both: Projector(*both, masters=True)}},
        {"model": Net(tells_loss=False)},
    ):
        try:
            train(folder, max_steps=1, save_strategy="no", **settings)
        except ArgumentError as error:
            words.append(str(error))
    return words


def main(part: str, folder: Path) -> None:
    if part == "killed":
        found = {
            "whole": train(folder / "whole"),
            "own": train(folder / "own", own=True, save_strategy="no"),
            "summed": train(folder / "summed", max_steps=12, gradient_accumulation_steps=3, save_strategy="no"),
            "logged": train(
                folder / "logged", max_steps=60, loss="logged", model=Net(tells_loss=False), save_strategy="no"
            ),
            "refusals": refusals(folder / "refusals"),
        }
        (folder / "whole.json").write_text(json.dumps(found))
        train(folder / "broken", killed=KILLED)
    else:
        moved = (folder / "broken" / f"checkpoint-{SAVED}").rename(folder / "elsewhere")
        (folder / "resumed.json").write_text(json.dumps(train(folder / "new", checkpoint=moved)))


if __name__ == "__main__":
    transformers.utils.logging.set_verbosity_error()
    warnings.filterwarnings("error", category=RewarmWarning)
    main(sys.argv[1], Path(sys.argv[2]))
