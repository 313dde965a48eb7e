"""Networks that learn list functions on short lists, and how they are asked about long ones."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from holdfast.lab import progress
from holdfast.lab.seeds import rng_for

if TYPE_CHECKING:
    from holdfast.studies.lists.model import ListTransformer
    from holdfast.studies.lists.neural.part import NeuralConfig

Row = dict[str, Any]
Lists = list[list[int]]

TASKS = ("reverse", "sort", "id+reverse", "partition")
"""What the networks learn; all of it is filter equivariant."""

CONTROLS = ("rotate left", "riffle", "tail", "least first")
"""What is not, and must be refused."""

TEST, PROBE, PAIRS, REFUSE, COMPARE = range(5)
"""Streams of random numbers: each purpose has its own, so that all networks see the same test lists."""

PAIRS_AT_ONCE = 1 << 22
"""Pairs of elements that the comparator looks at together; bounds the memory."""

TRAINING_SHARE = 0.6
"""Share of a trial's progress that its training makes."""


def trained(
    config: NeuralConfig, tasks: Sequence[str], seed: int, *, steps: int, shuffled: bool = False
) -> ListTransformer:
    """A network that has learned tasks on short lists.

    Arguments:
        config: settings.
        tasks: names of the tasks.
        seed: of parameters and data.
        steps: optimiser steps.
        shuffled: train on answers in random order.
    """
    from holdfast.studies.lists.model import ListModelConfig, train_list_model

    shape = ListModelConfig(
        tasks=tuple(tasks),
        values=config.values,
        longest=config.longest,
        width=config.width,
        layers=config.layers,
        heads=config.heads,
        steps=steps,
        batch=config.batch,
        rate=config.rate,
        shuffled=shuffled,
        rotary_share=1.0 if config.positions == "rotary" else 0.0,
    )

    def tell(share: float, loss: float) -> None:
        progress.report(TRAINING_SHARE * share, loss=loss)

    return train_list_model(shape, seed=seed, device=config.device, report=tell)


def _test_lists(config: NeuralConfig, seed: int, n: int) -> Lists:
    """The lists of one length, the same for every task, network and arm of a seed."""
    from holdfast.studies.lists.tasks import sample_lists, to_lists

    return to_lists(sample_lists(config.lists, n, rng_for(seed, TEST, n), values=config.values))


def _gold(task: str, lists: Lists) -> Lists:
    from holdfast.studies.lists.tasks import find_task

    return [find_task(task)(xs) for xs in lists]


def decoded(
    model: ListTransformer, tasks: Sequence[str], config: NeuralConfig, seed: int, arm: str = "raw"
) -> Iterator[Row]:
    """The network's own answers, token by token."""
    for n in config.lengths:
        lists = _test_lists(config, seed, n)
        for task in tasks:
            yield {"arm": arm, "task": task, "n": n} | score(model.answer(task, lists), _gold(task, lists))


def score(answers: Sequence[list[int] | None], gold: Lists) -> Row:
    """How good answers are; `None` is none.

    Arguments:
        answers: to compare.
        gold: the right ones.
    """
    errors = [kendall_error(ys, right) for ys, right in zip(answers, gold, strict=True) if ys is not None]
    comparable = [error for error in errors if error is not None]
    return {
        "exact": fmean(ys == right for ys, right in zip(answers, gold, strict=True)),
        "answered": len(errors) / len(gold),
        "kendall": fmean(comparable) if comparable else None,
    }


def kendall_error(answer: list[int], gold: list[int]) -> float | None:
    """Share of the pairs of elements that are in the wrong order; `None` if the elements are not the right ones."""
    import numpy as np

    if sorted(answer) != sorted(gold):
        return None
    place = {token: at for at, token in enumerate(_tokens(gold))}
    at = np.array([place[token] for token in _tokens(answer)])
    pairs = len(at) * (len(at) - 1) // 2
    return float(np.triu(at[:, None] > at, 1).sum() / pairs) if pairs else 0.0


def _tokens(xs: list[int]) -> list[tuple[int, int]]:
    """Each element, and how many equal ones stand before it."""
    seen: Counter[int] = Counter()
    tokens = []
    for x in xs:
        tokens.append((x, seen[x]))
        seen[x] += 1
    return tokens


def glued(
    model: ListTransformer, config: NeuralConfig, seed: int, arms: Sequence[str], tasks: Sequence[str]
) -> Iterator[Row]:
    """Answers put together from answers to short lists; all questions of a round go to the network in one batch.

    `blocks` merges with lists as long as those trained on; `pairs` asks for every two elements; `votes k` asks for
    every two elements in k lists as long as those trained on, and repairs what does not fit.
    """
    from holdfast.lists import ExpensivePlan, Extension, Oracle, extrapolate
    from holdfast.studies.lists.model import as_list_function

    for task in tasks:
        f = as_list_function(model, task)
        for arm in arms:
            kind, _, votes = arm.partition(" ")
            options: dict[str, Any] = {"engine": kind}
            if votes:
                options = {
                    "votes": int(votes),
                    "presentation": "given",
                    "on_inconsistent": "return",
                    "seed": seed,
                }
            capacity = 2 if kind == "pairs" else config.longest
            oracle = Oracle(f, batched=True, progress=False)
            extended = extrapolate(oracle, capacity, mode="distinct", **options)
            for n in config.lengths:
                if n > {"pairs": config.pairs_longest, "votes": config.votes_longest}.get(kind, n):
                    continue
                lists = _test_lists(config, seed, n)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", ExpensivePlan)  # arm `pairs` is meant to
                    extensions = extended.explain_batch(lists, return_exceptions=True)
                answered = [extension for extension in extensions if isinstance(extension, Extension)]
                answers = [extension.output if isinstance(extension, Extension) else None for extension in extensions]
                row: Row = {"arm": arm, "task": task, "n": n} | score(answers, _gold(task, lists))
                yield row | {"queries": fmean(extension.queries for extension in answered) if answered else None}


def probed(model: ListTransformer, config: NeuralConfig, seed: int) -> Iterator[Row]:
    """How often the network breaks the law, which takes no labels, and how often it errs."""
    from holdfast.lists import Oracle
    from holdfast.probes.lists import probe_filter_equivariance
    from holdfast.studies.lists.model import as_list_function
    from holdfast.studies.lists.tasks import find_task, sample_lists, to_lists

    lists = [
        xs
        for n in config.probe_lengths
        for xs in to_lists(sample_lists(config.probe_lists, n, rng_for(seed, PROBE, n), values=config.values))
    ]
    for task in TASKS:
        oracle = Oracle(as_list_function(model, task), batched=True)
        report = probe_filter_equivariance(oracle, lists=lists, seed=seed, reference=find_task(task))
        for entry in report.entries:
            yield {"task": task, "n": entry.length, "violation": entry.violation, "error": 1 - entry.exact}


def pair_errors(model: ListTransformer, config: NeuralConfig, seed: int) -> Iterator[Row]:
    """How often two values of a list as long as those trained on are sorted wrongly, by how far apart they are."""
    gap = 1
    while gap < config.values:
        rng = rng_for(seed, PAIRS, gap)
        lists, pairs = [], []
        for _ in range(config.pair_lists):
            # Gaps up to twice as large; but neighbours by themselves.
            step = int(rng.integers(gap, min(max(2 * gap, 2), config.values)))
            low = int(rng.integers(config.values - step))
            others = [x for x in rng.permutation(config.values).tolist() if x not in (low, low + step)]
            lists.append(rng.permutation([low, low + step, *others[: config.longest - 2]]).tolist())
            pairs.append((low, low + step))
        answers = model.answer("sort", lists)
        wrong = (not {x, y} <= set(ys) or ys.index(x) > ys.index(y) for ys, (x, y) in zip(answers, pairs, strict=True))
        yield {"gap": gap, "pair_error": fmean(wrong)}
        gap *= 2


def refusals(model: ListTransformer, tasks: Sequence[str], config: NeuralConfig, seed: int) -> Iterator[Row]:
    """How often calibration refuses the network, with the tolerance that votes have: half of the lists tried."""
    from holdfast.errors import HoldfastError
    from holdfast.lists import Oracle, extrapolate
    from holdfast.studies.lists.model import as_list_function
    from holdfast.studies.lists.tasks import sample_lists, to_lists

    drawn = sample_lists(config.refusal_lists, config.longest, rng_for(seed, REFUSE), values=config.values)
    for task in tasks:
        refused = 0
        for number, xs in enumerate(to_lists(drawn)):
            f = as_list_function(model, task)
            options: dict[str, Any] = {"mode": "distinct", "votes": 3, "calibrate": 24, "on_inconsistent": "return"}
            oracle = Oracle(f, batched=True, progress=False)
            extended = extrapolate(oracle, config.longest, seed=number, **options)
            try:
                extended(xs)
            except HoldfastError:
                refused += 1
        yield {"task": task, "refused": refused / config.refusal_lists}


def distilled(model: ListTransformer, config: NeuralConfig, seed: int) -> Iterator[Row]:
    """Teach the network its own extension up to twice the length, and ask it raw."""
    from holdfast.studies.lists.model import distil

    student, _ = distil(
        model,
        rounds=config.distil_rounds,
        stretch=-(-config.longest // config.distil_rounds),
        lists=config.distil_lists,
        steps=config.distil_steps,
        seed=seed,
    )
    yield from decoded(student, TASKS, config, seed, arm="distilled")


def comparators(config: NeuralConfig, seed: int) -> Iterator[Row]:
    """Train a comparator network for each task, and ask it."""
    from holdfast.nn.list_comparator import train_list_comparator
    from holdfast.studies.lists.tasks import find_task, sample_lists, to_lists

    rng = rng_for(seed, COMPARE)
    lists = to_lists(sample_lists(config.comparator_lists, (2, config.longest), rng, values=config.values))
    for number, task in enumerate(TASKS):

        def tell(share: float, loss: float, number: int = number) -> None:
            progress.report((number + share) / len(TASKS), loss=loss)

        comparator = train_list_comparator(
            lists,
            _gold(task, lists),
            values=config.values,
            copies=find_task(task).copies,
            seed=seed,
            steps=config.comparator_steps,
            report=tell,
        )
        for n in sorted({*config.lengths, config.comparator_length}):
            tested = _test_lists(config, seed, n)
            row: Row = {"arm": "comparator", "task": task, "n": n}
            chunk = max(1, PAIRS_AT_ONCE // n**2)
            answers = [ys for at in range(0, len(tested), chunk) for ys in comparator.answer(tested[at : at + chunk])]
            row |= score(answers, _gold(task, tested))
            yield row | {"consistent": fmean(comparator.consistent(xs) for xs in tested)}
