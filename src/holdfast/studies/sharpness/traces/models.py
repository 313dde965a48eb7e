"""Small language models that write algorithms out, one an arm: their texts, training and scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING

from holdfast.errors import ArgumentError
from holdfast.lab.seeds import rng_for

if TYPE_CHECKING:
    import torch

    from holdfast.models.decoder import Decoder
    from holdfast.nn import Normaliser
    from holdfast.studies.sharpness.clrs_text import Example, TextBatch, Vocabulary
    from holdfast.studies.sharpness.traces.part import TracesConfig

ARMS = ("plain", "adaptive-inference", "adaptive", "ssmax", "entmax15", "scale-invariant")
"""Each arm is one normaliser in all heads, with the same initial weights and the same texts. `adaptive` has the
published law in training and test, gradients through it included; `adaptive-inference` is the plain arm's decoder with
the law at test only. SSMax has a fixed scale: the queries' weights can learn any other.
"""

TRAIN, TEST = range(2)
"""Streams of random numbers."""

CELLS = 1 << 25
"""Entries of a head's table of logits that entropies are read from at once: 1 GiB a table for 8 heads in float32. It
bounds memory, not the result.
"""

TRAINING_SHARE = 0.8
"""Share of an arm's progress that its training makes."""


def normaliser(arm: str) -> Normaliser:
    """What an arm turns logits into weights with."""
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


def training_texts(config: TracesConfig, seed: int, vocabulary: Vocabulary) -> list[list[TextBatch]]:
    """All batches, a list of one a task for each step: drawn once, in 16 bits, and read by every arm."""
    import numpy as np

    from holdfast.studies.sharpness.clrs_text import TextBatch, sample_example, to_batch

    sizes = {name: config.trained_sizes(name) for name in config.algorithms}
    for name, allowed in sizes.items():
        if not allowed:
            raise ArgumentError("train_tokens", f"room for a training text of {name}", config.train_tokens)
    rng = rng_for(seed, TRAIN)
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


def train(
    model: Decoder, texts: list[list[TextBatch]], config: TracesConfig, tell: Callable[..., None]
) -> list[dict[str, float]]:
    """Train a model with AdamW, a warm-up and a cosine.

    Arguments:
        model: with random weights.
        texts: what `training_texts` gives.
        config: settings.
        tell: is told the share of the arm's work that is done, with the `loss`.

    Returns:
        The curve: `loss`, in nats a token of the answer, by `step`.
    """
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
            (loss / len(batches)).backward()
            total += loss.detach() / len(batches)
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % config.curve_every == 0 or step == config.steps - 1:
            curve.append({"step": step, "loss": total.item()})
            tell(TRAINING_SHARE * (step + 1) / config.steps, loss=curve[-1]["loss"])
    return curve


def scores(
    model: Decoder, algorithm: str, n: int, config: TracesConfig, seed: int, vocabulary: Vocabulary
) -> dict[str, float]:
    """Scores of one task at one size; see `run` of the part."""
    import torch

    from holdfast.studies.sharpness.clrs_text import ALGORITHMS, sample_example, split_answer

    rng = rng_for(seed, TEST, ALGORITHMS.index(algorithm), n)
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
    entropies = [
        model.head_entropies(tokens[i : i + rows], lengths[i : i + rows]) for i in range(0, len(examples), rows)
    ]
    weights = torch.cat([chunk.weights.flatten() for chunk in entropies])
    logits = torch.cat([chunk.logits.flatten() for chunk in entropies])
    return weights.nanmean().item(), inactive_share(logits), int(tokens.shape[1])
