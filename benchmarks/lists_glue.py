"""Gluing pair words beside numpy's argsort of as many numbers: ratios of interleaved medians, and memory.

python benchmarks/lists_glue.py [--tokens 1000000 10000000] [--values 10] [--repeats 7]

Three arms: `words` is the glue alone, from pair words to the list; `positional` puts the same list together from the
answers to lists of two elements, as mode positional does; `extension` is all of it on a Python list, with the questions
and the way from elements to labels and back. The function is a stable partition: evens, then odds.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import time
from itertools import combinations
from typing import Any

import numpy as np

from holdfast.lab.environment import environment
from holdfast.lists.extend import extrapolate, glue_words
from holdfast.lists.extend.positional import glue_occurrences, short_answers, short_queries


def partition(xs: list[int]) -> list[int]:
    return [x for x in xs if x % 2 == 0] + [x for x in xs if x % 2]


def measure(tokens: int, values: int, repeats: int) -> dict[str, Any]:
    """One number of tokens: every arm once in each round, so that whatever slows the machine slows all of them."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, values, tokens)
    numbers = rng.random(tokens)
    want = np.concatenate([labels[labels % 2 == 0], labels[labels % 2 == 1]])
    copies = np.bincount(want, minlength=values)
    words = {(x, y): want[(want == x) | (want == y)] == y for x, y in combinations(range(values), 2)}
    queries = short_queries(labels, values)
    short = short_answers(queries, [np.array(partition(query.tolist())) for query in queries], values)
    arms = {
        "argsort": lambda: np.argsort(numbers),
        "words": lambda: glue_words(copies, words),
        "positional": lambda: glue_occurrences(labels, short),
    }
    taken: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(repeats):
        for name, arm in arms.items():
            started = time.perf_counter()
            found = arm()
            taken[name].append(time.perf_counter() - started)
            assert name == "argsort" or np.array_equal(found, want)
    xs = labels.tolist()
    started = time.perf_counter()
    assert extrapolate(partition, 2, mode="positional")(xs) == want.tolist()
    whole = time.perf_counter() - started
    peer = statistics.median(taken["argsort"])
    return {
        "tokens": tokens,
        "values": values,
        "argsort_s": peer,
        "ratio_to_argsort": {name: statistics.median(times) / peer for name, times in taken.items()},
        "extension_s": whole,
        "peak_process_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="+", default=[1_000_000, 10_000_000], help="from few to many")
    parser.add_argument("--values", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    runs = [measure(tokens, options.values, options.repeats) for tokens in options.tokens]
    print(json.dumps({"runs": runs, "repeats": options.repeats, "environment": environment()}))


if __name__ == "__main__":
    main()
