"""Is a list function filter equivariant? Look for the smallest list that shows that it is not.

The law is `f . filter p == filter p . f`. All short lists over a few values are tried first, then longer ones at
random, many of them with heavy duplicates, so that deleting one value shortens them a lot. A list that breaks the law
is made as small as can be, and comes with the name of what is broken and with Python that shows it. Finding none is no
proof beyond the lists that were tried, and a report says which these were.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack, overload

from holdfast.errors import ArgumentError, HoldfastError, require
from holdfast.lists.check.laws import Filters, Law, Maps, Orderings, Positions, Violation
from holdfast.lists.check.search import Plan, Search
from holdfast.lists.errors import show
from holdfast.lists.oracle import Oracle

if TYPE_CHECKING:
    from hypothesis import settings as Settings
    from hypothesis.strategies import SearchStrategy

LAWS = ("filter", "map", "injective", "order", "positional", "invariant")
"""What `classify` checks, in this order."""

BROKEN = {
    "alien value": "an answer holds a value that the list does not",
    "multiplicity": "a value does not come out as many times as it must",
    "deletion": "the order of what stays depends on what is deleted",
    "renaming": "the answer to the renamed list is not the renamed answer",
    "presentation": "the answer hangs on the order in which the elements are shown",
    "bad answer": "no list came",
    "not deterministic": "the same list has two answers",
}
"""What can be broken, in words."""


class Options(TypedDict, total=False):
    """Options of all checks; `check_filter_equivariance` describes them."""

    elements: SearchStrategy[Any] | Iterable[Any] | None
    max_length: int
    max_examples: int
    exhaustive: tuple[int, int]
    seed: int


@dataclass(frozen=True)
class Scope:
    """Which lists were tried.

    Arguments:
        values: the values of the exhaustive part.
        length: the length up to which all lists over these values were tried; -1: not even the empty one.
        random: number of lists drawn at random.
        max_length: the length up to which they were drawn.
    """

    values: tuple[Any, ...]
    length: int
    random: int
    max_length: int

    def __str__(self) -> str:
        parts = []
        if self.length >= 0:
            parts.append(f"all lists of length <= {self.length} over {', '.join(map(repr, self.values))}")
        if self.random:
            parts.append(f"{self.random} lists of length <= {self.max_length} at random")
        return "; ".join(parts) or "no list"


@dataclass(frozen=True)
class CheckReport:
    """What came of a check.

    Arguments:
        law: what was checked, such as "filter equivariance".
        holds: whether no list was found that breaks the law. A proof for the exhaustive part of `scope` and no more.
        broken: what is broken, see `Violation`; `None` if nothing.
        counterexample: the smallest list found that breaks the law; `None` if there was none.
        n_checked: lists tried before one was found.
        longest: elements of the longest of them.
        queries: lists that the function was shown, the deletions and the search for a smaller one included.
        scope: which lists were tried.
        snippet: Python that fails as long as the function breaks the law like this; empty if it does not.
    """

    law: str
    holds: bool
    broken: str | None
    counterexample: Violation | None
    n_checked: int
    longest: int
    queries: int
    scope: Scope
    snippet: str
    _rows: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        if self.broken is None:
            return (
                f"{self.law}: no counterexample in {self.n_checked} lists of length <= {self.longest}\n  ({self.scope})"
            )
        lines = [f"{self.law}: broken ({self.broken}): {BROKEN[self.broken]}", ""]
        width = max(len(title) for title, _ in self._rows)
        lines += [f"  {title.ljust(width)}  {value}" for title, value in self._rows]
        lines += ["", *(f"    {line}".rstrip() for line in self.snippet.splitlines())]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON; what JSON lacks is given as Python writes it."""
        parts = {field.name: getattr(self, field.name) for field in fields(self) if not field.name.startswith("_")}
        for name, part in (("scope", self.scope), ("counterexample", self.counterexample)):
            parts[name] = None if part is None else {field.name: getattr(part, field.name) for field in fields(part)}
        plain: dict[str, Any] = _jsonable(parts)
        return plain


@dataclass(frozen=True)
class Classification:
    """Which laws a list function was seen to keep. A law that was not checked to the end is `None`, see `unfinished`.

    Arguments:
        filter: f . filter p == filter p . f.
        map: f . map m == map m . f.
        injective: the same for injective maps only: the function sees which elements are equal, and no more.
        order: the same for strictly increasing maps only: it sees which element is larger, and no more.
        positional: deleting one element deletes its copies, and moves nothing else.
        invariant: the order in which the elements are shown makes no difference.
        unfinished: by law, what kept it from being checked: a budget that was spent, an endpoint that refused, elements
            without an order.
    """

    filter: CheckReport | None
    map: CheckReport | None
    injective: CheckReport | None
    order: CheckReport | None
    positional: CheckReport | None
    invariant: CheckReport | None
    unfinished: Mapping[str, HoldfastError] = field(default_factory=dict)

    @property
    def reports(self) -> dict[str, CheckReport]:
        """What was checked to the end, by law."""
        by_law = {name: getattr(self, name) for name in LAWS}
        return {name: report for name, report in by_law.items() if report is not None}

    @property
    def names(self) -> tuple[str, ...]:
        """The laws that hold, as far as was seen."""
        return tuple(name for name, report in self.reports.items() if report.holds)

    @property
    def natural(self) -> bool:
        """Whether it is a natural filter-equivariant function, as far as was seen: `filter` and `map` hold."""
        return {"filter", "map"} <= set(self.names)

    def __str__(self) -> str:
        rows = [("law", "holds", "seen in")]
        for name in LAWS:
            report: CheckReport | None = getattr(self, name)
            if report is None:
                seen = f"not checked: {' '.join(str(self.unfinished.get(name, '')).split())}"
                rows.append((name, "?", seen))
                continue
            if report.counterexample is None:
                seen = f"no counterexample in {report.n_checked} lists of length <= {report.longest}"
            else:
                seen = f"{show(report.counterexample.xs)}: {report.broken}"
            rows.append((name, "yes" if report.holds else "no", seen))
        return "\n".join(f"{law:<12}{holds:<7}{seen}" for law, holds, seen in rows)

    def to_dict(self) -> dict[str, Any]:
        """The names and the reports, ready for JSON."""
        reports = {name: None if (report := getattr(self, name)) is None else report.to_dict() for name in LAWS}
        unfinished = {name: str(error) for name, error in self.unfinished.items()}
        return {"names": list(self.names), "natural": self.natural, **reports, "unfinished": unfinished}


def check_filter_equivariance(
    f: Callable[..., Any],
    *,
    elements: SearchStrategy[Any] | Iterable[Any] | None = None,
    max_length: int = 12,
    max_examples: int = 500,
    exhaustive: tuple[int, int] = (3, 5),
    seed: int = 0,
) -> CheckReport:
    """Look for a list that shows that a function is not filter equivariant.

    On every list all its values are deleted, one at a time, which is as good as all filters. A function is asked for
    one list once, as long as its elements can be hashed. Where Hypothesis is installed, it draws the lists and shrinks
    the first that breaks the law; otherwise Python's own generator draws them.

    Arguments:
        f: list -> list, for every finite list, the empty one too. It may change its argument, and answer with a tuple
            or an array; an exception, a text, a generator or anything else is a "bad answer". Or an `Oracle` of a
            function, which says how it is asked. A call that does not return in its `timeout_s` is a "bad answer" that
            ends the check at once.
        elements: the values that lists are made of: a collection, or a strategy of Hypothesis (not from inside of a
            Hypothesis test); `None`: the integers 0 to 9. Elements are the same value where they are equal, or
            where the oracle's `key` is, see `values.Alphabet`.
        max_length: elements of the longest list drawn at random. A function that departs from the law only beyond
            this length is not found out.
        max_examples: lists drawn at random.
        exhaustive: number of values, and the length up to which all lists over them are tried first. The values are
            the first ones of a collection, or the shortest ones to write that a strategy gives.
        seed: of the random lists.

    Errors:
        ArgumentError: an option cannot be used, or `elements` gives values that are not equal to themselves (NaN),
            cannot be compared, or are equal and of different types (1 and True).

    Source: arXiv 2507.08796 for the law.
    """
    oracle = Oracle.of(f)
    return _check(Plan(elements, max_length, max_examples, exhaustive, seed, oracle.key), oracle, Filters(oracle.key))


def check_map_equivariance(f: Callable[..., Any], **options: Unpack[Options]) -> CheckReport:
    """Look for a list and a map of its values with which a function does not commute.

    All maps between the values of the exhaustive part are tried; for longer lists, or more values, a few random maps
    and a few that move one value.

    Arguments:
        f: see `check_filter_equivariance`.
        options: see `check_filter_equivariance`.

    Errors:
        ArgumentError: see `check_filter_equivariance`.
    """
    return _check_maps(f, "map", options)


def check_injective_equivariance(f: Callable[..., Any], **options: Unpack[Options]) -> CheckReport:
    """`check_map_equivariance` for injective maps only, into one value more than the exhaustive part has."""
    return _check_maps(f, "injective", options)


def check_order_equivariance(f: Callable[..., Any], **options: Unpack[Options]) -> CheckReport:
    """`check_map_equivariance` for strictly increasing maps only, into one value more than the exhaustive part has."""
    return _check_maps(f, "order", options)


def check_positional(f: Callable[..., Any], **options: Unpack[Options]) -> CheckReport:
    """Look for a list from which deleting one element x does more than deleting the copies of x that a lone x gives.

    It is what an extension in mode "positional" rests on, and implies filter equivariance.

    Arguments:
        f: see `check_filter_equivariance`.
        options: see `check_filter_equivariance`.

    Errors:
        ArgumentError: see `check_filter_equivariance`.
    """
    oracle = Oracle.of(f)
    return _check(Plan(**options, key=oracle.key), oracle, Positions(oracle.key))


def check_order_invariance(f: Callable[..., Any], **options: Unpack[Options]) -> CheckReport:
    """Look for a list whose answer changes when its elements are shown in another order.

    What sorts keeps this law, and so should a judge that compares elements. One that favours what it sees first breaks
    it: ask it for votes in both orders (`extrapolate(..., votes=4, presentation="both")`).

    Arguments:
        f: see `check_filter_equivariance`.
        options: see `check_filter_equivariance`.

    Errors:
        ArgumentError: see `check_filter_equivariance`.
    """
    oracle = Oracle.of(f)
    plan = Plan(**options, key=oracle.key)
    return _check(plan, oracle, Orderings(oracle.key, plan.seed))


def classify(f: Callable[..., Any], **options: Unpack[Options]) -> Classification:
    """Check all laws; no list is asked twice.

    What was checked is kept, whatever ends the rest: a law that could not be checked comes with the reason.

    Arguments:
        f: see `check_filter_equivariance`.
        options: see `check_filter_equivariance`. Law `order` is for elements that have one.

    Errors:
        ArgumentError: see `check_filter_equivariance`.
        HoldfastError: no law could be checked.
    """
    oracle = Oracle.of(f)
    plan = Plan(**options, key=oracle.key)
    laws: dict[str, Callable[[], Law]] = {
        "filter": lambda: Filters(plan.key),
        "map": lambda: plan.renamings("map"),
        "injective": lambda: plan.renamings("injective"),
        "order": lambda: plan.renamings("order"),
        "positional": lambda: Positions(plan.key),
        "invariant": lambda: Orderings(plan.key, plan.seed),
    }
    reports: dict[str, CheckReport | None] = dict.fromkeys(LAWS)
    unfinished: dict[str, HoldfastError] = {}
    ended: HoldfastError | None = None
    for name in LAWS:
        if ended is None:
            try:
                reports[name] = _check(plan, oracle, laws[name]())
                continue
            except ArgumentError as error:  # of this law alone
                unfinished[name] = error
                continue
            except HoldfastError as error:
                ended = error
        unfinished[name] = ended
    if len(unfinished) == len(LAWS):
        raise unfinished[LAWS[0]]
    return Classification(**reports, unfinished=unfinished)


def assert_filter_equivariant(f: Callable[..., Any], **options: Unpack[Options]) -> None:
    """`check_filter_equivariance` for a test.

    Errors:
        AssertionError: a list was found that breaks the law; the message is the report.
        ArgumentError: see `check_filter_equivariance`.
    """
    report = check_filter_equivariance(f, **options)
    if not report.holds:
        raise AssertionError(str(report))


@overload
def filter_equivariance_test(
    f: Callable[..., Any],
    *,
    elements: SearchStrategy[Any] | Iterable[Any] | None = None,
    max_length: int = 12,
    settings: Settings | None = None,
) -> Callable[[], None]: ...


@overload
def filter_equivariance_test(
    f: None = None,
    *,
    elements: SearchStrategy[Any] | Iterable[Any] | None = None,
    max_length: int = 12,
    settings: Settings | None = None,
) -> Callable[[Callable[..., Any]], Callable[[], None]]: ...


def filter_equivariance_test(
    f: Callable[..., Any] | None = None,
    *,
    elements: SearchStrategy[Any] | Iterable[Any] | None = None,
    max_length: int = 12,
    settings: Settings | None = None,
) -> Any:
    """A Hypothesis test that a function is filter equivariant, for your own pytest.

    It is an ordinary Hypothesis test: what fails is shrunk, replayed on the next run, and can be pinned with
    `@reproduce_failure`. Use it as `test_sort = filter_equivariance_test(my_sort)`, or as a decorator, with or without
    arguments, of a function that is named like a test and takes and gives a list.

    Arguments:
        f: see `check_filter_equivariance`; without it, the answer is a decorator.
        elements: see `check_filter_equivariance`.
        max_length: see `check_filter_equivariance`.
        settings: of Hypothesis; `None`: those of the profile, without a deadline.

    Errors:
        MissingExtraError: Hypothesis is not installed.
        ArgumentError: see `check_filter_equivariance`.
    """
    hypothesis = require("hypothesis", "test")
    if f is None:
        return lambda decorated: filter_equivariance_test(
            decorated, elements=elements, max_length=max_length, settings=settings
        )
    oracle = Oracle.of(f)
    function = oracle.function
    plan = Plan(elements=elements, max_length=max_length, key=oracle.key)
    law = Filters(oracle.key)
    name = str(getattr(function, "__name__", type(function).__name__))

    def ask(queries: Sequence[Sequence[Any]]) -> list[list[Any]]:
        return oracle.ask(queries, fresh=True)  # what is replayed is to be seen anew

    def test(xs: Any) -> None:
        violation = law.violation(ask, xs)
        if violation is not None:
            raise AssertionError(f"\n{_report(law, violation, oracle, plan)}")

    word = re.sub(r"\W", "_", name)  # of a lambda too
    test.__name__ = test.__qualname__ = word if word.startswith("test") else f"test_{word}"
    test.__module__ = str(getattr(function, "__module__", None) or __name__)
    test.__doc__ = f"{name} commutes with filters."
    # Hypothesis files what failed by source text and annotations, and the text is the same for all functions.
    test.__annotations__["return"] = f"{test.__module__}.{getattr(function, '__qualname__', name)}"
    given = hypothesis.given(xs=plan.strategy())(test)
    return (hypothesis.settings(deadline=None) if settings is None else settings)(given)


def _check(plan: Plan, oracle: Oracle, law: Law) -> CheckReport:
    queries_before = oracle.queries
    search = Search(plan, oracle, law)
    violation = search.first(search.all_lists())
    exhausted, random = search.n_checked, 0
    if violation is None and search.stuck is None and plan.max_examples:
        violation = search.drawn()
        random = search.n_checked - exhausted
        if violation is not None:
            violation = search.smaller(violation)
    if isinstance(search.stuck, ArgumentError):
        raise search.stuck
    violation = violation or search.stuck
    if search.stuck is None:
        violation = search.changing(violation) or violation
    size, length = plan.exhaustive
    if exhausted and not random and violation is not None:
        length = len(search.longest) - 1  # the search ended within the lists of this length
    rows, snippet = ((), "") if violation is None else _shown(law, violation, oracle)
    return CheckReport(
        law.name,
        violation is None,
        None if violation is None else violation.broken,
        violation,
        search.n_checked,
        len(search.longest),
        oracle.queries - queries_before,
        Scope(plan.values[:size], length, random, plan.max_length),
        snippet,
        rows,
    )


def _check_maps(f: Callable[..., Any], maps: Maps, options: Options) -> CheckReport:
    oracle = Oracle.of(f)
    plan = Plan(**options, key=oracle.key)
    return _check(plan, oracle, plan.renamings(maps))


def _report(law: Law, violation: Violation, oracle: Oracle, plan: Plan) -> CheckReport:
    """A report of one list alone."""
    rows, snippet = _shown(law, violation, oracle)
    scope = Scope((), -1, 1, plan.max_length)
    return CheckReport(law.name, False, violation.broken, violation, 1, len(violation.xs), 0, scope, snippet, rows)


def _shown(law: Law, violation: Violation, oracle: Oracle) -> tuple[tuple[tuple[str, str], ...], str]:
    """The rows and the Python of a report."""
    xs = list(violation.xs)
    if violation.broken == "bad answer":
        rows = [("xs", repr(xs)), ("f(xs)", violation.problem)]
        code = [
            f"answer = f({xs!r})  # {' '.join(violation.problem.split())}",
            'assert isinstance(answer, list | tuple) or hasattr(answer, "tolist"), type(answer)',
        ]
    elif violation.broken == "not deterministic":
        answers = [
            violation.problem if answer is None else repr(list(answer)) for answer in (violation.want, violation.got)
        ]
        rows = [("xs", repr(xs)), ("f(xs)", answers[0]), ("f(xs), again", answers[1])]
        code = [f"assert len({{repr(list(f({xs!r}))) for _ in range(100)}}) == 1"]
    else:
        rows, code = law.rows(violation), law.code(violation)
    return tuple(rows), "\n".join([*_imports(oracle), "", *code])


def _imports(oracle: Oracle) -> list[str]:
    """Python that defines `f`, or says that the reader must."""
    f = oracle.function
    module, name = getattr(f, "__module__", None), getattr(f, "__qualname__", "")
    importable = module not in (None, "__main__") and name.isidentifier()
    loaded = sys.modules.get(str(module))
    if not importable or getattr(loaded, name, None) is not f:
        lines = ["# f: your function, list -> list"]
        return lines if oracle.key is None else [*lines, "# key: your key"]
    file = Path(getattr(loaded, "__file__", None) or f"{module}.py")
    if str(module).rpartition(".")[2] not in (file.stem, file.parent.name):
        module = file.stem  # loaded from a file, under a name that nobody else can import
    if oracle.batched:
        lines = [f"from {module} import {name} as batched", "", "f = lambda xs: batched([xs])[0]"]
    elif oracle.is_async:
        lines = [
            "import asyncio",
            f"from {module} import {name} as awaited",
            "",
            "f = lambda xs: asyncio.run(awaited(xs))",
        ]
    else:
        lines = [f"from {module} import {name} as f"]
    return lines if oracle.key is None else [*lines, "# key: your key"]


def _jsonable(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _jsonable(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(part) for part in value]
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return repr(value)
    return value
