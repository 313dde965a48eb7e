"""Part `exact`: functions that are given exactly, extended from short lists; what is asked, and what is refused."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

from holdfast.errors import HoldfastError
from holdfast.lab import Claim, Evidence, Figure, Outcome, Part, Results, Trial, exact, progress
from holdfast.lab.figures import GREY, legend, size_axis
from holdfast.studies.lists.paper import NO_EXPERIMENT, NOT_THERE, PROVED
from holdfast.studies.lists.rows import no_exception, number, rows_with

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes

    from holdfast.lab import Record
    from holdfast.lists.functions import Named
    from holdfast.studies.lists.study import ListsConfig

Row = dict[str, Any]

ALIASES = {
    "rotate left": "reverse",
    "swap first two": "reverse",
    "swap halves": "reverse",
    "riffle": "id",
    "uniq": "id",
    "mode": "id",
    "id if len <= 3 else reverse": "id",
    "smallest to front": "sort",
    "repeat len times": "id + id",
}
"""What some functions become if they are extended from lists of two elements without a look at longer ones."""

ORDER_NATURAL = ("sort", "sort descending", "sort + reverse")
"""Functions that see which element is larger and no more; natural functions see less."""

MODES = {
    "group": ("pairs", "merge", "faces", "blocks", "cover"),
    "distinct": ("pairs", "merge", "faces", "blocks", "cover", "votes"),
    "positional": ("pairs", "merge"),
    "auto": ("auto",),
    "relabel any": ("pairs",),
    "relabel rank": ("pairs",),
}
"""Modes of extension with their engines. Relabelling shows the function two placeholders."""


@dataclass(frozen=True, kw_only=True)
class ExactConfig:
    """Random lists for the extension of functions that are given exactly.

    Arguments:
        lists: lists for each function, mode and engine.
        values: values of the lists with duplicates.
        longest: elements of the longest of them.
        longest_distinct: elements of the longest list without duplicates.
        capacity: elements that the function may be shown of a list without duplicates.
        alias_capacity: the same where calibration is to refuse a function.
        sizes: lengths at which queries are counted, with `capacity`.
    """

    lists: int = 12
    values: int = 7
    longest: int = 24
    longest_distinct: int = 60
    capacity: int = 8
    alias_capacity: int = 6
    sizes: tuple[int, ...] = (16, 64, 256, 1024)


def trials(config: ListsConfig) -> Iterator[Trial[ExactConfig]]:
    """One trial a seed."""
    for seed in config.seed_range:
        yield Trial(seed, config.exact, cost=300.0)


def run(trial: Trial[ExactConfig]) -> Outcome:
    """Extend functions that are given exactly, and compare with the functions themselves.

    Records:

    - for each `function`, `mode` and `engine` in which it is to be exact: the number of `lists` and of `errors`, with
      the first `problem` among them;
    - for each `task`, `method`, length `n` and `capacity` the number of `queries`;
    - for each `control`, which is not filter equivariant: what it `became` on the list 3, 1, 4, 2, 5 and on how
      many of the `lists` it was its alias (`aliased`), without calibration; how many were `refused` with it.
    """
    import numpy as np

    from holdfast.lists import ExpensivePlan

    config = trial.config
    exactness, counting, aliasing = np.random.default_rng(trial.seeds[0]).spawn(3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExpensivePlan)  # every engine is to be tried
        rows = list(_exactness(config, exactness))
        rows += _query_counts(config, counting)
        progress.report(0.9)
        rows += _aliasing(config, aliasing)
    progress.report(1.0)
    return Outcome(rows)


def right_for(named: Named, mode: str) -> bool:
    """Whether an extension of a function in a mode is to be exact."""
    if mode == "positional":
        return named.positional
    if mode == "relabel any":
        return named.filter_equivariant and named.map_equivariant
    if mode == "relabel rank":
        return named.name in ORDER_NATURAL or right_for(named, "relabel any")
    return named.filter_equivariant


def _exactness(config: ExactConfig, rng: np.random.Generator) -> Iterator[Row]:
    from holdfast.lists.functions import FUNCTIONS

    functions = [named for named in FUNCTIONS if named.filter_equivariant]
    for done, named in enumerate(functions, start=1):
        for mode, engines in MODES.items():
            if not right_for(named, mode):
                continue
            for engine in engines:
                yield _cell(named, mode, engine, config, rng)
        progress.report(0.7 * done / len(functions))


def _cell(named: Named, mode: str, engine: str, config: ExactConfig, rng: np.random.Generator) -> Row:
    """One function in one mode with one engine."""
    problems = []
    for _ in range(config.lists):
        xs = _draw(mode, engine, config, rng)
        extended = _extension(named.function, *_options(mode, engine, xs, config))
        try:
            problems.append("" if extended(xs) == named.function(xs) else "another list")
        except HoldfastError as error:
            problems.append(f"{type(error).__name__}: {error}")
    row: Row = {"function": named.name, "mode": mode, "engine": engine, "lists": config.lists}
    return row | {"errors": sum(map(bool, problems)), "problem": next(filter(None, problems), "")}


def _extension(f: Callable[[list[Any]], list[Any]], capacity: int, options: dict[str, Any]) -> Callable[[Any], Any]:
    from holdfast.lists import Oracle, extrapolate

    return extrapolate(Oracle(f, progress=False), capacity, **options)


def _draw(mode: str, engine: str, config: ExactConfig, rng: np.random.Generator) -> list[int]:
    """A list that is longer than the capacity; with duplicates, unless the mode is for lists without."""
    xs: list[int]
    if mode == "distinct":
        most = config.capacity + 2 if engine == "faces" else config.longest_distinct
        length = int(rng.integers(config.capacity + 1, most + 1))
        xs = rng.permutation(config.longest_distinct)[:length].tolist()
        return xs
    while True:
        length = int(rng.integers(4, config.longest + 1))
        xs = rng.integers(0, config.values, length).tolist()
        if len(set(xs)) >= 3:
            return xs


def _options(mode: str, engine: str, xs: list[int], config: ExactConfig) -> tuple[int, dict[str, Any]]:
    """The least capacity that the mode allows, and the arguments of `extrapolate`."""
    two = sum(sorted((xs.count(x) for x in set(xs)), reverse=True)[:2])
    if mode == "auto":
        return max(3, two), {}
    if mode == "group":
        return two, {"mode": mode, "engine": engine}
    if mode == "positional":
        return 2, {"mode": mode, "engine": engine}
    if mode.startswith("relabel"):
        return 2, {"mode": "positional", "relabel": mode.split()[1]}
    if engine == "votes":
        return config.capacity, {"mode": mode, "votes": 3}
    return config.capacity, {"mode": mode, "engine": engine}


def _query_counts(config: ExactConfig, rng: np.random.Generator) -> Iterator[Row]:
    """How many lists are asked for: by block merge with the whole capacity, and by the merge of pairs."""
    from holdfast.lists import Oracle, extrapolate, functions

    methods: tuple[tuple[str, Any, int], ...] = (("block merge", "blocks", config.capacity), ("merge", "merge", 2))
    for task, f in (("reverse", functions.reverse), ("sort", functions.sort)):
        for method, engine, capacity in methods:
            extended = extrapolate(Oracle(f, progress=False), capacity, mode="distinct", engine=engine)
            for n in config.sizes:
                queries = extended.explain(rng.permutation(n).tolist()).queries
                yield {"task": task, "method": method, "n": n, "capacity": capacity, "queries": queries}


def least_queries(n: int, capacity: int) -> float:
    """Queries without which not all orders of n elements can be told apart: an answer tells one of capacity! orders."""
    return math.lgamma(n + 1) / math.lgamma(capacity + 1)


def _aliasing(config: ExactConfig, rng: np.random.Generator) -> Iterator[Row]:
    from holdfast.lists.functions import FUNCTIONS

    by_name = {named.name: named.function for named in FUNCTIONS}
    pairs_only: dict[str, Any] = {"mode": "distinct", "engine": "pairs", "calibrate": 0}
    for named in FUNCTIONS:
        if named.filter_equivariant:
            continue
        became = _outcome(named.function, [3, 1, 4, 2, 5], 2, pairs_only)
        aliased = refused = 0
        for _ in range(config.lists):
            xs: list[int] = rng.permutation(20)[:12].tolist()
            if named.name in ALIASES:
                aliased += _outcome(named.function, xs, 2, pairs_only) == str(by_name[ALIASES[named.name]](xs))
            refused += _outcome(named.function, xs, config.alias_capacity, {}).isidentifier()
        yield {"control": named.name, "became": became, "lists": config.lists, "aliased": aliased, "refused": refused}


def _outcome(f: Callable[[list[Any]], list[Any]], xs: list[int], capacity: int, options: dict[str, Any]) -> str:
    """The answer of an extension, or the name of its error."""
    try:
        return str(_extension(f, capacity, options)(xs))
    except HoldfastError as error:
        return type(error).__name__


def _on_every_list(outcome: str, test: str, controls: tuple[str, ...] = ()) -> Callable[[Results], Evidence]:
    """Test that functions that are not filter equivariant came to an outcome on every list.

    Arguments:
        outcome: column with the number of lists on which they did.
        test: what is counted.
        controls: names of the functions; all, if there are none.
    """

    def judge(results: Results) -> Evidence:
        rows = [
            row for row in rows_with(results, "control", part="exact") if not controls or row["control"] in controls
        ]
        functions = len({row["control"] for row in rows})
        lists, agreeing = (int(sum(number(row, column) for row in rows)) for column in ("lists", outcome))
        missed = lists - agreeing
        return exact(
            holds=missed == 0,
            effect=float(missed),
            n=lists,
            test=f"{functions} functions: {test}",
            failed=results.failed(part="exact"),
        )

    return judge


CLAIMS = (
    Claim(
        "exact",
        "Every engine in every mode equals the function on random lists, for all functions that the mode is right for.",
        no_exception(
            "mode",
            lambda row: row["errors"] == 0,
            "functions, modes and engines with an error",
            cases="lists",
            part="exact",
        ),
        paper=f"{PROVED} (amalgamation)",
        family="exact",
        headline=True,
        plain="every function tried that follows the rule of deletion extends exactly to longer lists",
        figure="queries",
    ),
    Claim(
        "aliasing",
        "Extended from lists of two elements without calibration, rotation becomes reversal, riffle the identity, and "
        f"so on: {len(ALIASES)} functions that are not filter equivariant become others that are.",
        _on_every_list("aliased", "lists that are not the alias", tuple(ALIASES)),
        paper=f"{NOT_THERE}; this project's own",
        family="exact",
    ),
    Claim(
        "refused",
        "With calibration at capacity 6 an extension of any function of the gallery that is not filter equivariant is "
        "refused.",
        _on_every_list("refused", "lists that are not refused"),
        paper=NO_EXPERIMENT,
        family="exact",
        headline=True,
        plain="a function that breaks the rule of deletion is refused",
    ),
)


def draw_queries(results: Results, axes: Axes) -> list[Record]:
    """Lists asked for against length, with what no method can do without."""
    rows: list[Record] = []
    counts = rows_with(results, "queries", part="exact")
    capacity = results.config.exact.capacity
    lengths = sorted({int(number(row, "n")) for row in counts})

    def mean(method: str, task: str) -> Callable[[int], float]:
        return lambda n: fmean(
            number(row, "queries") for row in counts if (row["method"], row["task"], row["n"]) == (method, task, n)
        )

    lines: tuple[tuple[str, Callable[[int], float], str, str, str], ...] = (
        ("all pairs", lambda n: n * (n - 1) / 2, GREY, "--", ""),
        ("merge of pairs, sort", mean("merge", "sort"), "C0", "-", "o"),
        ("least for all orders, 2 elements", lambda n: least_queries(n, 2), "C5", ":", ""),
        (f"block merge of {capacity}, sort", mean("block merge", "sort"), "C1", "-", "s"),
        (f"block merge of {capacity}, reverse", mean("block merge", "reverse"), "C2", "-.", "D"),
        (f"least for all orders, {capacity} elements", lambda n: least_queries(n, capacity), "C4", ":", ""),
    )
    for label, queries, colour, style, marker in lines if lengths else ():
        values = [queries(n) for n in lengths]
        # A bound that a method all but reaches lies on its line: heavier dots, on top of a lighter line, show both.
        look: dict[str, Any] = {"linewidth": 2.6, "zorder": 3} if style == ":" else {"linewidth": 1.4}
        axes.plot(lengths, values, color=colour, linestyle=style, marker=marker, markersize=4, label=label, **look)
        rows += [{"line": label, "n": n, "queries": value} for n, value in zip(lengths, values, strict=True)]
    axes.set_yscale("log")
    size_axis(axes, lengths, "length n")
    axes.set_ylabel("lists asked for")
    legend(axes, columns=2)
    return rows


part = Part(
    "exact",
    trials,
    run,
    claims=CLAIMS,
    figures=(
        Figure(
            "queries",
            "How many lists are asked for to extend a function, against length. Dotted: what is needed to tell all "
            "orders apart.",
            draw_queries,
        ),
    ),
)
