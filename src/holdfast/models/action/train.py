"""Trains an action model on Accelerate, so that it can be killed and resumed exactly.

A batch is a function of its number, and each step takes the next ones: a run that goes on from a checkpoint sees what
it would have seen, on any number of processes.
"""

from __future__ import annotations

import contextlib
import copy
import json
import math
import os
import shutil
import time
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, set_seed
from jaxtyping import Float
from torch import Tensor, nn

from holdfast.errors import ArgumentError
from holdfast.models.action.batch import Batch, BatchSource
from holdfast.models.action.checkpoint import save_model
from holdfast.models.action.model import ActionModel
from holdfast.models.action.recipe import ActionOptimisationRecipe, ActionRecipe, told_as_flags
from holdfast.models.training.beginning import check_beginning, environment
from holdfast.models.training.curve import draw_curve
from holdfast.models.training.loss import check_loss
from holdfast.models.training.pace import steps_within
from holdfast.models.training.place import Place
from holdfast.models.training.progress import Progress
from holdfast.models.training.run_folder import RunFolder

STEPS = 4000
"""Of a run for which neither steps nor minutes are asked."""

MODEL = "policy.safetensors"
"""The model's file in the folder of a run."""

PRECISIONS = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}
"""How Accelerate calls them."""

UNIT = "nats"
"""Of losses: cross-entropy of a dimension of an action."""


def train(
    recipe: ActionRecipe, source: BatchSource, out: Path, *, resume: bool = False, quiet: bool = False
) -> dict[str, Any]:
    """Train an action model, or go on with it.

    Arguments:
        recipe: model, optimisation and intervals.
        source: of batches, for training and for validation.
        out: folder for the model; new or empty, unless it holds a run to be resumed.
        resume: go on with the run in `out` from its last checkpoint, or begin it if there is none. On a CPU, with the
            same versions and threads, the weights are those of a run that was never interrupted, bit by bit.
        quiet: show no progress.

    Returns:
        The account that is written to `training.json`, with command, settings, versions, data, curve, and
        `validation_loss`, the mean over domains of the mean cross-entropy of an action's dimension, in nats.

    Errors:
        ArgumentError: settings, data or folder that cannot be used, or that differ from those of the run to be resumed.
        TrainingError: the loss is no finite number.
    """
    folder = RunFolder(out)
    folder.check(resume=resume)
    place = Place.of(recipe.optimisation)
    _check_shares(recipe.optimisation, place)
    domains = tuple(source.domains[name] for name in sorted(source.domains))
    config = recipe.model.config(domains, recipe.data.context)
    if next(iter(source.validation(1)), None) is None:
        raise ArgumentError("data", "a domain with at least two trajectories, one of them for validation", "none")
    now = environment(place, "accelerate")
    if folder.begun:
        beginning = folder.beginning()
        check_beginning(beginning, now, recipe, place)
        if beginning["data"]["sha256"] != source.fingerprint:
            raise ArgumentError("--resume", "the data that the run was begun with", "others")
        report = folder.report()
        if report is not None:
            return report
    AcceleratorState._reset_state()  # an earlier run in this process may have had another precision
    handlers = [DistributedDataParallelKwargs(find_unused_parameters=True)] if place.processes > 1 else []
    accelerator = Accelerator(
        cpu=place.device == "cpu", mixed_precision=PRECISIONS[place.precision], kwargs_handlers=handlers
    )
    accelerator.wait_for_everyone()  # before one of them writes, all have looked
    set_seed(recipe.optimisation.seed)
    with told_as_flags():
        model = ActionModel(config)
    if not folder.begun:
        steps = _steps(model, recipe, source, place)
        data = {"sha256": source.fingerprint, "domains": [domain.name for domain in domains]}
        beginning = {"recipe": recipe.to_dict(), "steps": steps, "data": data, "environment": now}
        accelerator.wait_for_everyone()
        if place.first:
            folder.begin(beginning)
    job = Job(recipe, source, folder, place, beginning)
    return Run(model, accelerator, job).to_the_end(quiet=quiet)


@dataclass(frozen=True)
class Job:
    """All that a run needs besides the model.

    Arguments:
        recipe: the settings.
        source: of batches.
        folder: where it is kept.
        place: where it is computed.
        beginning: what the run was begun with.
    """

    recipe: ActionRecipe
    source: BatchSource
    folder: RunFolder
    place: Place
    beginning: dict[str, Any]

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return int(self.beginning["steps"])

    def numbers(self, step: int) -> Iterable[int]:
        """Of the batches that this process takes in a step."""
        parts = self.recipe.optimisation.accumulate
        return range(step * parts + self.place.rank, (step + 1) * parts, self.place.processes)


class Learner(nn.Module):
    """The loss of a batch, as what is called in the forward pass: several processes share gradients around it.

    Arguments:
        model: that learns.
    """

    def __init__(self, model: ActionModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> Float[Tensor, ""]:
        """Mean loss."""
        return self.model.loss(batch).mean


@dataclass
class Account:
    """What a run has come to.

    Arguments:
        step: steps that are done.
        seconds: that they took, the times before interruptions included.
        curve: losses by step.
        pending: sum of the losses since the last point of the curve, and how many steps they are of.
    """

    step: int = 0
    seconds: float = 0.0
    curve: list[dict[str, Any]] = field(default_factory=list)
    pending: tuple[float, int] = (0.0, 0)


class Run:
    """A model on its way through a job.

    Arguments:
        model: that learns.
        accelerator: of Accelerate.
        job: what to do.
    """

    def __init__(self, model: ActionModel, accelerator: Accelerator, job: Job) -> None:
        self.accelerator, self.job = accelerator, job
        self.learner: Any = Learner(model)
        optimisation = job.recipe.optimisation
        groups = weight_decay_groups(model, optimisation.weight_decay)
        optimiser = torch.optim.AdamW(groups, lr=optimisation.lr, betas=(0.9, 0.95))
        self.learner, self.optimiser = accelerator.prepare(self.learner, optimiser)
        self.account = Account()

    @property
    def model(self) -> ActionModel:
        """The model itself."""
        model: ActionModel = self.accelerator.unwrap_model(self.learner).model
        return model

    def to_the_end(self, *, quiet: bool) -> dict[str, Any]:
        """Train, measure, and write the model with its account."""
        job, recipe, folder = self.job, self.job.recipe, self.job.folder
        self._go_on()
        optimisation, intervals = recipe.optimisation, recipe.intervals
        windows = optimisation.batch * optimisation.accumulate
        begun, before, account = time.monotonic(), self.account.seconds, self.account
        with Progress(UNIT, windows, "windows", wanted=job.place.first and not quiet) as progress:
            progress.begin(account.step)
            while account.step < job.steps:
                loss = self._step()
                account.step += 1
                account.seconds = before + time.monotonic() - begun
                account.pending = (account.pending[0] + loss, account.pending[1] + 1)
                last = account.step == job.steps
                saves = account.step % intervals.save_every == 0 and not last
                if account.step == 1 or account.step % intervals.log_every == 0 or last:
                    self._log(progress)
                if account.step % intervals.eval_every == 0 and not last:
                    self._look(progress)
                progress.move(account.step, job.steps)
                if saves:
                    self._save()
            losses = self._look(progress)
        report = {
            "command": recipe.with_steps(job.steps).command,
            "validation_loss": losses["validation"],
            "domains": losses["domains"],
            "parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            "steps": job.steps,
            "batches": job.steps * optimisation.accumulate,
            "seconds": round(account.seconds, 1),
            "seed": optimisation.seed,
            **{name: job.beginning[name] for name in ("recipe", "data", "environment")},
            "curve": account.curve,
        }
        if job.place.first:
            save_model(self.model, folder.path / MODEL)
            draw_curve(account.curve, losses["validation"], f"cross-entropy ({UNIT})", folder.path / "loss.svg")
            folder.finish(report)
        self.accelerator.wait_for_everyone()
        return report

    def _step(self) -> float:
        """One step of the optimiser; the mean loss of this process's batches."""
        recipe, accelerator, job = self.job.recipe, self.accelerator, self.job
        numbers, total = list(job.numbers(self.account.step)), 0.0
        self.learner.train()
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.account.step, job.steps, recipe.optimisation)
        for number in numbers:
            batch = job.source.batch(number, recipe.optimisation.batch).to(accelerator.device)
            last = number == numbers[-1]
            with contextlib.nullcontext() if last else accelerator.no_sync(self.learner):
                loss = self.learner(batch) / len(numbers)
                accelerator.backward(loss)
            total += float(loss.detach())
        accelerator.clip_grad_norm_(self.learner.parameters(), recipe.optimisation.clip)
        self.optimiser.step()
        self.optimiser.zero_grad()
        return total

    def _log(self, progress: Progress) -> None:
        """A point of the training curve: the mean since the last one, of all processes."""
        account, (total, count) = self.account, self.account.pending
        mine = torch.tensor(total / count, dtype=torch.float64, device=self.accelerator.device)
        mean = float(self.accelerator.reduce(mine, "mean"))
        check_loss(mean, account.step)
        account.pending = (0.0, 0)
        account.curve.append({"step": account.step, "training": round(mean, 6)})
        progress.tell(training=mean)

    def _look(self, progress: Progress) -> dict[str, Any]:
        """A point of the validation curve: the mean over domains, and each of them."""
        losses = self.validation_losses()
        mean = math.fsum(losses.values()) / len(losses)
        point = {"step": self.account.step, "validation": round(mean, 6), "domains": losses}
        self.account.curve.append(point)
        progress.tell(validation=mean)
        progress.line(self.account.step, self.job.steps)
        return {"validation": mean, "domains": losses}

    @torch.no_grad()
    def validation_losses(self) -> dict[str, float]:
        """Mean cross-entropy of each domain's validation data, each batch counted once by one of the processes."""
        job, accelerator, model = self.job, self.accelerator, self.model
        model.eval()
        names = sorted(job.source.domains)
        totals = torch.zeros(len(names), 2, dtype=torch.float64, device=accelerator.device)
        for number, batch in enumerate(job.source.validation(job.recipe.optimisation.batch)):
            if number % job.place.processes != job.place.rank:
                continue
            with accelerator.autocast():
                loss = model.loss(batch.to(accelerator.device))
            totals[names.index(batch.domain.name)] += torch.stack([loss.mean.double() * loss.elements, loss.elements])
        totals = accelerator.reduce(totals, "sum")
        return {name: float(nats / count) for name, (nats, count) in zip(names, totals.tolist(), strict=True) if count}

    def _save(self) -> None:
        """A checkpoint, whole only once all processes have written their part."""
        folder, account = self.job.folder, self.account
        path = folder.checkpoints / f"checkpoint-{account.step}"
        self.accelerator.wait_for_everyone()
        self.accelerator.save_state(str(path))
        if self.job.place.first:
            kept = {"curve": account.curve, "pending": account.pending}
            (path / "account.json").write_text(json.dumps(kept), encoding="utf-8")
        self.accelerator.wait_for_everyone()
        if self.job.place.first:
            folder.complete(account.step, account.seconds)
            for old in sorted(folder.checkpoints.glob("checkpoint-*"), key=_number)[:-2]:
                shutil.rmtree(old)

    def _go_on(self) -> None:
        """From the last whole checkpoint, if there is one."""
        folder, place = self.job.folder, self.job.place
        if place.first:
            for name in folder.discard_incomplete():
                warnings.warn(f"{name} was half-written when the run ended, and is not used", stacklevel=4)
        self.accelerator.wait_for_everyone()
        last = folder.last_checkpoint()
        if last is None:
            return
        path, seconds = last
        self.accelerator.load_state(str(path))
        kept = json.loads((path / "account.json").read_text(encoding="utf-8"))
        self.account = Account(_number(path), seconds, kept["curve"], tuple(kept["pending"]))


def learning_rate(step: int, steps: int, optimisation: ActionOptimisationRecipe) -> float:
    """A linear rise, then half a cosine down to zero.

    Arguments:
        step: number of the step, from 0.
        steps: of the whole run.
        optimisation: largest rate, and the share of steps in which it rises.
    """
    rise = round(optimisation.warmup * steps)
    if step < rise:
        return optimisation.lr * (step + 1) / rise
    return optimisation.lr * 0.5 * (1 + math.cos(math.pi * (step - rise) / (steps - rise)))


def weight_decay_groups(model: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Parameters for an optimiser: matrices and kernels with decay; vectors, embeddings and Mamba's A without."""
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    named = list(model.named_parameters())
    decays = [p.ndim >= 2 and id(p) not in embeddings and not name.endswith("A_log") for name, p in named]
    parts = ([p for (_, p), yes in zip(named, decays, strict=True) if yes == wanted] for wanted in (True, False))
    return [{"params": part, "weight_decay": rate} for part, rate in zip(parts, (decay, 0.0), strict=True)]


def _check_shares(optimisation: ActionOptimisationRecipe, place: Place) -> None:
    """Refuse what cannot be shared."""
    if optimisation.accumulate % place.processes:
        expected = f"a multiple of the {place.processes} processes"
        raise ArgumentError("--accumulate", expected, optimisation.accumulate)
    if os.environ.get("ACCELERATE_USE_FSDP", "").lower() in ("1", "true", "yes"):
        raise ArgumentError("FSDP", "processes that hold a whole model each (DDP)", "FSDP")


def _steps(model: ActionModel, recipe: ActionRecipe, source: BatchSource, place: Place) -> int:
    """How many steps the run has: as asked, or as many as fit into the time."""
    optimisation = recipe.optimisation
    if optimisation.minutes is None:
        return STEPS if optimisation.steps is None else optimisation.steps
    trial = copy.deepcopy(model).to(place.device)
    optimiser = torch.optim.AdamW(trial.parameters())
    batches = [source.batch(number, optimisation.batch).to(place.device) for number in range(len(source.domains))]
    kind = torch.bfloat16 if place.precision == "bfloat16" else torch.float16
    parts, turn = optimisation.accumulate // place.processes, iter(range(10**9))

    def loss() -> Tensor:
        with torch.autocast(place.device, dtype=kind, enabled=place.precision != "float32"):
            return trial.loss(batches[next(turn) % len(batches)]).mean

    def step() -> None:
        for _ in range(parts):
            loss().backward()
        optimiser.step()
        optimiser.zero_grad()

    def look() -> None:
        with torch.no_grad():
            loss()

    looks = sum(1 for _ in source.validation(optimisation.batch)) / place.processes / recipe.intervals.eval_every
    steps = torch.tensor(steps_within(optimisation.minutes, step, look, looks, place.device), device=place.device)
    if place.processes > 1:
        torch.distributed.broadcast(steps, src=0)
    return int(steps)


def _number(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("checkpoint-"))
