"""Part of the study of list functions: networks that were trained on short lists, asked about long ones.

Every trial trains from nothing. `network` learns the tasks that are filter equivariant, and is asked as it is and
through `holdfast.lists.extrapolate`; `sham` learns the same lists with answers in random order, and `controls` learns
tasks that are not filter equivariant; `comparator` is the network that is filter equivariant by construction.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

from holdfast.errors import ArgumentError

if TYPE_CHECKING:
    import numpy as np

    from holdfast.studies.lists.model import ListTransformer

Row = dict[str, Any]
Report = Callable[..., None]
Lists = list[list[int]]

TASKS = ("reverse", "sort", "id+reverse", "partition")
"""What the networks learn; all of it is filter equivariant."""

CONTROLS = ("rotate left", "riffle", "tail", "least first")
"""What is not, and must be refused."""

VOTED = ("sort", "partition")
"""What is also voted on: the tasks in which the value of an element matters, which are the hard ones."""

ROLES = ("network", "sham", "controls", "comparator")

TEST, PROBE, PAIRS, REFUSE, COMPARE = range(5)
"""Streams of random numbers: each purpose has its own, so that all networks see the same test lists."""

PAIRS_AT_ONCE = 1 << 22
"""Pairs of elements that the comparator looks at together; bounds the memory."""

TRAINING_SHARE = 0.6
"""Share of a trial's progress that its training makes."""


@dataclass(frozen=True, kw_only=True)
class NeuralConfig:
    """How networks are trained on short lists and tested on long ones.

    Arguments:
        device: where to train, such as "cpu" or "cuda"; on CUDA in bfloat16.
        positions: "rotary", or "none": the network sees the order of tokens through its causal mask alone.
        values: number of values.
        longest: lists that are trained on have 1 to so many elements.
        width: of the network.
        layers: of the network.
        heads: attention heads a layer.
        steps: optimiser steps of the network that the claims are about.
        side_steps: optimiser steps of the sham and of the network that learns the negative controls.
        batch: lists a step, of all tasks together.
        rate: greatest learning rate.
        lengths: elements of the test lists; twice and ten times `longest` are among them.
        lists: test lists for each task and length.
        votes: how often pairs are asked for, each time among other values, where there is a vote.
        vote_lengths: the two lengths at which voting on `sort` is judged.
        pairs_longest: up to this length the answer is also glued from all pairs.
        votes_longest: up to this length pairs are voted on.
        probe_lengths: elements of the lists of the probe that needs no labels.
        probe_lists: lists for each of these lengths.
        pair_lists: lists for each distance of two values, to see which of them are sorted wrongly.
        refusal_lists: lists whose values calibration is tried on.
        comparator_lists: lists that the comparator is trained on, for each task.
        comparator_steps: optimiser steps of the comparator.
        comparator_length: the greatest length at which it is tested.
        distil_rounds: rounds in which the network is taught its own extension; 0: none.
        distil_lists: new lists a round and task.
        distil_steps: optimiser steps a round.
    """

    device: str = "cpu"
    positions: str = "rotary"
    values: int = 128
    longest: int = 6
    width: int = 64
    layers: int = 2
    heads: int = 4
    steps: int = 6000
    side_steps: int = 1500
    batch: int = 128
    rate: float = 4e-3
    lengths: tuple[int, ...] = (4, 6, 8, 12, 16, 32, 60)
    lists: int = 50
    votes: tuple[int, ...] = (1, 9)
    vote_lengths: tuple[int, int] = (16, 32)
    pairs_longest: int = 60
    votes_longest: int = 60
    probe_lengths: tuple[int, ...] = (2, 3, 4, 5, 6, 7, 8)
    probe_lists: int = 400
    pair_lists: int = 600
    refusal_lists: int = 20
    comparator_lists: int = 20_000
    comparator_steps: int = 1200
    comparator_length: int = 100
    distil_rounds: int = 0
    distil_lists: int = 2048
    distil_steps: int = 300

    def __post_init__(self) -> None:
        if self.positions not in ("rotary", "none"):
            raise ArgumentError("positions", "'rotary' or 'none'", self.positions)
        for argument, needed in (
            ("lengths", {self.twice, self.tenfold, *self.vote_lengths}),
            ("probe_lengths", {self.longest, self.longest + 1}),
        ):
            missing = needed - set(getattr(self, argument))
            if missing:
                raise ArgumentError(argument, f"{', '.join(map(str, sorted(needed)))} among them", missing)
        if max(*self.lengths, self.comparator_length) > self.values:
            expected = f"at least {max(*self.lengths, self.comparator_length)}, as lists have no duplicates"
            raise ArgumentError("values", expected, self.values)

    def trained_steps(self, role: str) -> int:
        """Optimiser steps of a role."""
        return {"network": self.steps, "comparator": self.comparator_steps}.get(role, self.side_steps)

    @property
    def twice(self) -> int:
        """Twice the length that is trained on."""
        return 2 * self.longest

    @property
    def tenfold(self) -> int:
        """Ten times that length."""
        return 10 * self.longest


def run_neural(
    config: NeuralConfig, role: str, seed: int, report: Report = lambda fraction, **metrics: None
) -> list[Row]:
    """Train and test one network.

    Arguments:
        config: settings.
        role: one of `ROLES`.
        seed: of parameters and training data; test lists depend on it too, and are the same for all roles.
        report: is told the share of the work that is done, with the `loss` while training.

    Returns:
        Records:

        - for each `arm`, `task` and length `n`: the share of lists answered exactly (`exact`), of lists that got an
          answer (`answered`), the `kendall` error of the answers that hold the right elements, the `queries` a list;
        - for each `task` and length `n` of the probe: `violation`, which needs no labels, and the `error`;
        - for two values that are a `gap` apart, in a list as long as those trained on: the `pair_error` of sorting;
        - for each `task` whether calibration `refused` the network: the share of lists on whose values it did.
    """
    if role == "comparator":
        return list(_run_comparator(config, seed, report))
    tasks = CONTROLS if role == "controls" else TASKS
    steps = config.trained_steps(role)
    model = trained(config, tasks, seed, steps=steps, shuffled=role == "sham", report=report)
    rows = list(_decoded(model, tasks, config, seed))
    report(0.7)
    if role == "network":
        rows += _glued(model, config, seed, ("blocks", "pairs"), TASKS)
        report(0.75)
        rows += _glued(model, config, seed, tuple(f"votes {votes}" for votes in config.votes), VOTED)
        report(0.9)
        rows += _probed(model, config, seed)
        rows += _pair_errors(model, config, seed)
    if role == "sham":
        rows += _glued(model, config, seed, ("blocks",), TASKS)
    if role in ("network", "controls"):
        rows += _refusals(model, tasks, config, seed)
    if role == "network" and config.distil_rounds:
        rows += _distilled(model, config, seed)
    report(1.0)
    return rows


def trained(
    config: NeuralConfig, tasks: Sequence[str], seed: int, *, steps: int, shuffled: bool = False, report: Report
) -> ListTransformer:
    """A network that has learned tasks on short lists.

    Arguments:
        config: settings.
        tasks: names of the tasks.
        seed: of parameters and data.
        steps: optimiser steps.
        shuffled: train on answers in random order.
        report: is told the share of the work that is done, with the `loss`.
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
        report(TRAINING_SHARE * share, loss=loss)

    return train_list_model(shape, seed=seed, device=config.device, report=tell)


def _rng(seed: int, *stream: int) -> np.random.Generator:
    import numpy as np

    return np.random.default_rng([seed, *stream])


def _test_lists(config: NeuralConfig, seed: int, n: int) -> Lists:
    """The lists of one length, the same for every task, network and arm of a seed."""
    from holdfast.studies.lists.tasks import sample_lists, to_lists

    return to_lists(sample_lists(config.lists, n, _rng(seed, TEST, n), values=config.values))


def _gold(task: str, lists: Lists) -> Lists:
    from holdfast.studies.lists.tasks import find_task

    return [find_task(task)(xs) for xs in lists]


def _decoded(
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


def _glued(
    model: ListTransformer, config: NeuralConfig, seed: int, arms: Sequence[str], tasks: Sequence[str]
) -> Iterator[Row]:
    """Answers put together from answers to short lists; all questions of a round go to the network in one batch.

    `blocks` merges with lists as long as those trained on; `pairs` asks for every two elements; `votes k` asks for
    every two elements in k lists as long as those trained on, and repairs what does not fit.
    """
    from holdfast.lists import Extension, Oracle, extrapolate
    from holdfast.studies.lists.model import as_list_function

    for task in tasks:
        f = as_list_function(model, task)
        for arm in arms:
            kind, _, votes = arm.partition(" ")
            options: dict[str, Any] = {"engine": kind}
            if votes:
                options = {"votes": int(votes), "on_inconsistent": "return", "seed": seed}
            capacity = 2 if kind == "pairs" else config.longest
            oracle = Oracle(f, batched=True, progress=False)
            extended = extrapolate(oracle, capacity, mode="distinct", **options)
            for n in config.lengths:
                if n > {"pairs": config.pairs_longest, "votes": config.votes_longest}.get(kind, n):
                    continue
                lists = _test_lists(config, seed, n)
                found = extended.explain_batch(lists, return_exceptions=True)
                good = [each for each in found if isinstance(each, Extension)]
                answers = [each.output if isinstance(each, Extension) else None for each in found]
                row: Row = {"arm": arm, "task": task, "n": n} | score(answers, _gold(task, lists))
                yield row | {"queries": fmean(each.queries for each in good) if good else None}


def _probed(model: ListTransformer, config: NeuralConfig, seed: int) -> Iterator[Row]:
    """How often the network breaks the law, which takes no labels, and how often it errs."""
    from holdfast.lists import Oracle
    from holdfast.probes.lists import probe_filter_equivariance
    from holdfast.studies.lists.model import as_list_function
    from holdfast.studies.lists.tasks import find_task, sample_lists, to_lists

    lists = [
        xs
        for n in config.probe_lengths
        for xs in to_lists(sample_lists(config.probe_lists, n, _rng(seed, PROBE, n), values=config.values))
    ]
    for task in TASKS:
        oracle = Oracle(as_list_function(model, task), batched=True)
        found = probe_filter_equivariance(oracle, lists=lists, seed=seed, reference=find_task(task))
        for entry in found.entries:
            yield {"task": task, "n": entry.length, "violation": entry.violation, "error": 1 - entry.exact}


def _pair_errors(model: ListTransformer, config: NeuralConfig, seed: int) -> Iterator[Row]:
    """How often two values of a list as long as those trained on are sorted wrongly, by how far apart they are."""
    gap = 1
    while gap < config.values:
        rng = _rng(seed, PAIRS, gap)
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


def _refusals(model: ListTransformer, tasks: Sequence[str], config: NeuralConfig, seed: int) -> Iterator[Row]:
    """How often calibration refuses the network, with the tolerance that votes have: half of the lists tried."""
    from holdfast.errors import HoldfastError
    from holdfast.lists import Oracle, extrapolate
    from holdfast.studies.lists.model import as_list_function
    from holdfast.studies.lists.tasks import sample_lists, to_lists

    drawn = sample_lists(config.refusal_lists, config.longest, _rng(seed, REFUSE), values=config.values)
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


def _distilled(model: ListTransformer, config: NeuralConfig, seed: int) -> Iterator[Row]:
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
    yield from _decoded(student, TASKS, config, seed, arm="distilled")


def _run_comparator(config: NeuralConfig, seed: int, report: Report) -> Iterator[Row]:
    from holdfast.nn.list_comparator import train_list_comparator
    from holdfast.studies.lists.tasks import find_task, sample_lists, to_lists

    rng = _rng(seed, COMPARE)
    lists = to_lists(sample_lists(config.comparator_lists, (2, config.longest), rng, values=config.values))
    for number, task in enumerate(TASKS):

        def tell(share: float, loss: float, number: int = number) -> None:
            report((number + share) / len(TASKS), loss=loss)

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
            part = max(1, PAIRS_AT_ONCE // n**2)
            answers = [ys for at in range(0, len(tested), part) for ys in comparator.answer(tested[at : at + part])]
            row |= score(answers, _gold(task, tested))
            yield row | {"consistent": fmean(comparator.consistent(xs) for xs in tested)}
