"""Gluing pair words to a list, beside numpy's argsort of as many numbers.

The function is a stable partition: evens, then odds. Arms: `words` is the glue alone, from pair words to the list;
`positional` puts the same list together from the answers to lists of two elements, as mode positional does;
`extension` is all of it on a Python list, with the questions and the way from elements to labels and back.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import combinations

from holdfast.benches.harness.report import Report, Row
from holdfast.benches.registry import Tell


@dataclass(frozen=True)
class Options:
    """Gluing pair words to a list, beside numpy's argsort of as many numbers."""

    lengths: tuple[int, ...] = (100_000, 1_000_000)
    """Lengths of the list, from few to many."""
    values: int = 10
    """Number of different elements."""
    rounds: int = 5
    """Timed rounds."""


TOY = Options(lengths=(1000,), values=4, rounds=2)


def partition(xs: list[int]) -> list[int]:
    """Evens, then odds, each in their order."""
    return [x for x in xs if x % 2 == 0] + [x for x in xs if x % 2]


def run(options: Options, tell: Tell) -> Report:
    """Time every arm once in each round.

    Arguments:
        options: the settings.
        tell: called with each row.

    Returns:
        The report; times in milliseconds, memory in MiB above the inputs.

    Errors:
        ArgumentError: a size is not positive.
    """
    from holdfast.errors import count_of

    count_of("values", options.values, 2)
    count_of("rounds", options.rounds, 1)
    rows: list[Row] = []
    failures: list[str] = []
    for tokens in options.lengths:
        measured, wrong = _measure(count_of("lengths", tokens, 1), options)
        for row in measured:
            tell(row)
        rows += measured
        failures += [f"{tokens} tokens: {arm}: its list is not the partition" for arm in wrong]
    longest = [row for row in rows if row["tokens"] == rows[-1]["tokens"] and row["arm"] in ("words", "positional")]
    phrase = ", ".join(f"{row['arm']} {row['to_argsort']:.2f} x" for row in longest)
    phrase = f"{phrase} the time of argsort" if phrase else "no time was measured"
    ratio = longest[0]["to_argsort"] if longest else None
    return Report(asdict(options), tuple(rows), phrase, ratio, tuple(failures))


def _measure(tokens: int, options: Options) -> tuple[list[Row], list[str]]:
    """Rows for one number of tokens, and the arms whose answer is wrong, which are not timed."""
    import numpy as np

    from holdfast.benches.harness.timing import Arm, interleaved, on_cpu, peak_on_cpu, ratio
    from holdfast.lists import extrapolate
    from holdfast.lists.extend.pairs import glue_words
    from holdfast.lists.extend.positional import glue_occurrences, short_answers, short_queries

    values = options.values
    rng = np.random.default_rng(0)
    labels = rng.integers(0, values, tokens)
    numbers = rng.random(tokens)
    want = np.concatenate([labels[labels % 2 == 0], labels[labels % 2 == 1]])
    copies = np.bincount(want, minlength=values)
    words = {(x, y): want[(want == x) | (want == y)] == y for x, y in combinations(range(values), 2)}
    queries = short_queries(labels, values)
    short = short_answers(queries, [np.array(partition(query.tolist())) for query in queries], values)
    xs = labels.tolist()
    calls: dict[str, Callable[[], object]] = {
        "words": lambda: glue_words(copies, words),
        "positional": lambda: glue_occurrences(labels, short),
        "extension": lambda: extrapolate(partition, 2, mode="positional")(xs),
    }
    wrong = [name for name, call in calls.items() if not np.array_equal(np.asarray(call()), want)]
    arms = {"argsort": Arm(lambda: np.argsort(numbers))}
    arms |= {name: Arm(call) for name, call in calls.items() if name not in wrong}
    peaks = {name: peak_on_cpu(arm) for name, arm in arms.items()}
    milliseconds = interleaved(arms, on_cpu, rounds=options.rounds, warmup=0)
    rows: list[Row] = []
    for name, taken in milliseconds.items():
        to_peer = ratio(taken, milliseconds["argsort"])
        rows.append(
            {
                "tokens": tokens,
                "values": values,
                "arm": name,
                "ms": statistics.median(taken),
                "to_argsort": to_peer.median,
                "low": to_peer.low,
                "high": to_peer.high,
                "peak_mib": None if peaks[name] is None else round((peaks[name] or 0) / 2**20, 2),
            }
        )
    return rows, wrong
