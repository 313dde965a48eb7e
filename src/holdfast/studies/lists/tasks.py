"""List functions as tasks for sequence models: gold answers by the batch, and their token format.

Rows of a batch are lists of whole numbers from 0, padded on the right with `EMPTY`. Eight functions are filter
equivariant: what stays of the answer when a value is deleted from the list is the answer without that value. The
others are not, and are there as negative controls. A model reads and writes

    TASK x1 ... xn SEP y1 ... ym EOS PAD ... PAD
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from holdfast.errors import ArgumentError

EMPTY = -1
"""Stands where a row has no element."""

Keys = Callable[[Int[np.ndarray, "batch n"], Int[np.ndarray, "batch n"], Int[np.ndarray, "batch 1"]], np.ndarray]
"""Lists, position of each element, length of each list -> keys of shape (batch, copies, n): see `ListTask`."""


@dataclass(frozen=True)
class ListTask:
    """A list function, twice: for many lists at once, and in plain Python.

    Arguments:
        name: what it is called.
        function: the function on one list.
        keys: of each copy of each element, the number by which the output is sorted; inf for a copy that is left out.
        copies: most times that an element comes out.
        equivariant: whether it commutes with deleting a value.
        repeats: whether it is the identity, or a sort, unless values repeat.
    """

    name: str
    function: Callable[[Sequence[int]], list[int]]
    keys: Keys
    copies: int = 1
    equivariant: bool = True
    repeats: bool = False

    def __call__(self, xs: Sequence[int]) -> list[int]:
        """The answer for one list."""
        return self.function(xs)

    def rows(self, xs: Int[np.ndarray, "batch n"]) -> Int[np.ndarray, "batch m"]:
        """The answers for many lists, padded to the longest of them.

        Arguments:
            xs: lists padded on the right.
        """
        batch, n = xs.shape
        present = xs != EMPTY
        at = np.broadcast_to(np.arange(n), xs.shape)
        keys = self.keys(xs, at, present.sum(axis=1, keepdims=True)).astype(np.float64)
        keys = np.where(present[:, None], keys, np.inf).reshape(batch, self.copies * n)
        order = np.argsort(keys, axis=1, kind="stable")
        ys = np.take_along_axis(np.tile(xs, (1, self.copies)), order, axis=1)
        ys[np.take_along_axis(keys, order, axis=1) == np.inf] = EMPTY
        return ys[:, : int((ys != EMPTY).sum(axis=1).max(initial=0))]


def _stack(*keys: np.ndarray) -> np.ndarray:
    return np.stack(np.broadcast_arrays(*keys), axis=1)


def _counts(xs: Int[np.ndarray, "batch n"]) -> Int[np.ndarray, "batch n"]:
    counts: np.ndarray = (xs[:, :, None] == xs[:, None, :]).sum(axis=2)
    return counts


def _first(xs: Int[np.ndarray, "batch n"]) -> Bool[np.ndarray, "batch n"]:
    """Where an element is the first of its value."""
    repeated: np.ndarray = np.tril(xs[:, :, None] == xs[:, None, :], -1).any(axis=2)
    return ~repeated


def _riffle_keys(at: np.ndarray, n: np.ndarray) -> np.ndarray:
    half = (n + 1) // 2
    return np.where(at < half, 2 * at, 2 * (at - half) + 1)


def _riffle(xs: Sequence[int]) -> list[int]:
    half = (len(xs) + 1) // 2
    return [xs[i // 2 if i % 2 == 0 else half + i // 2] for i in range(len(xs))]


def _least_first(xs: Sequence[int]) -> list[int]:
    at = min(range(len(xs)), key=lambda i: xs[i], default=0)
    return [*xs[at : at + 1], *xs[:at], *xs[at + 1 :]]


def _is_least(xs: Int[np.ndarray, "batch n"], at: np.ndarray) -> Bool[np.ndarray, "batch n"]:
    if xs.shape[1] == 0:
        return np.zeros(xs.shape, dtype=bool)
    least: np.ndarray = at == np.where(xs == EMPTY, np.iinfo(np.int64).max, xs).argmin(axis=1)[:, None]
    return least


def _by_frequency(xs: Sequence[int]) -> list[int]:
    count = Counter(xs)
    return sorted(xs, key=lambda x: (count[x], x))


EQUIVARIANT = (
    ListTask("reverse", lambda xs: list(xs[::-1]), lambda xs, at, n: _stack(-at)),
    ListTask("sort", sorted, lambda xs, at, n: _stack(xs)),
    ListTask("id+reverse", lambda xs: [*xs, *xs[::-1]], lambda xs, at, n: _stack(at, 2 * n - at), copies=2),
    ListTask(
        "partition",
        lambda xs: [*(x for x in xs if x % 2 == 0), *(x for x in xs if x % 2)],
        lambda xs, at, n: _stack(at + n * (xs % 2)),
    ),
    ListTask("inflate 2", lambda xs: [x for x in xs for _ in range(2)], lambda xs, at, n: _stack(at, at), copies=2),
    ListTask(
        "nub",
        lambda xs: list(dict.fromkeys(xs)),
        lambda xs, at, n: _stack(np.where(_first(xs), at, np.inf)),
        repeats=True,
    ),
    ListTask(
        "frequency sort",
        _by_frequency,
        lambda xs, at, n: _stack(_counts(xs) * (xs.max(initial=0) + 1) + xs),
        repeats=True,
    ),
)
"""Filter equivariant. Partition puts even values before odd ones, nub keeps the first of each value, and the frequency
sort puts rare values first, the smaller first where they are equally rare."""

CONTROLS = (
    ListTask(
        "rotate left", lambda xs: [*xs[1:], *xs[:1]], lambda xs, at, n: _stack((at - 1) % np.maximum(n, 1)), 1, False
    ),
    ListTask("riffle", _riffle, lambda xs, at, n: _stack(_riffle_keys(at, n)), 1, False),
    ListTask("tail", lambda xs: list(xs[1:]), lambda xs, at, n: _stack(np.where(at > 0, at, np.inf)), 1, False),
    ListTask("least first", _least_first, lambda xs, at, n: _stack(np.where(_is_least(xs, at), -1, at)), 1, False),
)
"""Not filter equivariant. Riffle takes turns between the halves; least first moves the smallest value to the front."""

TASKS = {task.name: task for task in (*EQUIVARIANT, *CONTROLS)}
"""All tasks by name."""


def find_task(name: str) -> ListTask:
    """A task by its name.

    Errors:
        ArgumentError: there is none of that name.
    """
    if name not in TASKS:
        raise ArgumentError("task", f"one of {', '.join(TASKS)}", name)
    return TASKS[name]


def to_rows(lists: Sequence[Sequence[int]]) -> Int[np.ndarray, "batch n"]:
    """Lists as rows, padded to the longest."""
    rows = np.full((len(lists), max(map(len, lists), default=0)), EMPTY, dtype=np.int64)
    for row, xs in zip(rows, lists, strict=True):
        row[: len(xs)] = xs
    return rows


def to_lists(rows: Int[np.ndarray, "batch n"]) -> list[list[int]]:
    """Rows as lists without their padding."""
    return [row[row != EMPTY].tolist() for row in rows]


def sample_lists(
    batch: int,
    length: int | tuple[int, int],
    rng: np.random.Generator,
    *,
    values: int = 128,
    repeats: bool = False,
) -> Int[np.ndarray, "batch n"]:
    """Draw lists whose elements are drawn from 0 to `values - 1` without replacement.

    Arguments:
        batch: number of lists.
        length: of every list, or the least and the greatest, of which each list draws one uniformly.
        rng: where the randomness comes from.
        values: how many values there are.
        repeats: draw the elements, with replacement, from about half as many values as the list is long.

    Errors:
        ArgumentError: no list, no value, a length below 0, or above `values` without repeats.
    """
    least, greatest = (length, length) if isinstance(length, int) else length
    for argument, number in (("batch", batch), ("values", values)):
        if number < 1:
            raise ArgumentError(argument, "at least 1", number)
    if not 0 <= least <= greatest:
        raise ArgumentError("length", "the least length, from 0, before the greatest", (least, greatest))
    kinds = (greatest + 1) // 2 if repeats else greatest
    if kinds > values:
        raise ArgumentError("length", f"at most {2 * values if repeats else values} for {values} values", greatest)
    pool = np.tile(np.arange(values), (batch, 1))
    row = np.arange(batch)
    for position in range(kinds):
        other = rng.integers(position, values, size=batch)
        drawn = pool[row, other]
        pool[row, other] = pool[:, position]
        pool[:, position] = drawn
    xs = pool[:, :kinds].copy()
    lengths = rng.integers(least, greatest + 1, size=(batch, 1))
    if repeats:
        which = rng.integers((lengths + 1) // 2 + (lengths == 0), size=(batch, greatest))
        xs = np.take_along_axis(xs, which, axis=1) if greatest else xs
    xs[np.arange(greatest) >= lengths] = EMPTY
    return xs


def filter_augment(
    xs: Int[np.ndarray, "batch n"], ys: Int[np.ndarray, "batch m"], rng: np.random.Generator
) -> tuple[Int[np.ndarray, "batch n"], Int[np.ndarray, "batch m"]]:
    """Filter lists and their answers alike: gold pairs again, if the task is filter equivariant. They are no longer.

    Arguments:
        xs: lists.
        ys: their answers.
        rng: decides, for each list, which share of its values is kept, and which values.

    Returns:
        The shorter lists and answers, as wide as before.
    """
    top = int(max(xs.max(initial=0), ys.max(initial=0)))
    kept = rng.random((len(xs), top + 1)) < rng.random((len(xs), 1))
    left, right = (_packed(rows, np.take_along_axis(kept, rows, axis=1) & (rows != EMPTY)) for rows in (xs, ys))
    return left, right


def shuffled_labels(ys: Int[np.ndarray, "batch m"], rng: np.random.Generator) -> Int[np.ndarray, "batch m"]:
    """Shuffle each answer by a permutation of its own: what is left to learn is which elements it has, and no order.

    Arguments:
        ys: answers, padded on the right.
        rng: draws the permutations.
    """
    keys = np.where(ys == EMPTY, 2.0, rng.random(ys.shape))
    return np.take_along_axis(ys, np.argsort(keys, axis=1), axis=1)


def _packed(rows: Int[np.ndarray, "batch n"], kept: Bool[np.ndarray, "batch n"]) -> Int[np.ndarray, "batch n"]:
    """Move what is kept to the left, in order."""
    order = np.argsort(~kept, axis=1, kind="stable")
    return np.take_along_axis(np.where(kept, rows, EMPTY), order, axis=1)


@dataclass(frozen=True)
class ListTokens:
    """Token numbers: values first, so that a value is its own token, then PAD, SEP and EOS, then the tasks.

    Arguments:
        tasks: names of the tasks.
        values: number of values.
    """

    tasks: tuple[str, ...]
    values: int = 128

    def __post_init__(self) -> None:
        if not self.tasks or len(set(self.tasks)) < len(self.tasks):
            raise ArgumentError("tasks", "different names of tasks", self.tasks)
        for name in self.tasks:
            find_task(name)
        if self.values < 1:
            raise ArgumentError("values", "at least 1", self.values)

    @property
    def pad(self) -> int:
        """Follows the end of an answer."""
        return self.values

    @property
    def separator(self) -> int:
        """Stands between list and answer."""
        return self.values + 1

    @property
    def stop(self) -> int:
        """Ends an answer."""
        return self.values + 2

    @property
    def size(self) -> int:
        """Number of tokens."""
        return self.values + 3 + len(self.tasks)

    def task(self, name: str) -> int:
        """The token of a task.

        Errors:
            ArgumentError: it is none of `tasks`.
        """
        if name not in self.tasks:
            raise ArgumentError("task", f"one of {', '.join(self.tasks)}", name)
        return self.values + 3 + self.tasks.index(name)

    def prompts(self, task: str, xs: Int[np.ndarray, "batch n"]) -> Int[np.ndarray, "batch n_plus_2"]:
        """Task, list and separator.

        Arguments:
            task: name of the task.
            xs: lists of one length.
        """
        ends = np.full((2, len(xs), 1), self.separator)
        ends[0] = self.task(task)
        return np.concatenate([ends[0], xs, ends[1]], axis=1)

    def batch(
        self, tasks: Int[np.ndarray, " batch"], xs: Int[np.ndarray, "batch n"], ys: Int[np.ndarray, "batch m"]
    ) -> ListBatch:
        """Texts for training.

        Arguments:
            tasks: token of each row's task.
            xs: lists.
            ys: their answers.
        """
        one = (len(xs), 1)
        parts = (tasks[:, None], xs, np.full(one, self.separator), ys, np.full(one, self.stop))
        joint = np.concatenate(parts, axis=1)
        there = joint != EMPTY
        order = np.argsort(~there, axis=1, kind="stable")[:, : int(there.sum(axis=1).max())]
        tokens = np.take_along_axis(np.where(there, joint, self.pad), order, axis=1)
        starts = 2 + (xs != EMPTY).sum(axis=1, keepdims=True)
        at = np.arange(tokens.shape[1])
        return ListBatch(tokens, (at >= starts) & (at < there.sum(axis=1, keepdims=True)))


@dataclass(frozen=True)
class ListBatch:
    """Texts side by side, padded on the right.

    Arguments:
        tokens: token numbers.
        answer: true on the tokens of the answers, EOS included, which a loss should count.
    """

    tokens: Int[np.ndarray, "batch time"]
    answer: Bool[np.ndarray, "batch time"]


def sample_batch(
    tokens: ListTokens,
    batch: int,
    length: int | tuple[int, int],
    rng: np.random.Generator,
    *,
    augment: bool = False,
    shuffled: bool = False,
) -> ListBatch:
    """Draw texts for training: as many of each task, as near as may be.

    Arguments:
        tokens: the token numbers, which name the tasks too.
        batch: number of texts.
        length: of all lists, or the least and the greatest; see `sample_lists`.
        rng: where the randomness comes from.
        augment: filter lists and answers alike; see `filter_augment`.
        shuffled: see `shuffled_labels`.
    """
    names = np.array([tokens.task(name) for name in tokens.tasks])[rng.permutation(batch) % len(tokens.tasks)]
    xs = sample_lists(batch, length, rng, values=tokens.values)
    for name in tokens.tasks:
        of_task = names == tokens.task(name)
        if find_task(name).repeats and of_task.any():
            xs[of_task] = sample_lists(int(of_task.sum()), length, rng, values=tokens.values, repeats=True)
    answers = {name: find_task(name).rows(xs[names == tokens.task(name)]) for name in tokens.tasks}
    ys = np.full((batch, max(rows.shape[1] for rows in answers.values())), EMPTY)
    for name, rows in answers.items():
        ys[names == tokens.task(name), : rows.shape[1]] = rows
    if augment:
        xs, ys = filter_augment(xs, ys, rng)
    if shuffled:
        ys = shuffled_labels(ys, rng)
    return tokens.batch(names, xs, ys)
