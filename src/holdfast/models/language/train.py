"""Trains a `HoldfastForCausalLM` with the Trainer of transformers, so that it can be killed and resumed exactly.

Each window of the training data is a function of the seed and its number, and each step takes the next ones: a run that
goes on from a checkpoint sees what it would have seen, on any number of processes.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoTokenizer, TrainingArguments
from transformers.integrations.integration_utils import get_reporting_integration_callbacks

from holdfast.errors import ArgumentError
from holdfast.hub import offline
from holdfast.models.language.config import HoldfastConfig
from holdfast.models.language.corpus import Corpus, Windows, read_corpus
from holdfast.models.language.model import HoldfastForCausalLM
from holdfast.models.language.pace import steps_that_fit
from holdfast.models.language.progress import TrainingProgress
from holdfast.models.language.recipe import LanguageRecipe, ModelRecipe
from holdfast.models.language.tokenizer import ByteTokenizer
from holdfast.models.language.trainer import Keeper, LanguageTrainer
from holdfast.models.training.beginning import check_beginning, environment
from holdfast.models.training.curve import draw_curve
from holdfast.models.training.place import Place
from holdfast.models.training.progress import Progress
from holdfast.models.training.run_folder import RunFolder

STEPS = 4000
"""Of a run for which neither steps nor minutes are asked."""


def train(recipe: LanguageRecipe, out: Path, *, resume: bool = False, quiet: bool = False) -> dict[str, Any]:
    """Train a language model, or go on with it.

    Arguments:
        recipe: data, model, optimisation and intervals.
        out: folder for the model; new or empty, unless it holds a run to be resumed.
        resume: go on with the run in `out` from its last checkpoint, or begin it if there is none. On a CPU, with the
            same versions and threads, the weights are those of a run that was never interrupted, bit by bit.
        quiet: show no progress.

    Returns:
        The account that is written to `training.json`, with command, settings, versions, corpus, curve, and
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
    begun = folder.begun  # the first process makes it so later on
    if begun:
        beginning = _same(folder.beginning(), recipe, corpus, place)
        report = folder.report()
        if report is not None:
            return report
    _check_trackers(recipe.intervals.report_to)
    with _silent_transformers():
        arguments = _arguments(recipe, folder, place)
        arguments.distributed_state.wait_for_everyone()  # before one of them writes, all have looked
        transformers.set_seed(recipe.optimisation.seed)
        model = HoldfastForCausalLM(config)
        if not begun:
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

    recipe: LanguageRecipe
    folder: RunFolder
    place: Place
    corpus: Corpus
    beginning: dict[str, Any]
    quiet: bool

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return int(self.beginning["steps"])


def _run(model: HoldfastForCausalLM, tokenizer: Any, arguments: TrainingArguments, job: Job) -> dict[str, Any]:
    """Train to the end, measure, and write the model with its account."""
    recipe, corpus, context, folder = job.recipe, job.corpus, job.recipe.model.context, job.folder
    arguments.max_steps = job.steps
    arguments.warmup_steps = round(recipe.optimisation.warmup * job.steps)
    if job.place.first:
        for name in folder.discard_incomplete():
            warnings.warn(f"{name} was half-written when the run ended, and is not used", stacklevel=2)
    last = folder.last_checkpoint()
    keeper = Keeper(folder, 0.0 if last is None else last[1])
    tokens = recipe.optimisation.batch * context
    progress = Progress("bits/byte", tokens, "tokens", wanted=job.place.first and not job.quiet)
    windows = recipe.optimisation.batch * job.steps
    trainer = LanguageTrainer(
        model,
        arguments,
        train_dataset=Windows(corpus.train.tokens, context, windows, recipe.optimisation.seed),
        eval_dataset=Windows.covering(corpus.validation.tokens, context, recipe.intervals.eval_windows),
        callbacks=[keeper, TrainingProgress(corpus, progress)],
    )
    trainer.remove_callback(transformers.PrinterCallback)
    with progress:
        trainer.train(None if last is None else str(last[0]))
        seconds = keeper.seconds
        loss = trainer.mean_loss(Windows.covering(corpus.validation.tokens, context))
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
        last_look = report["validation_bits_per_byte"]
        draw_curve(report["curve"], last_look, "bits per byte", folder.path / "loss.svg")
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
        return AutoTokenizer.from_pretrained(place, **offline(place))
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


def _arguments(recipe: LanguageRecipe, folder: RunFolder, place: Place) -> TrainingArguments:
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
            save_steps=intervals.save_every,
            save_total_limit=2,
            report_to=list(intervals.report_to) or "none",
            run_name=folder.path.name,
            disable_tqdm=True,
        )
    except ValueError as error:
        raise ArgumentError("--precision", "settings that transformers takes", " ".join(str(error).split())) from error


def _steps(model: HoldfastForCausalLM, recipe: LanguageRecipe, corpus: Corpus, place: Place) -> int:
    """How many steps the run has: as asked, or as many as fit into the time."""
    optimisation = recipe.optimisation
    if optimisation.minutes is None:
        return STEPS if optimisation.steps is None else optimisation.steps
    steps = torch.tensor(steps_that_fit(model, recipe, corpus, place), device=place.device)
    if place.processes > 1:
        torch.distributed.broadcast(steps, src=0)
    return int(steps)


def _beginning(recipe: LanguageRecipe, steps: int, corpus: Corpus, place: Place) -> dict[str, Any]:
    """What a run is begun with, as it is kept."""
    return {
        "recipe": recipe.to_dict(),
        "steps": steps,
        "corpus": corpus.to_dict(),
        "environment": environment(place, "transformers"),
    }


def _same(beginning: dict[str, Any], recipe: LanguageRecipe, corpus: Corpus, place: Place) -> dict[str, Any]:
    """What a run was begun with, if it can go on with these settings and this text."""
    check_beginning(beginning, environment(place, "transformers"), recipe, place)
    if beginning["corpus"]["sha256"] != corpus.sha256:
        raise ArgumentError("--resume", "the text that the run was begun with", "another one")
    return beginning


def _check_trackers(names: tuple[str, ...]) -> None:
    """Refuse what transformers does not know or cannot load, before anything is written."""
    for tracker in names:
        try:
            for callback in get_reporting_integration_callbacks([tracker]):
                callback()
        except (ValueError, RuntimeError, ImportError) as error:
            reason = " ".join(str(error).split())
            raise ArgumentError("--report-to", "an installed tracker", f"{tracker} ({reason})") from error


@contextlib.contextmanager
def _silent_transformers() -> Iterator[None]:
    """Without what transformers logs below an error, and without its bars."""
    logging = transformers.logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
