"""The arguments of an extension, looked over once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from holdfast.errors import ArgumentError, count_of

Mode = Literal["auto", "distinct", "group", "positional"]
Engine = Literal["auto", "faces", "pairs", "merge", "blocks", "cover"]
OnInconsistent = Literal["raise", "repair", "return"]
Relabel = Literal["any", "rank"]
Presentation = Literal["auto", "given", "both"]

CALIBRATION_LISTS = 24

VOTES_TOLERANCE = 0.6
"""Share of the lists tried that a function which errs may answer otherwise than the mode predicts."""


@dataclass(frozen=True)
class Settings:
    """Arguments of `extrapolate` of the same names.

    Errors:
        ArgumentError: one is out of range, or two do not go together.
    """

    capacity: int
    mode: Mode = "auto"
    engine: Engine = "auto"
    votes: int = 1
    presentation: Presentation = "auto"
    on_inconsistent: OnInconsistent = "raise"
    relabel: Relabel | None = None
    placeholders: Sequence[Any] | None = None
    calibrate: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name, known in (
            ("mode", get_args(Mode)),
            ("engine", get_args(Engine)),
            ("presentation", get_args(Presentation)),
            ("on_inconsistent", get_args(OnInconsistent)),
            ("relabel", (*get_args(Relabel), None)),
        ):
            value = getattr(self, name)
            if not any(value is name or (isinstance(value, str) and value == name) for name in known):
                raise ArgumentError(name, "one of " + ", ".join(map(str, known)), value)
        count_of("capacity", self.capacity, least=2)
        count_of("votes", self.votes, least=1)
        count_of("calibrate", self.lists_to_try)
        count_of("seed", self.seed)
        if self.lists_to_try and self.capacity < 3:
            expected = "at least 3, as calibration tries lists of three (calibrate=0: none)"
            raise ArgumentError("capacity", expected, self.capacity)
        if self.relabel is not None and self.mode in ("distinct", "group"):
            raise ArgumentError("mode", "auto or positional with relabel", self.mode)
        if self.placeholders is not None:
            if not isinstance(self.placeholders, Sequence) or len(self.placeholders) < 2:
                raise ArgumentError("placeholders", "two or more, in a sequence", self.placeholders)
            if self.relabel is None:
                raise ArgumentError("placeholders", "none without relabel", self.placeholders)
        if self.presentation != "auto" and not self.by_votes:
            raise ArgumentError("presentation", "auto where answers are not voted on", self.presentation)
        tolerant = ("auto", "cover") if self.votes > 1 else ("auto", "cover", "blocks")
        if self.by_votes and self.engine not in tolerant:
            raise ArgumentError("engine", f"{' or '.join(tolerant)} where answers are voted on", self.engine)
        if self.relabel is not None and (self.engine not in ("auto", "pairs") or self.by_votes):
            raise ArgumentError("relabel", "none with votes or with an engine", self.relabel)

    @property
    def by_votes(self) -> bool:
        """Whether the function may err."""
        return self.votes > 1 or self.on_inconsistent != "raise"

    @property
    def lists_to_try(self) -> int:
        """Lists that are tried before the first one is extended."""
        if self.calibrate is None:
            return CALIBRATION_LISTS if self.mode == "auto" else 0
        return CALIBRATION_LISTS if self.calibrate is True else self.calibrate

    @property
    def mode_to_try(self) -> Mode:
        """The mode that they are tried in; `"auto"`: positional, then group."""
        return "group" if self.by_votes and self.mode == "auto" else self.mode

    @property
    def tolerance(self) -> float:
        """Share of them that may come out otherwise."""
        return VOTES_TOLERANCE if self.by_votes else 0.0
