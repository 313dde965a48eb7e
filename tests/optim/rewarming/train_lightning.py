"""Trainings by Lightning, in a process of its own: whole ones, one that is killed, and one that goes on from there."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import torch
from lightning.pytorch.callbacks import Callback, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from holdfast.errors import ArgumentError
from holdfast.optim import Cusum, EffectiveLR, LightningCallback, Projector, Rewarm, RewarmWarning

SAVED, KILLED, TRIGGERED, STEPS = 73, 80, 91, 273
SETTINGS: dict[str, Any] = {"peak": 1e-2, "final": 1e-4, "warmup": 5, "period": 100, "peaks": [0.02]}


class Net(lightning.LightningModule):
    def __init__(self, *, scheduler: str = "") -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 1))
        self.scheduler = scheduler

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        x, y = batch
        return (self(x) - y).square().mean()

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), lr=1e-3)
        if self.scheduler == "rewarm":  # once an epoch, which is what Lightning does unless told
            return [optimizer], [Rewarm(optimizer, **SETTINGS, trigger=Cusum())]
        if self.scheduler:
            return [optimizer], [torch.optim.lr_scheduler.ConstantLR(optimizer)]
        return optimizer


class Watch(Callback):
    """Notes the rate of each step, calls the trigger at one, and kills the process at another."""

    def __init__(self, callback: LightningCallback, killed: int | None = None) -> None:
        self.callback, self.killed = callback, killed
        self.rates: list[str] = []

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        self.rates.append(optimizer.param_groups[0]["lr"].hex())

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if trainer.global_step == TRIGGERED:
            self.callback.rewarm.trigger()
        if trainer.global_step == self.killed:
            os.kill(os.getpid(), signal.SIGKILL)


def train(
    folder: Path,
    *,
    killed: int | None = None,
    checkpoint: Path | None = None,
    scheduler: str = "",
    steps: int = STEPS,
    **trainer: Any,
) -> dict[str, Any]:
    torch.manual_seed(0)
    model = Net(scheduler=scheduler)
    makes = (
        {} if scheduler == "rewarm" else {"rewarm": lambda optimizer: Rewarm(optimizer, **SETTINGS, trigger=Cusum())}
    )
    callback = LightningCallback(projector=Projector, monitor=lambda *both: EffectiveLR(*both, every=20), **makes)
    watch = Watch(callback, killed)
    x = torch.randn(16, 4, generator=torch.Generator().manual_seed(1))
    data = TensorDataset(x.repeat(9, 1), x.sum(1, keepdim=True).repeat(9, 1))  # nine equal batches
    keep = ModelCheckpoint(folder / "checkpoints", "{step}", every_n_train_steps=SAVED, save_top_k=-1)
    callbacks = [callback, watch, keep, *([LearningRateMonitor("step")] if scheduler == "rewarm" else [])]
    fit = lightning.Trainer(
        accelerator="cpu", max_steps=steps, callbacks=callbacks, logger=CSVLogger(folder), default_root_dir=folder,
        enable_progress_bar=False, enable_model_summary=False, log_every_n_steps=1, **trainer,
    )  # fmt: skip
    fit.fit(model, DataLoader(data, batch_size=16), ckpt_path=checkpoint, weights_only=True)
    logged = Path(fit.logger.log_dir) / "metrics.csv"
    return {
        "rates": watch.rates,
        "rewarm": callback.rewarm.state_dict(),
        "projector": callback.attachments.projector.state_dict(),
        "weights": {name: value.tolist() for name, value in model.state_dict().items()},
        "elr": callback.attachments.monitor.last,
        "columns": logged.read_text().splitlines()[0].split(",") if logged.exists() else [],
    }


def refusals(folder: Path) -> list[str]:
    words = []
    for callback, scheduler in (
        (LightningCallback(), ""),
        (LightningCallback(projector=Projector, optimizer=1), ""),
        (LightningCallback(rewarm=lambda optimizer: Rewarm(optimizer, **SETTINGS)), "constant"),
    ):
        fit = lightning.Trainer(
            accelerator="cpu", max_steps=1, callbacks=[callback], logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        try:
            fit.fit(Net(scheduler=scheduler), DataLoader(TensorDataset(torch.ones(4, 4), torch.ones(4, 1))))
        except ArgumentError as error:
            words.append(str(error))
    return words


def main(part: str, folder: Path) -> None:
    if part == "killed":
        found = {
            "whole": train(folder / "whole"),
            "own": train(folder / "own", scheduler="rewarm"),
            "summed": train(folder / "summed", steps=12, accumulate_grad_batches=3),
            "refusals": refusals(folder),
        }
        (folder / "whole.json").write_text(json.dumps(found))
        train(folder / "broken", killed=KILLED)
    else:
        found = train(folder / "broken", checkpoint=folder / "broken" / "checkpoints" / f"step={SAVED}.ckpt")
        (folder / "resumed.json").write_text(json.dumps(found))


if __name__ == "__main__":
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("error", category=RewarmWarning)
    main(sys.argv[1], Path(sys.argv[2]))
