"""Claims of the study of list functions.

Thresholds were fixed before any result was seen. One claim was worded anew after a development seed: networks never
sort a list of two wrongly, so that `sort-neighbours` looks at pairs inside longer lists.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from holdfast.lab import Claim, Evidence, Results, exact, mean_of, paired_difference, unusable
from holdfast.lab.trial import Record
from holdfast.lab.verdict import MIN_SEEDS
from holdfast.studies.lists.exact import ALIASES, CONTROLS, QUERIES, most_queries
from holdfast.studies.lists.neural import TASKS, NeuralConfig

PROVED = "proved in the paper"
NO_EXPERIMENT = "no experiment in the paper"
NOT_THERE = "no such statement that we could find"

JUDGED_NOISE = (0.001, 0.01, 0.05, 0.2)
"""Chances of a wrong vote at which methods are compared."""

LEARNED = 0.5
"""Least share of lists as long as those trained on that a network which has learned a task answers exactly."""

Test = Callable[[Results], Evidence]


def _rows(results: Results, column: str, **labels: Any) -> list[Record]:
    return [row for row in results.where(**labels) if row.get(column) is not None]


def _number(row: Record, column: str) -> float:
    value = row[column]
    assert isinstance(value, int | float)
    return float(value)


def _no_exception(column: str, holds: Callable[[Record], bool], cases: str | None, test: str, **labels: Any) -> Test:
    """A test for what must hold of every row; `cases` is the column with the number of cases behind a row."""

    def judge(results: Results) -> Evidence:
        rows = _rows(results, column, **labels)
        count = sum(int(_number(row, cases)) for row in rows) if cases else len(rows)
        exceptions = sum(not holds(row) for row in rows)
        return exact(holds=exceptions == 0, effect=float(exceptions), n=count, test=test)

    return judge


def _counted(name: str, test: str) -> Test:
    """A class has as many members as its formula says, at every size."""

    def holds(row: Record) -> bool:
        return row["counted"] == row["formula"] and row.get("as_formed") is not False

    return _no_exception("counted", holds, "counted", test, **{"part": "classes", "class": name})


def _faces(results: Results) -> Evidence:
    def holds(row: Record) -> bool:
        most = {1: row["values"], 2: 2, 3: 1}[int(_number(row, "faces"))]
        return row["most_left"] == most and bool(row["candidates"])

    return _no_exception(
        "faces", holds, "orders", "enumeration of all orders: numbers of faces and values that differ", part="classes"
    )(results)


def _apart(results: Results) -> Evidence:
    """Functions in either class and not in the other."""
    rows = _rows(results, "filter", part="classes")
    only_filter, only_map = (
        sum(bool(row[a]) and not row[b] for row in rows) for a, b in (("filter", "map"), ("map", "filter"))
    )
    fewer = min(only_filter, only_map)
    return exact(
        holds=fewer > 0, effect=float(fewer), n=len(rows), test="functions in only one class, the fewer of the two"
    )


def _laws(names: tuple[str, ...], *, hold: bool = True) -> Test:
    """Laws without exception; or laws that have some."""

    def judge(results: Results) -> Evidence:
        rows = [row for row in _rows(results, "law", part="classes") if row["law"] in names]
        if len(rows) < len(names):
            return unusable(f"no result for the law {min(set(names) - {str(row['law']) for row in rows})}")
        exceptions = [_number(row, "exceptions") for row in rows]
        cases = sum(int(_number(row, "cases")) for row in rows)
        if hold:
            return exact(holds=not any(exceptions), effect=sum(exceptions), n=cases, test="number of exceptions")
        return exact(
            holds=all(exceptions), effect=min(exceptions), n=cases, test="exceptions to the law that has fewest"
        )

    return judge


def _queries_near(results: Results) -> Evidence:
    """Largest relative difference between the queries counted and those counted once before."""
    rows = [row for row in _rows(results, "capacity", part="exact", method="block merge") if row["n"] == 1024]
    known = [row for row in rows if row["capacity"] in QUERIES[str(row["task"])]]
    if not known:
        return unusable("no row with 1024 elements")
    off = [abs(_number(row, "queries") / QUERIES[str(row["task"])][int(_number(row, "capacity"))] - 1) for row in known]
    right = all(row["right"] for row in known)
    return exact(holds=max(off) <= 0.05 and right, effect=max(off), n=len(known), test="largest relative difference")


def _queries_few(results: Results) -> Evidence:
    """Largest share of the bound (2n/c) log2(n/c) + n/c that was asked."""
    rows = _rows(results, "capacity", part="exact", method="block merge")
    if not rows:
        return unusable("no row of block merge")
    shares = [
        _number(row, "queries") / most_queries(int(_number(row, "n")), int(_number(row, "capacity"))) for row in rows
    ]
    right = all(row["right"] for row in rows)
    return exact(holds=max(shares) <= 1 and right, effect=max(shares), n=len(rows), test="largest share of the bound")


def _merge_as_python(results: Results) -> Evidence:
    """Most queries of the lazy merge for one of Python's sort, on random lists."""
    rows = {
        method: {
            (row["seed"], row["n"]): _number(row, "queries")
            for row in _rows(results, "queries", part="exact", method=method, task="sort")
        }
        for method in ("merge", "sorted")
    }
    both = rows["merge"].keys() & rows["sorted"].keys()
    if not both:
        return unusable("no row of both methods")
    most = max(rows["merge"][each] / rows["sorted"][each] for each in both)
    return exact(holds=most <= 1.1, effect=most, n=len(both), test="largest ratio of queries")


def _controls(results: Results) -> list[Record]:
    return _rows(results, "control", part="exact")


def _aliased(results: Results) -> Evidence:
    rows = [row for row in _controls(results) if row["control"] in ALIASES]
    lists = sum(int(_number(row, "lists")) for row in rows)
    missed = lists - sum(int(_number(row, "aliased")) for row in rows)
    return exact(
        holds=missed == 0, effect=float(missed), n=lists, test=f"{len(ALIASES)} functions: lists that are not the alias"
    )


def _all_refused(names: tuple[str, ...] | None) -> Test:
    """Lists on which an exact function was extended that must be refused."""

    def judge(results: Results) -> Evidence:
        rows = [row for row in _controls(results) if names is None or row["control"] in names]
        functions = len({row["control"] for row in rows})
        if names and functions < len(names):
            return unusable(f"{functions} of {len(names)} functions were tried")
        lists = sum(int(_number(row, "lists")) for row in rows)
        passed = lists - sum(int(_number(row, "refused")) for row in rows)
        return exact(
            holds=passed == 0, effect=float(passed), n=lists, test=f"{functions} functions: lists that are not refused"
        )

    return judge


def _recovery(metric: str, treatment: Mapping[str, Any], control: Mapping[str, Any], *, less: bool = False) -> Test:
    """Difference between two ways to recover lists of 64 elements, paired over seeds."""

    def judge(results: Results) -> Evidence:
        values = (results.by_seed(metric, part="robust", n=64, **labels) for labels in (treatment, control))
        names = tuple(", ".join(map(str, labels.values())) for labels in (treatment, control))
        return paired_difference(*values, alternative="less" if less else "greater", names=(names[0], names[1]))

    return judge


def _settings(results: Results) -> tuple[NeuralConfig, dict[str, str]]:
    """Settings of the networks, and the labels of those that verdicts are on."""
    neural: NeuralConfig = results.config.neural
    return neural, {"part": "neural", "positions": results.config.positions[0]}


def _exact_match(
    arm: str,
    task: str,
    length: Callable[[NeuralConfig], int],
    threshold: float,
    *,
    role: str = "network",
    less: bool = False,
) -> Test:
    """Mean exact match of an arm on a task at one length."""

    def judge(results: Results) -> Evidence:
        config, labels = _settings(results)
        n = length(config)
        return mean_of(
            results.by_seed("exact", role=role, arm=arm, task=task, n=n, **labels),
            threshold=threshold,
            alternative="less" if less else "greater",
            name=f"exact match of {arm} on {task} at n = {n}",
        )

    return judge


def _voting(place: int) -> Test:
    def judge(results: Results) -> Evidence:
        config, labels = _settings(results)
        n, most = config.vote_lengths[place], max(config.votes)
        arms = (f"votes {most}", "blocks")
        values = (results.by_seed("exact", role="network", arm=arm, task="sort", n=n, **labels) for arm in arms)
        return paired_difference(*values, names=(f"{most} votes at n = {n}", f"block merge at n = {n}"))

    return judge


def _neighbours(results: Results) -> Evidence:
    """Errors on neighbouring values less those on values that are 16 to 31 apart."""
    _, labels = _settings(results)
    near, far = (results.by_seed("pair_error", role="network", gap=gap, **labels) for gap in (1, 16))
    return paired_difference(near, far, names=("neighbouring values", "values 16 to 31 apart"))


def _probe_gap(task: str) -> Test:
    """Largest difference between violation and error at the lengths trained on."""

    def judge(results: Results) -> Evidence:
        config, labels = _settings(results)
        gaps: dict[int, float] = {}
        for row in _rows(results, "violation", role="network", task=task, **labels):
            if _number(row, "n") <= config.longest:
                gap = abs(_number(row, "violation") - _number(row, "error"))
                seed = int(_number(row, "seed"))
                gaps[seed] = max(gaps.get(seed, 0.0), gap)
        return mean_of(gaps, threshold=0.10, alternative="less", name=f"violation and error on {task}")

    return judge


def _probe_cliff(task: str) -> Test:
    def judge(results: Results) -> Evidence:
        config, labels = _settings(results)
        n = config.longest + 1
        values = results.by_seed("violation", role="network", task=task, n=n, **labels)
        return mean_of(values, threshold=0.80, name=f"violation on {task} at n = {n}")

    return judge


def _networks_refused(role: str, *, refused: bool) -> Test:
    """How many networks are refused on most of the lists tried; a network counts once for each task."""

    def judge(results: Results) -> Evidence:
        config, labels = _settings(results)
        rows = _rows(results, "refused", role=role, **labels)
        seeds = len({row["seed"] for row in rows})
        if rows and seeds < MIN_SEEDS:
            return unusable(f"{seeds} seed{'s' * (seeds > 1)}, at least {MIN_SEEDS} needed", seeds)
        for row in _rows(results, "exact", role=role, arm="raw", n=config.longest, **labels):
            # What was not learned is no evidence, refused or not.
            if _number(row, "exact") < LEARNED:
                return unusable(f"the network of seed {row['seed']} has not learned {row['task']}")
        wrong = sum((_number(row, "refused") > 0.5) != refused for row in rows)
        what = "passed" if refused else "refused"
        return exact(holds=wrong == 0, effect=float(wrong), n=len(rows), test=f"tasks and seeds that are {what}")

    return judge


def _distilled(results: Results) -> Evidence:
    config, labels = _settings(results)
    if config.distil_rounds == 0:
        return unusable("distillation is a part of the scale gpu only")
    values = (
        results.by_seed("exact", role="network", arm=arm, task="reverse", n=config.twice, **labels)
        for arm in ("distilled", "raw")
    )
    return paired_difference(*values, names=("distilled", "raw"))


CLAIMS = (
    Claim(
        "classes-natural",
        "There are 2 * 3^(k-1) natural filter-equivariant functions of multiplicity k (k = 0: one), the sums of blocks "
        "that repeat the list or its reverse.",
        _counted("natural", "enumeration of all words: sizes that differ"),
        paper="no such count that we could find",
        family="exact",
    ),
    Claim(
        "classes-permutation",
        "The filter-equivariant functions that permute lists without duplicates over n values number 1, 1, 4, 20, 138, "
        "1182, ... for n = 0, 1, 2, ...: weak orders with each tie kept or reversed.",
        _counted("permutation type", "enumeration of all tables: sizes that differ"),
        paper=f"{NOT_THERE}; this project's own",
        family="exact",
    ),
    Claim(
        "classes-order",
        "There are 4 * 5^(k-1) order-natural functions of multiplicity k (k = 0: one).",
        _counted("order-natural", "enumeration of all pairs of words: sizes that differ"),
        paper=f"{NOT_THERE}; this project's own",
        family="exact",
    ),
    Claim(
        "classes-gluable",
        "Of all triples of pair words on three values, those that glue are as many as there are words on the three: 6 "
        "of 8, 12 of 18, 30 of 54, 90 of 216.",
        _counted("gluable", "enumeration of all triples: sizes that differ"),
        paper=f"{NOT_THERE}; this project's own",
        family="exact",
    ),
    Claim(
        "faces",
        "Three lists with one value deleted determine a list without duplicates; two leave up to two lists, one leaves "
        "n.",
        _faces,
        paper=f"{NOT_THERE}; this project's own",
        family="exact",
    ),
    Claim(
        "verdicts",
        "All functions of the gallery, 23 filter equivariant and 24 not, have the stated verdicts and smallest "
        "counterexamples.",
        _no_exception("function", lambda row: bool(row["as_stated"]), None, "functions that differ", part="classes"),
        paper="definitions of the paper; the verdicts are ours",
        family="exact",
    ),
    Claim(
        "no-aliens",
        "No filter-equivariant function answers with a value that was not there, and the copies of a value hang on its "
        "own copies alone.",
        _laws(("no value that was not there", "copies of a value hang on its own copies alone")),
        paper=f"{PROVED} (no new elements)",
        family="exact",
    ),
    Claim(
        "natural-form",
        "Every function of the gallery that is filter and map equivariant is the sum of blocks that its answer to "
        "[0, 1] names.",
        _laws(("natural functions are sums of blocks",)),
        paper="no such statement that we could find",
        family="exact",
    ),
    Claim(
        "closure",
        "Compositions and concatenations of filter-equivariant functions are filter equivariant, and natural ones "
        "remain natural.",
        _laws(
            (
                "compositions are filter equivariant",
                "sums are filter equivariant",
                "compositions and sums as objects are those as functions",
            )
        ),
        paper="stated in the paper (abstract)",
        family="exact",
    ),
    Claim(
        "laws",
        "(f + g) . h = f . h + g . h for all natural functions; inflation distributes over sums from the left, and "
        "reverse does with the order of the terms swapped.",
        _laws(
            (
                "(f + g) . h = f . h + g . h",
                "inflate m . (g + h) = inflate m . g + inflate m . h",
                "reverse . (g + h) = reverse . h + reverse . g",
                "examples of compositions",
            )
        ),
        paper=NOT_THERE,
        family="exact",
    ),
    Claim(
        "laws-that-fail",
        "h . (f + g) = h . f + h . g and f . g = g . f have exceptions among natural functions, and sort . (g + h) = "
        "sort . g + sort . h has some.",
        _laws(
            ("h . (f + g) = h . f + h . g", "f . g = g . f", "sort . (g + h) = sort . g + sort . h"),
            hold=False,
        ),
        paper=NOT_THERE,
        family="exact",
    ),
    Claim(
        "classes-apart",
        "Neither filter nor map equivariance contains the other: the gallery has functions in each alone (such as "
        "sort, and tail).",
        _apart,
        paper="the paper relates the two classes",
        family="exact",
    ),
    Claim(
        "exact",
        "Every engine in every mode equals the function on random lists, for all functions that the mode is right for.",
        _no_exception(
            "mode", lambda row: row["errors"] == 0, "lists", "functions, modes and engines with an error", part="exact"
        ),
        paper=f"{PROVED} (amalgamation)",
        family="exact",
    ),
    Claim(
        "capacity",
        "No extension shows its function more elements than allowed.",
        _no_exception(
            "mode", lambda row: row["overlong"] == 0, "lists", "functions, modes and engines with one", part="exact"
        ),
        paper=NO_EXPERIMENT,
        family="exact",
    ),
    Claim(
        "queries",
        "Block merge of 1024 elements asks for as many lists as were counted once before on one random list, within "
        "5 %, at capacities 2 to 32, for reverse and for sort.",
        _queries_near,
        paper=f"{NO_EXPERIMENT}; this project's own",
        family="exact",
    ),
    Claim(
        "queries-bounded",
        "Block merge asks for at most (2n/c) log2(n/c) + n/c lists of at most c elements.",
        _queries_few,
        paper=f"{NOT_THERE}; this project's own",
        family="exact",
    ),
    Claim(
        "queries-merge",
        "On random lists the lazy merge asks for at most 1.1 times the pairs that Python's sort compares.",
        _merge_as_python,
        paper=NO_EXPERIMENT,
        family="exact",
    ),
    Claim(
        "aliasing",
        "Extended from lists of two elements without calibration, rotation becomes reversal, riffle the identity, and "
        f"so on: {len(ALIASES)} functions that are not filter equivariant become others that are.",
        _aliased,
        paper=f"{NOT_THERE}; this project's own",
        family="exact",
    ),
    Claim(
        "refused",
        "With calibration at capacity 6 an extension of any function of the gallery that is not filter equivariant is "
        "refused.",
        _all_refused(None),
        paper=NO_EXPERIMENT,
        family="exact",
    ),
    Claim(
        "controls-exact",
        "The negative controls rotate-left, riffle, tail and smallest-to-front, given exactly, are refused at capacity "
        "6: 4 of 4.",
        _all_refused(CONTROLS),
        paper=NO_EXPERIMENT,
        family="exact",
    ),
    *(
        Claim(
            f"local-{p:g}",
            f"Copeland scores with local search order 64 elements better than merge sort does where one vote a pair is "
            f"wrong with chance {p:g} (difference in Kendall error < 0).",
            _recovery(
                "kendall",
                {"method": "copeland + local", "p": p, "votes": 1},
                {"method": "merge sort", "p": p, "votes": 1},
                less=True,
            ),
            paper=NO_EXPERIMENT,
            family="robust",
        )
        for p in JUDGED_NOISE
    ),
    *(
        Claim(
            f"local-exact-{p:g}",
            f"They also recover more lists exactly, at a chance of {p:g} (difference > 0).",
            _recovery(
                "right",
                {"method": "copeland + local", "p": p, "votes": 1},
                {"method": "merge sort", "p": p, "votes": 1},
            ),
            paper=NO_EXPERIMENT,
            family="robust",
        )
        for p in (0.001, 0.01)
    ),
    *(
        Claim(
            f"three-votes-{p:g}",
            f"Three votes a pair recover more lists of 64 exactly than one, at a chance of {p:g} (Copeland with local "
            "search; difference > 0).",
            _recovery(
                "right",
                {"method": "copeland + local", "p": p, "votes": 3},
                {"method": "copeland + local", "p": p, "votes": 1},
            ),
            paper=NO_EXPERIMENT,
            family="robust",
        )
        for p in (0.01, 0.05)
    ),
    *(
        Claim(
            f"raw-{task}",
            f"The network's own answers to {task} are exact for less than 0.05 of the lists of twice the length "
            "trained on.",
            _exact_match("raw", task, lambda config: config.twice, 0.05, less=True),
            paper=NO_EXPERIMENT,
            family="raw",
        )
        for task in TASKS
    ),
    *(
        Claim(
            f"{arm}-{task}",
            f"The same network, amalgamated by {how}, answers {task} exactly for more than 0.95 of the lists of ten "
            "times the length trained on.",
            _exact_match(arm, task, lambda config: config.tenfold, 0.95),
            paper=NO_EXPERIMENT,
            family="amalgamated",
        )
        for arm, how in (
            ("blocks", "block merge with lists as long as those trained on"),
            ("pairs", "the answers to all pairs"),
        )
        for task in ("reverse", "id+reverse", "partition")
    ),
    *(
        Claim(
            f"votes-{name}",
            f"Voting raises the exact match of sort over block merge at about {times} times the length trained on "
            "(difference > 0).",
            _voting(place),
            paper=NO_EXPERIMENT,
            family="sort",
        )
        for place, (name, times) in enumerate((("near", "three"), ("far", "five")))
    ),
    Claim(
        "sort-neighbours",
        "In lists as long as those trained on, the network sorts two neighbouring values wrongly more often than two "
        "that are 16 to 31 apart (difference > 0).",
        _neighbours,
        paper=NO_EXPERIMENT,
        family="sort",
    ),
    *(
        Claim(
            f"comparator-{task}",
            f"A comparator network, filter equivariant by construction, answers {task} exactly for more than 0.95 of "
            "the lists of the greatest length tested (100; on a GPU 1000).",
            _exact_match("comparator", task, lambda config: config.comparator_length, 0.95, role="comparator"),
            paper=NO_EXPERIMENT,
            family="comparator",
        )
        for task in TASKS
    ),
    *(
        Claim(
            f"violation-{task}",
            f"On {task} the share of lists on which the network breaks the law, which needs no labels, is within "
            "0.10 of its error at every length trained on (the largest difference).",
            _probe_gap(task),
            paper=NO_EXPERIMENT,
            family="violation",
        )
        for task in TASKS
    ),
    *(
        Claim(
            f"cliff-{task}",
            f"On {task} the network breaks the law on more than 0.80 of the lists that are one element longer than "
            "those trained on.",
            _probe_cliff(task),
            paper=NO_EXPERIMENT,
            family="violation",
        )
        for task in TASKS
    ),
    *(
        Claim(
            f"sham-{task}",
            f"A network trained on {task} with shuffled answers, amalgamated likewise, is exact for less than 0.05 of "
            "the lists of twice the length trained on.",
            _exact_match("blocks", task, lambda config: config.twice, 0.05, role="sham", less=True),
            paper=NO_EXPERIMENT,
            family="sham",
        )
        for task in TASKS
    ),
    Claim(
        "controls-network",
        "Calibration, with the tolerance that votes have, refuses a network that has learned rotate-left, riffle, tail "
        "and least-first: 4 of 4 in every seed.",
        _networks_refused("controls", refused=True),
        paper=NO_EXPERIMENT,
        family="controls",
    ),
    Claim(
        "controls-passed",
        "The same calibration lets the network pass that has learned the four filter-equivariant tasks: 4 of 4 in "
        "every seed.",
        _networks_refused("network", refused=False),
        paper=NO_EXPERIMENT,
        family="controls",
    ),
    Claim(
        "distilled",
        "A network that was taught its own amalgamation answers reverse exactly on more lists of twice the length "
        "first trained on than before (difference > 0).",
        _distilled,
        paper=NO_EXPERIMENT,
        family="distillation",
    ),
)
