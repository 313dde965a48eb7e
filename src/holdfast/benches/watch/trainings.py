"""Trainings of a known length, with the callback and without, which tell their time and where they ended."""

from __future__ import annotations

import hashlib
import logging
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import nn

TOKENS, LENGTH = 256, 32


@dataclass(frozen=True)
class Training:
    """One that is over.

    Arguments:
        ms: processor time of each step, from the end of the one before; of the first from its beginning.
        weights: a digest of those that it ended with.
        told: what the callback said that it costs, at each measurement.
    """

    ms: tuple[float, ...]
    weights: str
    told: tuple[float, ...]


class _Clock:
    """Processor time of the steps."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def begin(self) -> None:
        if not self.times:
            self.times.append(time.process_time())

    def end(self) -> None:
        self.times.append(time.process_time())

    @property
    def ms(self) -> tuple[float, ...]:
        return tuple((end - start) * 1e3 for start, end in pairwise(self.times))


def huggingface(steps: int, every: int | None, *, batch: int, width: int) -> Training:
    """A transformer of two layers in the Trainer of Hugging Face.

    Arguments:
        steps: of the optimiser.
        every: N of the callback; `None`: there is none.
        batch: rows, of 32 tokens.
        width: of the transformer.
    """
    from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments
    from transformers.trainer_callback import PrinterCallback

    from holdfast.probes.watch.huggingface import HoldfastCallback

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=TOKENS, hidden_size=width, intermediate_size=4 * width, num_hidden_layers=2, num_attention_heads=4
    )
    model = LlamaForCausalLM(config)
    data: Any = [{"input_ids": ids, "labels": ids} for ids in torch.randint(TOKENS, (8 * batch, LENGTH))]
    clock = _Clock()

    class First(TrainerCallback):
        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            clock.begin()

    class Last(TrainerCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            clock.end()

    with tempfile.TemporaryDirectory() as folder, _quiet():
        args = TrainingArguments(
            folder, max_steps=steps, per_device_train_batch_size=batch, use_cpu=True, save_strategy="no", report_to=[],
            disable_tqdm=True, logging_steps=50, dataloader_pin_memory=False,
        )  # fmt: skip
        trainer = Trainer(model, args, train_dataset=data, callbacks=[First()])
        trainer.remove_callback(PrinterCallback)
        if every is not None:
            trainer.add_callback(HoldfastCallback(trainer, every=every))
        trainer.add_callback(Last())
        trainer.train()
        told = tuple(log["holdfast/cost"] for log in trainer.state.log_history if "holdfast/cost" in log)
    return Training(clock.ms, _digest(model), told)


def lightning(steps: int, every: int | None, *, batch: int, width: int) -> Training:
    """A convolutional network of three layers in Lightning.

    Arguments:
        steps: of the optimiser.
        every: N of the callback; `None`: there is none.
        batch: images of 3 x 16 x 16.
        width: four times the channels of the first layer.
    """
    import lightning.pytorch as pl
    from lightning.pytorch.loggers.logger import Logger

    from holdfast.probes.watch.lightning import HoldfastCallback

    torch.manual_seed(0)
    clock = _Clock()
    told: list[float] = []

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            first = width // 4
            self.net = nn.Sequential(
                nn.Conv2d(3, first, 3, padding=1), nn.ReLU(), nn.Conv2d(first, 2 * first, 3, stride=2), nn.ReLU(),
                nn.Flatten(), nn.Linear(2 * first * 49, 8 * first), nn.ReLU(), nn.Linear(8 * first, 10),
            )  # fmt: skip

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            images, labels = batch
            return nn.functional.cross_entropy(self.net(images), labels)

        def configure_optimizers(self) -> Any:
            return torch.optim.AdamW(self.parameters(), lr=1e-3)

    class Memory(Logger):
        name, version = "memory", 0

        def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
            told.extend(number for name, number in metrics.items() if name == "holdfast/cost")

        def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
            pass

    class First(pl.Callback):
        def on_train_batch_start(self, *args: Any) -> None:
            clock.begin()

    class Last(pl.Callback):
        def on_train_batch_end(self, *args: Any) -> None:
            clock.end()

    module = Module()
    data: Any = list(zip(torch.randn(8 * batch, 3, 16, 16), torch.randint(10, (8 * batch,)), strict=True))
    watching = [] if every is None else [HoldfastCallback("net", every=every)]
    with _quiet():
        trainer = pl.Trainer(
            max_steps=steps, logger=Memory(), callbacks=[First(), *watching, Last()], accelerator="cpu", devices=1,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(module, torch.utils.data.DataLoader(data, batch_size=batch, shuffle=True))
    return Training(clock.ms, _digest(module), tuple(told))


def _digest(model: nn.Module) -> str:
    digest = hashlib.sha256()
    for tensor in model.state_dict().values():
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what trainers say about the machine."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "transformers")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
