"""Does softmax attention disperse as its input grows, and does a temperature that adapts to entropy keep it
sharp?

Re-tests "Softmax is not enough (for sharp size generalisation)", arXiv 2410.01104, in six parts:

- `retrieve`: a single attention head learns to find the largest of at most 16 items, and is asked about
  thousands. Its weights stay the same; only the normaliser (the *arm*) changes.
- `trained-with`: the same network, trained anew with some of the alternatives, as their authors mean them to be used.
- `needle`: one logit stands a fixed margin above the rest; no training, no chance.
- `bounds`: the inequalities behind the argument, on random rows and in random encoders.
- `control`: the same network learns to average, a task that sharpness cannot help.
- `traces`: small language models write algorithms out step by step (on a GPU only; in `_sharpness_traces`).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from holdfast.errors import ArgumentError
from holdfast.lab import (
    Claim,
    Config,
    Evidence,
    Figure,
    Outcome,
    Paper,
    Results,
    Study,
    Trial,
    equivalent,
    exact,
    mean_of,
    paired_difference,
    progress,
    unusable,
)
from holdfast.lab.study import Record
from holdfast.studies._sharpness_traces import (
    TracesConfig,
    beats_plain,
    draw_inactive,
    draw_traces,
    gains_less_on_long_traces,
    inactive_on_long_traces,
    run_traces,
)

if TYPE_CHECKING:
    import torch
    from jaxtyping import Bool, Float
    from matplotlib.axes import Axes
    from torch import Tensor

    from holdfast.data.max_retrieval import ItemSets
    from holdfast.models.max_retrieval import MaxRetrievalNet
    from holdfast.nn import AdaptiveTemperature, Normaliser

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

SHOWN = ("plain", "published", "refit", "log-n", "hard")
"""Arms in figures that would be crowded with all of them."""

SSMAX = 0.43
"""Scale s of scalable softmax, softmax(s ln(n) z), in the opening example of arXiv 2501.19399."""

PAPER_ACCURACY = {
    "plain": {16: 98.6, 64: 94.3, 256: 81.3, 512: 70.1, 1024: 53.8, 2048: 35.7, 4096: 22.6, 16384: 12.4},
    "published": {16: 98.6, 64: 94.5, 256: 82.1, 512: 72.5, 1024: 57.7, 2048: 39.4, 4096: 24.9, 16384: 14.0},
}
"""Accuracy in per cent, from the paper's table of max-retrieval results."""

Arms: TypeAlias = "dict[str, Normaliser | Sequence[Normaliser | None]]"
"""A normaliser for each arm, or one for each of its seeds; `None` where a seed has none."""

BLOCK = 64
"""Training steps whose data is drawn at once."""

CHUNK = 1 << 17
"""Items of one seed that are evaluated at once. It bounds memory, and test data is drawn by chunk."""

COMPARED = 1024
"""Size at which all normalisers are compared."""

LARGE = 1024
"""Above this size fewer sets are tested."""

TRAIN, TEST, FIT, ROWS, TOKENS, NEEDLES = range(6)
"""Streams of random numbers: each purpose has its own, so that none disturbs another."""


def _powers(first: int, last: int) -> tuple[int, ...]:
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
    sizes: tuple[int, ...] = _powers(4, 14)
    sets: int = 2048
    large_sets: int = 512
    fit_sizes: tuple[int, ...] = _powers(4, 11)
    fit_sets: int = 128


@dataclass(frozen=True, kw_only=True)
class RetrieveConfig(TrainConfig):
    """Max retrieval: the class of the item with the largest priority."""


@dataclass(frozen=True, kw_only=True)
class ControlConfig(TrainConfig):
    """Negative control: the share of each class among all items, scored by naming the most frequent class."""

    sizes: tuple[int, ...] = _powers(4, 10)


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


@dataclass(frozen=True, kw_only=True)
class NeedleConfig:
    """Two-level logits: one stands `margin` above the others.

    Arguments:
        margins: in nats.
        sizes: number of items.
        train_items: size up to which log-n scaling leaves the logits alone.
        fit_sizes: sizes of the rows that a law is fitted to.
        fit_rows: rows for each of these sizes.
        fit_margins: least and greatest margin of these rows; margins are uniform between them.
        fit_noise: standard deviation of the normal noise on the logits of these rows.
    """

    margins: tuple[float, ...] = (5.0, 8.0, 12.0)
    sizes: tuple[int, ...] = _powers(4, 17)
    train_items: int = 16
    fit_sizes: tuple[int, ...] = _powers(4, 11)
    fit_rows: int = 256
    fit_margins: tuple[float, float] = (4.0, 12.0)
    fit_noise: float = 0.1


@dataclass(frozen=True, kw_only=True)
class BoundsConfig:
    """Inequalities on random rows and in random encoders.

    Arguments:
        device: where the encoders run, such as "cpu" or "cuda".
        rows: random rows of logits for each size.
        row_sizes: items in these rows.
        sizes: tokens in the encoders' inputs.
        vocabulary: number of tokens.
        dim: width of the encoders.
        heads: heads a layer.
        depths: layers of the encoders.
    """

    device: str = "cpu"
    rows: int = 1000
    row_sizes: tuple[int, ...] = (2, 3, 5, 16, 64, 257, 1024)
    sizes: tuple[int, ...] = (512, 2048, 8192)
    vocabulary: int = 16
    dim: int = 64
    heads: int = 4
    depths: tuple[int, ...] = (1, 3)


@dataclass(frozen=True, kw_only=True)
class SharpnessConfig(Config):
    """Settings of the study.

    Arguments:
        retrieve: the main experiment, on max retrieval.
        trained_with: the same with networks trained with an alternative.
        needle: the two-level table.
        bounds: the inequalities.
        control: the negative control, on averages.
        traces: the language models.
        trace_seeds: how many seeds, from the first on, have language models; 0: none.
    """

    retrieve: RetrieveConfig = field(default_factory=RetrieveConfig)
    trained_with: TrainedWithConfig = field(default_factory=TrainedWithConfig)
    needle: NeedleConfig = field(default_factory=NeedleConfig)
    bounds: BoundsConfig = field(default_factory=BoundsConfig)
    control: ControlConfig = field(default_factory=ControlConfig)
    traces: TracesConfig = field(default_factory=TracesConfig)
    trace_seeds: int = 0


# Settings were chosen on seeds 0 to 9; verdicts come from seeds that nobody has looked at.
SCALES = {
    "quick": SharpnessConfig(
        first_seed=100,
        retrieve=RetrieveConfig(steps=1500, sizes=(16, 64, 256, 512, 1024, 4096), sets=1024, large_sets=256),
        trained_with=TrainedWithConfig(steps=1500, sizes=(16, 256, 1024), sets=1024, arms=("published", "entmax")),
        bounds=BoundsConfig(rows=200, sizes=(128, 512, 2048)),
        control=ControlConfig(steps=600, sizes=(16, 64, 256, 1024), sets=1024, fit_sizes=_powers(4, 9)),
    ),
    "laptop": SharpnessConfig(seeds=5, first_seed=100),
    "gpu": SharpnessConfig(
        seeds=10,
        first_seed=100,
        retrieve=RetrieveConfig(device="cuda", stacked=True, steps=100_000, sizes=_powers(4, 17)),
        trained_with=TrainedWithConfig(device="cuda", stacked=True, steps=100_000, sizes=_powers(4, 17)),
        bounds=BoundsConfig(device="cuda", rows=10_000, sizes=(512, 2048, 8192, 32768)),
        control=ControlConfig(device="cuda", stacked=True, steps=20_000, sizes=_powers(4, 14)),
        trace_seeds=3,
    ),
}


def trials(config: SharpnessConfig) -> Iterator[Trial[Any]]:
    """One trial a part and seed; one for all seeds where they are stacked, and one for the needle table."""
    seeds: Sequence[int | tuple[int, ...]]
    for part, settings in (("retrieve", config.retrieve), ("control", config.control)):
        seeds = [tuple(config.seed_range)] if settings.stacked else config.seed_range
        for seed in seeds:
            yield Trial(seed, settings, {"part": part}, cost=float(settings.steps), gpu=_gpu(settings.device))
    alternatives = config.trained_with
    seeds = [tuple(config.seed_range)] if alternatives.stacked else config.seed_range
    for seed in seeds:
        for arm in alternatives.arms:
            labels = {"part": "trained-with", "arm": arm}
            yield Trial(seed, alternatives, labels, cost=float(alternatives.steps), gpu=_gpu(alternatives.device))
    # What is only switched on at the test needs the network that was trained without.
    trained_alone = [arm for arm in config.traces.arms if arm not in ("plain", "adaptive-inference")]
    together = [arm for arm in config.traces.arms if arm not in trained_alone]
    for seed in list(config.seed_range)[: config.trace_seeds]:
        for arms in filter(None, [together, *([arm] for arm in trained_alone)]):
            texts = replace(config.traces, arms=tuple(arms))
            yield Trial(seed, texts, {"part": "traces"}, cost=20_000.0, gpu=_gpu(texts.device))
    for seed in config.seed_range:
        yield Trial(seed, config.bounds, {"part": "bounds"}, cost=500.0, gpu=_gpu(config.bounds.device))
    yield Trial(config.first_seed, config.needle, {"part": "needle"}, cost=100.0)


def _gpu(device: str) -> float:
    return 1.0 if device.startswith("cuda") else 0.0


def run(trial: Trial[Any]) -> Outcome:
    """Compute one trial; see the functions of each part for what they record."""
    from holdfast.nn import CorrectionInactiveWarning

    with warnings.catch_warnings():
        # That the published law stops acting is what this study measures.
        warnings.simplefilter("ignore", CorrectionInactiveWarning)
        match trial.config:
            case RetrieveConfig() | ControlConfig():
                return _run_trained(trial.config, trial.seeds)
            case TrainedWithConfig():
                return _run_trained_with(trial.config, trial.seeds, str(trial.labels["arm"]))
            case TracesConfig():
                return Outcome(*run_traces(trial.config, trial.seeds[0], progress.report))
            case NeedleConfig():
                return _run_needle(trial.config, trial.seeds[0])
            case BoundsConfig():
                return _run_bounds(trial.config, trial.seeds[0])
            case other:
                raise TypeError(f"no part of this study has the configuration {type(other).__name__}")


def _generator(seed: int, *stream: int, device: str = "cpu") -> torch.Generator:
    """A generator of its own for each purpose of a seed."""
    import numpy as np
    import torch

    state = np.random.SeedSequence([seed, *stream]).generate_state(2, np.uint32)
    return torch.Generator(device).manual_seed(int(state[0]) << 31 | int(state[1]) >> 1)


def _run_trained(config: TrainConfig, seeds: Sequence[int]) -> Outcome:
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
        {"seed": seed, **row} for seed, law in zip(seeds, laws, strict=True) if law for row in _law_rows("refit", law)
    ]
    return Outcome(records, {"training": training, "law": curve})


def _run_trained_with(config: TrainedWithConfig, seeds: Sequence[int], arm: str) -> Outcome:
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


def _law_rows(arm: str, law: AdaptiveTemperature) -> list[Record]:
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

    from holdfast.data.max_retrieval import CLASSES, sample_item_sets, stack
    from holdfast.models.max_retrieval import MaxRetrievalNet

    net = MaxRetrievalNet(seeds, features=1 + CLASSES, classes=CLASSES, width=config.width).to(config.device)
    optimizer = torch.optim.AdamW(
        net.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
    )
    generators = [_generator(seed, TRAIN, device=config.device) for seed in seeds]
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
    from holdfast.data.max_retrieval import sample_item_sets, stack

    rows = max(1, CHUNK // n)
    for index, start in enumerate(range(0, sets, rows)):
        yield stack(
            [
                sample_item_sets(
                    min(rows, sets - start),
                    n,
                    generator=_generator(seed, stream, n, index, device=config.device),
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


def _log_n(n: int, train_items: int) -> float:
    """Factor on the logits that keeps the mass of a winner by a fixed margin, from the training size on."""
    return max(1.0, math.log(n) / math.log(train_items))


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


def _run_needle(config: NeedleConfig, seed: int) -> Outcome:
    """Weight on the winner, in closed form, of each law of temperature.

    Records: for every `arm`, `margin` and `n` the `winner` mass, `beta` and the `entropy` before, in nats.
    One record says whether the `fit` was accepted. Curve: `law` (beta by entropy).
    """
    import torch

    from holdfast.nn import AdaptiveTemperature, FitError, fit_temperature

    generator = _generator(seed, NEEDLES)
    low, high = config.fit_margins
    fit_logits = {}
    for n in config.fit_sizes:
        logits = config.fit_noise * torch.randn(config.fit_rows, n, generator=generator, dtype=torch.float64)
        margin = low + (high - low) * torch.rand(config.fit_rows, generator=generator, dtype=torch.float64)
        logits[:, 0] += margin
        fit_logits[n] = logits
    laws = {"published": AdaptiveTemperature.published()}
    records: list[Record] = []
    curve: list[Record] = []
    try:
        laws["refit"] = fit_temperature(fit_logits, reference=min(config.fit_sizes))
    except FitError as error:
        records.append({"fit": "refused", "reason": str(error)})
    else:
        records.append({"fit": "accepted", "law": laws["refit"].to_json()})
        curve = _law_rows("refit", laws["refit"])
    for margin_ in config.margins:
        for n in config.sizes:
            entropy = _two_level_entropy(margin_, n)
            betas = {"plain": 1.0, "log-n": _log_n(n, config.train_items), "ssmax": SSMAX * math.log(n)}
            for name, law in laws.items():
                betas[name] = law.beta(torch.tensor(entropy, dtype=torch.float64)).item()
            records += [
                {
                    "arm": arm,
                    "margin": margin_,
                    "n": n,
                    "winner": _winner(beta * margin_, n),
                    "beta": beta,
                    "entropy": entropy,
                }
                for arm, beta in betas.items()
            ]
    return Outcome(records, {"law": curve})


def _winner(margin: float, n: int) -> float:
    """Softmax weight of one logit that stands `margin` above n - 1 equal ones."""
    return 1 / (1 + (n - 1) * math.exp(-margin))


def _two_level_entropy(margin: float, n: int) -> float:
    """Entropy in nats of that softmax."""
    p = _winner(margin, n)
    rest = p * math.exp(-margin)
    return -p * math.log(p) - (n - 1) * rest * math.log(rest)


def _run_bounds(config: BoundsConfig, seed: int) -> Outcome:
    """Count exceptions to the inequalities.

    Records: for the checks `dispersion` (lemma 2.1 in its tight form), `entropy` (H >= ln n - spread),
    `monotone` (entropy falls as beta rises) and `spectral` (proposition 3.1) the number of `cases`, of
    `exceptions`, and the least `slack`, in nats (for `spectral`: the least bound over spread). For every
    encoder (`style`, `depth`) the mean and the worst `slope` of a head's entropy against ln n. Curve:
    `heads`, one row a head and length.
    """
    rows = _check_rows(config, seed)
    slopes, heads, encoder_checks = _check_encoders(config, seed)
    return Outcome([*_merged(rows + encoder_checks), *slopes], {"heads": heads})


Check: TypeAlias = "tuple[str, Tensor]"
"""Name of an inequality, and by how much each case keeps it: negative is an exception."""

ROUNDING = 1e-9
"""Nats by which float64 arithmetic may miss an inequality that is tight."""


def _row_checks(logits: Float[Tensor, "row n"]) -> list[Check]:
    """Slack, in nats, of the inequalities that hold for any row of logits, by how far apart they are.

    With d the greatest minus the least logit, max weight <= e^d / (e^d + n - 1), min weight >= 1 / (1 + (n -
    1) e^d) and H >= ln n - d. These are lemma 2.1 of the paper without its slack.
    """
    import torch

    from holdfast.nn import entropy_of

    n = logits.shape[-1]
    log_weight = logits.log_softmax(dim=-1)
    spread = logits.amax(dim=-1) - logits.amin(dim=-1)
    most = -torch.log1p((n - 1) * torch.exp(-spread))
    least = -spread - torch.log((n - 1) + torch.exp(-spread))
    return [
        ("dispersion", most - log_weight.amax(dim=-1)),
        ("dispersion", log_weight.amin(dim=-1) - least),
        ("entropy", entropy_of(logits) - (math.log(n) - spread)),
    ]


def _check_rows(config: BoundsConfig, seed: int) -> list[Check]:
    import torch

    from holdfast.nn import entropy_of

    generator = _generator(seed, ROWS)
    checks = []
    for n in config.row_sizes:
        shape = (config.rows, n)
        scale = 10 ** (3 * torch.rand(config.rows, 1, generator=generator, dtype=torch.float64) - 2)
        normal = torch.randn(shape, generator=generator, dtype=torch.float64)
        one_up = torch.zeros(shape, dtype=torch.float64)
        one_up[:, 0] = 1
        # Two-level rows meet the inequalities with equality, once from above and once from below.
        for kind in (normal, one_up, -one_up):
            logits = scale * kind
            checks += _row_checks(logits)
            betas = torch.logspace(-1, 1, 21, dtype=torch.float64)
            entropies = torch.stack([entropy_of(beta * logits) for beta in betas])
            checks.append(("monotone", (entropies[:-1] - entropies[1:]).flatten()))
    return checks


def _check_encoders(config: BoundsConfig, seed: int) -> tuple[list[Record], list[Record], list[Check]]:
    import numpy as np
    import torch

    from holdfast.models.token_encoder import TokenEncoder
    from holdfast.nn import entropy_of

    slopes: list[Record] = []
    heads: list[Record] = []
    checks: list[Check] = []
    for style, causal in (("bert", False), ("gpt", True)):
        for depth in config.depths:
            encoder = TokenEncoder(
                vocabulary=config.vocabulary,
                dim=config.dim,
                heads=config.heads,
                layers=depth,
                causal=causal,
                generator=_generator(seed, TOKENS, depth),
            ).to(config.device)
            stream = torch.randint(config.vocabulary, (max(config.sizes),), generator=_generator(seed, TOKENS))
            entropies: dict[tuple[int, int], list[float]] = {}
            for n in config.sizes:
                # The same queries end every sequence, one of each token, so that lengths can be compared.
                tokens = torch.cat([stream[: n - config.vocabulary], torch.arange(config.vocabulary)])
                with torch.no_grad():
                    seen = encoder.head_logits(tokens[None].to(config.device), queries=config.vocabulary)
                for layer, each in enumerate(seen):
                    checks.append(("spectral", (each.bound / each.spread).double().cpu().flatten() - 1))
                    for query in range(config.vocabulary):
                        rows = each.logits[0, :, query, each.visible[query]].double()
                        checks += [(name, slack.cpu()) for name, slack in _row_checks(rows)]
                    weights = each.logits[0].softmax(dim=-1)
                    for head in range(config.heads):
                        entropy = entropy_of(each.logits[0, head]).mean().item()
                        entropies.setdefault((layer, head), []).append(entropy)
                        row: dict[str, Any] = {"style": style, "depth": depth, "layer": layer, "head": head}
                        row |= {"n": n, "entropy": entropy, "max_weight": weights[head].max().item()}
                        row |= {"spread": each.spread[0, head].max().item()}
                        row |= {"bound": each.bound[0, head].max().item()}
                        heads.append(row)
            # Averaged over queries, a causal head sees fewer tokens than n by the same number at every length.
            seen_tokens = [math.log(n - (config.vocabulary - 1) / 2 * causal) for n in config.sizes]
            fitted = [float(np.polyfit(seen_tokens, values, 1)[0]) for values in entropies.values()]
            worst = max(abs(slope - 1) for slope in fitted)
            slopes.append({"style": style, "depth": depth, "slope": float(np.mean(fitted)), "slope_error": worst})
    return slopes, heads, checks


def _merged(checks: Sequence[Check]) -> list[Record]:
    """One record for each inequality."""
    import torch

    records: list[Record] = []
    for name in dict.fromkeys(name for name, _ in checks):
        slack = torch.cat([values for other, values in checks if other == name])
        records.append(
            {
                "check": name,
                "cases": slack.numel(),
                # Not `slack < ...`: a NaN is an exception too.
                "exceptions": int((~(slack >= -ROUNDING)).sum()),
                "slack": slack.min().item() + (1 if name == "spectral" else 0),
            }
        )
    return records


def _gain(
    part: str, treatment: str, control: str, n: int, *, threshold: float = 0.0, less: bool = False
) -> Callable[[Results], Evidence]:
    """Test for the difference in accuracy of two arms at one size, paired over seeds."""

    def test(results: Results) -> Evidence:
        if "refit" in (treatment, control):
            refused = results.where(part=part, fit="refused")
            if refused:
                return unusable(f"no law for seed {refused[0]['seed']}: {refused[0]['reason']}")
        return paired_difference(
            results.by_seed("accuracy", part=part, arm=treatment, n=n),
            results.by_seed("accuracy", part=part, arm=control, n=n),
            threshold=threshold,
            alternative="less" if less else "greater",
            names=(f"{treatment} at n = {n}", f"{control} at n = {n}"),
        )

    return test


def _trained_gain(arm: str) -> Callable[[Results], Evidence]:
    """Test for the difference in accuracy at `COMPARED` items between networks trained with an arm and with softmax."""

    def test(results: Results) -> Evidence:
        return paired_difference(
            results.by_seed("accuracy", part="trained-with", arm=arm, n=COMPARED),
            results.by_seed("accuracy", part="retrieve", arm="plain", n=COMPARED),
            alternative="greater",
            names=(f"trained with {arm}", "trained with softmax"),
        )

    return test


def _with_traces(test: Callable[[Results], Evidence]) -> Callable[[Results], Evidence]:
    """A test for a part that only some scales have."""

    def judge(results: Results) -> Evidence:
        if isinstance(results.config, SharpnessConfig) and results.config.trace_seeds == 0:
            return unusable("the language models are a part of the scale gpu only")
        return test(results)

    return judge


def _same_in_distribution(results: Results) -> Evidence:
    return equivalent(
        results.by_seed("accuracy", part="retrieve", arm="published", n=16),
        results.by_seed("accuracy", part="retrieve", arm="plain", n=16),
        margin=0.01,
        names=("published at n = 16", "plain at n = 16"),
    )


def _trained_slope(results: Results) -> Evidence:
    small, large = (results.by_seed("entropy", part="retrieve", arm="plain", n=n) for n in (1024, 4096))
    slope = {seed: (large[seed] - small[seed]) / math.log(4) for seed in small.keys() & large.keys()}
    return equivalent(slope, dict.fromkeys(slope, 1.0), margin=0.1, names=("the slope from n = 1024 to 4096", "one"))


def _needle_is(arm: str, n: int, holds: Callable[[float], bool], test: str) -> Callable[[Results], Evidence]:
    """Test for the winner's mass at margin 5."""

    def judge(results: Results) -> Evidence:
        rows = results.where(part="needle", arm=arm, n=n, margin=5.0)
        refused = results.where(part="needle", fit="refused")
        if not rows:
            return unusable(str(refused[0]["reason"]) if refused else f"no row for {arm} at n = {n} and margin 5")
        mass = float(rows[0]["winner"] or 0.0)
        return exact(holds=holds(mass), effect=mass, n=1, test=test)

    return judge


def _needle_cliff(results: Results) -> Evidence:
    rows = [results.where(part="needle", arm=arm, n=1024, margin=5.0) for arm in ("published", "plain")]
    if not all(rows):
        return unusable("no row for n = 1024 and margin 5")
    masses = [float(row[0]["winner"] or 0.0) for row in rows]
    return exact(
        holds=abs(masses[0] - masses[1]) <= 1e-12,
        effect=masses[0] - masses[1],
        n=1,
        test="closed form: published minus plain",
    )


def _no_exception(check: str) -> Callable[[Results], Evidence]:
    """Test for an inequality that allows no exception."""

    def test(results: Results) -> Evidence:
        rows = results.where(part="bounds", check=check)
        cases, exceptions = (sum(int(row[name] or 0) for row in rows) for name in ("cases", "exceptions"))
        return exact(holds=exceptions == 0, effect=float(exceptions), n=cases, test="number of exceptions")

    return test


def _encoder_slope(depth: int) -> Callable[[Results], Evidence]:
    """Test for the head that is farthest from a slope of one, in either style."""

    def test(results: Results) -> Evidence:
        styles = [results.by_seed("slope_error", part="bounds", style=style, depth=depth) for style in ("bert", "gpt")]
        worst = {seed: max(style[seed] for style in styles) for seed in set.intersection(*map(set, styles))}
        return mean_of(worst, threshold=0.05, alternative="less", name=f"the slope with {depth} layers")

    return test


LEMMA = "proved in the paper: lemma 2.1"

CLAIMS = (
    *(
        Claim(
            f"rises-{n}",
            f"The published law raises the accuracy of a trained network at n = {n} (difference > 0).",
            _gain("retrieve", "published", "plain", n),
            paper=f"{plain:.1f} % to {published:.1f} %, +{(published - plain) / 100:.3f} (max-retrieval table)",
            family="published law",
        )
        for n, plain, published in (
            (n, PAPER_ACCURACY["plain"][n], PAPER_ACCURACY["published"][n]) for n in (256, 512, 1024)
        )
    ),
    Claim(
        "same-16",
        "At n = 16, the largest size trained on, the published law changes the accuracy by less than 0.01.",
        _same_in_distribution,
        paper="98.6 % both, p = 0.4 (max-retrieval table)",
        family="published law",
    ),
    *(
        Claim(
            f"refit-{n}",
            f"A law refitted to the network without labels beats the published one at n = {n} (difference > 0).",
            _gain("retrieve", "refit", "published", n),
            paper="not tried: one polynomial is used for all",
            family="refit law",
        )
        for n in (1024, 4096)
    ),
    Claim(
        "hard-1024",
        "Hard attention, switched on in the trained network, is less accurate than softmax at n = 1024.",
        _gain("retrieve", "hard", "plain", 1024, less=True),
        paper="zero temperature escapes dispersion but is reported as not viable",
        family="hard attention",
    ),
    Claim(
        "refit-log-n",
        "The refitted law beats log-n scaling, switched on in the same network, at n = 1024 (difference > 0).",
        _gain("retrieve", "refit", "log-n", 1024),
        paper="not tried",
        family="alternatives",
    ),
    *(
        Claim(
            f"trained-{arm}",
            f"A network trained with {name} is more accurate at n = 1024 than one trained with softmax from the same "
            "start on the same sets (difference > 0).",
            _trained_gain(arm),
            paper=paper,
            family="alternatives",
        )
        for arm, name, paper in (
            ("published", "the published law, gradient through it included,", "done for CLRS-Text only: mostly better"),
            ("ssmax", "scalable softmax", "not tried; proposed in arXiv 2501.19399"),
            ("entmax", "1.5-entmax", "not tried; proposed for lengths in arXiv 2506.16640"),
            ("scale-invariant", "scale-invariant attention", "not tried; proposed in arXiv 2505.17083"),
        )
    ),
    Claim(
        "disperses-trained",
        "In the trained network entropy grows with ln n at a slope within 0.1 of one from n = 1024 to 4096.",
        _trained_slope,
        paper="attention must disperse in the limit (theorem 2.2)",
        family="dispersion",
    ),
    *(
        Claim(
            f"disperses-{depth}",
            f"In random encoders of {depth} layer{'s' * (depth > 1)}, GPT and BERT style, the entropy of every head "
            "grows with ln n at a slope within 0.05 of one.",
            _encoder_slope(depth),
            paper="attention must disperse in the limit (theorem 2.2)",
            family="dispersion",
        )
        for depth in (1, 3)
    ),
    Claim(
        "weights-bounded",
        "No weight leaves [1 / (1 + (n - 1) e^d), e^d / (e^d + n - 1)], with d the spread of the row's logits.",
        _no_exception("dispersion"),
        paper=LEMMA,
        family="exact",
    ),
    Claim(
        "entropy-bounded",
        "No row has an entropy below ln n - d, with d the spread of its logits.",
        _no_exception("entropy"),
        paper="follows from lemma 2.1",
        family="exact",
    ),
    Claim(
        "spread-bounded",
        "No row's logit spread exceeds 2 sigma(Q) sigma(K) |y| max|x| / sqrt(head width).",
        _no_exception("spectral"),
        paper="proved in the paper: proposition 3.1",
        family="exact",
    ),
    Claim(
        "entropy-monotone",
        "A lower temperature never raises the entropy of a row.",
        _no_exception("monotone"),
        paper="proved in the paper (section 3)",
        family="exact",
    ),
    Claim(
        "needle-256",
        "The published law gives a winner by 5 nats at least 0.99 of the weight among 256 items (softmax: 0.37).",
        _needle_is("published", 256, lambda mass: mass >= 0.99, "closed form: weight of the winner"),
        paper="no such figure",
        family="exact",
    ),
    Claim(
        "needle-cliff",
        "Among 1024 items the published law leaves that winner as softmax does, to 1e-12: it has stopped acting.",
        _needle_cliff,
        paper="not mentioned; follows from the published coefficients",
        family="exact",
    ),
    Claim(
        "needle-refit",
        "A law refitted to such rows, held constant beyond the entropies it has seen, gives that winner at least "
        "0.9 among 1024 items.",
        _needle_is("refit", 1024, lambda mass: mass >= 0.9, "closed form: weight of the winner"),
        paper="not tried",
        family="exact",
    ),
    *(
        Claim(
            f"control-{n}",
            f"Where the answer is an average, the published law raises the accuracy by less than 0.01 at n = {n}.",
            _gain("control", "published", "plain", n, threshold=0.01, less=True),
            paper="no such experiment",
            family="control",
        )
        for n in (64, 256)
    ),
    *(
        Claim(
            f"traces-{name}",
            text,
            _with_traces(test),
            paper=paper,
            family="language models",
        )
        for name, text, test, paper in (
            (
                "adaptive",
                "Beyond the sizes trained on, language models trained with the published law write algorithms out more "
                "accurately than those trained with softmax (difference > 0).",
                beats_plain,
                "most of 30 algorithms are better with Gemma 2B on CLRS-Text (figure only)",
            ),
            (
                "long",
                "The law gains less on bubble sort, whose traces are long, than on the other tasks.",
                gains_less_on_long_traces,
                "bubble sort is a named exception",
            ),
            (
                "inactive",
                "On bubble sort more attention rows are beyond the law's reach than on the other tasks.",
                inactive_on_long_traces,
                "suspected as the reason for the exceptions",
            ),
        )
    ),
)


# Places in the page's palette, which suits light and dark pages and colour-blind readers.
COLOURS = {"plain": "C0", "published": "C1", "refit": "C2", "log-n": "C3", "hard": "C4", "ssmax": "C5"}
GREY = "#7d858e"

DASHES = {"log-n": (0, (4, 2)), "hard": (0, (1, 1.5))}
"""Arms that often coincide with another are broken lines, so that both can be seen."""


def _band(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean over seeds with its 95 % t interval."""
    import numpy as np
    from scipy import stats

    array = np.asarray(values, dtype=np.float64)
    mean = float(array.mean())
    if len(array) < 2:
        return mean, mean, mean
    half = float(stats.t.ppf(0.975, len(array) - 1) * array.std(ddof=1) / math.sqrt(len(array)))
    return mean, mean - half, mean + half


def _draw_by_size(
    results: Results,
    axes: Axes,
    metric: str,
    arms: Sequence[str],
    part: str,
    *,
    minus: str | None = None,
    band: bool = True,
) -> list[Record]:
    """A line an arm over a log2 axis of sizes: mean over seeds and, if asked, its 95 % interval.

    With `minus`, the difference to that arm, paired over seeds.
    """
    rows: list[Record] = []
    for arm in arms:
        points: list[tuple[int, float, float, float]] = []
        for n in results.levels("n", part=part, arm=arm):
            values: dict[int, float] = results.by_seed(metric, part=part, arm=arm, n=n)
            if minus is not None:
                base = results.by_seed(metric, part=part, arm=minus, n=n)
                values = {seed: value - base[seed] for seed, value in values.items() if seed in base}
            if not values:
                continue
            mean, low, high = _band(list(values.values()))
            points.append((n, mean, low, high))
            rows.append({"arm": arm, "n": n, metric: mean, "low": low, "high": high, "seeds": len(values)})
        if not points:
            continue
        sizes, means, lows, highs = zip(*points, strict=True)
        style = DASHES.get(arm, "-")
        axes.plot(sizes, means, color=COLOURS[arm], linestyle=style, marker="o", markersize=3, linewidth=1.6, label=arm)
        if band:
            axes.fill_between(sizes, lows, highs, color=COLOURS[arm], alpha=0.18, linewidth=0)
    _size_axis(axes, [int(n) for n in results.levels("n", part=part)])
    return rows


def _legend(axes: Axes) -> None:
    """A legend, unless nothing was drawn."""
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize="small")


def _size_axis(axes: Axes, sizes: Sequence[int]) -> None:
    axes.set_xscale("log", base=2)
    if sizes:
        every = 1 if len(sizes) <= 8 else 2
        axes.set_xticks(sizes[::every], [str(n) for n in sizes[::every]])
        axes.set_xticks([], minor=True)
    axes.set_xlabel("items n")


def _draw_accuracy(results: Results, axes: Axes) -> list[Record]:
    rows = _draw_by_size(results, axes, "accuracy", SHOWN, "retrieve", band=False)
    for arm, style in (("plain", "--"), ("published", ":")):
        label = f"{arm}, in the paper"
        curve = {n: value / 100 for n, value in PAPER_ACCURACY[arm].items()}
        axes.plot(list(curve), list(curve.values()), style, color=GREY, label=label)
        rows += [{"arm": label, "n": n, "accuracy": value} for n, value in curve.items()]
    axes.set_ylabel("accuracy")
    axes.set_ylim(0, 1.02)
    _legend(axes)
    return rows


def _draw_gain(results: Results, axes: Axes) -> list[Record]:
    rows = _draw_by_size(results, axes, "accuracy", ("published", "refit"), "retrieve", minus="plain")
    label = "published, in the paper"
    gain = {n: (PAPER_ACCURACY["published"][n] - value) / 100 for n, value in PAPER_ACCURACY["plain"].items()}
    axes.plot(list(gain), list(gain.values()), ":", color=GREY, label=label)
    axes.axhline(0, color=GREY, linewidth=0.8)
    rows += [{"arm": label, "n": n, "accuracy": value} for n, value in gain.items()]
    axes.set_ylabel("accuracy minus that of plain softmax")
    _legend(axes)
    return rows


def _draw_entropy(results: Results, axes: Axes) -> list[Record]:
    rows = _draw_by_size(results, axes, "entropy", [arm for arm in SHOWN if arm != "hard"], "retrieve")
    sizes = results.levels("n", part="retrieve")
    axes.plot(sizes, [math.log(n) for n in sizes], ":", color=GREY, label="ln n: all weights equal")
    axes.axhline(5.9445, color=GREY, linewidth=0.8, linestyle="--", label="the published law stops here")
    axes.set_ylabel("entropy of the weights (nats)")
    _legend(axes)
    return rows


def _draw_remedies(results: Results, axes: Axes) -> list[Record]:
    """Two dots an arm at `COMPARED` items: switched on after training, and trained with."""
    rows: list[dict[str, Any]] = []
    for arm in ARMS:
        row: dict[str, Any] = {"arm": arm}
        for part, label in (("retrieve", "switched on"), ("trained-with", "trained with")):
            for n in (16, 256, COMPARED, 4096):
                values = list(results.by_seed("accuracy", part=part, arm=arm, n=n).values())
                row[f"{label}, n = {n}"] = _band(values)[0] if values else None
        if any(value is not None for name, value in row.items() if name != "arm"):
            rows.append(row)
    rows.sort(key=lambda row: row[f"switched on, n = {COMPARED}"] or 0.0)
    for part, label, colour, marker in (
        ("retrieve", "switched on", "C0", "o"),
        ("trained-with", "trained with", "C1", "D"),
    ):
        dots: list[tuple[float, int]] = []
        for height, row in enumerate(rows):
            values = list(results.by_seed("accuracy", part=part, arm=row["arm"], n=COMPARED).values())
            if values:
                mean, low, high = _band(values)
                axes.plot([low, high], [height, height], color=colour, linewidth=1.6, alpha=0.5)
                dots.append((mean, height))
        if dots:
            axes.plot(*zip(*dots, strict=True), marker, color=colour, markersize=5, linestyle="none", label=label)
    axes.set_yticks(range(len(rows)), [str(row["arm"]) for row in rows])
    axes.set_xlabel(f"accuracy at n = {COMPARED}")
    axes.set_ylabel("normaliser")
    _legend(axes)
    return list(reversed(rows))


def _draw_split(results: Results, axes: Axes) -> list[Record]:
    rows: list[Record] = []
    for n in results.levels("n", part="retrieve", arm="plain"):
        row: dict[str, Any] = {"n": n}
        for metric in ("ordering_error", "dispersion_error"):
            row[metric] = _band(list(results.by_seed(metric, part="retrieve", arm="plain", n=n).values()))[0]
        rows.append(row)
    sizes = [int(row["n"] or 0) for row in rows]
    if rows:
        axes.stackplot(
            sizes,
            [[float(row[name] or 0.0) for row in rows] for name in ("ordering_error", "dispersion_error")],
            labels=("ordering: argmax attention errs too", "dispersion: argmax attention is right"),
            colors=(COLOURS["hard"], COLOURS["plain"]),
            alpha=0.75,
        )
    _legend(axes)
    _size_axis(axes, sizes)
    axes.set_ylabel("error of plain softmax")
    axes.set_ylim(0, 1)
    return rows


def _draw_needle(results: Results, axes: Axes) -> list[Record]:
    rows: list[Record] = []
    for arm in ("plain", "published", "refit", "log-n", "ssmax"):
        found = sorted(results.where(part="needle", arm=arm, margin=5.0), key=lambda row: int(row["n"] or 0))
        if found:
            axes.plot(
                [int(row["n"] or 0) for row in found],
                [float(row["winner"] or 0.0) for row in found],
                color=COLOURS[arm],
                marker="o",
                markersize=3,
                linewidth=1.5,
                label=f"SSMax {SSMAX}" if arm == "ssmax" else arm,
            )
        rows += [{"arm": arm, "n": row["n"], "winner": row["winner"], "beta": row["beta"]} for row in found]
    _size_axis(axes, [int(n) for n in results.levels("n", part="needle")])
    axes.set_ylabel("weight of the winner")
    axes.set_ylim(0, 1.02)
    _legend(axes)
    return rows


def _draw_laws(results: Results, axes: Axes) -> list[Record]:
    from holdfast.nn import AdaptiveTemperature

    published = _law_rows("published", AdaptiveTemperature.published())
    curves = [("published", "published", published)]
    rows = list(published)
    for part, label, colour in (
        ("retrieve", "refit, one line a seed", "refit"),
        ("needle", "refit to needles", "log-n"),
    ):
        for seed in results.levels("seed", part=part):
            found = results.curve("law", part=part, seed=seed)
            curves.append((label, colour, found))
            rows += [{**row, "arm": label} for row in found]
    labelled: set[str] = set()
    for label, colour, found in curves:
        axes.plot(
            [float(row["entropy"] or 0.0) for row in found],
            [float(row["beta"] or 0.0) for row in found],
            color=COLOURS[colour],
            linewidth=2.0 if label == "published" else 1.0,
            label=None if label in labelled else label,
        )
        labelled.add(label)
    axes.set_yscale("log", base=2)
    axes.set_xlabel("entropy of softmax (nats)")
    axes.set_ylabel("inverse temperature β")
    _legend(axes)
    return rows


def _draw_control(results: Results, axes: Axes) -> list[Record]:
    rows = _draw_by_size(results, axes, "accuracy", SHOWN, "control")
    axes.set_ylabel("accuracy, most frequent class")
    axes.set_ylim(0, 1.02)
    _legend(axes)
    return rows


FIGURES = (
    Figure(
        "accuracy",
        "Max retrieval: one set of weights, five ways to turn logits into attention. Trained on 5 to 16 items. "
        "Lines are means over seeds; grey lines are the paper's figures.",
        _draw_accuracy,
    ),
    Figure(
        "gain",
        "Max retrieval: what the published and the refitted law gain over plain softmax on the same weights and "
        "sets. Lines are means over seeds, bands their 95 % intervals.",
        _draw_gain,
    ),
    Figure(
        "remedies",
        "Max retrieval: all normalisers at 1024 items, switched on in the network trained with softmax, and some with "
        "networks trained with them. Dots are means over seeds, lines their 95 % intervals.",
        _draw_remedies,
    ),
    Figure(
        "entropy",
        "Max retrieval: the entropy of attention grows with the number of items. Above the dashed line the published "
        "law changes nothing.",
        _draw_entropy,
    ),
    Figure(
        "error-split",
        "Max retrieval, plain softmax: the part of the error that no temperature can mend (attention's largest logit "
        "leads to a wrong answer), and the part due to dispersion.",
        _draw_split,
    ),
    Figure(
        "needle",
        "One logit stands 5 nats above the rest: its weight under each law of temperature. The published law falls "
        "back to softmax where entropy passes 5.94 nats.",
        _draw_needle,
    ),
    Figure(
        "laws",
        "Inverse temperature as a function of entropy: the published polynomial, and laws refitted without labels.",
        _draw_laws,
    ),
    Figure(
        "control",
        "The negative control: naming the most frequent class needs all items alike, and sharper attention does not "
        "help. Lines are means over seeds, bands their 95 % intervals.",
        _draw_control,
    ),
    Figure(
        "traces",
        "Language models that write algorithms out: accuracy against the size of the input, one network an arm. Lines "
        "are means over seeds and over the tasks that were tested at every size, which leaves bubble sort out.",
        draw_traces,
    ),
    Figure(
        "traces-inactive",
        "Language models trained with the published law: share of attention rows that are too dispersed for it, by the "
        "length of the text.",
        draw_inactive,
    ),
)

study = Study(
    name="sharpness",
    question="Does softmax attention disperse as inputs grow, and does adaptive temperature keep it sharp?",
    scales=SCALES,
    trials=trials,
    run=run,
    claims=CLAIMS,
    figures=FIGURES,
    paper=Paper("Softmax is not enough (for sharp size generalisation)", "2410.01104"),
    cost={
        "quick": "about 1 minute on 2 CPU cores",
        "laptop": "under 20 minutes on 2 CPU cores",
        "gpu": "one GPU, under 2 hours (estimated)",
    },
)
