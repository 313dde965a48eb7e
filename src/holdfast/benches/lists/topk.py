"""The best k of n by a judge that orders a window of w: how many windows, and how good, beside what rerankers do.

Peers: `sliding`, one pass of a window from the end of the list to its front, half a window at a time, which lists
reranked by language models usually get; `tournament`, chunks that are merged two by two and cut to k. The judge orders
by a score with noise of its own in each answer, in units of the distance between neighbours. `votes` is `topk` with
three votes a window.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from holdfast.benches.harness.report import Report, Row
from holdfast.benches.registry import Tell

Judge = Callable[[list[int]], list[int]]


@dataclass(frozen=True)
class Options:
    """The best of a list by windows, beside a sliding window and a tournament."""

    n: int = 1000
    """Elements of a list."""
    k: int = 10
    """Elements wanted."""
    window: int = 20
    """Elements that the judge orders at once; at least twice `k`."""
    noise: tuple[float, ...] = (0.0, 2.0, 10.0)
    """Standard deviations of a score in one answer; the distance between neighbours is 1."""
    lists: int = 20
    """Lists for each noise."""
    seed: int = 100
    """Of the first list."""


TOY = Options(n=40, k=2, window=4, noise=(0.0,), lists=2)


def run(options: Options, tell: Tell) -> Report:
    """Find the best of every list by every arm.

    Arguments:
        options: the settings.
        tell: called with each row.

    Returns:
        The report. Its ratio: queries of `topk` for each one of `tournament`.

    Errors:
        ArgumentError: a number is too small, or the window does not hold `k` of two runs.
    """
    from holdfast.errors import count_of

    for name in ("n", "k", "lists"):
        count_of(name, getattr(options, name), 1)
    count_of("window", options.window, 2 * options.k)
    rows: list[Row] = []
    failures = []
    for noise in options.noise:
        for name, arm in _arms(options).items():
            row = _measure(name, arm, noise, options)
            tell(row)
            rows.append(row)
            if noise == 0 and row["exact"] != 1:
                failures.append(f"{name}: not the best {options.k}, though the judge does not err")
    queries = {row["arm"]: row["queries"] for row in rows}
    words = ", ".join(f"{name} {number:.0f}" for name, number in queries.items()) + " windows"
    ratio = queries["topk"] / queries["tournament"] if queries else None
    return Report(asdict(options), tuple(rows), words, ratio, tuple(failures))


def _arms(options: Options) -> dict[str, Callable[[Judge, list[int]], list[int]]]:
    from holdfast.lists import Oracle, topk

    def best(judge: Judge, xs: list[int], votes: int) -> list[int]:
        oracle = Oracle(judge, progress=False)
        found: Any = topk(oracle, xs, options.k, options.window, votes=votes, on_inconsistent="repair").output
        return list(found)

    return {
        "topk": lambda judge, xs: best(judge, xs, 1),
        "votes": lambda judge, xs: best(judge, xs, 3),
        "tournament": lambda judge, xs: tournament(judge, xs, options.k, options.window),
        "sliding": lambda judge, xs: sliding(judge, xs, options.k, options.window),
    }


def sliding(judge: Judge, xs: list[int], k: int, window: int) -> list[int]:
    """One pass from the end to the front, half a window at a time."""
    xs = list(xs)
    start = len(xs)
    while start > 0:
        end = min(start + window // 2, len(xs)) if start < len(xs) else len(xs)
        start = max(end - window, 0)
        xs[start:end] = judge(xs[start:end])
    return xs[:k]


def tournament(judge: Judge, xs: list[int], k: int, window: int) -> list[int]:
    """Chunks, of which the best k meet two by two."""
    runs = [judge(xs[start : start + window])[:k] for start in range(0, len(xs), window)]
    while len(runs) > 1:
        odd = runs[-1:] if len(runs) % 2 else []
        runs = [judge(left + right)[:k] for left, right in zip(runs[::2], runs[1::2], strict=False)] + odd
    return runs[0]


def _measure(name: str, arm: Callable[[Judge, list[int]], list[int]], noise: float, options: Options) -> Row:
    import numpy as np

    asked, exact, found, taken = [], [], [], []
    want = list(range(options.k))
    for number in range(options.lists):
        rng = np.random.default_rng(options.seed + number)
        xs = rng.permutation(options.n).tolist()
        queries = 0

        def judge(shown: list[int], rng: np.random.Generator = rng) -> list[int]:
            nonlocal queries
            queries += 1
            scores = np.array(shown) + noise * rng.standard_normal(len(shown))
            return [shown[at] for at in np.argsort(scores).tolist()]

        started = time.perf_counter()
        best = arm(judge, xs)
        taken.append((time.perf_counter() - started) * 1e3)
        asked.append(queries)
        exact.append(best == want)
        found.append(len(set(best) & set(want)) / options.k)
    return {
        "noise": noise,
        "arm": name,
        "queries": statistics.mean(asked),
        "most": max(asked),
        "exact": statistics.mean(exact),
        "found": statistics.mean(found),
        "ms": statistics.median(taken),
    }
