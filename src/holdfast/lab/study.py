"""What a study is: trials to run, claims to judge and figures to draw. The lab runs studies and knows none of them.

A study is declared once, at the bottom of its own file:

    study = Study(name="toy", question="...", scales={"quick": Config()}, trials=trials, run=run, claims=[...])

`run` is called in worker processes, so it must be a function at the top level of an importable module or of a
plain `.py` file. Import heavy packages inside `run`: `holdfast list` then answers without loading them.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

from holdfast.errors import ArgumentError
from holdfast.lab.verdict import Evidence

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from holdfast.lab.results import Results

SCALES = ("quick", "laptop", "gpu", "paper")

Scalar: TypeAlias = "str | int | float | bool | None"
Record: TypeAlias = Mapping[str, Scalar]
"""One row of a tidy table: labels (`arm`, `n`, ...) and metrics (`accuracy`, ...) side by side."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Base of a study's configuration: a frozen dataclass, one instance a scale.

    Arguments:
        seeds: how many seeds to run.
        first_seed: the first of them. Choose settings on some seeds, then judge on fresh ones.
    """

    seeds: int = 5
    first_seed: int = 0

    @property
    def seed_range(self) -> range:
        """The seeds as a range."""
        return range(self.first_seed, self.first_seed + self.seeds)


C = TypeVar("C")


@dataclass(frozen=True)
class Trial(Generic[C]):
    """One independent unit of work. A trial is data: its result depends on nothing else.

    Arguments:
        seed: the seed, or several where one tensor program trains many seeds at once.
        config: a frozen dataclass with all settings that the trial reads: the study's configuration or a part of it.
            How many seeds the study has is not part of a trial's identity, so that more can be added later.
        labels: what tells this trial from the study's others, for example `{"arm": "adam"}`; copied to its records.
        cost: relative length, for the progress bar; long trials start first.
        gpu: share of a GPU that it needs, 0 to 1; 0 runs on the CPU.
    """

    seed: int | tuple[int, ...]
    config: C
    labels: Mapping[str, Scalar] = field(default_factory=dict)
    cost: float = 1.0
    gpu: float = 0.0

    def __post_init__(self) -> None:
        if isinstance(self.seed, tuple) and not self.seed:
            raise ArgumentError("Trial.seed", "at least one seed", self.seed)
        if not all(isinstance(seed, int) for seed in self.seeds):
            raise ArgumentError("Trial.seed", "a whole number or a tuple of them", repr(self.seed))
        if not dataclasses.is_dataclass(self.config) or isinstance(self.config, type):
            raise ArgumentError("Trial.config", "an instance of a dataclass", type(self.config).__name__)
        _check_decorated("Trial.config", self.config)
        for name, value in self.labels.items():
            if not (value is None or isinstance(value, str | int | float)):
                raise ArgumentError(f"Trial.labels[{name!r}]", "text or a number", value)
        if not 0 <= self.gpu <= 1:
            raise ArgumentError("Trial.gpu", "a share between 0 and 1", self.gpu)
        if not self.cost > 0:
            raise ArgumentError("Trial.cost", "a positive number", self.cost)

    @property
    def seeds(self) -> tuple[int, ...]:
        """The trial's seeds, one or many."""
        return self.seed if isinstance(self.seed, tuple) else (self.seed,)


def _check_decorated(argument: str, config: object) -> None:
    """Without the decorator a subclass's settings are no fields: they would be missing from a trial's identity."""
    if "__dataclass_fields__" not in vars(type(config)):
        raise ArgumentError(argument, "a class decorated with @dataclass(frozen=True)", type(config).__name__)


@dataclass(frozen=True)
class Outcome:
    """What a trial measured.

    Arguments:
        records: final numbers as a tidy table; a record without `seed` gets the trial's.
        curves: named tidy tables of everything longer: learning curves, per-row statistics.
    """

    records: Sequence[Record]
    curves: Mapping[str, Sequence[Record]] = field(default_factory=dict)


RunResult: TypeAlias = "Outcome | Record | Sequence[Record]"
"""What `run` may return: an `Outcome`, a list of records, or one record such as `{"accuracy": 0.9}`."""


def as_outcome(result: object) -> Outcome:
    """What `run` returned, as an `Outcome` of plain Python numbers and text.

    Errors:
        ArgumentError: it is something else, or there is nothing in it.
    """
    expected = "an Outcome, a record such as {'accuracy': 0.9}, or a list of records"
    if isinstance(result, Mapping):
        result = Outcome([result])
    elif isinstance(result, list | tuple):
        result = Outcome(result)
    if not isinstance(result, Outcome):
        raise ArgumentError("the result of run", expected, result)
    if not result.records:
        raise ArgumentError("the result of run", expected, "no record")
    return Outcome(
        tuple(_plain(row, "a record") for row in result.records),
        {name: tuple(_plain(row, f"curve {name!r}") for row in rows) for name, rows in result.curves.items()},
    )


def _plain(row: object, where: str) -> dict[str, Scalar]:
    if not isinstance(row, Mapping) or not row:
        raise ArgumentError(where, "a mapping from column to value", row)
    plain: dict[str, Scalar] = {}
    for name, value in row.items():
        item = getattr(value, "item", None)  # zero-dimensional arrays and tensors
        try:
            scalar = item() if callable(item) else value
        except (TypeError, ValueError, RuntimeError):  # more than one element
            scalar = value
        if not (scalar is None or isinstance(scalar, str | int | float)):
            raise ArgumentError(f"{where}, column {name!r}", "a number or text", scalar)
        plain[str(name)] = scalar
    return plain


@dataclass(frozen=True)
class Claim:
    """A checkable statement, and the function that tests it.

    Arguments:
        name: short and unique within the study; stands in tables.
        text: the statement with its threshold, in one sentence.
        test: maps results to `Evidence`; see `holdfast.lab.verdict` for the tests to choose from.
        paper: the paper's own figure, with the place where it stands.
        family: claims of one family share a 5 % chance of a false verdict (Holm's correction).
    """

    name: str
    text: str
    test: Callable[[Results], Evidence]
    paper: str = ""
    family: str = "claims"


@dataclass(frozen=True)
class Figure:
    """A picture in the report.

    Arguments:
        name: short and unique within the study; also the file name of its data.
        caption: what to see in it.
        draw: draws on the axes and returns the rows that it drew, offered for download below the picture.
    """

    name: str
    caption: str
    draw: Callable[[Results, Axes], Sequence[Record]]


@dataclass(frozen=True)
class Paper:
    """The publication that a study re-tests."""

    title: str
    arxiv: str = ""

    @property
    def url(self) -> str:
        """Address of the abstract, or an empty string."""
        return f"https://arxiv.org/abs/{self.arxiv}" if self.arxiv else ""


@dataclass(frozen=True)
class Study(Generic[C]):
    """A question, the trials that answer it, and the claims that they decide.

    Arguments:
        name: the name on the command line: lower-case letters, digits, `-` and `_`.
        question: what the study asks, in one sentence.
        scales: a configuration for each scale it has: `quick`, `laptop`, `gpu`, `paper`.
        trials: maps a configuration to its trials.
        run: computes one trial; called in a worker process.
        claims: what is judged.
        figures: what is drawn.
        paper: what is re-tested.
        cost: for each scale, what it takes, for `holdfast list`.

    Errors:
        ArgumentError: a name is malformed or used twice, a scale is unknown, or a configuration is no `Config`.
    """

    name: str
    question: str
    scales: Mapping[str, C]
    trials: Callable[[C], Iterable[Trial[Any]]]
    run: Callable[[Trial[Any]], RunResult]
    claims: Sequence[Claim]
    figures: Sequence[Figure] = ()
    paper: Paper | None = None
    cost: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", self.name):
            raise ArgumentError("Study.name", "lower-case letters, digits, '-' and '_'", self.name)
        if not self.scales:
            raise ArgumentError("Study.scales", f"a configuration for at least one of {SCALES}", {})
        for scale, config in self.scales.items():
            if scale not in SCALES:
                raise ArgumentError("Study.scales", f"names among {', '.join(SCALES)}", scale)
            if not isinstance(config, Config):
                raise ArgumentError(
                    f"Study.scales[{scale!r}]", "an instance of a subclass of holdfast.lab.Config", config
                )
            _check_decorated(f"Study.scales[{scale!r}]", config)
        for argument, items in (("claims", self.claims), ("figures", self.figures)):
            names = [item.name for item in items]
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise ArgumentError(f"Study.{argument}", "unique names", f"{twice[0]!r} more than once")
