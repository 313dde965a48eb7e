"""One list from answers that contradict each other: tokens are ranked by the votes that the answers cast.

A token is one copy of a value in the output: its label and its number among the copies of that value. Each answer votes
for the order of every two of its tokens of different values. If the majorities fit one list, that list is the result.
Otherwise it is the list with the fewest votes against it that is found: Copeland scores, then the tokens one by one
moved to their best place; exactly the fewest (Kemeny's order) where the tokens that contradict each other are few. That
is the likeliest list if each vote is wrong independently with one probability. No method can mend a wrong majority
between neighbours of the true list, since no other pair speaks of it: only more votes do, from other contexts.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from holdfast.errors import ArgumentError, count_of
from holdfast.lists.errors import Undetermined
from holdfast.lists.extend.pairs import as_labels, closure
from holdfast.lists.extend.presentation import Balanced, balance
from holdfast.lists.extend.ranking import AnyLabels, kemeny_cost, rank
from holdfast.lists.tokens import Token

PAIRS_AT_ONCE = 1 << 22
"""Pairs of tokens that are counted together; bounds the memory."""


@dataclass(frozen=True, eq=False)
class Ranking:
    """What the votes come to.

    Arguments:
        labels: the output list, as labels.
        consistent: the majorities of the votes fit this list and no other. A warning light and no certificate: a wrong
            majority between neighbours shows nowhere.
        optimal: no list has fewer votes against it.
        cost: votes against the list (Kemeny's distance, summed over the votes).
        confidence: share of all votes that agree with the list; 1 where there are none. Where it is in doubt whether
            the function looks at where elements stand, the lower of the two shares.
        neighbours: the same for each two neighbours in the list; 1 between copies of one value, and 1/2 where no
            answer held both.
        disputed: pairs of tokens, in the order of the list, with votes against that order.
        discarded: answers that were not counted.
        turning: share of the pairs seen in both orders of presentation whose answer turns with the list.
        by_place: whether the function was taken to look at where elements stand.
    """

    labels: Int[np.ndarray, " n"]
    consistent: bool
    optimal: bool
    cost: int
    confidence: float
    neighbours: Float[np.ndarray, " n_less_1"]
    disputed: tuple[tuple[Token, Token], ...]
    discarded: int
    turning: float = 0.0
    by_place: bool = False


class Votes:
    """Collects answers of a list function that errs, and makes one list of them.

    How many copies of a value come out is the count that most answers show, by their weights; of two counts that
    equally many show, the one seen first. Answers with other counts, or with values that were not in the list, cast no
    vote. Votes of equally many answers for and against leave the order of two tokens to the other votes, and in the end
    to the seed. Memory grows with the square of the number of tokens.

    Arguments:
        alphabet_size: number of values; their labels are 0 to `alphabet_size - 1`.

    Errors:
        ArgumentError: the size is negative.

    Source: derived in docs/systems/lists.md; in-degree order as a 5-approximation: Coppersmith,
    Fleischer and Rudra 2006; local search for Kemeny's order: insertion moves.
    """

    def __init__(self, alphabet_size: int) -> None:
        self.alphabet_size = count_of("alphabet_size", alphabet_size)
        self._shown: dict[int, int] = {}
        self._seen: list[Counter[int]] = [Counter() for _ in range(alphabet_size)]
        self._answers: list[tuple[tuple[int, ...], tuple[int, ...], bool, int]] = []
        self._aliens = 0

    def add(self, query: AnyLabels, answer: AnyLabels, *, turned: bool = False, weight: int = 1) -> bool:
        """Count one answer.

        Arguments:
            query: labels of the list that was shown; each value with as many copies as in every other list.
            answer: labels of what came out; -1 for a value that is no label.
            turned: the list was shown the other way round.
            weight: how many votes it casts for each pair; more for a judge that is trusted more.

        Returns:
            Whether it casts votes, as far as is known by now; an answer with unusual counts is kept, and counts once
            others have shown its counts to be the usual ones.

        Errors:
            ArgumentError: a label is out of range, another list held another number of copies of it, or the weight is
                below 1.
        """
        count_of("weight", weight, 1)
        shown = Counter(as_labels("query", query).tolist())
        came_out = tuple(as_labels("answer", answer).tolist())
        for label, copies in shown.items():
            if not 0 <= label < self.alphabet_size:
                raise ArgumentError("query", f"labels from 0 to {self.alphabet_size - 1}", label)
            if self._shown.setdefault(label, copies) != copies:
                expected = f"{self._shown[label]} copies of label {label}, as in the lists before"
                raise ArgumentError("query", expected, copies)
        copies_out = Counter(came_out)
        if not copies_out.keys() <= shown.keys():
            self._aliens += 1
            return False
        for label in shown:
            self._seen[label][copies_out[label]] += weight
        self._answers.append((tuple(shown), came_out, turned, weight))
        return all(copies_out[label] == self._multiplicity(label) for label in shown)

    @property
    def discarded(self) -> int:
        """Answers that cast no vote, by what is known now."""
        return self._aliens + len(self._answers) - sum(len(self._kept(turned)) for turned in (False, True))

    def glue(self, seed: int = 0, *, guess: bool = False, by_place: bool | None = None) -> Ranking:
        """The list with the fewest votes against it that is found.

        Two tokens that no answer showed together may still be in order through others: first before second, second
        before third. Where they end as neighbours in the list, their order is anybody's guess, and that is an error.

        Arguments:
            seed: decides between tokens with equal scores.
            guess: leave such neighbours as they are, with a confidence of one half.
            by_place: whether the function is meant to look at where elements stand, so that answers to lists which were
                shown the other way round are no votes for the same order; `None`: as the votes have it. Without such
                lists it makes no difference.

        Errors:
            Undetermined: no vote orders two neighbours (without `guess`), or a value was never seen in an answer.
                `missing` holds the pairs of labels to ask for, each of which stands for the list of these values.
        """
        count_of("seed", seed)
        copies = np.array([self._multiplicity(label) for label in range(self.alphabet_size)], dtype=np.int64)
        values = np.repeat(np.arange(self.alphabet_size), copies)
        first = np.cumsum(copies) - copies
        given, turned = (_support(self._kept(way), values, first) for way in (False, True))
        balanced = balance(given, turned, by_place=by_place)
        support = balanced.weighed
        same = values[:, None] == values
        order, consistent, optimal = rank(support, same, seed)
        if not guess:
            _refuse_guesses(order, support, same, values)
        for label, seen in enumerate(self._seen):
            if not seen:
                raise Undetermined([[label]])
        return _ranking(order, balanced, same, values, (consistent, optimal), self.discarded)

    def _multiplicity(self, label: int) -> int:
        # A value that was never seen stands for itself, so that the pairs it lacks are found.
        return max(self._seen[label], key=self._seen[label].__getitem__, default=1)

    def _kept(self, turned: bool) -> list[tuple[tuple[int, ...], int]]:
        """The answers that cast votes, of lists as they are or turned round, with their weights."""
        usual = [self._multiplicity(label) for label in range(self.alphabet_size)]
        return [
            (answer, weight)
            for shown, answer, way, weight in self._answers
            if way == turned
            and len(answer) == sum(usual[label] for label in shown)
            and all(copies == usual[label] for label, copies in Counter(answer).items())
        ]


def _support(
    kept: list[tuple[tuple[int, ...], int]], values: Int[np.ndarray, " n"], first: Int[np.ndarray, " v"]
) -> Int[np.ndarray, "n n"]:
    """For each two tokens, the votes for the row's before the column's."""
    size = len(values)
    count = np.zeros(size * size, dtype=np.int64)
    alike: dict[tuple[int, int], list[tuple[int, ...]]] = {}
    for answer, weight in kept:
        alike.setdefault((len(answer), weight), []).append(answer)
    for (length, weight), answers in alike.items():
        if length < 2:
            continue
        earlier, later = np.triu_indices(length, 1)
        step = max(1, PAIRS_AT_ONCE // len(earlier))
        for start in range(0, len(answers), step):
            labels = np.array(answers[start : start + step])
            tokens = first[labels] + _copy_numbers(labels)
            pairs = tokens[:, earlier] * size + tokens[:, later]
            count += weight * np.bincount(pairs.ravel(), minlength=size * size)
    support = count.reshape(size, size)
    support[values[:, None] == values] = 0
    return support


def _refuse_guesses(
    order: Int[np.ndarray, " n"],
    support: Int[np.ndarray, "n n"],
    same: Bool[np.ndarray, "n n"],
    values: Int[np.ndarray, " n"],
) -> None:
    silent = (support + support.T == 0) & ~same
    left, right = order[:-1], order[1:]
    guessed = silent[left, right]
    if not guessed.any():
        return
    reach = closure((support > support.T) | np.triu(same, 1))
    open_pairs = silent & ~reach & ~reach.T
    open_pairs[left[guessed], right[guessed]] = True
    pairs = np.sort(values[np.argwhere(open_pairs)], axis=1)
    raise Undetermined(np.unique(pairs, axis=0).tolist())


def _ranking(
    order: Int[np.ndarray, " n"],
    balanced: Balanced,
    same: Bool[np.ndarray, "n n"],
    values: Int[np.ndarray, " n"],
    flags: tuple[bool, bool],
    discarded: int,
) -> Ranking:
    support, weighed = balanced.support, balanced.weighed
    left, right = order[:-1], order[1:]
    unheard = np.where(same[left, right], 1.0, 0.5)
    shares = []
    for votes in (weighed, balanced.plain) if balanced.by_place else (weighed,):
        agree, against = votes[left, right], votes[right, left]
        shares.append(np.where(agree + against > 0, agree / np.maximum(agree + against, 1), unheard))
    neighbours = np.minimum.reduce(shares)
    copy = _copy_numbers(values[None])[0]
    tokens = [(int(values[token]), int(copy[token])) for token in order]
    disputed = np.argwhere(np.tril(support[np.ix_(order, order)], -1).T)
    return Ranking(
        labels=values[order],
        consistent=flags[0],
        optimal=flags[1],
        cost=kemeny_cost(order, support),
        confidence=min(_agreement(order, votes) for votes in (support, balanced.plain)),
        neighbours=neighbours,
        disputed=tuple((tokens[before], tokens[after]) for before, after in disputed.tolist()),
        discarded=discarded,
        turning=balanced.turning,
        by_place=balanced.by_place,
    )


def _agreement(order: Int[np.ndarray, " n"], votes: Int[np.ndarray, "n n"]) -> float:
    """Share of the votes that agree with an order; 1 where there are none."""
    total = int(votes.sum())
    return 1 - kemeny_cost(order, votes) / total if total else 1.0


def _copy_numbers(labels: Int[np.ndarray, "rows n"]) -> Int[np.ndarray, "rows n"]:
    """For each element, how many equal ones stand before it in its row."""
    by_label = np.argsort(labels, axis=1, kind="stable")
    ordered = np.take_along_axis(labels, by_label, axis=1)
    at = np.arange(labels.shape[1])
    new = np.ones(labels.shape, dtype=bool)
    new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    starts = np.maximum.accumulate(np.where(new, at, 0), axis=1)
    numbers = np.empty_like(labels)
    np.put_along_axis(numbers, by_label, at - starts, axis=1)
    return numbers
