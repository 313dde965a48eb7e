"""Networks with one attention head that learn on small sets and are asked about large ones, with every normaliser."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from holdfast.errors import ArgumentError
from holdfast.lab import Outcome, progress
from holdfast.lab.seeds import FIT, TEST, TRAIN, generator_for
from holdfast.lab.trial import Record

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from torch import Tensor

    from holdfast.nn import AdaptiveTemperature, Normaliser
    from holdfast.studies.sharpness.item_sets import ItemSets
    from holdfast.studies.sharpness.retrieval_net import MaxRetrievalNet

ARMS = (
    "plain",
    "published",
    "refit",
    "log-n",
    "ssmax",
    "yarn",
    "llama4",
    "scale-invariant",
    "entmax",
    "sparsemax",
    "hard",
)
"""How the trained networks' logits are turned into weights; `_arms` says with which settings."""

SSMAX = 0.43
"""Scale s of scalable softmax, softmax(s ln(n) z), in the opening example of arXiv 2501.19399."""

Arms: TypeAlias = "dict[str, Normaliser | Sequence[Normaliser | None]]"
"""A normaliser for each arm, or one for each of its seeds; `None` where a seed has none."""

BLOCK = 64
"""Training steps whose data is drawn at once."""

CHUNK = 1 << 17
"""Items of one seed that are evaluated at once. It bounds memory, and test data is drawn by chunk."""

LARGE = 1024
"""Above this size fewer sets are tested."""


def powers(first: int, last: int) -> tuple[int, ...]:
    return tuple(2**k for k in range(first, last + 1))


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


@dataclass(frozen=True, kw_only=True)
class RetrieveConfig(TrainConfig):
    """Max retrieval: the class of the item with the largest priority."""


@dataclass(frozen=True, kw_only=True)
class ControlConfig(TrainConfig):
    """Negative control: the share of each class among all items, scored by naming the most frequent class."""

    sizes: tuple[int, ...] = powers(4, 10)


@dataclass(frozen=True, kw_only=True)
class TrainedWithConfig(TrainConfig):
    """Max retrieval by networks that are trained with another normaliser from the start.

    Arguments:
        arms: which: some of those in `retrieve`, without the refit.
    """

    arms: tuple[str, ...] = ("published", "ssmax", "entmax", "scale-invariant")

    def __post_init__(self) -> None:
        known = [arm for arm in ARMS if arm != "refit"]
        unknown = [arm for arm in self.arms if arm not in known]
        if unknown:
            raise ArgumentError("arms", f"some of {', '.join(known)}", ", ".join(unknown))


def run_trained(config: TrainConfig, seeds: Sequence[int]) -> Outcome:
    """Train on small sets, refit the law without labels, and test every arm on the same weights and sets.

    Records: for every arm, size and seed `accuracy`, `entropy` of the weights in nats and `max_weight`, the
    weight on the item with the largest priority, all means over test sets. For max retrieval the plain arm's
    error is split in `ordering_error` (argmax attention errs too) and `dispersion_error` (argmax attention
    would be right). One record a seed says whether the `fit` was accepted, with the `law` as JSON or the
    `reason`. Curves: `training` (loss in nats and accuracy by step) and `law` (beta by entropy).
    """
    import torch

    from holdfast.nn import FitError, fit_temperature

    net, training = _train(config, seeds, _plain)
    records: list[Record] = []
    laws: list[AdaptiveTemperature | None] = []
    with torch.no_grad():
        pooled = {
            n: torch.cat(
                [net.encode(sets.items, sets.query)[1] for sets in _chunks(config, seeds, FIT, n, config.fit_sets)],
                dim=1,
            ).cpu()
            for n in config.fit_sizes
        }
        for i, seed in enumerate(seeds):
            try:
                law = fit_temperature({n: logits[i] for n, logits in pooled.items()}, reference=min(config.fit_sizes))
            except FitError as error:
                laws.append(None)
                records.append({"seed": seed, "fit": "refused", "reason": str(error)})
            else:
                laws.append(law)
                records.append({"seed": seed, "fit": "accepted", "law": law.to_json()})
        progress.report(0.75)
        records += _evaluate(net, seeds, lambda n: _arms(n, config.max_items, laws), config)
    curve = [
        {"seed": seed, **row} for seed, law in zip(seeds, laws, strict=True) if law for row in law_rows("refit", law)
    ]
    return Outcome(records, {"training": training, "law": curve})


def run_trained_with(config: TrainedWithConfig, seeds: Sequence[int], arm: str) -> Outcome:
    """Train with one normaliser and test with it; weights at the start and all sets are those of `retrieve`.

    Records: `accuracy`, `entropy` and `max_weight` by size and seed. Curve: `training`.
    """
    import torch

    def alone(n: int) -> Arms:
        return {arm: _arms(n, config.max_items)[arm]}

    net, training = _train(config, seeds, lambda logits: _weights(logits, alone(logits.shape[-1])).squeeze(0))
    with torch.no_grad():
        records = _evaluate(net, seeds, alone, config)
    return Outcome(records, {"training": training})


def law_rows(arm: str, law: AdaptiveTemperature) -> list[Record]:
    import torch

    entropy = torch.linspace(0, 8, 81, dtype=torch.float64)
    return [
        {"arm": arm, "entropy": h, "beta": beta}
        for h, beta in zip(entropy.tolist(), law.beta(entropy).tolist(), strict=True)
    ]


def _plain(logits: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
    return logits.softmax(dim=-1)


def _train(
    config: TrainConfig, seeds: Sequence[int], normalise: Callable[[Tensor], Tensor]
) -> tuple[MaxRetrievalNet, list[Record]]:
    import torch

    from holdfast.studies.sharpness.item_sets import CLASSES, sample_item_sets, stack
    from holdfast.studies.sharpness.retrieval_net import MaxRetrievalNet

    net = MaxRetrievalNet(seeds, features=1 + CLASSES, classes=CLASSES, width=config.width).to(config.device)
    optimizer = torch.optim.AdamW(
        net.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
    )
    generators = [generator_for(seed, TRAIN, device=config.device) for seed in seeds]
    span = (config.min_items, config.max_items)
    skewed = isinstance(config, ControlConfig)
    curve: list[Record] = []
    for start in range(0, config.steps, BLOCK):
        count = min(BLOCK, config.steps - start)
        block = stack(
            [
                sample_item_sets(count * config.batch_size, span, generator=each, skewed=skewed).view(
                    count, config.batch_size
                )
                for each in generators
            ]
        )
        losses = torch.zeros(len(seeds), device=config.device)
        correct = torch.zeros(len(seeds), device=config.device)
        for step in range(count):
            sets = block[:, step]
            output = net(sets.items, sets.query, sets.mask, normalise=normalise)
            target = sets.class_shares if skewed else sets.winning_class
            loss = torch.nn.functional.cross_entropy(output.flatten(0, 1), target.flatten(0, 1), reduction="none").view(
                len(seeds), -1
            )
            optimizer.zero_grad()
            # Summed over seeds, so that each network gets the gradient that it would get alone.
            loss.mean(dim=1).sum().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses += loss.detach().mean(dim=1)
            correct += _correct(output, sets, config).float().mean(dim=1)
        for seed, mean_loss, accuracy in zip(seeds, (losses / count).tolist(), (correct / count).tolist(), strict=True):
            curve.append({"seed": seed, "step": start + count, "loss": mean_loss, "accuracy": accuracy})
        progress.report(0.7 * (start + count) / config.steps, loss=losses.mean().item() / count)
    return net, curve


def _correct(output: Float[Tensor, "*batch classes"], sets: ItemSets, config: TrainConfig) -> Bool[Tensor, "*batch"]:
    """Whether the answer is right; in the control any of several most frequent classes is."""
    import torch

    answer = output.argmax(dim=-1)
    if not isinstance(config, ControlConfig):
        return answer == sets.winning_class
    shares = sets.class_shares.expand(*answer.shape, -1)
    return torch.gather(shares, -1, answer.unsqueeze(-1)).squeeze(-1) == shares.amax(dim=-1)


def _chunks(config: TrainConfig, seeds: Sequence[int], stream: int, n: int, sets: int) -> Iterator[ItemSets]:
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
                    skewed=isinstance(config, ControlConfig),
                )
                for seed in seeds
            ]
        )


def _arms(n: int, train_items: int, laws: Sequence[AdaptiveTemperature | None] = ()) -> Arms:
    """The normaliser of each arm for sets of `n` items; the refit has one a seed, or none where it was refused.

    Lengths that a normaliser wants to know are those of this task: 16 items in training, `n` in the test.
    """
    from holdfast.nn import (
        Adaptive,
        Entmax,
        Hard,
        Llama4,
        LogN,
        Plain,
        ScaleInvariant,
        Sparsemax,
        SSMax,
        YaRN,
    )

    return {
        "plain": Plain(),
        "published": Adaptive(detach=False),
        "refit": [Adaptive(law) if law else None for law in laws],
        "log-n": LogN(train_items),
        "ssmax": SSMax(SSMAX),
        "yarn": YaRN(max(1.0, n / train_items)),
        "llama4": Llama4(floor_scale=float(train_items)),
        "scale-invariant": ScaleInvariant(),
        "entmax": Entmax(),
        "sparsemax": Sparsemax(),
        "hard": Hard(),
    }


def _weights(logits: Float[Tensor, "seed batch n"], arms: Arms) -> Float[Tensor, "arm seed batch n"]:
    """Attention weights of each arm, in their order; a seed without a law keeps the softmax."""
    import torch

    from holdfast.nn import Plain

    # The query of a set is a row of its own, which stands behind the last item.
    rows = logits.unsqueeze(-2)
    weights = [
        torch.stack([(own or Plain()).weights(z) for own, z in zip(arm, rows, strict=True)])
        if isinstance(arm, Sequence)
        else arm.weights(rows)
        for arm in arms.values()
    ]
    return torch.stack(weights).squeeze(-2)


def _evaluate(
    net: MaxRetrievalNet,
    seeds: Sequence[int],
    arms_at: Callable[[int], Arms],
    config: TrainConfig,
) -> list[Record]:
    import torch

    records: list[Record] = []
    for position, n in enumerate(config.sizes):
        arms = arms_at(n)
        names = list(arms)
        split = {"plain", "hard"} <= arms.keys()
        count = config.sets if n <= LARGE else config.large_sets
        measured = []
        for sets in _chunks(config, seeds, TEST, n, count):
            hidden, logits = net.encode(sets.items, sets.query)
            weights = _weights(logits, arms)
            correct = _correct(net.read(hidden, weights), sets, config)
            winner = sets.winner.unsqueeze(-1).expand(len(arms), *sets.winner.shape, 1)
            # Only the plain arm's error is split, so its row stands for all.
            wrong = ~correct[names.index("plain")] if split else torch.zeros_like(correct[0])
            hard = correct[names.index("hard")] if split else wrong
            values = torch.stack(
                [
                    correct.double(),
                    torch.special.entr(weights).sum(dim=-1).double(),
                    weights.gather(-1, winner).squeeze(-1).double(),
                    (wrong & ~hard).double().expand(correct.shape),
                    (wrong & hard).double().expand(correct.shape),
                ]
            )
            measured.append(values.sum(dim=-1))
        means = (torch.stack(measured).sum(dim=0) / count).tolist()
        for a, arm in enumerate(names):
            for s, seed in enumerate(seeds):
                own = arms[arm]
                if isinstance(own, Sequence) and own[s] is None:
                    continue
                accuracy, entropy, weight, ordering, dispersion = (value[a][s] for value in means)
                record: dict[str, Any] = {"arm": arm, "n": n, "seed": seed, "accuracy": accuracy}
                record |= {"entropy": entropy, "max_weight": weight}
                if arm == "plain" and isinstance(config, RetrieveConfig):
                    record |= {"ordering_error": ordering, "dispersion_error": dispersion}
                records.append(record)
        progress.report(0.75 + 0.25 * (position + 1) / len(config.sizes))
    return records
