"""Part `traces`: small language models that write algorithms out, at sizes beyond training; on a GPU only.

A small stand-in for the paper's experiment on CLRS-Text (arXiv 2410.01104, section 5), which fine-tunes a model of 2
billion parameters on 30 algorithms: here are four, learned from nothing. The paper reports that adaptive temperature
helps most tasks beyond the sizes trained on, and names bubble sort among the exceptions; it suspects the length of its
texts.

The default settings are for one H100 or H200 and about 20 minutes a seed. That is an estimate by counting; nothing was
timed. Training is launches first of all: a batch takes 490 operations forward and backward in the plain arm and 770 to
990 in the others (all but views, counted with a `TorchDispatchMode`), so a step of four tasks and five trainings takes
16 000, or 0.1 s at 6 microseconds each. Products: 6 x 13 million parameters x 14 000 tokens = 1 teraflop, 4 ms an arm.
Tables of logits: 81 million entries, 10 to 15 ms of memory traffic an arm, in part while kernels are launched; the sort
in entmax 0.1 s. Together 0.2 s, or 13 minutes for 4000 steps. Decoding takes 18 000 steps an arm where no text ends
early, of 160 to 370 operations: 1 to 2.5 ms, or 4 minutes for six arms. Texts are drawn in less than a minute.
Memory: up to 60 tables of logits at once in training (7 GB) and 16 where entropies are read (17 GB), counted on a CPU.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from holdfast.errors import ArgumentError
from holdfast.lab import Outcome, Part, Trial, progress
from holdfast.studies.sharpness.arms import without_warning_of_inactivity
from holdfast.studies.sharpness.traces import models
from holdfast.studies.sharpness.traces.claims import CLAIMS
from holdfast.studies.sharpness.traces.figures import FIGURES
from holdfast.studies.sharpness.traces.models import ARMS

if TYPE_CHECKING:
    from holdfast.lab import Record
    from holdfast.models.decoder import Decoder
    from holdfast.studies.sharpness.study import SharpnessConfig


@dataclass(frozen=True, kw_only=True)
class TracesConfig:
    """Settings; the defaults are meant for one H100 or H200.

    Arguments:
        device: where to train, such as "cpu" or "cuda"; on CUDA in bfloat16, with attention logits, weights and
            entropies in float32.
        arms: some of `ARMS`.
        algorithms: some of the tasks of `holdfast.studies.sharpness.clrs_text`.
        train_sizes: numbers in the input of training texts.
        train_tokens: training sizes with longer texts are left out, task by task; bubble sort keeps 4 to 8.
        test_sizes: numbers in the input of test texts.
        test_tokens: likewise for test sizes; bubble sort keeps 8 to 20.
        test_examples: texts for each task and size.
        entropy_examples: how many of them entropies are measured on.
        steps: optimiser steps (AdamW), each on one batch of each task.
        batch_size: texts of each task a step, all of one size.
        learning_rate: peak, reached after `warmup` steps and then lowered to zero along a cosine.
        warmup: steps.
        weight_decay: decoupled weight decay.
        clip: largest norm of the gradient.
        curve_every: steps between two points of the training curve.
        width: of the decoder; 13 million parameters with the defaults.
        layers: of the decoder.
        heads: attention heads a layer.
        rotary_share: share of the rotary frequencies in use; see `DecoderConfig`.
    """

    device: str = "cuda"
    arms: tuple[str, ...] = ARMS
    algorithms: tuple[str, ...] = ("minimum", "insertion_sort", "bubble_sort", "binary_search")
    train_sizes: tuple[int, ...] = tuple(range(4, 17))
    train_tokens: int = 384
    test_sizes: tuple[int, ...] = (8, 12, 16, 20, 24, 32, 48, 64)
    test_tokens: int = 4608
    test_examples: int = 128
    entropy_examples: int = 16
    steps: int = 4000
    batch_size: int = 32
    learning_rate: float = 1e-3
    warmup: int = 200
    weight_decay: float = 0.1
    clip: float = 1.0
    curve_every: int = 50
    width: int = 512
    layers: int = 4
    heads: int = 8
    rotary_share: float = 0.75

    def __post_init__(self) -> None:
        unknown = sorted(set(self.arms) - set(ARMS))
        if unknown or not self.arms:
            raise ArgumentError("arms", f"some of {', '.join(ARMS)}", ", ".join(unknown) or "none")
        for argument in ("steps", "batch_size", "test_examples", "entropy_examples", "curve_every"):
            if getattr(self, argument) < 1:
                raise ArgumentError(argument, "a positive number", getattr(self, argument))
        for argument in ("train_sizes", "test_sizes"):
            if min(getattr(self, argument), default=0) < 2:
                raise ArgumentError(argument, "sizes of at least 2", getattr(self, argument))

    def trained_sizes(self, algorithm: str) -> list[int]:
        """Sizes of a task's training texts: those whose texts are not too long."""
        return _within(self.train_sizes, algorithm, self.train_tokens)

    def tested_sizes(self, algorithm: str) -> list[int]:
        """Sizes of a task's test texts, likewise."""
        return _within(self.test_sizes, algorithm, self.test_tokens)


def _within(sizes: Sequence[int], algorithm: str, tokens: int) -> list[int]:
    from holdfast.studies.sharpness.clrs_text import max_tokens

    return [n for n in sizes if max_tokens(algorithm, n) <= tokens]


def trials(config: SharpnessConfig) -> Iterator[Trial[TracesConfig]]:
    """One trial for each model that is trained, for the first `trace_seeds` seeds."""
    settings = config.traces
    # What is only switched on at the test needs the network that was trained without.
    together = tuple(arm for arm in settings.arms if arm in ("plain", "adaptive-inference"))
    alone = [(arm,) for arm in settings.arms if arm not in together]
    gpu = 1.0 if settings.device.startswith("cuda") else 0.0
    for seed in list(config.seed_range)[: config.trace_seeds]:
        for arms in filter(None, [together, *alone]):
            yield Trial(seed, replace(settings, arms=arms), cost=20_000.0, gpu=gpu)


def run(trial: Trial[TracesConfig]) -> Outcome:
    """Train and test the arms of one seed; initial weights and all texts are the same for every arm.

    Records, one for each `arm`, `algorithm` and size `n` that was tested:

    - `accuracy`: share of texts whose part after the last ` | ` is exactly right, and ends;
    - `trace_accuracy`: likewise for the trace before it;
    - `prefix`: mean share of an answer's tokens that are written before the first wrong one;
    - `entropy`: of the attention weights in nats, a mean over layers, heads and positions of correct texts;
    - `inactive_share`: share of those rows whose logits are too dispersed for the published law (5.9445 nats);
    - `train_size`: largest n in this task's training;
    - `tokens`: length of the longest of those texts.

    Curve `traces`: by `arm` and `step` the `loss` in nats a token of the answer, a mean over the tasks. It has no rows
    of `adaptive-inference`, which is not trained.

    Errors:
        ArgumentError: no training size of a task is within `train_tokens`.
    """
    import torch

    from holdfast.models.decoder import Decoder, DecoderConfig
    from holdfast.studies.sharpness.clrs_text import Vocabulary

    config, seed = trial.config, trial.seeds[0]
    vocabulary = Vocabulary()
    shape = DecoderConfig(
        vocabulary=len(vocabulary),
        width=config.width,
        layers=config.layers,
        heads=config.heads,
        rotary_share=config.rotary_share,
    )
    texts = models.training_texts(config, seed, vocabulary)
    trained: dict[str, Decoder] = {}
    records: list[Record] = []
    curve: list[Record] = []
    for i, arm in enumerate(config.arms):
        source = "plain" if arm == "adaptive-inference" else arm

        def tell(fraction: float, i: int = i, **metrics: float) -> None:
            progress.report((i + fraction) / len(config.arms), **metrics)

        with without_warning_of_inactivity():
            if source not in trained:
                with torch.random.fork_rng(devices=[]):
                    torch.manual_seed(seed)
                    model = Decoder(shape).to(config.device)
                model.normaliser = models.normaliser(source)
                losses = models.train(model, texts, config, tell)
                curve += [{"arm": source, **point} for point in losses]
                trained[source] = model
            model = trained[source]
            model.normaliser = models.normaliser(arm)
            tests = [(name, n) for name in config.algorithms for n in config.tested_sizes(name)]
            for k, (algorithm, n) in enumerate(tests):
                scores = models.scores(model, algorithm, n, config, seed, vocabulary)
                largest = max(config.trained_sizes(algorithm))
                records.append({"arm": arm, "algorithm": algorithm, "n": n, "train_size": largest, **scores})
                tell(models.TRAINING_SHARE + (1 - models.TRAINING_SHARE) * (k + 1) / len(tests))
    return Outcome(records, {"traces": curve})


part = Part("traces", trials, run, claims=CLAIMS, figures=FIGURES)
