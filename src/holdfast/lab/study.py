"""What a study is: parts with trials to run, claims to judge and figures to draw. The lab runs studies and knows none.

A study in one file is declared once, at the bottom:

    study = Study(name="toy", question="...", scales={"quick": Config()}, trials=trials, run=run, claims=[...])

A study with several parts has a file for each, with a `Part` at the bottom, and one file that gathers them:

    study = Study(name="toy", question="...", scales={"quick": Config()}, parts=[growth.PART, decay.PART])

`run` is called in worker processes, so it must be a function at the top level of an importable module or of a
plain `.py` file. Import heavy packages inside `run`: `holdfast list` then answers without loading them.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic

from holdfast.errors import ArgumentError, lacking
from holdfast.lab.results import Results
from holdfast.lab.trial import MAIN, PART, SCALES, C, Config, Record, RunResult, Trial, check_decorated
from holdfast.lab.verdict import Claim

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_HEADLINES = 6
"""A reader remembers no more claims than this; the others support them."""


NAME = r"[a-z0-9][a-z0-9_-]{0,63}"
"""What studies and parts may be called: a study's name is a folder's name, too."""

RESERVED = ("failed", "set-aside")
"""Folders of a store that hold no study."""


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
class Part(Generic[C]):
    """One experiment of a study: its trials, what computes them, and what is judged and drawn of it.

    Arguments:
        name: unique in the study: lower-case letters, digits, `-` and `_`. It is the value of the label `part` in
            all records of this part.
        trials: maps the study's configuration to the part's trials.
        run: computes one trial, in a worker process: a function of the trial and of nothing else. It tells how far it
            is through `holdfast.lab.progress`.
        claims: what is judged. Claims see the results of all parts.
        figures: what is drawn. Figures see the results of all parts, too.
        timeout: seconds after which a trial has failed, if the command line does not say otherwise; `None` lets it
            take as long as it takes.
        needs: what its trials import beyond the study's own dependencies, and what to give pip for each, such as
            `{"sklearn": "scikit-learn"}`; or a function of the study's configuration that says so. Where one is not
            installed, the part is left out, which is said before anything starts.

    Errors:
        ArgumentError: the name is malformed, or the timeout is no number of seconds.
    """

    name: str
    trials: Callable[[C], Iterable[Trial[Any]]]
    run: Callable[[Trial[Any]], RunResult]
    claims: Sequence[Claim] = ()
    figures: Sequence[Figure] = ()
    timeout: float | None = None
    needs: Mapping[str, str] | Callable[[C], Mapping[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_name("Part.name", self.name)
        check_timeout("Part.timeout", self.timeout)

    def lacks(self, config: C) -> dict[str, str]:
        """What it needs and is not installed here: for each module what to give pip.

        Arguments:
            config: the study's configuration.
        """
        return lacking(self.needs(config) if callable(self.needs) else self.needs)

    def labelled_trials(self, config: C) -> Iterator[Trial[Any]]:
        """The part's trials, each with the part's name among its labels.

        Arguments:
            config: the study's configuration.

        Errors:
            ArgumentError: `trials` gives something else than trials, or one that has such a label already.
        """
        trials = self.trials(config)
        if not isinstance(trials, Iterable):
            raise ArgumentError(f"trials of {self.name}", "a list of Trial (is a return missing?)", trials)
        for trial in trials:
            if type(trial) is not Trial:
                expected = "a list of Trial itself: what a class of its own adds would be no part of its identity"
                raise ArgumentError(f"trials of {self.name}", expected, trial)
            if PART in trial.labels:
                expected = f"labels without {PART!r}, which the lab adds"
                raise ArgumentError(f"trials of {self.name}", expected, trial.labels)
            yield dataclasses.replace(trial, labels={PART: self.name, **trial.labels})


@dataclass(frozen=True, init=False)
class Study(Generic[C]):
    """A question, the parts that answer it, and the claims that they decide.

    Arguments:
        name: the name on the command line: lower-case letters, digits, `-` and `_`.
        question: what the study asks, in one sentence.
        scales: a configuration for each scale it has: `quick`, `laptop`, `gpu`, `paper`.
        trials: short form of one part named `main`: maps a configuration to the trials.
        run: short form: computes one trial; called in a worker process.
        claims: short form: what is judged.
        figures: short form: what is drawn.
        parts: the parts; given instead of `trials`, `run`, `claims` and `figures`.
        paper: what is re-tested.
        cost: for each scale, what it takes, for `holdfast list`.

    Errors:
        ArgumentError: a name is malformed or used twice, a scale is unknown, a configuration is no `Config`, there
            are more than six headline claims, or a claim names a figure that the study lacks, or no scale that it has
            can judge.
    """

    name: str
    question: str
    scales: Mapping[str, C]
    parts: Sequence[Part[C]]
    paper: Paper | None
    cost: Mapping[str, str]

    def __init__(
        self,
        name: str,
        question: str,
        scales: Mapping[str, C],
        trials: Callable[[C], Iterable[Trial[Any]]] | None = None,
        run: Callable[[Trial[Any]], RunResult] | None = None,
        claims: Sequence[Claim] = (),
        figures: Sequence[Figure] = (),
        *,
        parts: Sequence[Part[C]] = (),
        paper: Paper | None = None,
        cost: Mapping[str, str] | None = None,
    ) -> None:
        if parts and (trials or run or claims or figures):
            raise ArgumentError("Study.parts", "parts, or trials, run, claims and figures of one part", "both")
        if not parts:
            if trials is None or run is None:
                raise ArgumentError("Study", "parts, or trials and run of one part", "neither")
            parts = [Part(MAIN, trials, run, claims, figures)]
        values = {
            "name": name,
            "question": question,
            "scales": scales,
            "parts": tuple(parts),
            "paper": paper,
            "cost": cost or {},
        }
        for attribute, value in values.items():
            object.__setattr__(self, attribute, value)
        self._check()

    def _check(self) -> None:
        _check_name("Study.name", self.name)
        if self.name in RESERVED:
            raise ArgumentError("Study.name", "a name that the store does not use itself", self.name)
        if not self.scales:
            raise ArgumentError("Study.scales", f"a configuration for at least one of {SCALES}", {})
        for scale, config in self.scales.items():
            if scale not in SCALES:
                raise ArgumentError("Study.scales", f"names among {', '.join(SCALES)}", scale)
            if not isinstance(config, Config):
                raise ArgumentError(
                    f"Study.scales[{scale!r}]", "an instance of a subclass of holdfast.lab.Config", config
                )
            check_decorated(f"Study.scales[{scale!r}]", config)
        for argument, items in (("parts", self.parts), ("claims", self.claims), ("figures", self.figures)):
            names = [item.name for item in items]
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise ArgumentError(f"Study.{argument}", "unique names", f"{twice[0]!r} more than once")
        headlines = [claim.name for claim in self.claims if claim.headline]
        if len(headlines) > MAX_HEADLINES:
            raise ArgumentError("Study.claims", f"at most {MAX_HEADLINES} headline claims", ", ".join(headlines))
        figures = [figure.name for figure in self.figures]
        for claim in self.claims:
            if claim.figure and claim.figure not in figures:
                expected = f"a figure of the study ({', '.join(figures)})"
                raise ArgumentError(f"figure of claim {claim.name!r}", expected, claim.figure)
            if self.scale_for(claim) is None:
                expected = f"a scale that the study reaches ({', '.join(self.scales)})"
                raise ArgumentError(f"scale of claim {claim.name!r}", expected, claim.scale)

    @property
    def claims(self) -> Sequence[Claim]:
        """The claims of all parts."""
        return tuple(claim for part in self.parts for claim in part.claims)

    @property
    def figures(self) -> Sequence[Figure]:
        """The figures of all parts."""
        return tuple(figure for part in self.parts for figure in part.figures)

    def trials(self, config: C) -> Iterator[Trial[Any]]:
        """The trials of all parts, each with its part's name as the label `part`."""
        for part in self.parts:
            yield from part.labelled_trials(config)

    def run(self, trial: Trial[Any]) -> RunResult:
        """Compute one of the study's trials in this process, by its part's `run`."""
        named = {part.name: part for part in self.parts}
        part = self.parts[0] if len(self.parts) == 1 else named.get(str(trial.labels.get(PART)))
        if part is None:
            raise ArgumentError("Trial.labels['part']", f"a part of {self.name} ({', '.join(named)})", trial.labels)
        return part.run(trial)

    def scale_for(self, claim: Claim) -> str | None:
        """The smallest of the study's scales that can judge a claim, or `None`."""
        return next((scale for scale in SCALES[SCALES.index(claim.scale) :] if scale in self.scales), None)


def check_timeout(argument: str, seconds: float | None) -> None:
    """A trial has some time, or as long as it takes.

    Errors:
        ArgumentError: it has none, or something else is given.
    """
    if seconds is None:
        return
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < math.inf:
        raise ArgumentError(argument, "a positive number of seconds", seconds)


def _check_name(argument: str, name: str) -> None:
    if not re.fullmatch(NAME, name):
        raise ArgumentError(argument, "lower-case letters, digits, '-' and '_', 64 at most", name[:100])
