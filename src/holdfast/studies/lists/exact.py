"""Parts of the study of list functions that count: whole classes, laws, and how often an extension is exact.

The first part (`run_classes`) has no chance in it. The second (`run_exact`) draws random lists.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations, product
from typing import TYPE_CHECKING, Any

from holdfast.errors import HoldfastError

if TYPE_CHECKING:
    import numpy as np

    from holdfast.lists.functions import Named
    from holdfast.lists.synthesize import Natural

Row = dict[str, Any]
Report = Callable[[float], None]
"""Is told the share of the work that is done."""

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

CONTROLS = ("rotate left", "riffle", "tail", "smallest to front")
"""Functions that are not filter equivariant, which an extension must refuse. The networks learn the same."""

QUERIES = {
    "reverse": {2: 5120, 4: 2304, 8: 1024, 16: 448, 32: 192},
    "sort": {2: 8946, 4: 3397, 8: 1369, 16: 562, 32: 234},
}
"""Queries of block merge for 1024 elements by capacity, counted once on one random list with other code."""

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
class ClassesConfig:
    """How far classes are counted.

    Arguments:
        natural: greatest multiplicity of the natural functions, of which all words of that multiplicity are tried.
        order_natural: the same of the functions that see the order of values.
        values: most values of the functions that permute.
        face_values: values of the lists that are to be told from their faces.
        longest: laws are tried on all lists of three values up to this length.
    """

    natural: int = 7
    order_natural: int = 4
    values: int = 5
    face_values: tuple[int, ...] = (3, 4, 5, 6)
    longest: int = 5


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
        sizes: lengths at which queries are counted, with `capacity`; the last of them with all `capacities`.
        capacities: see `sizes`.
    """

    lists: int = 12
    values: int = 7
    longest: int = 24
    longest_distinct: int = 60
    capacity: int = 8
    alias_capacity: int = 6
    sizes: tuple[int, ...] = (16, 64, 256, 1024)
    capacities: tuple[int, ...] = (2, 4, 8, 16, 32)


def run_classes(config: ClassesConfig, report: Report = lambda fraction: None) -> list[Row]:
    """Count classes, and try the laws on all short lists.

    Returns:
        Records:

        - for each `class` and `size` how many functions were `counted` from the law, `of` how many candidates, what a
          `formula` says, and whether they are just those of the normal form (`as_formed`); for `gluable` how many
          triples of pair words glue;
        - for each number of `faces` known and of `values`: how many of the `orders` are `told_apart`, the `most_left`
          that share their faces, and whether `face_candidates` finds just these (`candidates`);
        - for each `function` whether it was found to commute with filters (`filter`) and with maps (`map`), the first
          `counterexample`, and whether all of it is `as_stated` in the gallery;
        - for each `law` the number of `cases` and of `exceptions`.
    """
    rows = [*_counts(config), *_faces(config)]
    report(0.3)
    verdicts = list(_verdicts(config))
    report(0.5)
    rows += verdicts
    rows += _laws_of_the_gallery(config, verdicts)
    report(0.9)
    rows += _laws_of_natural_functions(config)
    report(1.0)
    return rows


def natural_formula(k: int) -> int:
    """Natural functions of multiplicity k: sums of repeated elements, of the list or of its reverse."""
    return 2 * 3 ** (k - 1) if k else 1


def order_natural_formula(k: int) -> int:
    """The same where sorting is allowed too."""
    return 4 * 5 ** (k - 1) if k else 1


def permutation_formula(n: int) -> int:
    """Weak orders of n values where each tie of two or more is kept or reversed; the EGF is 1/(3 + x - 2e^x)."""
    found = [1]
    for size in range(1, n + 1):
        found.append(
            sum(math.comb(size, tie) * (2 if tie > 1 else 1) * found[size - tie] for tie in range(1, size + 1))
        )
    return found[n]


def _counts(config: ClassesConfig) -> Iterator[Row]:
    from holdfast.lists.synthesize import (
        gluable_share,
        natural,
        natural_sums,
        order_natural,
        order_natural_sums,
        permutation_type,
    )

    for k in range(config.natural + 1):
        yield _members("natural", k, natural(k), natural_sums(k), natural_formula(k), math.comb(2 * k, k))
    for n in range(config.values + 1):
        counted = len({str(each) for each in permutation_type(n)})
        yield {"class": "permutation type", "size": n, "counted": counted, "formula": permutation_formula(n)}
    for k in range(config.order_natural + 1):
        formula, of = order_natural_formula(k), math.comb(2 * k, k) ** 2
        yield _members("order-natural", k, order_natural(k), order_natural_sums(k), formula, of)
    for copies in ((1, 1, 1), (2, 1, 1), (2, 2, 1), (2, 2, 2)):
        glue, triples = gluable_share(copies)
        formula = math.factorial(sum(copies)) // math.prod(map(math.factorial, copies))
        size = ", ".join(map(str, copies))
        yield {"class": "gluable", "size": size, "counted": glue, "formula": formula, "of": triples}


def _members(name: str, k: int, law: Iterator[Any], sums: Iterator[Any], formula: int, of: int) -> Row:
    found = set(law)
    row: Row = {"class": name, "size": k, "counted": len(found), "formula": formula, "of": of}
    return row | {"as_formed": found == set(sums)}


def _faces(config: ClassesConfig) -> Iterator[Row]:
    from holdfast.lists.extend import face_candidates

    for n, known in product(config.face_values, (1, 2, 3)):
        alike: dict[tuple[tuple[int, ...], ...], list[list[int]]] = {}
        for order in permutations(range(n)):
            faces = tuple(tuple(x for x in order if x != gone) for gone in range(known))
            alike.setdefault(faces, []).append(list(order))
        candidates = all(
            sorted(face_candidates(dict(enumerate(faces)))) == sorted(orders) for faces, orders in alike.items()
        )
        row: Row = {"faces": known, "values": n, "orders": math.factorial(n), "told_apart": len(alike)}
        yield row | {"most_left": max(map(len, alike.values())), "candidates": candidates}


def _verdicts(config: ClassesConfig) -> Iterator[Row]:
    from holdfast.lists.check import check_filter_equivariance, check_map_equivariance
    from holdfast.lists.functions import FUNCTIONS

    for each in FUNCTIONS:
        filters = check_filter_equivariance(each.function, exhaustive=(3, config.longest), max_examples=0)
        maps = check_map_equivariance(each.function, exhaustive=(3, config.longest - 1), max_examples=0)
        seen = None if filters.counterexample is None else filters.counterexample.xs
        stated = (each.filter_equivariant, each.map_equivariant, each.counterexample)
        yield {
            "function": each.name,
            "filter": filters.holds,
            "map": maps.holds,
            "counterexample": "" if seen is None else str(list(seen)),
            "as_stated": (filters.holds, maps.holds, seen) == stated,
        }


def _short_lists(longest: int) -> list[list[int]]:
    return [list(xs) for length in range(longest + 1) for xs in product(range(3), repeat=length)]


def _laws_of_the_gallery(config: ClassesConfig, verdicts: Sequence[Row]) -> Iterator[Row]:
    """What holds of every function of the gallery that was found to be filter equivariant."""
    from holdfast.lists.check import check_filter_equivariance
    from holdfast.lists.functions import FUNCTIONS
    from holdfast.lists.synthesize import Natural

    found = {row["function"]: row for row in verdicts if row["filter"]}
    functions = [each.function for each in FUNCTIONS if each.name in found]
    natural = [each.function for each in FUNCTIONS if each.name in found and found[each.name]["map"]]
    lists = _short_lists(config.longest)
    yield _law("no value that was not there", (set(f(xs)) <= set(xs) for f in functions for xs in lists))
    yield _law(
        "copies of a value hang on its own copies alone",
        (f(xs).count(x) == len(f([x] * xs.count(x))) for f in functions for xs in lists for x in set(xs)),
    )
    forms = [(f, Natural.from_word(f([0, 1]))) for f in natural]
    yield _law("natural functions are sums of blocks", (form(xs) == f(xs) for f, form in forms for xs in lists))
    pairs = list(product(functions, repeat=2))
    for law, join in (("compositions are filter equivariant", _composed), ("sums are filter equivariant", _added)):
        checks = (
            check_filter_equivariance(join(f, g), exhaustive=(3, config.longest - 1), max_examples=0).holds
            for f, g in pairs
        )
        yield _law(law, checks)
    sort = sorted
    split = [(f, g, xs) for f, g in product(natural, repeat=2) for xs in lists]
    yield _law(
        "sort . (g + h) = sort . g + sort . h", (sort(g(xs) + h(xs)) == sort(g(xs)) + sort(h(xs)) for g, h, xs in split)
    )


def _composed(f: Callable[[Any], Any], g: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda xs: f(g(xs))


def _added(f: Callable[[Any], Any], g: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda xs: f(xs) + g(xs)


def _laws_of_natural_functions(config: ClassesConfig) -> Iterator[Row]:
    """The algebra of all natural functions of multiplicity up to 3, as objects and on lists."""
    from holdfast.lists.synthesize import IDENTITY, REVERSE, inflate, natural

    every = [f for k in range(4) for f in natural(k)]
    lists = _short_lists(config.longest)[:: max(1, config.longest)]
    pairs = list(product(every, repeat=2))
    yield _law(
        "compositions and sums as objects are those as functions",
        ((f @ g)(xs) == f(g(xs)) and (f + g)(xs) == f(xs) + g(xs) for f, g in pairs for xs in lists),
    )
    triples = list(product(every, repeat=3))
    yield _law("(f + g) . h = f . h + g . h", ((f + g) @ h == f @ h + g @ h for f, g, h in triples))
    yield _law("h . (f + g) = h . f + h . g", (h @ (f + g) == h @ f + h @ g for f, g, h in triples))
    yield _law("f . g = g . f", (f @ g == g @ f for f, g in pairs))
    repeats = [inflate(m) for m in range(4)]
    yield _law(
        "inflate m . (g + h) = inflate m . g + inflate m . h",
        (r @ (g + h) == r @ g + r @ h for r in repeats for g, h in pairs),
    )
    yield _law(
        "reverse . (g + h) = reverse . h + reverse . g",
        (REVERSE @ (g + h) == REVERSE @ h + REVERSE @ g for g, h in pairs),
    )
    double, back = IDENTITY + IDENTITY, IDENTITY + REVERSE
    twice = inflate(2)
    examples: list[tuple[Natural, Natural]] = [
        (double @ back, back + back),
        (back @ double, IDENTITY + IDENTITY + REVERSE + REVERSE),
        (back @ twice, twice @ back),
        (twice @ back, twice + twice @ REVERSE),
    ]
    yield _law("examples of compositions", (left == right for left, right in examples))


def _law(law: str, cases: Iterator[bool]) -> Row:
    found = list(cases)
    return {"law": law, "cases": len(found), "exceptions": found.count(False)}


class _Shown:
    """A function that remembers the longest list that it was shown."""

    def __init__(self, function: Callable[[list[Any]], list[Any]]) -> None:
        self.function, self.longest = function, 0

    def __call__(self, xs: list[Any]) -> list[Any]:
        self.longest = max(self.longest, len(xs))
        return self.function(xs)


def run_exact(config: ExactConfig, seed: int, report: Report = lambda fraction: None) -> list[Row]:
    """Extend functions that are given exactly, and compare with the functions themselves.

    Returns:
        Records:

        - for each `function`, `mode` and `engine` in which it is to be exact: the number of `lists`, of `errors` (the
          first `problem` among them), and of lists for which more elements were shown than allowed (`overlong`);
        - for each `task`, `method`, length `n` and `capacity` the number of `queries`, whether the answer was `right`,
          and the least number `bound` that any method needs for all orders;
        - for each `control`, which is not filter equivariant: what it `became` on the list 3, 1, 4, 2, 5 and on how
          many of the `lists` it was its alias (`aliased`), without calibration; how many were `refused` with it.
    """
    import numpy as np

    exact, counting, aliasing = np.random.default_rng(seed).spawn(3)
    rows = list(_exactness(config, exact, report))
    rows += _query_counts(config, counting)
    report(0.9)
    rows += _aliasing(config, aliasing)
    report(1.0)
    return rows


def right_for(each: Named, mode: str) -> bool:
    """Whether an extension of a function in a mode is to be exact."""
    if mode == "positional":
        return each.positional
    if mode == "relabel any":
        return each.filter_equivariant and each.map_equivariant
    if mode == "relabel rank":
        return each.name in ORDER_NATURAL or right_for(each, "relabel any")
    return each.filter_equivariant


def _exactness(config: ExactConfig, rng: np.random.Generator, report: Report) -> Iterator[Row]:
    from holdfast.lists.functions import FUNCTIONS

    functions = [each for each in FUNCTIONS if each.filter_equivariant]
    for number, each in enumerate(functions):
        for mode, engines in MODES.items():
            if not right_for(each, mode):
                continue
            for engine in engines:
                yield _cell(each, mode, engine, config, rng)
        report(0.7 * (number + 1) / len(functions))


def _cell(each: Named, mode: str, engine: str, config: ExactConfig, rng: np.random.Generator) -> Row:
    """One function in one mode with one engine."""
    errors = overlong = 0
    problem = ""
    for _ in range(config.lists):
        xs = _draw(mode, engine, config, rng)
        shown = _Shown(each.function)
        capacity, options = _options(mode, engine, xs, config)
        extended = _extension(shown, capacity, options)
        try:
            wrong = "" if extended(xs) == each.function(xs) else "another list"
        except HoldfastError as error:
            wrong = f"{type(error).__name__}: {error}"
        errors += bool(wrong)
        problem = problem or wrong
        overlong += shown.longest > capacity
    return {
        "function": each.name,
        "mode": mode,
        "engine": engine,
        "lists": config.lists,
        "errors": errors,
        "overlong": overlong,
        "problem": problem,
    }


def _extension(f: Callable[[list[Any]], list[Any]], capacity: int, options: dict[str, Any]) -> Callable[[Any], Any]:
    from holdfast.lists import Oracle, extrapolate

    return extrapolate(Oracle(f, progress=False), capacity, **options)


def _draw(mode: str, engine: str, config: ExactConfig, rng: np.random.Generator) -> list[int]:
    """A list that is longer than the capacity; with duplicates, unless the mode is for lists without."""
    if mode == "distinct":
        most = config.capacity + 2 if engine == "faces" else config.longest_distinct
        length = int(rng.integers(config.capacity + 1, most + 1))
        found: list[int] = rng.permutation(config.longest_distinct)[:length].tolist()
        return found
    while True:
        length = int(rng.integers(4, config.longest + 1))
        found = rng.integers(0, config.values, length).tolist()
        if len(set(found)) >= 3:
            return found


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
    from holdfast.lists import functions

    most = max(config.sizes)
    settings = [("block merge", n, config.capacity) for n in config.sizes if n != most]
    settings += [("block merge", most, capacity) for capacity in config.capacities]
    settings += [("merge", n, 2) for n in config.sizes] + [("sorted", n, 2) for n in config.sizes]
    for task, f in (("reverse", functions.reverse), ("sort", functions.sort)):
        for method, n, capacity in settings:
            xs: list[int] = rng.permutation(n).tolist()
            queries, answer = _asked(method, f, xs, capacity)
            row: Row = {"task": task, "method": method, "n": n, "capacity": capacity, "queries": queries}
            yield row | {"right": answer == f(xs), "bound": least_queries(n, capacity)}


def _asked(method: str, f: Callable[[list[Any]], list[Any]], xs: list[int], capacity: int) -> tuple[int, list[int]]:
    """How many lists a method asks for, and its answer."""
    from functools import cmp_to_key

    from holdfast.lists import Oracle, extrapolate

    if method == "sorted":
        count = 0

        def compare(i: int, j: int) -> int:
            nonlocal count
            count += 1
            first, second = min(i, j), max(i, j)
            earlier = f([xs[first], xs[second]]) == [xs[first], xs[second]]
            return -1 if earlier == (i == first) else 1

        order = sorted(range(len(xs)), key=cmp_to_key(compare))
        return count, [xs[i] for i in order]
    engine: Any = "blocks" if method == "block merge" else "merge"
    found = extrapolate(Oracle(f, progress=False), capacity, mode="distinct", engine=engine).explain(xs)
    return found.queries, found.output


def least_queries(n: int, capacity: int) -> float:
    """Queries without which not all orders of n elements can be told apart: an answer tells one of capacity! orders."""
    return math.lgamma(n + 1) / math.lgamma(capacity + 1)


def most_queries(n: int, capacity: int) -> float:
    """About the most queries of block merge for n elements."""
    return 2 * n / capacity * math.log2(n / capacity) + n / capacity


def _aliasing(config: ExactConfig, rng: np.random.Generator) -> Iterator[Row]:
    from holdfast.lists.functions import FUNCTIONS

    by_name = {each.name: each.function for each in FUNCTIONS}
    for each in FUNCTIONS:
        if each.filter_equivariant:
            continue
        pairs_only: dict[str, Any] = {"mode": "distinct", "engine": "pairs", "calibrate": 0}
        became = _outcome(each.function, [3, 1, 4, 2, 5], 2, pairs_only)
        aliased = refused = 0
        for _ in range(config.lists):
            xs: list[int] = rng.permutation(20)[:12].tolist()
            if each.name in ALIASES:
                aliased += _outcome(each.function, xs, 2, pairs_only) == str(by_name[ALIASES[each.name]](xs))
            refused += _outcome(each.function, xs, config.alias_capacity, {}).isidentifier()
        yield {"control": each.name, "became": became, "lists": config.lists, "aliased": aliased, "refused": refused}


def _outcome(f: Callable[[list[Any]], list[Any]], xs: list[int], capacity: int, options: dict[str, Any]) -> str:
    """The answer of an extension, or the name of its error."""
    try:
        return str(_extension(f, capacity, options)(xs))
    except HoldfastError as error:
        return type(error).__name__
