"""How often a list is recovered from pair answers that are wrong at random, and how far off it is otherwise.

Each of the n(n-1)/2 pairs of a list is asked `votes` times, and each answer is wrong with probability p. Compared are
gluing that stops at a contradiction (`consistent`: how often there is none), merge sort with the majority as its
comparator, Copeland scores, and `holdfast.lists.extend.votes`. Tokens are numbered at random: in order, ties would
fall in favour of the truth. No method can recover a list in which a majority between neighbours is wrong: `ceiling` is
how often that did not happen, beside the probability of it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from holdfast.benches.harness.report import Report, Row
from holdfast.benches.registry import Tell

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Options:
    """Lists recovered from wrong votes on pairs, beside merge sort with the same votes."""

    lengths: tuple[int, ...] = (16, 64)
    """Lengths of the lists."""
    wrong: tuple[float, ...] = (0.01, 0.05)
    """Chances that one vote is wrong."""
    votes: tuple[int, ...] = (1, 3)
    """Votes for each pair."""
    lists: int = 100
    """Lists for each setting."""
    seed: int = 20251124
    """Of the lists and the votes."""


TOY = Options(lengths=(8,), wrong=(0.1,), votes=(1,), lists=5)


def run(options: Options, tell: Tell) -> Report:
    """Recover lists in every setting; each has random numbers of its own.

    Arguments:
        options: the settings.
        tell: called with each row.

    Returns:
        The report. Its ratio: lists that `local` recovers exactly for each one that merge sort does, in all settings
        together.

    Errors:
        ArgumentError: no list is asked for.
    """
    from holdfast.errors import count_of

    count_of("lists", options.lists, 1)
    settings = [(n, p, votes) for n in options.lengths for p in options.wrong for votes in options.votes]
    rows = table(settings, options.lists, options.seed)
    for row in rows:
        tell(row)
    local, merge = (sum(row[f"exact_{name}"] for row in rows) / len(rows) for name in ("local", "merge"))
    words = f"{local:.1%} of the lists exact, {merge:.1%} by merge sort"
    return Report(asdict(options), tuple(rows), words, local / merge if merge else None)


def table(settings: Sequence[tuple[int, float, int]], lists: int, seed: int) -> list[Row]:
    """One row for each length, chance of a wrong vote, and number of votes."""
    import numpy as np

    streams = np.random.default_rng(seed).spawn(len(settings))
    return [_measure(*setting, lists, rng) for setting, rng in zip(settings, streams, strict=True)]


def noisy_votes(n: int, wrong: float, votes: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The true order of n tokens, and votes for the row's token before the column's."""
    import numpy as np

    truth = rng.permutation(n)
    against = rng.binomial(votes, wrong, size=(n, n))
    upper = np.triu(np.ones((n, n), dtype=bool), 1)
    ranked = np.where(upper, votes - against, against.T)
    np.fill_diagonal(ranked, 0)
    support = np.empty_like(ranked)
    support[np.ix_(truth, truth)] = ranked
    return truth, support


def _kendall_error(order: np.ndarray, truth: np.ndarray) -> float:
    """Share of the pairs that are in the wrong order."""
    import numpy as np
    from scipy.stats import kendalltau

    return float((1 - kendalltau(np.argsort(order), np.argsort(truth)).statistic) / 2)


def _measure(n: int, wrong: float, votes: int, lists: int, rng: np.random.Generator) -> Row:
    import numpy as np

    from holdfast.lists.extend import copeland, local_search, merge_sort

    exact: dict[str, list[bool]] = {}
    error: dict[str, list[float]] = {}
    consistent, strict, possible, seconds = [], [], [], 0.0
    for _ in range(lists):
        truth, support = noisy_votes(n, wrong, votes, rng)
        beats = support > support.T
        scores = beats.sum(axis=1)
        consistent.append(len(set(scores.tolist())) == n)
        strict.append(consistent[-1] and bool((np.argsort(-scores) == truth).all()))
        possible.append(bool(beats[truth[:-1], truth[1:]].all()))
        started = time.perf_counter()
        start = copeland(support, int(rng.integers(1 << 31)))
        orders = {"copeland": start, "local": local_search(start, support)}
        seconds += time.perf_counter() - started
        orders["merge"] = merge_sort(support)
        for name, order in orders.items():
            exact.setdefault(name, []).append(bool((order == truth).all()))
            error.setdefault(name, []).append(_kendall_error(order, truth))
    majority = range(votes // 2 + 1, votes + 1)
    wrong_pair = sum(math.comb(votes, k) * wrong**k * (1 - wrong) ** (votes - k) for k in majority)
    return {
        "n": n,
        "p": wrong,
        "votes": votes,
        "lists": lists,
        "consistent": float(np.mean(consistent)),
        "exact_strict": float(np.mean(strict)),
        **{f"exact_{name}": float(np.mean(hits)) for name, hits in exact.items()},
        **{f"kendall_{name}": float(np.mean(errors)) for name, errors in error.items()},
        "ceiling": float(np.mean(possible)),
        "ceiling_expected": (1 - wrong_pair) ** (n - 1),
        "ms_copeland_and_local": seconds / lists * 1e3,
    }
