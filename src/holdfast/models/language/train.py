"""Trains a `HoldfastForCausalLM` with the Trainer of transformers, so that it can be killed and resumed exactly.

Each window of the training data is a function of the seed and its number, and each step takes the next ones: a run that
goes on from a checkpoint sees what it would have seen, on any number of processes.
"""

from __future__ import annotations

import contextlib
import copy
import math
import os
import platform
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from torch.utils.data import default_collate
from transformers import AutoTokenizer, Trainer, TrainerCallback, TrainingArguments

from holdfast import __version__
from holdfast.errors import ArgumentError, HoldfastError, MissingExtraError
from holdfast.models.language.config import HoldfastConfig
from holdfast.models.language.corpus import Corpus, Windows, read_corpus
from holdfast.models.language.curve import draw_curve
from holdfast.models.language.model import HoldfastForCausalLM
from holdfast.models.language.progress import TrainingProgress
from holdfast.models.language.recipe import ModelRecipe, OptimisationRecipe, Recipe
from holdfast.models.language.run_folder import RunFolder
from holdfast.models.language.tokenizer import ByteTokenizer

STEPS = 1500
"""Of a run for which neither steps nor minutes are asked."""


class TrainingError(HoldfastError):
    """A run that cannot go on."""


@dataclass(frozen=True)
class Place:
    """Where a process computes.

    Arguments:
        device: cpu or cuda.
        precision: of products.
        processes: number of processes of the run.
        rank: of this one.
    """

    device: str
    precision: str
    processes: int
    rank: int

    @classmethod
    def of(cls, recipe: OptimisationRecipe) -> Place:
        """The place that a recipe asks for, in the processes that a launcher has started.

        Errors:
            ArgumentError: there is no such device, it lacks the precision, or FSDP is asked for on a CPU.
        """
        gpu = torch.cuda.is_available()
        device = recipe.device if recipe.device != "auto" else "cuda" if gpu else "cpu"
        if os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes"):
            device = "cpu"
        if device == "cuda" and not gpu:
            raise ArgumentError("--device", "cpu, since torch sees no GPU", device)
        has_bfloat16 = device == "cpu" or torch.cuda.is_bf16_supported()
        precision = recipe.precision
        if precision == "auto":
            precision = "bfloat16" if device == "cuda" and has_bfloat16 else "float32"
        if precision == "float16" and device == "cpu":
            raise ArgumentError("--precision", "float32 or bfloat16 on a CPU", precision)
        if precision == "bfloat16" and not has_bfloat16:
            raise ArgumentError("--precision", "float32 or float16 on this GPU", precision)
        if device == "cpu" and os.environ.get("ACCELERATE_USE_FSDP", "").lower() in ("1", "true", "yes"):
            # Accelerate would drop it without a word and replicate the model.
            raise ArgumentError("FSDP", "a GPU; several processes on a CPU hold a whole model each (DDP)", "a CPU")
        processes, rank = (int(os.environ.get(name, default)) for name, default in (("WORLD_SIZE", 1), ("RANK", 0)))
        return cls(device, precision, processes, rank)

    @property
    def first(self) -> bool:
        """Whether this process writes and speaks for all."""
        return self.rank == 0

    def batch(self, recipe: OptimisationRecipe) -> int:
        """Windows that this process computes at a time.

        Errors:
            ArgumentError: the batch cannot be shared evenly.
        """
        shares = self.processes * recipe.accumulate
        if recipe.batch % shares:
            of = f"{self.processes} processes x --accumulate {recipe.accumulate}"
            raise ArgumentError("--batch", f"a multiple of {of}", recipe.batch)
        return recipe.batch // shares


def train(recipe: Recipe, out: Path, *, resume: bool = False, quiet: bool = False) -> dict[str, Any]:
    """Train a language model, or go on with it.

    Arguments:
        recipe: data, model, optimisation and intervals.
        out: folder for the model; new or empty, unless it holds a run to be resumed.
        resume: go on with the run in `out` from its last checkpoint, or begin it if there is none. On a CPU, with the
            same versions and threads, the weights are those of a run that was never interrupted, bit by bit.
        quiet: show no progress.

    Returns:
        The account that is written to `training.json`: command, settings, versions, corpus, curve, and
        `validation_bits_per_byte`.

    Errors:
        ArgumentError: settings, data or folder that cannot be used, or that differ from those of the run to be resumed.
        TrainingError: the loss is no finite number.
    """
    folder = RunFolder(out)
    folder.check(resume=resume)
    place = Place.of(recipe.optimisation)
    place.batch(recipe.optimisation)
    tokenizer = _tokenizer(recipe.data.tokenizer)
    config = _config(recipe.model, tokenizer)
    corpus = read_corpus(recipe.data, tokenizer, recipe.model.context)
    if folder.begun:
        beginning = _same(folder.beginning(), recipe, corpus, place)
        report = folder.report()
        if report is not None:
            return report
    with _silent_transformers():
        arguments = _arguments(recipe, folder, place)
        arguments.distributed_state.wait_for_everyone()  # before one of them writes, all have looked
        transformers.set_seed(recipe.optimisation.seed)
        model = HoldfastForCausalLM(config)
        if not folder.begun:
            steps = _steps(model, recipe, corpus, place)
            beginning = _beginning(recipe, steps, corpus, place)
            if place.first:
                folder.begin(beginning)
        return _run(model, tokenizer, arguments, Job(recipe, folder, place, corpus, beginning, quiet))


@dataclass(frozen=True)
class Job:
    """All that a run needs besides the model.

    Arguments:
        recipe: the settings.
        folder: where it is kept.
        place: where it is computed.
        corpus: what is learnt from.
        beginning: what the run was begun with.
        quiet: whether to show no progress.
    """

    recipe: Recipe
    folder: RunFolder
    place: Place
    corpus: Corpus
    beginning: dict[str, Any]
    quiet: bool

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return int(self.beginning["steps"])


class LanguageTrainer(Trainer):
    """The Trainer, with weight decay on matrices only."""

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Names of all matrices, the embedding included."""
        return [name for name, parameter in model.named_parameters() if parameter.ndim >= 2]


class Keeper(TrainerCallback):
    """Marks checkpoints as whole, and stops a run that has come to nothing.

    Arguments:
        job: the run.
        seconds: what it has taken before.
    """

    def __init__(self, job: Job, seconds: float) -> None:
        self._job, self._before, self._start = job, seconds, time.monotonic()

    @property
    def seconds(self) -> float:
        """What the run has taken, the times before interruptions included."""
        return self._before + time.monotonic() - self._start

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Log before a checkpoint: the mean of losses that a curve tells begins anew after it."""
        if control.should_save:
            control.should_log = True

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **kwargs: Any) -> None:
        """Refuse to go on without a loss."""
        if not math.isfinite(logs.get("loss", 0.0)):
            raise TrainingError(f"the loss is {logs['loss']} after {state.global_step} steps; try a smaller --lr")

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Mark a checkpoint once all processes have written their part."""
        args.distributed_state.wait_for_everyone()
        if self._job.place.first:
            self._job.folder.complete(state.global_step, self.seconds)


def _run(model: HoldfastForCausalLM, tokenizer: Any, arguments: TrainingArguments, job: Job) -> dict[str, Any]:
    """Train to the end, measure, and write the model with its account."""
    recipe, corpus, context, folder = job.recipe, job.corpus, job.recipe.model.context, job.folder
    arguments.max_steps = job.steps
    arguments.warmup_steps = round(recipe.optimisation.warmup * job.steps)
    if job.place.first:
        for name in folder.discard_incomplete():
            warnings.warn(f"{name} was half-written when the run ended, and is not used", stacklevel=2)
    last = folder.last_checkpoint()
    keeper = Keeper(job, 0.0 if last is None else last[1])
    tokens = recipe.optimisation.batch * context
    progress = TrainingProgress(corpus, tokens, wanted=job.place.first and not job.quiet)
    windows = recipe.optimisation.batch * job.steps
    trainer = LanguageTrainer(
        model,
        arguments,
        train_dataset=Windows(corpus.train.tokens, context, windows, recipe.optimisation.seed),
        eval_dataset=Windows.covering(corpus.validation.tokens, context, recipe.intervals.eval_windows),
        callbacks=[keeper, progress],
    )
    trainer.remove_callback(transformers.PrinterCallback)
    with progress:
        trainer.train(None if last is None else str(last[0]), ignore_keys_for_eval=["past_key_values"])
        seconds = keeper.seconds
        every = Windows.covering(corpus.validation.tokens, context)
        loss = trainer.evaluate(every, ["past_key_values"], "final")["final_loss"]
    model.config.use_cache = True  # the Trainer switches it off, in what is saved too
    trainer.save_model(str(folder.path))
    report = {
        "command": recipe.with_steps(job.steps).command,
        "validation_bits_per_byte": corpus.validation.bits_per_byte(loss),
        "parameters": model.num_parameters(),
        "steps": job.steps,
        "tokens": tokens * job.steps,
        "seconds": round(seconds, 1),
        "seed": recipe.optimisation.seed,
        **{name: job.beginning[name] for name in ("recipe", "corpus", "environment")},
        "curve": _curve(trainer.state.log_history, corpus),
    }
    if job.place.first:
        (folder.path / "training_args.bin").unlink(missing_ok=True)  # a pickle that says nothing more
        tokenizer.save_pretrained(folder.path)
        draw_curve(report, folder.path / "loss.svg")
        folder.finish(report)
    arguments.distributed_state.wait_for_everyone()
    return report


def _curve(history: list[dict[str, Any]], corpus: Corpus) -> list[dict[str, Any]]:
    """Bits per byte by step."""
    points = []
    for entry in history:
        for name, loss, part in (("training", "loss", corpus.train), ("validation", "eval_loss", corpus.validation)):
            if loss in entry:
                points.append({"step": entry["step"], name: round(part.bits_per_byte(entry[loss]), 5)})
    return points


def _tokenizer(place: str | None) -> Any:
    if place is None:
        return ByteTokenizer()
    try:
        return AutoTokenizer.from_pretrained(place)
    except (OSError, ValueError, KeyError) as error:
        first = next(iter(str(error).strip().splitlines()), "")
        raise ArgumentError("--tokenizer", "a tokenizer of transformers", f"{place} ({first})") from error


FLAGS = {
    "hidden_size": "--dim",
    "dim": "--dim",
    "num_attention_heads": "--heads",
    "sliding_window": "--window",
    "mixers": "--mixers",
}
"""How the command line calls what a configuration refuses."""


def _config(recipe: ModelRecipe, tokenizer: Any) -> HoldfastConfig:
    """The shape, for a tokenizer."""
    try:
        return HoldfastConfig(
            vocab_size=len(tokenizer),
            hidden_size=recipe.dim,
            mixers=list(recipe.schedule()),
            num_attention_heads=recipe.heads,
            chunk_size=recipe.chunk_size,
            qk_groups=2 if recipe.heads % 2 == 0 else 1,
            sliding_window=recipe.window,
            memory=recipe.context,
            max_position_embeddings=recipe.context,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    except ArgumentError as error:
        raise ArgumentError(FLAGS.get(error.argument, error.argument), error.expected, error.got) from None


def _arguments(recipe: Recipe, folder: RunFolder, place: Place) -> TrainingArguments:
    """A recipe as the Trainer takes it; the number of steps is not yet known."""
    optimisation, intervals, batch = recipe.optimisation, recipe.intervals, place.batch(recipe.optimisation)
    try:
        return TrainingArguments(
            output_dir=str(folder.checkpoints),
            per_device_train_batch_size=batch,
            per_device_eval_batch_size=batch,
            gradient_accumulation_steps=optimisation.accumulate,
            learning_rate=optimisation.lr,
            lr_scheduler_type="cosine",
            weight_decay=optimisation.weight_decay,
            adam_beta1=0.9,
            adam_beta2=0.95,
            max_grad_norm=optimisation.clip,
            bf16=place.precision == "bfloat16",
            fp16=place.precision == "float16",
            torch_compile=optimisation.compile,
            use_cpu=place.device == "cpu",
            seed=optimisation.seed,
            ddp_backend="gloo" if place.device == "cpu" and place.processes > 1 else None,
            ddp_find_unused_parameters=False,
            train_sampling_strategy="sequential",
            remove_unused_columns=False,
            dataloader_pin_memory=place.device == "cuda",
            logging_steps=intervals.log_every,
            logging_first_step=True,
            logging_nan_inf_filter=False,
            eval_strategy="steps",
            eval_steps=intervals.eval_every,
            prediction_loss_only=True,
            save_steps=intervals.save_every,
            save_total_limit=2,
            report_to=list(intervals.report_to) or "none",
            run_name=folder.path.name,
            disable_tqdm=True,
        )
    except ValueError as error:
        raise ArgumentError("--precision", "settings that transformers takes", " ".join(str(error).split())) from error


def _steps(model: HoldfastForCausalLM, recipe: Recipe, corpus: Corpus, place: Place) -> int:
    """How many steps the run has: as asked, or as many as fit into the time."""
    optimisation = recipe.optimisation
    if optimisation.minutes is None:
        return STEPS if optimisation.steps is None else optimisation.steps
    steps = torch.tensor(steps_that_fit(model, recipe, corpus, place), device=place.device)
    if place.processes > 1:
        torch.distributed.broadcast(steps, src=0)
    return int(steps)


def steps_that_fit(model: HoldfastForCausalLM, recipe: Recipe, corpus: Corpus, place: Place) -> int:
    """How many steps take as long as the recipe's minutes, with the looks at validation data between them.

    It is measured with a copy, for a few seconds: the model and the random states stay as they are.
    """
    optimisation, context = recipe.optimisation, recipe.model.context
    assert optimisation.minutes is not None
    batch = place.batch(optimisation)
    windows = Windows(corpus.train.tokens, context, batch, optimisation.seed)
    inputs = {
        name: tensor.to(place.device)
        for name, tensor in default_collate([windows[number] for number in range(batch)]).items()
    }
    trial = copy.deepcopy(model).to(place.device).train()
    optimiser = torch.optim.AdamW(trial.parameters(), fused=True)
    kind = torch.bfloat16 if place.precision == "bfloat16" else torch.float16

    def forward() -> torch.Tensor:
        with torch.autocast(place.device, dtype=kind, enabled=place.precision != "float32"):
            return trial(**inputs).loss

    def step() -> None:
        for _ in range(optimisation.accumulate):
            forward().backward()
        optimiser.step()
        optimiser.zero_grad()

    def look() -> None:
        with torch.no_grad():
            forward()

    step_s, look_s = _time_of(step, place), _time_of(look, place)
    share = batch * place.processes
    between = recipe.intervals.eval_windows / share * look_s / recipe.intervals.eval_every
    return max(1, round(60 * optimisation.minutes / (step_s + between)))


def _time_of(work: Any, place: Place) -> float:
    """Mean seconds of some work, after a start that is not counted."""
    for _ in range(2):
        work()
    if place.device == "cuda":
        torch.cuda.synchronize()
    start, count = time.monotonic(), 0
    while count < 5 or (time.monotonic() - start < 4.0 and count < 100):
        work()
        count += 1
        if place.device == "cuda":
            torch.cuda.synchronize()
    return (time.monotonic() - start) / count


def _beginning(recipe: Recipe, steps: int, corpus: Corpus, place: Place) -> dict[str, Any]:
    """What a run is begun with, as it is kept."""
    return {
        "recipe": recipe.to_dict(),
        "steps": steps,
        "corpus": corpus.to_dict(),
        "environment": {
            "holdfast": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "machine": platform.machine(),
            "device": place.device if place.device == "cpu" else torch.cuda.get_device_name(),
            "precision": place.precision,
            "threads": torch.get_num_threads(),
            "processes": place.processes,
        },
    }


def _same(beginning: dict[str, Any], recipe: Recipe, corpus: Corpus, place: Place) -> dict[str, Any]:
    """What a run was begun with, if it can go on with these settings and this text."""
    for name, (now, then) in recipe.differences(Recipe.from_dict(beginning["recipe"])).items():
        raise ArgumentError(name, f"{then}, which the run was begun with", str(now))
    if beginning["corpus"]["sha256"] != corpus.sha256:
        raise ArgumentError("--resume", "the text that the run was begun with", "another one")
    now = _beginning(recipe, 0, corpus, place)["environment"]
    differ = [
        f"{name} {then}, now {now.get(name)}"
        for name, then in beginning["environment"].items()
        if then != now.get(name)
    ]
    if differ and place.first:
        warnings.warn(
            f"weights will differ in rounding from a run without interruption: it began with {'; '.join(differ)}",
            stacklevel=3,
        )
    return beginning


@contextlib.contextmanager
def _silent_transformers() -> Iterator[None]:
    """Without what transformers logs below an error; a tracker that is not installed is one line."""
    logging = transformers.logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    except RuntimeError as error:
        if "requires" in str(error) and "to be installed" in str(error):
            raise MissingExtraError(f"--report-to: {' '.join(str(error).split())}") from error
        raise
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
