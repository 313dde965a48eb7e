"""Part `classes`: how many functions the laws leave, and which laws hold; by enumeration, no chance."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations, product
from typing import TYPE_CHECKING, Any

from holdfast.lab import Claim, Evidence, Figure, Outcome, Part, Results, Trial, exact, progress, unusable
from holdfast.lab.figures import legend
from holdfast.studies.lists.paper import NOT_THERE, PROVED
from holdfast.studies.lists.rows import no_exception, number, rows_with

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from holdfast.lab import Record
    from holdfast.lists.synthesize import Natural
    from holdfast.studies.lists.study import ListsConfig

Row = dict[str, Any]


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


def trials(config: ListsConfig) -> Iterator[Trial[ClassesConfig]]:
    """One trial."""
    yield Trial(config.first_seed, config.classes, cost=100.0)


def run(trial: Trial[ClassesConfig]) -> Outcome:
    """Count classes, and try the laws on all short lists.

    Records:

    - for each `class` and `size` how many functions were `counted` from the law, `of` how many candidates, what a
      `formula` says, and whether they are just those of the normal form (`as_formed`); for `gluable` how many
      triples of pair words glue;
    - for each number of `faces` known and of `values`: how many of the `orders` are `told_apart`, and the
      `most_left` that share their faces;
    - for each `function` whether it commutes with filters (`filter`) and with maps (`map`);
    - for each `law` the number of `cases` and of `exceptions`.
    """
    config = trial.config
    rows = [*_counts(config), *_faces(config)]
    progress.report(0.3)
    verdicts = list(_verdicts(config))
    progress.report(0.5)
    rows += verdicts
    rows += _laws_of_the_gallery(config, verdicts)
    progress.report(0.9)
    rows += _laws_of_natural_functions(config)
    progress.report(1.0)
    return Outcome(rows)


def natural_formula(k: int) -> int:
    """Natural functions of multiplicity k: sums of repeated elements, of the list or of its reverse."""
    return 2 * 3 ** (k - 1) if k else 1


def order_natural_formula(k: int) -> int:
    """The same where sorting is allowed too."""
    return 4 * 5 ** (k - 1) if k else 1


def permutation_formula(n: int) -> int:
    """Weak orders of n values where each tie of two or more is kept or reversed; the EGF is 1/(3 + x - 2e^x)."""
    counts = [1]
    for size in range(1, n + 1):
        counts.append(
            sum(math.comb(size, tie) * (2 if tie > 1 else 1) * counts[size - tie] for tie in range(1, size + 1))
        )
    return counts[n]


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
        counted = len({str(table) for table in permutation_type(n)})
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
    members = set(law)
    row: Row = {"class": name, "size": k, "counted": len(members), "formula": formula, "of": of}
    return row | {"as_formed": members == set(sums)}


def _faces(config: ClassesConfig) -> Iterator[Row]:
    for n, known in product(config.face_values, (1, 2, 3)):
        alike = Counter(
            tuple(tuple(x for x in order if x != gone) for gone in range(known)) for order in permutations(range(n))
        )
        row: Row = {"faces": known, "values": n, "orders": math.factorial(n), "told_apart": len(alike)}
        yield row | {"most_left": max(alike.values())}


def _verdicts(config: ClassesConfig) -> Iterator[Row]:
    from holdfast.lists.check import check_filter_equivariance, check_map_equivariance
    from holdfast.lists.functions import FUNCTIONS

    for named in FUNCTIONS:
        filters = check_filter_equivariance(named.function, exhaustive=(3, config.longest), max_examples=0)
        maps = check_map_equivariance(named.function, exhaustive=(3, config.longest - 1), max_examples=0)
        yield {"function": named.name, "filter": filters.holds, "map": maps.holds}


def _short_lists(longest: int) -> list[list[int]]:
    return [list(xs) for length in range(longest + 1) for xs in product(range(3), repeat=length)]


def _laws_of_the_gallery(config: ClassesConfig, verdicts: Sequence[Row]) -> Iterator[Row]:
    """What holds of every function of the gallery that is filter equivariant on all short lists."""
    from holdfast.lists.check import check_filter_equivariance
    from holdfast.lists.functions import FUNCTIONS
    from holdfast.lists.synthesize import Natural

    equivariant = {row["function"]: row for row in verdicts if row["filter"]}
    functions = [named.function for named in FUNCTIONS if named.name in equivariant]
    natural = [named.function for named in FUNCTIONS if named.name in equivariant and equivariant[named.name]["map"]]
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

    functions = [f for k in range(4) for f in natural(k)]
    lists = _short_lists(config.longest)[:: max(1, config.longest)]
    pairs = list(product(functions, repeat=2))
    yield _law(
        "compositions and sums as objects are those as functions",
        ((f @ g)(xs) == f(g(xs)) and (f + g)(xs) == f(xs) + g(xs) for f, g in pairs for xs in lists),
    )
    triples = list(product(functions, repeat=3))
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
    held = list(cases)
    return {"law": law, "cases": len(held), "exceptions": held.count(False)}


def _counted(name: str, test: str) -> Callable[[Results], Evidence]:
    """A class has as many members as its formula says, at every size."""

    def holds(row: Record) -> bool:
        return row["counted"] == row["formula"] and row.get("as_formed") is not False

    return no_exception("counted", holds, test, cases="counted", part="classes", **{"class": name})


def _fixed_by_faces(row: Record) -> bool:
    most = {1: row["values"], 2: 2, 3: 1}[int(number(row, "faces"))]
    return row["most_left"] == most


def _apart(results: Results) -> Evidence:
    """Functions in either class and not in the other."""
    rows = rows_with(results, "filter", part="classes")
    only_filter, only_map = (
        sum(bool(row[a]) and not row[b] for row in rows) for a, b in (("filter", "map"), ("map", "filter"))
    )
    fewer = min(only_filter, only_map)
    return exact(
        holds=fewer > 0, effect=float(fewer), n=len(rows), test="functions in only one class, the fewer of the two"
    )


def _laws(*names: str, hold: bool = True) -> Callable[[Results], Evidence]:
    """Laws without exception; or laws that have some."""

    def judge(results: Results) -> Evidence:
        rows = [row for row in rows_with(results, "law", part="classes") if row["law"] in names]
        if len(rows) < len(names):
            return unusable(f"no result for the law {min(set(names) - {str(row['law']) for row in rows})}")
        exceptions = [number(row, "exceptions") for row in rows]
        cases = sum(int(number(row, "cases")) for row in rows)
        if hold:
            return exact(holds=not any(exceptions), effect=sum(exceptions), n=cases, test="number of exceptions")
        return exact(
            holds=all(exceptions), effect=min(exceptions), n=cases, test="exceptions to the law that has fewest"
        )

    return judge


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
        no_exception(
            "faces",
            _fixed_by_faces,
            "enumeration of all orders: numbers of faces and values that differ",
            cases="orders",
            part="classes",
        ),
        paper=f"{NOT_THERE}; this project's own",
        family="exact",
    ),
    Claim(
        "no-aliens",
        "No filter-equivariant function answers with a value that was not there, and the copies of a value hang on its "
        "own copies alone.",
        _laws("no value that was not there", "copies of a value hang on its own copies alone"),
        paper=f"{PROVED} (no new elements)",
        family="exact",
    ),
    Claim(
        "natural-form",
        "Every function of the gallery that is filter and map equivariant is the sum of blocks that its answer to "
        "[0, 1] names.",
        _laws("natural functions are sums of blocks"),
        paper=NOT_THERE,
        family="exact",
    ),
    Claim(
        "closure",
        "Compositions and concatenations of filter-equivariant functions are filter equivariant, and natural ones "
        "remain natural.",
        _laws(
            "compositions are filter equivariant",
            "sums are filter equivariant",
            "compositions and sums as objects are those as functions",
        ),
        paper="stated in the paper (abstract)",
        family="exact",
        headline=True,
        plain="functions that follow the rule of deletion (delete before or after: same answer) still do when combined",
        figure="classes",
    ),
    Claim(
        "laws",
        "(f + g) . h = f . h + g . h for all natural functions; inflation distributes over sums from the left, and "
        "reverse does with the order of the terms swapped.",
        _laws(
            "(f + g) . h = f . h + g . h",
            "inflate m . (g + h) = inflate m . g + inflate m . h",
            "reverse . (g + h) = reverse . h + reverse . g",
            "examples of compositions",
        ),
        paper=NOT_THERE,
        family="exact",
    ),
    Claim(
        "laws-that-fail",
        "h . (f + g) = h . f + h . g and f . g = g . f have exceptions among natural functions, and sort . (g + h) = "
        "sort . g + sort . h has some.",
        _laws("h . (f + g) = h . f + h . g", "f . g = g . f", "sort . (g + h) = sort . g + sort . h", hold=False),
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
)


def draw_classes(results: Results, axes: Axes) -> list[Record]:
    """Members of the classes against all candidates."""
    rows: list[Record] = []
    for name, colour in (("natural", "C0"), ("order-natural", "C1")):
        counted = sorted(results.where(part="classes", **{"class": name}), key=lambda row: number(row, "size"))
        if not counted:
            continue
        sizes = [number(row, "size") for row in counted]
        members, candidates = ([number(row, column) for row in counted] for column in ("counted", "of"))
        axes.plot(sizes, members, color=colour, marker="o", markersize=4, label=name)
        axes.plot(sizes, candidates, color=colour, linestyle="--", label=f"{name}: answers tried")
        rows += [{column: row[column] for column in ("class", "size", "counted", "formula", "of")} for row in counted]
    axes.set_yscale("log")
    axes.set_xlabel("copies of each element")
    axes.set_ylabel("functions")
    legend(axes)
    return rows


part = Part(
    "classes",
    trials,
    run,
    claims=CLAIMS,
    figures=(
        Figure(
            "classes",
            "How many functions the laws leave, of all answers to lists of two elements, against the copies of each "
            "element.",
            draw_classes,
        ),
    ),
)
