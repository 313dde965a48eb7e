"""Part of the study of sharpness: small language models that write algorithms out, at sizes beyond training.

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

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from statistics import fmean
from typing import TYPE_CHECKING, Any

from holdfast.errors import ArgumentError, require
from holdfast.lab import Evidence, Results, paired_difference
from holdfast.lab.results import Values
from holdfast.lab.trial import Record

if TYPE_CHECKING:
    import numpy as np
    import torch
    from matplotlib.axes import Axes

    from holdfast.models.decoder import Decoder
    from holdfast.nn import Normaliser
    from holdfast.studies.sharpness.clrs_text import Example, TextBatch, Vocabulary

ARMS = ("plain", "adaptive-inference", "adaptive", "ssmax", "entmax15", "scale-invariant")
"""Each arm is one normaliser in all heads, with the same initial weights and the same texts. `adaptive` has the
published law in training and test, gradients through it included; `adaptive-inference` is the plain arm's decoder with
the law at test only. SSMax has a fixed scale: the queries' weights can learn any other.
"""

LONG = "bubble_sort"
"""The task whose texts are longest: they grow with the cube of the size."""

TRAIN, TEST = range(2)
"""Streams of random numbers."""

CELLS = 1 << 25
"""Entries of a head's table of logits that entropies are read from at once: 1 GiB a table for 8 heads in float32. It
bounds memory, not the result.
"""

TRAINING_SHARE = 0.8
"""Share of an arm's progress that its training makes."""

GREY = "#7d858e"


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


def run_traces(
    config: TracesConfig, seed: int, report: Callable[..., None] = lambda fraction, **metrics: None
) -> tuple[list[dict[str, Any]], dict[str, list[dict[str, Any]]]]:
    """Train and test the arms of one seed.

    Arguments:
        config: settings.
        seed: of the initial weights and of all texts, which are the same for every arm.
        report: is told the fraction done, with `loss` in nats while training.

    Returns:
        Records, one for each `arm`, `algorithm` and size `n` that was tested, with `seed`:

        - `accuracy`: share of texts whose part after the last ` | ` is exactly right, and ends;
        - `trace_accuracy`: likewise for the trace before it;
        - `prefix`: mean share of an answer's tokens that are written before the first wrong one;
        - `entropy`: of the attention weights in nats, a mean over layers, heads and positions of correct texts;
        - `inactive_share`: share of those rows whose logits are too dispersed for the published law (5.9445 nats);
        - `train_size`: largest n in this task's training;
        - `tokens`: length of the longest of those texts.

        And the curve `traces`: by `arm`, `seed` and `step` the `loss` in nats a token of the answer, a mean over the
        tasks. It has no rows of `adaptive-inference`, which is not trained.

    Errors:
        ArgumentError: no training size of a task is within `train_tokens`.
        MissingExtraError: the arm `entmax15` without the package `entmax`.
    """
    import torch

    from holdfast.models.decoder import Decoder, DecoderConfig
    from holdfast.studies.sharpness.clrs_text import Vocabulary

    if "entmax15" in config.arms:
        require("entmax", "entmax")  # now, rather than after other arms were trained
    vocabulary = Vocabulary()
    shape = DecoderConfig(
        vocabulary=len(vocabulary),
        width=config.width,
        layers=config.layers,
        heads=config.heads,
        rotary_share=config.rotary_share,
    )
    texts = _training_texts(config, seed, vocabulary)
    trained: dict[str, Decoder] = {}
    records: list[dict[str, Any]] = []
    curve: list[dict[str, Any]] = []
    for i, arm in enumerate(config.arms):
        source = "plain" if arm == "adaptive-inference" else arm

        def tell(fraction: float, i: int = i, **metrics: float) -> None:
            report((i + fraction) / len(config.arms), **metrics)

        if source not in trained:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                model = Decoder(shape).to(config.device)
            model.normaliser = _normaliser(source)
            losses = _train(model, texts, config, tell)
            curve += [{"arm": source, "seed": seed, **point} for point in losses]
            trained[source] = model
        model = trained[source]
        model.normaliser = _normaliser(arm)
        tests = [(name, n) for name in config.algorithms for n in _sizes(config.test_sizes, name, config.test_tokens)]
        for k, (algorithm, n) in enumerate(tests):
            scores = _test(model, algorithm, n, config, seed, vocabulary)
            largest = max(_sizes(config.train_sizes, algorithm, config.train_tokens))
            records.append({"arm": arm, "algorithm": algorithm, "n": n, "seed": seed, "train_size": largest, **scores})
            tell(TRAINING_SHARE + (1 - TRAINING_SHARE) * (k + 1) / len(tests))
    return records, {"traces": curve}


def _normaliser(arm: str) -> Normaliser:
    from holdfast.nn import Adaptive, Entmax, Plain, ScaleInvariant, SSMax

    arms: dict[str, Normaliser] = {
        "plain": Plain(),
        "adaptive-inference": Adaptive(),
        "adaptive": Adaptive(detach=False),
        "ssmax": SSMax(),
        "entmax15": Entmax(1.5),
        "scale-invariant": ScaleInvariant(),
    }
    return arms[arm]


def _sizes(sizes: Sequence[int], algorithm: str, tokens: int) -> list[int]:
    """The sizes whose texts are not too long."""
    from holdfast.studies.sharpness.clrs_text import max_tokens

    return [n for n in sizes if max_tokens(algorithm, n) <= tokens]


def _generator(seed: int, *stream: int) -> np.random.Generator:
    import numpy as np

    return np.random.default_rng([seed, *stream])


def _training_texts(config: TracesConfig, seed: int, vocabulary: Vocabulary) -> list[list[TextBatch]]:
    """All batches, a list of one a task for each step: drawn once, in 16 bits, and read by every arm."""
    import numpy as np

    from holdfast.studies.sharpness.clrs_text import TextBatch, sample_example, to_batch

    sizes = {name: _sizes(config.train_sizes, name, config.train_tokens) for name in config.algorithms}
    for name, allowed in sizes.items():
        if not allowed:
            raise ArgumentError("train_tokens", f"room for a training text of {name}", config.train_tokens)
    rng = _generator(seed, TRAIN)
    steps = []
    for _ in range(config.steps):
        batches = []
        for name in config.algorithms:
            size = sizes[name][int(rng.integers(len(sizes[name])))]
            batch = to_batch([sample_example(name, size, rng) for _ in range(config.batch_size)], vocabulary)
            batches.append(TextBatch(batch.tokens.astype(np.int16), batch.lengths, batch.answer))
        steps.append(batches)
    return steps


def _precision(config: TracesConfig) -> torch.autocast:
    import torch

    cuda = config.device.startswith("cuda")
    return torch.autocast("cuda" if cuda else "cpu", dtype=torch.bfloat16, enabled=cuda)


def _train(
    model: Decoder, texts: list[list[TextBatch]], config: TracesConfig, tell: Callable[..., None]
) -> list[dict[str, float]]:
    import math

    import torch

    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.learning_rate, betas=(0.9, 0.95), weight_decay=config.weight_decay, fused=True
    )

    def rate(step: int) -> float:
        if step < config.warmup:
            return (step + 1) / config.warmup
        return 0.5 + 0.5 * math.cos(math.pi * (step - config.warmup) / max(1, config.steps - config.warmup))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    curve = []
    for step, batches in enumerate(texts):
        total = torch.zeros((), device=config.device)
        for batch in batches:
            tokens = torch.from_numpy(batch.tokens).to(config.device).long()
            counted = torch.from_numpy(batch.answer).to(config.device)[:, 1:]
            with _precision(config):
                logits = model(tokens[:, :-1])
            target = tokens[:, 1:].masked_fill(~counted, -100)
            loss = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), target.flatten())
            (loss / len(batches)).backward()  # type: ignore[no-untyped-call]
            total += loss.detach() / len(batches)
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % config.curve_every == 0 or step == config.steps - 1:
            curve.append({"step": step, "loss": total.item()})
            tell(TRAINING_SHARE * (step + 1) / config.steps, loss=curve[-1]["loss"])
    return curve


def _test(
    model: Decoder, algorithm: str, n: int, config: TracesConfig, seed: int, vocabulary: Vocabulary
) -> dict[str, float]:
    """Scores of one task at one size; see `run_traces`."""
    import torch

    from holdfast.studies.sharpness.clrs_text import ALGORITHMS, sample_example, split_answer

    rng = _generator(seed, TEST, ALGORITHMS.index(algorithm), n)
    examples = [sample_example(algorithm, n, rng) for _ in range(config.test_examples)]
    prompts = torch.tensor([vocabulary.encode(example.prompt) for example in examples], device=config.device)
    answers = [vocabulary.encode(example.answer) for example in examples]
    with _precision(config):
        written = model.generate(
            prompts, steps=max(map(len, answers)), stop=vocabulary.stop, pad=vocabulary.pad
        ).tolist()
        entropy, inactive, longest = _entropies(model, examples[: config.entropy_examples], vocabulary, config)
    right = traces_right = 0
    prefix = 0.0
    for example, answer, tokens in zip(examples, answers, written, strict=True):
        trace, last = split_answer(vocabulary.decode(tokens))
        true_trace, true_last = split_answer(example.answer)
        # What never stops is not the answer, even if it begins like it.
        right += last == true_last and vocabulary.stop in tokens
        traces_right += trace == true_trace
        same = takewhile(lambda pair: pair[0] == pair[1], zip(answer, tokens, strict=False))
        prefix += len(list(same)) / len(answer)
    return {
        "accuracy": right / len(examples),
        "trace_accuracy": traces_right / len(examples),
        "prefix": prefix / len(examples),
        "entropy": entropy,
        "inactive_share": inactive,
        "tokens": longest,
    }


def _entropies(
    model: Decoder, examples: Sequence[Example], vocabulary: Vocabulary, config: TracesConfig
) -> tuple[float, float, int]:
    """Mean entropy of the weights, share of rows out of the law's reach, and the longest text."""
    import torch

    from holdfast.nn import inactive_share
    from holdfast.studies.sharpness.clrs_text import to_batch

    batch = to_batch(examples, vocabulary)
    tokens = torch.from_numpy(batch.tokens).to(config.device)
    lengths = torch.from_numpy(batch.lengths).to(config.device)
    rows = max(1, CELLS // tokens.shape[1] ** 2)
    found = [model.head_entropies(tokens[i : i + rows], lengths[i : i + rows]) for i in range(0, len(examples), rows)]
    weights = torch.cat([each.weights.flatten() for each in found])
    logits = torch.cat([each.logits.flatten() for each in found])
    return weights.nanmean().item(), inactive_share(logits), int(tokens.shape[1])


def beats_plain(results: Results, arm: str = "adaptive") -> Evidence:
    """Is an arm more accurate than plain softmax beyond the sizes trained on?

    Arguments:
        results: with records of `run_traces` that carry `part="traces"`.
        arm: one of `ARMS`.

    Returns:
        Evidence on the difference in accuracy, paired over seeds. For each seed it is a mean over tasks, and for each
        task over all sizes beyond its training.
    """
    tasks = _tasks(results)
    return paired_difference(
        _beyond(results, "accuracy", arm, tasks),
        _beyond(results, "accuracy", "plain", tasks),
        names=(f"{arm} beyond the training sizes", "plain beyond the training sizes"),
    )


def gains_less_on_long_traces(results: Results, arm: str = "adaptive") -> Evidence:
    """Is what an arm gains over plain softmax beyond the training sizes smaller on bubble sort than elsewhere?

    Arguments:
        results: as for `beats_plain`.
        arm: likewise.

    Returns:
        Evidence on bubble sort's gain in accuracy minus the mean gain on the other tasks, paired over seeds.
    """

    def gain(tasks: Sequence[str]) -> Values:
        treatment, control = (_beyond(results, "accuracy", each, tasks) for each in (arm, "plain"))
        found = Values({seed: treatment[seed] - control[seed] for seed in treatment if seed in control})
        found.missing = treatment.missing or control.missing
        return found

    return paired_difference(
        gain([LONG]),
        gain(_tasks(results, but=LONG)),
        alternative="less",
        names=(f"the gain on {LONG}", "the gain on the other tasks"),
    )


def inactive_on_long_traces(results: Results, arm: str = "adaptive") -> Evidence:
    """Are more attention rows beyond the published law's reach, 5.9445 nats, on bubble sort than elsewhere?

    Arguments:
        results: as for `beats_plain`.
        arm: likewise.

    Returns:
        Evidence on bubble sort's share of such rows beyond the training sizes minus the mean share on the other tasks,
        paired over seeds.
    """
    return paired_difference(
        _beyond(results, "inactive_share", arm, [LONG]),
        _beyond(results, "inactive_share", arm, _tasks(results, but=LONG)),
        names=(f"{arm} on {LONG}", f"{arm} on the other tasks"),
    )


def _tasks(results: Results, but: str = "") -> list[str]:
    return [task for task in results.levels("algorithm", part="traces") if task != but]


def _mean(tables: Sequence[Values]) -> Values:
    """Mean of several tables, for the seeds that are in all of them."""
    seeds = set.intersection(*map(set, tables)) if tables else set()
    found = Values({seed: fmean(table[seed] for table in tables) for seed in sorted(seeds)})
    found.missing = next((table.missing for table in tables if table.missing), "")
    return found


def _beyond(results: Results, metric: str, arm: str, tasks: Sequence[str]) -> Values:
    """By seed, the mean over tasks of a metric's mean over the sizes beyond the task's training."""
    means = []
    for task in tasks:
        rows = results.where(part="traces", arm=arm, algorithm=task)
        sizes = {int(row["n"] or 0) for row in rows if int(row["n"] or 0) > int(row["train_size"] or 0)}
        means.append(_mean([results.by_seed(metric, part="traces", arm=arm, algorithm=task, n=n) for n in sizes]))
    found = _mean(means)
    if not found and not found.missing:
        found.missing = f"not every one of {', '.join(tasks) or 'its tasks'} was tested beyond its training sizes"
    return found


def draw_traces(results: Results, axes: Axes) -> list[Record]:
    """Accuracy against the size, a line an arm: a mean over seeds and over the tasks that were tested at all sizes.

    A task that ends earlier, as bubble sort does, is left out: a mean must not change what it is made of on the way.

    Arguments:
        results: as for `beats_plain`.
        axes: to draw on.

    Returns:
        The rows that were drawn: `arm`, `n`, `accuracy` and the number of `seeds`.
    """
    sizes = results.levels("n", part="traces")
    tasks = [task for task in _tasks(results) if results.levels("n", part="traces", algorithm=task) == sizes]
    rows: list[Record] = []
    for number, arm in enumerate(ARMS):
        line = []
        for n in sizes:
            at_n = [results.by_seed("accuracy", part="traces", arm=arm, algorithm=task, n=n) for task in tasks]
            values = _mean(at_n)
            if values:
                line.append((n, fmean(values.values())))
                rows.append({"arm": arm, "n": n, "accuracy": line[-1][1], "seeds": len(values)})
        if line:
            style = "--" if arm == "adaptive-inference" else "-"
            axes.plot(*zip(*line, strict=True), style, color=f"C{number}", marker="o", markersize=3, label=arm)
    trained = {n for task in tasks for n in results.levels("train_size", part="traces", algorithm=task)}
    for n in sorted(trained):
        axes.axvline(n, color=GREY, linewidth=0.8, linestyle=":", label=f"trained up to {n}")
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [str(n) for n in sizes])
    axes.set_xticks([], minor=True)
    axes.set_xlabel("numbers in the input n")
    axes.set_ylabel(f"accuracy, mean over {len(tasks)} tasks")
    axes.set_ylim(-0.02, 1.02)
    if rows:
        axes.legend(frameon=False, fontsize="small")
    return rows


def draw_inactive(results: Results, axes: Axes) -> list[Record]:
    """Share of attention rows beyond the published law's reach against the length of the text, a line a task.

    The arm is `adaptive`, trained and tested with the law; lines are means over seeds.

    Arguments:
        results: as for `beats_plain`.
        axes: to draw on.

    Returns:
        The rows that were drawn: `algorithm`, `n`, `tokens` of the longest text, `inactive_share`, `entropy` of the
        weights in nats, and the number of `seeds`.
    """
    rows: list[Record] = []
    for number, task in enumerate(_tasks(results)):
        labels = {"part": "traces", "arm": "adaptive", "algorithm": task}
        line = []
        for n in results.levels("n", **labels):
            share, tokens, entropy = (
                results.by_seed(metric, **labels, n=n) for metric in ("inactive_share", "tokens", "entropy")
            )
            line.append((fmean(tokens.values()), fmean(share.values())))
            row = {"algorithm": task, "n": n, "tokens": line[-1][0], "inactive_share": line[-1][1]}
            rows.append({**row, "entropy": fmean(entropy.values()), "seeds": len(share)})
        if line:
            axes.plot(*zip(*line, strict=True), color=f"C{number}", marker="o", markersize=3, label=task)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:.0f}")
    axes.set_xlabel("tokens of the text")
    axes.set_ylabel("share of rows above 5.9445 nats")
    axes.set_ylim(bottom=-0.02)
    if rows:
        axes.legend(frameon=False, fontsize="small")
    return rows
