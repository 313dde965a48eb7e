"""One list from answers that contradict each other: tokens are ranked by the votes that the answers cast.

A token is one copy of a value in the output: its label and its number among the copies of that value. Each answer votes
for the order of every two of its tokens of different values. If the majorities fit one list, that list is the result.
Otherwise it is the list with the fewest votes against it that is found: Copeland scores, then the tokens one by one
moved to their best place; exactly the fewest (Kemeny's order) where the tokens that contradict each other are few. That
is the likeliest list if each vote is wrong independently with one probability. No method can mend a wrong majority
between neighbours of the true list, since no other pair speaks of it: only more votes do, from other contexts.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from holdfast.errors import ArgumentError, count_of
from holdfast.lists.errors import Undetermined
from holdfast.lists.extend.blocks import (
    Merge,
    Sublists,
    _capacity,
    _packed,
    _window,
    _windows,
    in_step,
    labels_of,
    tokens_of,
)
from holdfast.lists.extend.pairs import Labels, Token

EXACT = 12
"""Most tokens that contradict each other for which the best of all orders is computed."""

PAIRS_AT_ONCE = 1 << 22
"""Pairs of tokens that are counted together; bounds the memory."""

AnyLabels = Sequence[int] | Labels


@dataclass(frozen=True, eq=False)
class Ranking:
    """What the votes come to.

    Arguments:
        labels: the output list, as labels.
        consistent: the majorities of the votes fit this list and no other. A warning light and no certificate: a wrong
            majority between neighbours shows nowhere.
        optimal: no list has fewer votes against it.
        cost: votes against the list (Kemeny's distance, summed over the votes).
        confidence: share of all votes that agree with the list; 1 where there are none.
        neighbours: the same for each two neighbours in the list; 1 between copies of one value, and 1/2 where no
            answer held both.
        disputed: pairs of tokens, in the order of the list, with votes against that order.
        discarded: answers that were not counted.
    """

    labels: Int[np.ndarray, " n"]
    consistent: bool
    optimal: bool
    cost: int
    confidence: float
    neighbours: Float[np.ndarray, " n_less_1"]
    disputed: tuple[tuple[Token, Token], ...]
    discarded: int


class Votes:
    """Collects answers of a list function that errs, and makes one list of them.

    How many copies of a value come out is the count that most answers show; of two counts that equally many show, the
    one seen first. Answers with other counts, or with values that were not in the list, cast no vote. Votes of equally
    many answers for and against leave the order of two tokens to the other votes, and in the end to the seed. Memory
    grows with the square of the number of tokens.

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
        self._answers: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
        self._aliens = 0

    def add(self, query: AnyLabels, answer: AnyLabels) -> bool:
        """Count one answer.

        Arguments:
            query: labels of the list that was shown; each value with as many copies as in every other list.
            answer: labels of what came out; -1 for a value that is no label.

        Returns:
            Whether it casts votes, as far as is known by now: an answer with unusual counts is kept, and counts once
            others have shown its counts to be the usual ones.

        Errors:
            ArgumentError: a label is out of range, or another list held another number of copies of it.
        """
        shown = Counter(_plain(query))
        found = _plain(answer)
        for label, copies in shown.items():
            if not 0 <= label < self.alphabet_size:
                raise ArgumentError("query", f"labels from 0 to {self.alphabet_size - 1}", label)
            if self._shown.setdefault(label, copies) != copies:
                expected = f"{self._shown[label]} copies of label {label}, as in the lists before"
                raise ArgumentError("query", expected, copies)
        copies_out = Counter(found)
        if not copies_out.keys() <= shown.keys():
            self._aliens += 1
            return False
        for label in shown:
            self._seen[label][copies_out[label]] += 1
        self._answers.append((tuple(shown), found))
        return all(copies_out[label] == self._multiplicity(label) for label in shown)

    @property
    def discarded(self) -> int:
        """Answers that cast no vote, by what is known now."""
        return self._aliens + len(self._answers) - len(self._kept())

    def glue(self, seed: int = 0, *, guess: bool = False) -> Ranking:
        """The list with the fewest votes against it that is found.

        Two tokens that no answer showed together may still be in order through others: first before second, second
        before third. Where they end as neighbours in the list, their order is anybody's guess, and that is an error.

        Arguments:
            seed: decides between tokens with equal scores.
            guess: leave such neighbours as they are, with a confidence of one half.

        Errors:
            Undetermined: no vote orders two neighbours (without `guess`), or a value was never seen in an answer.
                `missing` holds the pairs of labels to ask for, each of which stands for the list of these values.
        """
        copies = np.array([self._multiplicity(label) for label in range(self.alphabet_size)], dtype=np.int64)
        values = np.repeat(np.arange(self.alphabet_size), copies)
        kept = self._kept()
        support = _support(kept, values, np.cumsum(copies) - copies)
        same = values[:, None] == values
        order, consistent, optimal = _rank(support, same, seed)
        if not guess:
            _refuse_guesses(order, support, same, values)
        for label, seen in enumerate(self._seen):
            if not seen:
                raise Undetermined([[label]])
        discarded = self._aliens + len(self._answers) - len(kept)
        return _ranking(order, support, same, values, (consistent, optimal), discarded)

    def _multiplicity(self, label: int) -> int:
        # A value that was never seen stands for itself, so that the pairs it lacks are found.
        return max(self._seen[label], key=self._seen[label].__getitem__, default=1)

    def _kept(self) -> list[tuple[int, ...]]:
        usual = [self._multiplicity(label) for label in range(self.alphabet_size)]
        return [
            answer
            for shown, answer in self._answers
            if len(answer) == sum(usual[label] for label in shown)
            and all(copies == usual[label] for label, copies in Counter(answer).items())
        ]


def block_merge_with_errors(sublists: Sublists) -> Generator[list[Labels], list[Labels | None], Labels]:
    """Block merge that goes on where answers contradict each other: the later one is believed for the time being.

    It yields lists to ask for and is sent their answers (`None`: there was none), as the engines of `blocks` are. In
    the last round it asks for windows of the result, each of which overlaps half of the next, so that every two
    neighbours are seen among other values once more. Let all the answers vote, and glue the votes with `guess`: most
    pairs were never together, and those that count are neighbours. A list whose answer cannot be used is asked for in
    parts.

    Arguments:
        sublists: the list, with a capacity of at least 2.

    Returns:
        The merged list, as it was before the last round.

    Errors:
        ArgumentError: two values have more copies together than the capacity, and were to be compared.

    Source: the amalgamation of arXiv 2507.08796, with up to 2n/c queries for the last round.
    """
    plan = _block_merge(sublists)
    queries = next(plan)
    nothing = np.zeros(0, dtype=np.int64)
    while True:
        answers = yield queries
        try:
            queries = plan.send([nothing if answer is None else answer for answer in answers])
        except StopIteration as stop:
            merged: list[Token] = stop.value
            break
    windows = []
    start = end = 0
    while end < len(merged):
        end, _, values = _window(merged, start, _capacity(sublists), sublists)
        windows.append(sublists.of(values))
        start += max((end - start) // 2, 1)
    if len(windows) > 1:
        yield windows
    return labels_of([merged])


def _block_merge(sublists: Sublists) -> Merge:
    chunks = list(_packed(sublists, dict.fromkeys(sublists.labels.tolist()), _capacity(sublists)))
    runs: list[list[Token]] = []
    while chunks:
        answers = yield [sublists.of(chunk) for chunk in chunks]
        again = []
        for chunk, answer in zip(chunks, answers, strict=True):
            if len(answer) and np.isin(answer, chunk).all():
                runs.append(tokens_of(answer))
            elif len(chunk) > 1:
                again += [chunk[: len(chunk) // 2], chunk[len(chunk) // 2 :]]
        chunks = again
    while len(runs) > 1:
        odd = runs[-1:] if len(runs) % 2 else []
        pairs = zip(runs[::2], runs[1::2], strict=False)
        runs = (yield from in_step([_merge_windows(left, right, sublists) for left, right in pairs])) + odd
    return runs[0] if runs else []


def _merge_windows(left: list[Token], right: list[Token], sublists: Sublists) -> Merge:
    merged: list[Token] = []
    room = _capacity(sublists)
    while left and right:
        i, j, values = _windows(left, 0, right, 0, replace(sublists, capacity=room))
        [answer] = yield [sublists.of(values)]
        ours, theirs = set(left[:i]), set(right[:j])
        found = [token for token in tokens_of(answer) if token in ours or token in theirs]
        if len(found) != i + j or not np.isin(answer, list(values)).all():
            least = sublists.counts[left[0][0]] + sublists.counts[right[0][0]]
            if room > least:
                room = max(room // 2, least)
                continue
            found = left[:i] + right[:j]
        room = _capacity(sublists)
        while ours and theirs:
            token = found.pop(0)
            ours.discard(token)
            theirs.discard(token)
            merged.append(token)
        left = [token for token in found if token in ours] + left[i:]
        right = [token for token in found if token in theirs] + right[j:]
    return merged + left + right


def kemeny_cost(order: AnyLabels, support: Int[np.ndarray, "n n"]) -> int:
    """Votes against an order.

    Arguments:
        order: the tokens, first to last.
        support: votes for the row's token before the column's.
    """
    at = np.asarray(order, dtype=np.int64)
    return int(np.tril(support[np.ix_(at, at)], -1).sum())


def copeland(support: Int[np.ndarray, "n n"], seed: int = 0) -> Int[np.ndarray, " n"]:
    """Tokens by the number of others that they beat less the number that beat them; ties fall by the seed.

    Where some pairs have no votes, the scores are those whose differences are closest, in least squares, to one win
    for each pair that has: on all pairs the two are the same up to a factor.

    Arguments:
        support: votes for the row's token before the column's.
        seed: of the shuffle that decides between equal scores.
    """
    by_chance = np.random.default_rng(seed).permutation(len(support))
    return np.lexsort((by_chance, -_scores(support - support.T, support + support.T > 0)))


def local_search(order: AnyLabels, support: Int[np.ndarray, "n n"]) -> Int[np.ndarray, " n"]:
    """Move one token at a time to its best place until no move leaves fewer votes against the order.

    Arguments:
        order: the tokens, first to last.
        support: votes for the row's token before the column's.

    Returns:
        The new order. In it no majority speaks against the order of two neighbours.
    """
    margin = support - support.T
    now = np.array(order, dtype=np.int64)
    place = np.empty(len(now), dtype=np.int64)
    place[now] = np.arange(len(now))
    unmoved = 0
    token = 0
    while unmoved < len(now):
        here = int(place[token])
        # Standing after k others costs the margins over them; the token's own entry is 0.
        passed = np.cumsum(margin[token, now])
        best = int(np.argmin(passed))
        first = passed[best] > 0
        if passed[here] > (0 if first else passed[best]):
            there = 0 if first else best + (best < here)
            low, high = min(here, there), max(here, there) + 1
            now[low:high] = np.roll(now[low:high], -1 if there > here else 1)
            place[now[low:high]] = np.arange(low, high)
            unmoved = 0
        unmoved += 1
        token = (token + 1) % len(now)
    return now


def kemeny(support: Int[np.ndarray, "n n"]) -> Int[np.ndarray, " n"]:
    """The order with the fewest votes against it, by dynamic programming over the sets of tokens that come first.

    Arguments:
        support: votes for the row's token before the column's; time and memory double with each token.

    Errors:
        ArgumentError: more than 20 tokens.
    """
    size = len(support)
    if size > 20:
        raise ArgumentError("support", "at most 20 tokens", size)
    sets = np.arange(1 << size)
    members = (sets[:, None] >> np.arange(size)) & 1
    # Placed right after all of a set, a token has against it the votes for it before each of them.
    against = members @ support.T
    best = np.zeros(1 << size, dtype=np.int64)
    last = np.zeros(1 << size, dtype=np.int64)
    count = members.sum(axis=1)
    never = np.iinfo(np.int64).max
    for filled in range(1, size + 1):
        layer = sets[count == filled]
        without = layer[:, None] ^ (1 << np.arange(size))
        inside = members[layer] == 1
        without = np.where(inside, without, 0)
        costs = np.where(inside, best[without] + against[without, np.arange(size)], never)
        last[layer] = np.argmin(costs, axis=1)
        best[layer] = costs[np.arange(len(layer)), last[layer]]
    order = []
    left = (1 << size) - 1
    while left:
        order.append(int(last[left]))
        left ^= 1 << order[-1]
    return np.array(order[::-1], dtype=np.int64)


def merge_sort(support: Int[np.ndarray, "n n"]) -> Int[np.ndarray, " n"]:
    """Tokens sorted with the majority as the comparator: what a user does today, and a baseline for the above.

    It asks few pairs, believes each, and so spreads each wrong one over a whole run.

    Arguments:
        support: votes for the row's token before the column's.
    """
    runs = [[token] for token in range(len(support))]
    while len(runs) > 1:
        pairs = zip(runs[::2], runs[1::2], strict=False)
        odd = runs[-1:] if len(runs) % 2 else []
        runs = [_merged(left, right, support) for left, right in pairs] + odd
    return np.array(runs[0] if runs else [], dtype=np.int64)


def _merged(left: list[int], right: list[int], support: Int[np.ndarray, "n n"]) -> list[int]:
    out: list[int] = []
    i = j = 0
    while i < len(left) and j < len(right):
        if support[right[j], left[i]] > support[left[i], right[j]]:
            out.append(right[j])
            j += 1
        else:
            out.append(left[i])
            i += 1
    return out + left[i:] + right[j:]


def _support(
    kept: list[tuple[int, ...]], values: Int[np.ndarray, " n"], first: Int[np.ndarray, " v"]
) -> Int[np.ndarray, "n n"]:
    """For each two tokens, the votes for the row's before the column's."""
    size = len(values)
    count = np.zeros(size * size, dtype=np.int64)
    by_length: dict[int, list[tuple[int, ...]]] = {}
    for answer in kept:
        by_length.setdefault(len(answer), []).append(answer)
    for length, answers in by_length.items():
        if length < 2:
            continue
        earlier, later = np.triu_indices(length, 1)
        step = max(1, PAIRS_AT_ONCE // len(earlier))
        for start in range(0, len(answers), step):
            labels = np.array(answers[start : start + step])
            tokens = first[labels] + _copy_numbers(labels)
            pairs = tokens[:, earlier] * size + tokens[:, later]
            count += np.bincount(pairs.ravel(), minlength=size * size)
    support = count.reshape(size, size)
    support[values[:, None] == values] = 0
    return support


def _rank(
    support: Int[np.ndarray, "n n"], same: Bool[np.ndarray, "n n"], seed: int
) -> tuple[Int[np.ndarray, " n"], bool, bool]:
    """The order of the tokens, whether the majorities fit it alone, and whether none has fewer votes against it.

    Tokens that contradict each other form the strongly connected components of the majorities. No majority is against
    the order in which the components follow each other, so each is ranked by itself.
    """
    size = len(support)
    # Copies of one value stand in their order: that outweighs all votes together.
    support = support + np.triu(same, 1) * (int(support.sum()) + 1)
    beats = support > support.T
    count, component = connected_components(csr_array(beats), directed=True, connection="strong")
    preferred = copeland(support, seed)
    members: list[list[int]] = [[] for _ in range(count)]
    for token in preferred.tolist():
        members[component[token]].append(token)
    optimal = True
    for number, tokens in enumerate(members):
        if len(tokens) == 1:
            continue
        at = np.array(tokens)
        inside = support[np.ix_(at, at)]
        exact = len(tokens) <= EXACT
        members[number] = at[kemeny(inside) if exact else local_search(np.arange(len(at)), inside)].tolist()
        optimal &= exact
    order = np.array([token for number in _topological(beats, component, preferred) for token in members[number]])
    order = order.astype(np.int64)
    return order, count == size and bool(beats[order[:-1], order[1:]].all()), optimal


def _topological(
    beats: Bool[np.ndarray, "n n"], component: Int[np.ndarray, " n"], preferred: Int[np.ndarray, " n"]
) -> list[int]:
    """Components so that none beats an earlier one; where several could follow, the one with the preferred token."""
    count = int(component.max(initial=-1)) + 1
    winner, loser = (component[tokens] for tokens in np.nonzero(beats))
    first, second = np.divmod(np.unique((winner * count + loser)[winner != loser]), max(count, 1))
    after = np.split(second, np.searchsorted(first, np.arange(1, count)))
    before = np.bincount(second, minlength=count)
    rank = np.full(count, len(component))
    np.minimum.at(rank, component[preferred], np.arange(len(component)))
    ready = [(int(rank[number]), number) for number in range(count) if before[number] == 0]
    heapq.heapify(ready)
    order = []
    while ready:
        _, number = heapq.heappop(ready)
        order.append(number)
        before[after[number]] -= 1
        for freed in after[number][before[after[number]] == 0].tolist():
            heapq.heappush(ready, (int(rank[freed]), freed))
    return order


def _scores(margin: Int[np.ndarray, "n n"], asked: Bool[np.ndarray, "n n"]) -> Float[np.ndarray, " n"]:
    size = len(margin)
    net: Float[np.ndarray, " n"] = np.sign(margin).sum(axis=1).astype(np.float64)
    degree = asked.sum(axis=1)
    if size < 2 or degree.min() == size - 1:
        return net
    # A trace of the identity makes the graph's Laplacian solvable in each of its parts; rounding keeps ties as ties.
    laplacian = np.diag(degree + 1e-6) - asked
    return np.asarray(np.linalg.solve(laplacian, net).round(6), dtype=np.float64)


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
    reach = _reachable((support > support.T) | np.triu(same, 1))
    open_pairs = silent & ~reach & ~reach.T
    open_pairs[left[guessed], right[guessed]] = True
    pairs = np.sort(values[np.argwhere(open_pairs)], axis=1)
    raise Undetermined(np.unique(pairs, axis=0).tolist())


def _reachable(edges: Bool[np.ndarray, "n n"]) -> Bool[np.ndarray, "n n"]:
    """Which token leads to which along any number of edges."""
    reach: Bool[np.ndarray, "n n"] = edges
    while True:
        steps = reach.astype(np.float32)
        further: Bool[np.ndarray, "n n"] = reach | (steps @ steps > 0)
        if np.array_equal(further, reach):
            return reach
        reach = further


def _ranking(
    order: Int[np.ndarray, " n"],
    support: Int[np.ndarray, "n n"],
    same: Bool[np.ndarray, "n n"],
    values: Int[np.ndarray, " n"],
    flags: tuple[bool, bool],
    discarded: int,
) -> Ranking:
    cost = kemeny_cost(order, support)
    total = int(support.sum())
    left, right = order[:-1], order[1:]
    agree, against = support[left, right], support[right, left]
    unheard = np.where(same[left, right], 1.0, 0.5)
    neighbours = np.where(agree + against > 0, agree / np.maximum(agree + against, 1), unheard)
    copy = _copy_numbers(values[None])[0]
    tokens = [(int(values[token]), int(copy[token])) for token in order]
    disputed = np.argwhere(np.tril(support[np.ix_(order, order)], -1).T)
    return Ranking(
        labels=values[order],
        consistent=flags[0],
        optimal=flags[1],
        cost=cost,
        confidence=1 - cost / total if total else 1.0,
        neighbours=neighbours,
        disputed=tuple((tokens[before], tokens[after]) for before, after in disputed.tolist()),
        discarded=discarded,
    )


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


def _plain(labels: AnyLabels) -> tuple[int, ...]:
    return tuple(labels.tolist()) if isinstance(labels, np.ndarray) else tuple(map(int, labels))
