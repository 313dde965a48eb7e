"""Part of the study of list functions: lists from pair answers that are wrong at random."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

METHODS = ("strict", "merge sort", "copeland", "copeland + local")
"""`strict` answers only where no answer contradicts another one."""


@dataclass(frozen=True, kw_only=True)
class RobustConfig:
    """Simulated answers.

    Arguments:
        sizes: elements of the lists.
        noise: chances that one vote on a pair is wrong, each independent of all others.
        votes: votes for each pair.
        lists: lists for each of these settings.
    """

    sizes: tuple[int, ...] = (16, 64)
    noise: tuple[float, ...] = (0.001, 0.003, 0.01, 0.03, 0.05, 0.1, 0.2)
    votes: tuple[int, ...] = (1, 3, 5)
    lists: int = 200


def run_robust(
    config: RobustConfig, seed: int, report: Callable[[float], None] = lambda fraction: None
) -> list[dict[str, Any]]:
    """Recover lists from votes.

    Returns:
        Records: for each `method`, length `n`, chance `p` of a wrong vote and number of `votes`: the share of lists
        that came out `right`, and the `kendall` error, the mean share of pairs in the wrong order, of the lists that
        came out at all; `strict` has `answered`, how many did. For the method `ceiling` `right` is the share of lists
        that any method can recover: no majority between neighbours is wrong.
    """
    import numpy as np

    rows = []
    settings = list(product(config.sizes, config.noise, config.votes))
    streams = np.random.default_rng(seed).spawn(len(settings))
    for number, ((n, p, votes), rng) in enumerate(zip(settings, streams, strict=True)):
        found = _recover(n, p, votes, config.lists, rng)
        rows += [{"method": method, "n": n, "p": p, "votes": votes} | row for method, row in found.items()]
        report((number + 1) / len(settings))
    return rows


def _recover(n: int, p: float, votes: int, lists: int, rng: np.random.Generator) -> dict[str, dict[str, float]]:
    import numpy as np

    from holdfast.lists.extend import copeland, local_search, merge_sort

    right = dict.fromkeys((*METHODS, "ceiling"), 0)
    errors: dict[str, list[float]] = {method: [] for method in METHODS}
    for _ in range(lists):
        truth, support = noisy_votes(n, p, votes, rng)
        beats = support > support.T
        by_wins = np.argsort(-beats.sum(axis=1), kind="stable")
        found = {"merge sort": merge_sort(support), "copeland": copeland(support, int(rng.integers(1 << 31)))}
        found["copeland + local"] = local_search(found["copeland"], support)
        if bool(np.triu(beats[np.ix_(by_wins, by_wins)], 1).sum() == n * (n - 1) // 2):
            found["strict"] = by_wins
        for method, order in found.items():
            right[method] += bool((order == truth).all())
            errors[method].append(kendall_error(order, truth))
        right["ceiling"] += bool(beats[truth[:-1], truth[1:]].all())
    rows: dict[str, dict[str, float]] = {method: {"right": count / lists} for method, count in right.items()}
    for method, found_errors in errors.items():
        if found_errors:
            rows[method]["kendall"] = float(np.mean(found_errors))
    rows["strict"]["answered"] = len(errors["strict"]) / lists
    return rows


def noisy_votes(n: int, p: float, votes: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A random order of n tokens, and how many votes say that the row's token comes before the column's."""
    import numpy as np

    truth = rng.permutation(n)
    wrong = np.triu(rng.binomial(votes, p, size=(n, n)), 1)
    upper = np.triu(np.ones((n, n), dtype=np.int64), 1)
    ranked = upper * votes - wrong + wrong.T
    support = np.empty_like(ranked)
    support[np.ix_(truth, truth)] = ranked
    return truth, support


def kendall_error(order: np.ndarray, truth: np.ndarray) -> float:
    """Share of the pairs of tokens that are in the wrong order: 0 to 1."""
    import numpy as np

    place = np.empty(len(truth), dtype=np.int64)
    place[truth] = np.arange(len(truth))
    found = place[order]
    pairs = len(found) * (len(found) - 1) // 2
    return float(np.triu(found[:, None] > found, 1).sum() / pairs) if pairs else 0.0
