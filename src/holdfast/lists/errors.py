"""What can go wrong with a list function, each with the lists that show it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from holdfast.errors import HoldfastError

SHOWN = 12
"""Elements of a list that a message shows."""


def show(xs: Sequence[Any]) -> str:
    """A list as a message shows it: whole if it is short."""
    if len(xs) <= SHOWN:
        return repr(list(xs))
    return f"[{', '.join(map(repr, xs[:SHOWN]))}, ... {len(xs) - SHOWN} more]"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


class ListFunctionError(HoldfastError):
    """Base of the errors of this room. Their arguments are attributes of the same names."""


class BadAnswer(ListFunctionError):
    """The function did not answer with a list.

    Arguments:
        query: the list that it was shown.
        problem: what it did instead.
    """

    def __init__(self, query: Sequence[Any], problem: str) -> None:
        super().__init__(query, problem)
        self.query, self.problem = query, problem

    def __str__(self) -> str:
        hint = "" if len(self.query) else " (what follows the rule takes the empty list to the empty list)"
        return f"the function was asked for {show(self.query)} and {self.problem}{hint}"


class AlienValue(ListFunctionError):
    """The answer holds a value that the list did not: no filter-equivariant function makes values up.

    Arguments:
        query: the list that the function was shown.
        answer: what it answered.
        value: the value.
    """

    def __init__(self, query: Sequence[Any], answer: Sequence[Any], value: object) -> None:
        super().__init__(query, answer, value)
        self.query, self.answer, self.value = query, answer, value

    def __str__(self) -> str:
        return f"alien value {self.value!r}: {show(self.query)} gives {show(self.answer)}"


class WrongMultiplicity(ListFunctionError):
    """Two answers disagree on how many copies of a value come out, though as many went in.

    Arguments:
        value: the value.
        first: a list and its answer.
        second: another list with as many copies of the value, and its answer.
    """

    def __init__(
        self,
        value: object,
        first: tuple[Sequence[Any], Sequence[Any]],
        second: tuple[Sequence[Any], Sequence[Any]],
    ) -> None:
        super().__init__(value, first, second)
        self.value, self.first, self.second = value, first, second

    def __str__(self) -> str:
        once, again = (
            f"{_times(list(answer).count(self.value))} where {show(query)} gives {show(answer)}"
            for query, answer in (self.first, self.second)
        )
        return f"{self.value!r} comes out {once}, and {again}"


class Cycle(ListFunctionError):
    """Three answers order three tokens in a circle: there is no list that holds all three.

    Arguments:
        tokens: three tokens, each a value and which of its copies; the first comes before the second, the second
            before the third, and the third before the first.
        answers: three lists with their answers, one for each of these steps.
    """

    def __init__(
        self,
        tokens: tuple[tuple[object, int], tuple[object, int], tuple[object, int]],
        answers: tuple[tuple[Sequence[Any], Sequence[Any]], ...],
    ) -> None:
        super().__init__(tokens, answers)
        self.tokens, self.answers = tokens, answers

    def __str__(self) -> str:
        names = [repr(value) if copy == 0 else f"{value!r} (copy {copy + 1})" for value, copy in self.tokens]
        steps = "; ".join(f"{show(query)} gives {show(answer)}" for query, answer in self.answers)
        return f"no list fits: {names[0]} before {names[1]} before {names[2]} before {names[0]}, since {steps}"


class Undetermined(ListFunctionError):
    """What is known leaves more than one answer.

    Arguments:
        missing: lists whose answers would settle it.
        candidates: some of the answers that are possible, as far as they are few.
    """

    def __init__(self, missing: Sequence[Sequence[Any]], candidates: Sequence[Sequence[Any]] = ()) -> None:
        super().__init__(missing, candidates)
        self.missing, self.candidates = missing, candidates

    def __str__(self) -> str:
        shown = ", ".join(show(query) for query in self.missing[:6])
        more = f" and {len(self.missing) - 6} more" if len(self.missing) > 6 else ""
        return f"undetermined: {len(self.missing)} answers are missing: f({shown}){more}"


class NotExtendable(ListFunctionError):
    """The function was seen to break the rule that an extension rests on.

    Arguments:
        rule: what was expected of it, and in which mode.
        query: a list on which it breaks the rule.
        want: what the rule says.
        got: what the function says.
    """

    def __init__(self, rule: str, query: Sequence[Any], want: Sequence[Any], got: Sequence[Any]) -> None:
        super().__init__(rule, query, want, got)
        self.rule, self.query, self.want, self.got = rule, query, want, got

    def __str__(self) -> str:
        return (
            f"not extendable: {self.rule}; for {show(self.query)} that would be {show(self.want)}, "
            f"and the function gives {show(self.got)}"
        )


class ExpensivePlan(UserWarning):
    """More than twice as many lists are about to be asked for as another engine would need."""


class OutOfBudget(ListFunctionError):
    """More queries are needed than allowed.

    Arguments:
        budget: queries that were allowed.
        needed: queries that would be needed by now.
        hint: what needs fewer.
    """

    def __init__(self, budget: int, needed: int, hint: str = "") -> None:
        super().__init__(budget, needed, hint)
        self.budget, self.needed, self.hint = budget, needed, hint

    def __str__(self) -> str:
        return (
            f"max_queries: {self.budget} are allowed, at least {self.needed} are needed{self.hint and '; '}{self.hint}"
        )
