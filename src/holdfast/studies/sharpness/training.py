"""Networks with one attention head that learn on small sets and are asked about large ones, in every arm."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from holdfast.lab import Outcome, Trial, progress
from holdfast.lab.seeds import generator_for
from holdfast.studies.sharpness.arms import law_rows, normalisers, weights
from holdfast.studies.sharpness.sizes import powers
from holdfast.studies.sharpness.streams import FIT, TEST, TRAIN

if TYPE_CHECKING:
    from torch import Tensor

    from holdfast.lab import Record, Scalar
    from holdfast.nn import AdaptiveTemperature
    from holdfast.studies.sharpness.arms import Normalisers
    from holdfast.studies.sharpness.item_sets import ItemSets, Question
    from holdfast.studies.sharpness.retrieval_net import MaxRetrievalNet

BLOCK = 64
"""Training steps whose data is drawn at once."""

CHUNK = 1 << 17
"""Items of one seed that are evaluated at once. It bounds memory, and test data is drawn by chunk."""

LARGE = 1024
"""Above this size fewer sets are tested."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How a network is trained on small sets and tested on large ones.

    Arguments:
        device: where to train, such as "cpu" or "cuda".
        stacked: train all seeds side by side as one tensor program: right for a GPU, not for a CPU with few
            cores.
        steps: optimiser steps (AdamW).
        batch_size: sets a step.
        learning_rate: constant learning rate.
        weight_decay: decoupled weight decay.
        min_items: fewest items in a training set.
        max_items: most items in a training set.
        width: width of the network.
        sizes: items in the test sets.
        sets: test sets for each size up to 1024.
        large_sets: test sets for each size above 1024.
        fit_sizes: items in the sets whose logits the law is refitted to.
        fit_sets: sets for each of these sizes.
    """

    device: str = "cpu"
    stacked: bool = False
    steps: int = 5000
    batch_size: int = 128
    learning_rate: float = 1e-3
    weight_decay: float = 1e-3
    min_items: int = 5
    max_items: int = 16
    width: int = 128
    sizes: tuple[int, ...] = powers(4, 14)
    sets: int = 2048
    large_sets: int = 512
    fit_sizes: tuple[int, ...] = powers(4, 11)
    fit_sets: int = 128

    def sets_of(self, n: int) -> int:
        """Test sets of n items."""
        return self.sets if n <= LARGE else self.large_sets


S = TypeVar("S", bound=TrainConfig)


def trials_of(settings: S, seeds: Sequence[int], labels: dict[str, Scalar] | None = None) -> Iterator[Trial[S]]:
    """One trial a seed, or one for all seeds where they are stacked."""
    gpu = 1.0 if settings.device.startswith("cuda") else 0.0
    for seed in [tuple(seeds)] if settings.stacked else seeds:
        yield Trial(seed, settings, labels or {}, cost=float(settings.steps), gpu=gpu)


def train_and_test(config: TrainConfig, seeds: Sequence[int], question: Question) -> Outcome:
    """Train on small sets, refit the law without labels, and test every arm on the same weights and sets.

    Records: for every arm, size and seed `accuracy`, `entropy` of the weights in nats and `max_weight`, the
    weight on the item with the largest priority, all means over test sets. Where the answer is one item's, the plain
    arm's error is split in `ordering_error` (argmax attention errs too) and `dispersion_error` (argmax attention
    would be right). One record a seed says whether the `fit` was accepted, with the `law` as JSON or the
    `reason`. Curves: `training` (loss in nats and accuracy by step) and `law` (beta by entropy).
    """
    import torch

    net, training = train(config, seeds, question)
    with torch.no_grad():
        records, laws = refit(net, config, seeds, question)
        progress.report(0.75)
        records += evaluate(net, config, seeds, question, lambda n: normalisers(n, config.max_items, laws))
    curve = [
        {"seed": seed, **row} for seed, law in zip(seeds, laws, strict=True) if law for row in law_rows("refit", law)
    ]
    return Outcome(records, {"training": training, "law": curve})


def train(
    config: TrainConfig,
    seeds: Sequence[int],
    question: Question,
    normalise: Callable[[Tensor], Tensor] = lambda logits: logits.softmax(dim=-1),
) -> tuple[MaxRetrievalNet, list[Record]]:
    """Train one network a seed, side by side.

    Arguments:
        config: settings.
        seeds: of parameters and data.
        question: what the networks learn to answer.
        normalise: turns logits into weights.

    Returns:
        The networks, and the curve `training`: loss in nats and accuracy by `seed` and `step`.
    """
    import torch

    from holdfast.studies.sharpness.item_sets import CLASSES, sample_item_sets, stack
    from holdfast.studies.sharpness.retrieval_net import MaxRetrievalNet

    net = MaxRetrievalNet(seeds, features=1 + CLASSES, classes=CLASSES, width=config.width).to(config.device)
    optimizer = torch.optim.AdamW(
        net.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
    )
    generators = [generator_for(seed, TRAIN, device=config.device) for seed in seeds]
    span = (config.min_items, config.max_items)
    curve: list[Record] = []
    for start in range(0, config.steps, BLOCK):
        count = min(BLOCK, config.steps - start)
        block = stack(
            [
                sample_item_sets(count * config.batch_size, span, generator=generator, skewed=question.skewed).view(
                    count, config.batch_size
                )
                for generator in generators
            ]
        )
        losses = torch.zeros(len(seeds), device=config.device)
        correct = torch.zeros(len(seeds), device=config.device)
        for step in range(count):
            sets = block[:, step]
            output = net(sets.items, sets.query, sets.mask, normalise=normalise)
            target = question.target(sets)
            loss = torch.nn.functional.cross_entropy(output.flatten(0, 1), target.flatten(0, 1), reduction="none").view(
                len(seeds), -1
            )
            optimizer.zero_grad()
            # Summed over seeds, so that each network gets the gradient that it would get alone.
            loss.mean(dim=1).sum().backward()
            optimizer.step()
            losses += loss.detach().mean(dim=1)
            correct += question.right(output, sets).float().mean(dim=1)
        for seed, mean_loss, accuracy in zip(seeds, (losses / count).tolist(), (correct / count).tolist(), strict=True):
            curve.append({"seed": seed, "step": start + count, "loss": mean_loss, "accuracy": accuracy})
        progress.report(0.7 * (start + count) / config.steps, loss=losses.mean().item() / count)
    return net, curve


def refit(
    net: MaxRetrievalNet, config: TrainConfig, seeds: Sequence[int], question: Question
) -> tuple[list[Record], list[AdaptiveTemperature | None]]:
    """Fit a law to each network's own logits, without labels.

    Returns:
        One record a seed, and the law of each seed, or `None` where the fit was refused.
    """
    import torch

    from holdfast.nn import FitError, fit_temperature

    pooled = {
        n: torch.cat(
            [
                net.encode(sets.items, sets.query)[1]
                for sets in chunks(config, seeds, question, FIT, n, config.fit_sets)
            ],
            dim=1,
        ).cpu()
        for n in config.fit_sizes
    }
    records: list[Record] = []
    laws: list[AdaptiveTemperature | None] = []
    for i, seed in enumerate(seeds):
        try:
            law = fit_temperature({n: logits[i] for n, logits in pooled.items()}, reference=min(config.fit_sizes))
        except FitError as error:
            laws.append(None)
            records.append({"seed": seed, "fit": "refused", "reason": str(error)})
        else:
            laws.append(law)
            records.append({"seed": seed, "fit": "accepted", "law": law.to_json()})
    return records, laws


def chunks(
    config: TrainConfig, seeds: Sequence[int], question: Question, stream: int, n: int, sets: int
) -> Iterator[ItemSets]:
    """Sets of `n` items, a bounded number of items at a time, stacked over seeds.

    Each seed sees the same sets whether it is stacked or alone.
    """
    from holdfast.studies.sharpness.item_sets import sample_item_sets, stack

    rows = max(1, CHUNK // n)
    for index, start in enumerate(range(0, sets, rows)):
        yield stack(
            [
                sample_item_sets(
                    min(rows, sets - start),
                    n,
                    generator=generator_for(seed, stream, n, index, device=config.device),
                    skewed=question.skewed,
                )
                for seed in seeds
            ]
        )


def evaluate(
    net: MaxRetrievalNet,
    config: TrainConfig,
    seeds: Sequence[int],
    question: Question,
    arms_at: Callable[[int], Normalisers],
) -> list[Record]:
    """Test arms on the same weights and sets.

    Arguments:
        net: one network a seed.
        config: settings.
        seeds: of the test sets.
        question: what the networks have learned to answer.
        arms_at: the normalisers for a size.

    Returns:
        A record for each arm, size and seed; see `train_and_test`.
    """
    import torch

    records: list[Record] = []
    for position, n in enumerate(config.sizes):
        arms = arms_at(n)
        names = list(arms)
        split = {"plain", "hard"} <= arms.keys()
        count = config.sets_of(n)
        measured = []
        for sets in chunks(config, seeds, question, TEST, n, count):
            hidden, logits = net.encode(sets.items, sets.query)
            by_arm = weights(logits, arms)
            correct = question.right(net.read(hidden, by_arm), sets)
            winner = sets.winner.unsqueeze(-1).expand(len(arms), *sets.winner.shape, 1)
            # Only the plain arm's error is split, so its row stands for all.
            wrong = ~correct[names.index("plain")] if split else torch.zeros_like(correct[0])
            hard = correct[names.index("hard")] if split else wrong
            values = torch.stack(
                [
                    correct.double(),
                    torch.special.entr(by_arm).sum(dim=-1).double(),
                    by_arm.gather(-1, winner).squeeze(-1).double(),
                    (wrong & ~hard).double().expand(correct.shape),
                    (wrong & hard).double().expand(correct.shape),
                ]
            )
            measured.append(values.sum(dim=-1))
        means = (torch.stack(measured).sum(dim=0) / count).tolist()
        for a, (arm, normaliser) in enumerate(arms.items()):
            for s, seed in enumerate(seeds):
                if isinstance(normaliser, Sequence) and normaliser[s] is None:
                    continue
                accuracy, entropy, weight, ordering, dispersion = (value[a][s] for value in means)
                record: dict[str, Any] = {"arm": arm, "n": n, "seed": seed, "accuracy": accuracy}
                record |= {"entropy": entropy, "max_weight": weight}
                if arm == "plain" and not question.skewed:
                    record |= {"ordering_error": ordering, "dispersion_error": dispersion}
                records.append(record)
        progress.report(0.75 + 0.25 * (position + 1) / len(config.sizes))
    return records
