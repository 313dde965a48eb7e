"""Orders of tokens by votes on pairs: Copeland scores, local search, and the order with the fewest votes against it.

Tokens are numbered, and `support[s, t]` is how many votes put s before t.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from holdfast.errors import ArgumentError
from holdfast.lists.extend.pairs import Labels

EXACT = 12
"""Most tokens that contradict each other for which the best of all orders is computed."""

AnyLabels = Sequence[int] | Labels


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


def rank(
    support: Int[np.ndarray, "n n"], same: Bool[np.ndarray, "n n"], seed: int
) -> tuple[Int[np.ndarray, " n"], bool, bool]:
    """The order of the tokens, whether the majorities fit it alone, and whether none has fewer votes against it.

    Tokens that contradict each other form the strongly connected components of the majorities. No majority is against
    the order in which the components follow each other, so each is ranked by itself.
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

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
