"""Well-known list functions, and what is true of each: the examples and the counterexamples of the theory.

A function is filter equivariant if it commutes with every filter, `f . filter p == filter p . f`, and map equivariant
if it commutes with every map. Surprises: `nub` and the frequency sorts are filter equivariant, for the fate of a value
hangs on its own copies alone, and the order of two values on these two alone; `uniq`, which removes only neighbouring
repeats, and the mode are not; `triangle` is map equivariant (it never looks at a value) and not filter equivariant.

Source: the definitions are those of arXiv 2507.08796. The verdicts are shown by trying every list of length at most 5
over three values.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

ListFunction = Callable[[list[Any]], list[Any]]
"""List to list."""


def identity(xs: list[Any]) -> list[Any]:
    """The list as it is."""
    return list(xs)


def reverse(xs: list[Any]) -> list[Any]:
    """The list backwards."""
    return xs[::-1]


def empty(xs: list[Any]) -> list[Any]:
    """The empty list, whatever comes."""
    return []


def double(xs: list[Any]) -> list[Any]:
    """The list, and once more: [1, 2] gives [1, 2, 1, 2]."""
    return xs + xs


def there_and_back(xs: list[Any]) -> list[Any]:
    """The list, then the list backwards: [1, 2] gives [1, 2, 2, 1]."""
    return xs + xs[::-1]


def inflate(xs: list[Any]) -> list[Any]:
    """Every element twice where it stands: [1, 2] gives [1, 1, 2, 2]."""
    return [x for x in xs for _ in range(2)]


def inflate_reverse(xs: list[Any]) -> list[Any]:
    """Every element twice, backwards: [1, 2] gives [2, 2, 1, 1]."""
    return inflate(xs[::-1])


def inflate_reverse_and_identity(xs: list[Any]) -> list[Any]:
    """Every element twice, backwards, then the list: [1, 2] gives [2, 2, 1, 1, 1, 2]."""
    return inflate(xs[::-1]) + xs


def sort(xs: list[Any]) -> list[Any]:
    """The smallest first."""
    return sorted(xs)


def sort_descending(xs: list[Any]) -> list[Any]:
    """The largest first."""
    return sorted(xs, reverse=True)


def evens(xs: list[Any]) -> list[Any]:
    """The even numbers: a filter, and filters commute."""
    return [x for x in xs if x % 2 == 0]


def evens_then_odds(xs: list[Any]) -> list[Any]:
    """The even numbers, then the odd ones, each in their order: a stable partition."""
    return evens(xs) + [x for x in xs if x % 2]


def evens_then_reversed_odds(xs: list[Any]) -> list[Any]:
    """The even numbers in their order, then the odd ones backwards."""
    return evens(xs) + [x for x in xs if x % 2][::-1]


def nub(xs: list[Any]) -> list[Any]:
    """Each value once, where it first stands: [1, 2, 1] gives [1, 2]."""
    return list(dict.fromkeys(xs))


def nub_last(xs: list[Any]) -> list[Any]:
    """Each value once, where it last stands: [1, 2, 1] gives [2, 1]."""
    return nub(xs[::-1])[::-1]


def as_many_as_it_says(xs: list[Any]) -> list[Any]:
    """The number x, x times: [2, 0, 1] gives [2, 2, 1]."""
    return [x for x in xs for _ in range(x)]


def frequency_sort(xs: list[Any]) -> list[Any]:
    """The rarest value first, ties by value: [1, 0, 1] gives [0, 1, 1]."""
    count = Counter(xs)
    return sorted(xs, key=lambda x: (count[x], x))


def frequency_sort_descending(xs: list[Any]) -> list[Any]:
    """The most frequent value first, ties by who came first, copies together: [1, 0, 0, 1] gives [1, 1, 0, 0]."""
    return [x for x, copies in Counter(xs).most_common() for _ in range(copies)]


def group(xs: list[Any]) -> list[Any]:
    """Equal values brought together, by who came first: [1, 0, 1] gives [1, 1, 0]."""
    return [x for x, copies in Counter(xs).items() for _ in range(copies)]


def repeated(xs: list[Any]) -> list[Any]:
    """All copies of the values that occur twice or more: [1, 0, 1] gives [1, 1]."""
    count = Counter(xs)
    return [x for x in xs if count[x] >= 2]


def drop_first(xs: list[Any]) -> list[Any]:
    """All but the first copy of each value: [1, 0, 1] gives [1]."""
    seen: set[Any] = set()
    return [x for x in xs if x in seen or seen.add(x)]  # type: ignore[func-returns-value]


def sort_and_reverse(xs: list[Any]) -> list[Any]:
    """The list sorted, then the list backwards."""
    return sorted(xs) + xs[::-1]


def sort_nub(xs: list[Any]) -> list[Any]:
    """Each value once, the smallest first."""
    return sorted(set(xs))


def triangle(xs: list[Any]) -> list[Any]:
    """All beginnings of the list, one after the other: [1, 2, 3] gives [1, 1, 2, 1, 2, 3]."""
    return [x for length in range(len(xs)) for x in xs[: length + 1]]


def staircase(xs: list[Any]) -> list[Any]:
    """The i-th element i times: [1, 2, 3] gives [1, 2, 2, 3, 3, 3]."""
    return [x for position, x in enumerate(xs) for _ in range(position + 1)]


def tail(xs: list[Any]) -> list[Any]:
    """All but the first element."""
    return xs[1:]


def head(xs: list[Any]) -> list[Any]:
    """The first element, as a list."""
    return xs[:1]


def init(xs: list[Any]) -> list[Any]:
    """All but the last element."""
    return xs[:-1]


def last(xs: list[Any]) -> list[Any]:
    """The last element, as a list."""
    return xs[-1:]


def even_positions(xs: list[Any]) -> list[Any]:
    """The elements at the positions 0, 2, 4, ..."""
    return xs[::2]


def repeat_length(xs: list[Any]) -> list[Any]:
    """The list as often as it has elements."""
    return xs * len(xs)


def rotate_left(xs: list[Any]) -> list[Any]:
    """The first element moved to the end. On two values it is `reverse`."""
    return xs[1:] + xs[:1]


def swap_first_two(xs: list[Any]) -> list[Any]:
    """The first two elements change places. On two elements it is `reverse`."""
    return xs[1::-1] + xs[2:]


def riffle(xs: list[Any]) -> list[Any]:
    """The two halves shuffled into each other: [1, 2, 3, 4] gives [1, 3, 2, 4]. On two elements it is `identity`."""
    half = (len(xs) + 1) // 2
    mixed = list(xs)
    mixed[::2], mixed[1::2] = xs[:half], xs[half:]
    return mixed


def swap_halves(xs: list[Any]) -> list[Any]:
    """The second half first. On two elements it is `reverse`."""
    return xs[len(xs) // 2 :] + xs[: len(xs) // 2]


def quus(xs: list[Any], limit: int = 3) -> list[Any]:
    """`identity` up to a length, `reverse` beyond it: what no test on short lists can tell from `identity`.

    Arguments:
        xs: the list.
        limit: the longest list that comes back as it is.

    Source: arXiv 2507.08796, section 1, after Kripke's function that departs from addition above a bound.
    """
    return list(xs) if len(xs) <= limit else xs[::-1]


def increment(xs: list[Any]) -> list[Any]:
    """Every number x becomes x + 1, modulo 3."""
    return [(x + 1) % 3 for x in xs]


def zeros(xs: list[Any]) -> list[Any]:
    """Every element becomes 0."""
    return [0 for _ in xs]


def largest(xs: list[Any]) -> list[Any]:
    """The largest value, as a list; nothing for nothing."""
    return [max(xs)] if xs else []


def uniq(xs: list[Any]) -> list[Any]:
    """Repeats of the element before it removed, as the Unix tool does: [1, 1, 2, 1] gives [1, 2, 1]."""
    return [x for position, x in enumerate(xs) if position == 0 or x != xs[position - 1]]


def mode(xs: list[Any]) -> list[Any]:
    """All copies of the values that occur most often."""
    count = Counter(xs)
    return [x for x in xs if count[x] == max(count.values())]


def cons_zero(xs: list[Any]) -> list[Any]:
    """A 0 put in front."""
    return [0, *xs]


def just_zero(xs: list[Any]) -> list[Any]:
    """The list [0], whatever comes."""
    return [0]


def intersperse_zero(xs: list[Any]) -> list[Any]:
    """A 0 between neighbours: [1, 2] gives [1, 0, 2]."""
    return [y for x in xs for y in (0, x)][1:]


def reverse_if_odd_sum(xs: list[Any]) -> list[Any]:
    """Backwards if the sum is odd."""
    return xs[::-1] if sum(xs) % 2 else list(xs)


def smallest_to_front(xs: list[Any]) -> list[Any]:
    """The first of the smallest elements moved to the front. On two elements it is `sort`."""
    if not xs:
        return []
    position = xs.index(min(xs))
    return [xs[position], *xs[:position], *xs[position + 1 :]]


def rock_paper_scissors(xs: list[Any]) -> list[Any]:
    """Sort by an order that runs in a circle: 0 before 1 before 2 before 0, modulo 3, by insertion from the right."""
    ordered: list[Any] = []
    for x in xs:
        place = len(ordered)
        while place and (ordered[place - 1] - x) % 3 == 1:
            place -= 1
        ordered.insert(place, x)
    return ordered


@dataclass(frozen=True)
class Named:
    """A list function and what is true of it.

    Arguments:
        name: as the theory writes it; `.` is composition and `+` is concatenation of the answers.
        function: list -> list. It leaves its argument as it is.
        filter_equivariant: it commutes with every filter.
        map_equivariant: it commutes with every map of the values.
        positional: it commutes with deleting single elements: one fewer copy of x going in is as many fewer coming
            out as a lone x gives, and nothing else moves. Only filter-equivariant functions are.
        counterexample: the shortest list, and of these the first in the order of the dictionary, from which deleting
            one value shows that the function is not filter equivariant; `None` if it is.
    """

    name: str
    function: ListFunction
    filter_equivariant: bool
    map_equivariant: bool
    positional: bool
    counterexample: tuple[Any, ...] | None = None


def _natural(name: str, function: ListFunction) -> Named:
    return Named(name, function, True, True, True)


def _by_value(name: str, function: ListFunction, positional: bool) -> Named:
    return Named(name, function, True, False, positional)


def _by_place(name: str, function: ListFunction, *counterexample: int) -> Named:
    return Named(name, function, False, True, False, counterexample)


def _neither(name: str, function: ListFunction, *counterexample: int) -> Named:
    return Named(name, function, False, False, False, counterexample)


FUNCTIONS: tuple[Named, ...] = (
    _natural("id", identity),
    _natural("reverse", reverse),
    _natural("const []", empty),
    _natural("id + id", double),
    _natural("id + reverse", there_and_back),
    _natural("inflate 2", inflate),
    _natural("inflate 2 . reverse", inflate_reverse),
    _natural("inflate 2 . reverse + id", inflate_reverse_and_identity),
    _by_value("sort", sort, positional=True),
    _by_value("sort descending", sort_descending, positional=True),
    _by_value("filter even", evens, positional=True),
    _by_value("evens, then odds", evens_then_odds, positional=True),
    _by_value("evens, then reversed odds", evens_then_reversed_odds, positional=True),
    _by_value("nub, keep first", nub, positional=False),
    _by_value("nub, keep last", nub_last, positional=False),
    _by_value("x copied x times", as_many_as_it_says, positional=True),
    _by_value("sort by frequency", frequency_sort, positional=False),
    _by_value("sort by frequency, descending", frequency_sort_descending, positional=False),
    _by_value("group equal values", group, positional=False),
    _by_value("keep values that occur twice", repeated, positional=False),
    _by_value("drop first occurrences", drop_first, positional=False),
    _by_value("sort + reverse", sort_and_reverse, positional=True),
    _by_value("sort . nub", sort_nub, positional=False),
    _by_place("triangle", triangle, 0, 1),
    _by_place("i-th element i times", staircase, 0, 1),
    _by_place("tail", tail, 0, 1),
    _by_place("head", head, 0, 1),
    _by_place("init", init, 0, 1),
    _by_place("last", last, 0, 1),
    _by_place("even positions", even_positions, 0, 1),
    _by_place("repeat len times", repeat_length, 0, 1),
    _by_place("rotate left", rotate_left, 0, 1, 2),
    _by_place("swap first two", swap_first_two, 0, 1, 2),
    _by_place("riffle", riffle, 0, 1, 2),
    _by_place("swap halves", swap_halves, 0, 1, 2),
    _by_place("id if len <= 3 else reverse", quus, 0, 0, 1, 2),
    _neither("map (+ 1 mod 3)", increment, 0),
    _neither("map (const 0)", zeros, 1),
    _neither("max", largest, 0, 1),
    _neither("uniq", uniq, 0, 1, 0),
    _neither("mode", mode, 0, 0, 1),
    _neither("cons 0", cons_zero),
    _neither("const [0]", just_zero),
    _neither("intersperse 0", intersperse_zero, 0, 1),
    _neither("reverse if sum odd", reverse_if_odd_sum, 0, 1, 2),
    _neither("smallest to front", smallest_to_front, 0, 2, 1),
    _neither("rock, paper, scissors", rock_paper_scissors, 0, 1, 2),
)
"""The gallery: 23 filter-equivariant functions and 24 that are not. All take lists of integers from 0."""
