"""What a synthesis comes to: the functions of each class that fit the examples, and the question to ask next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from holdfast.lists.errors import show
from holdfast.lists.synthesize.version_space import Example, VersionSpace

ClassName = Literal["natural", "order-natural", "terms", "permutation"]

CLASSES: tuple[ClassName, ...] = ("natural", "order-natural", "terms", "permutation")
"""The classes, the most symmetric one first: what a few examples of it say about other values is most."""

QUESTION_LENGTH = 4
"""Elements of the longest question."""


class Program(Protocol):
    """A list function with a name and a text."""

    @property
    def size(self) -> int: ...
    def __call__(self, xs: Sequence[Any], /) -> Any: ...
    def to_python(self, name: str = "f") -> str: ...


@dataclass(frozen=True)
class Hypothesis:
    """A function that fits the examples.

    Arguments:
        family: the class that it was found in.
        function: the function.
    """

    family: ClassName
    function: Program

    @property
    def name(self) -> str:
        """As in "id + id + reverse"."""
        return str(self.function)

    @property
    def code(self) -> str:
        """A Python function `f` that does the same."""
        return self.function.to_python()

    @property
    def size(self) -> int:
        """Parts of its name."""
        return self.function.size

    def __call__(self, xs: Sequence[Any]) -> Any:
        """The answer to a list, text or tuple, in its type."""
        return self.function(xs)

    def __str__(self) -> str:
        """The name."""
        return self.name


@dataclass(frozen=True)
class Family:
    """What is left of a class.

    Arguments:
        name: the class.
        hypotheses: functions that fit, the simplest first.
        total: how many fit; `None`: it was not counted.
        complete: whether no other function of the class fits.
        scope: what the class is, and what it was searched up to.
        reason: why none fits; empty if some do.
    """

    name: ClassName
    hypotheses: tuple[Hypothesis, ...]
    total: int | None
    complete: bool
    scope: str
    reason: str = ""


@dataclass(frozen=True)
class Synthesis:
    """The functions that fit examples.

    Arguments:
        examples: the lists with their answers.
        families: what is left of each class, the most symmetric class first.
        next_example: the list whose answer would tell most; `None` if all that fit agree on all short lists.
        groups: into how many groups its answer splits the functions that were compared, and how many these are.
    """

    examples: tuple[Example, ...]
    families: tuple[Family, ...]
    next_example: list[Any] | None
    groups: tuple[int, int]
    _space: VersionSpace = field(repr=False)

    @property
    def best(self) -> Hypothesis | None:
        """The simplest function of the most symmetric class that has one; `None` if no class has."""
        family = self._family
        return None if family is None else family.hypotheses[0]

    @property
    def unique(self) -> bool:
        """Whether no other function of the same class fits the examples."""
        family = self._family
        return family is not None and family.complete and family.total == 1

    @property
    def rivals(self) -> tuple[Hypothesis, ...]:
        """The other functions of the same class that fit, simple ones first."""
        family = self._family
        return () if family is None else family.hypotheses[1:]

    @property
    def _family(self) -> Family | None:
        return next((family for family in self.families if family.hypotheses), None)

    def predict(self, xs: Sequence[Any]) -> Any:
        """What filter equivariance alone makes of another list: no class is assumed.

        Errors:
            Undetermined: the examples leave more than one answer; says which lists are missing.
            ListFunctionError: they leave none.
        """
        return self._space.predict(xs)

    def explain(self) -> str:
        """What fits and what does not, and what to ask next, as a text."""
        best = self.best
        lines = [
            "no function of these classes fits" if best is None else f"{best.name}  ({best.family})",
            *(f"  {show(xs)} -> {show(ys)}" for xs, ys in self.examples),
        ]
        for family in self.families:
            if not family.hypotheses:
                can = f" can, since {family.reason}" if family.complete else f": {family.reason}"
                lines.append(f"{family.name}: none of {family.scope}{can}")
                continue
            shown = "; ".join(hypothesis.name for hypothesis in family.hypotheses[:4])
            some = "some" if family.total is None else str(family.total)
            more = "; ..." if len(family.hypotheses) > 4 or not family.complete else ""
            lines.append(f"{family.name}: {some} of {family.scope}: {shown}{more}")
        if self.next_example is not None:
            parts, compared = self.groups
            lines.append(f"ask next: f({self.next_example}), which splits {compared} functions into {parts} groups")
        elif best is not None:
            lines.append(f"all that fit agree on all lists up to {QUESTION_LENGTH} elements that were tried")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """The same as data for JSON: functions by name and as Python, `null` where nothing is."""
        parts, compared = self.groups
        return {
            "best": None if self.best is None else _told(self.best) | {"family": self.best.family},
            "unique": self.unique,
            "families": [
                {
                    "name": family.name,
                    "scope": family.scope,
                    "total": family.total,
                    "complete": family.complete,
                    "reason": family.reason,
                    "hypotheses": [_told(hypothesis) for hypothesis in family.hypotheses],
                }
                for family in self.families
            ],
            "next_example": self.next_example,
            "groups": None if self.next_example is None else {"parts": parts, "compared": compared},
        }

    def __str__(self) -> str:
        """The explanation."""
        return self.explain()


def _told(hypothesis: Hypothesis) -> dict[str, Any]:
    return {"name": hypothesis.name, "size": hypothesis.size, "python": hypothesis.code}
