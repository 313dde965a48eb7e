"""How often a list is recovered from pair answers that are wrong at random, and how far off it is otherwise.

    python benchmarks/lists_robust.py [--seed 20251124]

Each of the n(n-1)/2 pairs of a list is asked `votes` times, and each answer is wrong with probability p. Compared are
gluing that stops at a contradiction (`consistent`: how often there is none), merge sort with the majority as its
comparator, Copeland scores, and `holdfast.lists.extend.votes`. Tokens are numbered at random: in order, ties would
fall in favour of the truth. No method can recover a list in which a majority between neighbours is wrong: `ceiling` is
how often that did not happen, beside the probability of it.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence

import numpy as np
from scipy.stats import kendalltau

from holdfast.lab.environment import environment
from holdfast.lists.extend import copeland, local_search, merge_sort

SETTINGS = (
    (16, 0.01, 1),
    (16, 0.05, 1),
    (16, 0.05, 3),
    (64, 0.001, 1),
    (64, 0.01, 1),
    (64, 0.01, 3),
    (64, 0.05, 3),
    (64, 0.20, 3),
)
"""List length, chance that one vote is wrong, votes for each pair."""


def noisy_votes(n: int, wrong: float, votes: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The true order of n tokens, and votes for the row's token before the column's."""
    truth = rng.permutation(n)
    against = rng.binomial(votes, wrong, size=(n, n))
    upper = np.triu(np.ones((n, n), dtype=bool), 1)
    ranked = np.where(upper, votes - against, against.T)
    np.fill_diagonal(ranked, 0)
    support = np.empty_like(ranked)
    support[np.ix_(truth, truth)] = ranked
    return truth, support


def kendall_error(order: np.ndarray, truth: np.ndarray) -> float:
    """Share of the pairs that are in the wrong order."""
    return float((1 - kendalltau(np.argsort(order), np.argsort(truth)).statistic) / 2)


def measure(n: int, wrong: float, votes: int, trials: int, rng: np.random.Generator) -> dict[str, float]:
    exact: dict[str, list[bool]] = {}
    error: dict[str, list[float]] = {}
    consistent, strict, possible, seconds = [], [], [], 0.0
    for _ in range(trials):
        truth, support = noisy_votes(n, wrong, votes, rng)
        beats = support > support.T
        scores = beats.sum(axis=1)
        consistent.append(len(set(scores.tolist())) == n)
        strict.append(consistent[-1] and bool((np.argsort(-scores) == truth).all()))
        possible.append(bool(beats[truth[:-1], truth[1:]].all()))
        started = time.perf_counter()
        start = copeland(support, int(rng.integers(1 << 31)))
        found = {"copeland": start, "local": local_search(start, support)}
        seconds += time.perf_counter() - started
        found["merge"] = merge_sort(support)
        for name, order in found.items():
            exact.setdefault(name, []).append(bool((order == truth).all()))
            error.setdefault(name, []).append(kendall_error(order, truth))
    error_of_a_pair = sum(
        math.comb(votes, k) * wrong**k * (1 - wrong) ** (votes - k) for k in range(votes // 2 + 1, votes + 1)
    )
    return {
        "n": n,
        "p": wrong,
        "votes": votes,
        "trials": trials,
        "consistent": float(np.mean(consistent)),
        "exact_strict": float(np.mean(strict)),
        **{f"exact_{name}": float(np.mean(hits)) for name, hits in exact.items()},
        **{f"kendall_{name}": float(np.mean(errors)) for name, errors in error.items()},
        "ceiling": float(np.mean(possible)),
        "ceiling_expected": (1 - error_of_a_pair) ** (n - 1),
        "ms_copeland_and_local": seconds / trials * 1e3,
    }


def table(settings: Sequence[tuple[int, float, int]], trials: int, seed: int) -> list[dict[str, float]]:
    """One row for each setting, each with random numbers of its own."""
    streams = np.random.default_rng(seed).spawn(len(settings))
    return [measure(*setting, trials, rng) for setting, rng in zip(settings, streams, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=20251124)
    options = parser.parse_args()
    rows = table(SETTINGS, options.trials, options.seed)
    print(json.dumps({"seed": options.seed, "rows": rows, "environment": environment()}))


if __name__ == "__main__":
    main()
