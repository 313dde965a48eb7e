"""The card: what every probe found on one target or several."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from holdfast.card.finding import MEASURED, Finding, Outcome
from holdfast.card.words import line
from holdfast.errors import ArgumentError
from holdfast.lab import files
from holdfast.lab.documents import from_json, to_json

SCHEMA = "holdfast.card/1"
"""Name and version of the document. Within a version entries may be added; none changes its meaning or goes."""

LINES = 25
"""The most lines of a summary."""

WIDTH = 100

NEEDS = "needs "
"""Begins the reason of a probe that does not apply and would if something were given."""

ORDER = (Outcome.FAILS, Outcome.NOT_TOLD, Outcome.HOLDS, Outcome.NOT_RUN, Outcome.INAPPLICABLE)
"""What is read first."""


@dataclass(frozen=True)
class Subject:
    """One thing that was checked.

    Arguments:
        name: what it is called.
        kind: what it is.
        identity: changes when the thing does.
        findings: one for each probe there is.
    """

    name: str
    kind: str
    identity: str
    findings: tuple[Finding, ...]

    def ordered(self) -> list[Finding]:
        """Failures first, what does not apply last."""
        return sorted(self.findings, key=lambda finding: ORDER.index(finding.outcome))

    def of(self, outcome: Outcome) -> list[Finding]:
        """The findings with an outcome."""
        return [finding for finding in self.findings if finding.outcome is outcome]


@dataclass(frozen=True)
class Card:
    """What will break when these leave the conditions they were made for.

    Arguments:
        subjects: what was checked.
        command: what does it again.
        settings: budget, seed, device, and what else was given.
        environment: machine and versions.
        seconds: that it took, without what was known from an earlier try.
        schema: of the document.
    """

    subjects: tuple[Subject, ...]
    command: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    schema: str = SCHEMA

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Those of all subjects."""
        return tuple(finding for subject in self.subjects for finding in subject.findings)

    def finding(self, probe: str) -> Finding:
        """The finding of a probe that ran, or of the first subject where it ran for none.

        Errors:
            ArgumentError: there is no such probe.
        """
        named = [finding for finding in self.findings if finding.probe == probe]
        if not named:
            raise ArgumentError("probe", f"one of {', '.join(sorted({f.probe for f in self.findings}))}", probe)
        return next((finding for finding in named if finding.outcome in MEASURED), named[0])

    @property
    def answer(self) -> str:
        """One sentence: what fails, and on how many answers that rests."""
        failing = [_wrong(finding) for finding in self.findings if finding.outcome is Outcome.FAILS]
        measured = [finding for finding in self.findings if finding.outcome in MEASURED]
        untold = [finding for finding in measured if finding.outcome is Outcome.NOT_TOLD]
        if not measured:
            return "Nothing was measured."
        of = f"{len(measured)} {'question' if len(measured) == 1 else 'questions'}"
        open_ = (
            f" Left open by what was measured: {', '.join(line(finding.probe, WIDTH // 3) for finding in untold)}."
            if untold
            else ""
        )
        if failing and len(measured) == 1:
            return f"The one question that could be asked found a failure: {failing[0]}."
        if failing:
            return f"{len(failing)} of {of} answered with a failure: {', '.join(failing)}.{open_}"
        if len(untold) == len(measured):
            which = "the one question that could be asked" if len(measured) == 1 else f"any of {of}"
            return f"What was measured does not decide {which}."
        return f"No failure found by {f'{len(measured) - len(untold)} of ' if untold else ''}{of}.{open_}"

    def summary(self) -> str:
        """The card for a terminal, at most 25 lines."""
        for most in (4, 3, 2, 1):  # lines of a sentence: whole where there is room
            lines = [self.answer, *(shown for subject in self.subjects for shown in _lines(subject, most))]
            if len(lines) <= LINES:
                return "\n".join(lines)
        return "\n".join([*lines[: LINES - 1], "            … more in the card"])

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists, dicts and numbers, ready for JSON, by the versioned schema."""
        from holdfast.probes.report import jsonable

        document: dict[str, Any] = jsonable(
            {
                "schema": self.schema,
                "answer": self.answer,
                "command": self.command,
                "seconds": self.seconds,
                "settings": dict(self.settings),
                "environment": dict(self.environment),
                "subjects": [
                    {
                        "name": subject.name,
                        "kind": str(subject.kind),
                        "identity": subject.identity,
                        "findings": [finding_to_dict(finding) for finding in subject.findings],
                    }
                    for subject in self.subjects
                ],
            }
        )
        return document

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Card:
        """The card that `to_dict` gave.

        Errors:
            ArgumentError: it is no card, or one of a newer schema.
        """
        schema = document.get("schema") if isinstance(document, Mapping) else None
        if schema != SCHEMA:
            raise ArgumentError("card", f"a document of schema {SCHEMA}", f"{schema}")
        try:
            subjects = tuple(
                Subject(
                    _text(one["name"]),
                    _text(one["kind"]),
                    _text(one["identity"]),
                    tuple(finding_from_dict(finding) for finding in one["findings"]),
                )
                for one in document["subjects"]
            )
            return cls(
                subjects,
                _text(document["command"]),
                dict(document["settings"]),
                dict(document["environment"]),
                float(document["seconds"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ArgumentError("card", f"a document of schema {SCHEMA}", f"one with a fault ({error!r})") from error

    @classmethod
    def read(cls, path: Path | str) -> Card:
        """A card from the file `card.json`, or from the folder it lies in.

        Errors:
            ArgumentError: it is not there, or no card.
        """
        path = Path(path)
        path = path / "card.json" if path.is_dir() else path
        try:
            document = files.from_bytes(files.read(path))
        except (OSError, ValueError) as error:
            raise ArgumentError("card", "the file card.json of an earlier check", f"{path} ({error})") from error
        return cls.from_dict(document)

    def to_html(self, *, against: Card | None = None) -> str:
        """One self-contained page.

        Arguments:
            against: another card to compare with, drawn beside this one.
        """
        from holdfast.card.page import render

        return render(self, against)

    def __str__(self) -> str:
        """Return the summary."""
        return self.summary()


def finding_to_dict(finding: Finding) -> dict[str, Any]:
    """A finding as JSON data."""
    document: dict[str, Any] = to_json(
        {
            name: getattr(finding, name)
            for name in ("probe", "question", "sentence", "certainty", "report", "picture", "seconds")
        },
        "finding",
    )
    document["outcome"] = str(finding.outcome)
    document["remedy"] = None if finding.remedy is None else vars(finding.remedy).copy()
    document["measures"] = [to_json(vars(measure), "measure") for measure in finding.measures]
    return document


def finding_from_dict(document: Mapping[str, Any]) -> Finding:
    """A finding from its JSON data.

    Errors:
        KeyError, TypeError, ValueError: it is none.
    """
    from holdfast.card.finding import Measure, Remedy

    remedy = document["remedy"]
    words = ("name", "meaning", "better", "units")
    return Finding(
        probe=_text(document["probe"]),
        question=_text(document["question"]),
        outcome=Outcome(document["outcome"]),
        sentence=_text(document["sentence"]),
        certainty=_text(document["certainty"]),
        remedy=None if remedy is None else Remedy(**{name: _text(words) for name, words in remedy.items()}),
        measures=tuple(
            Measure(
                **{
                    **one,
                    **{name: _text(one[name]) for name in words},
                    **{name: float(one[name]) for name in ("value", "error", "degrees")},
                    # What the first cards of this schema had not.
                    **{name: float(one[name]) for name in ("spread", "spread_degrees") if name in one},
                    "values": from_json(one["values"], tuple[float, ...]),
                }
            )
            for one in document["measures"]
        ),
        report=dict(document["report"]),
        picture=_text(document["picture"]),
        seconds=float(document["seconds"]),
    )


def _text(words: object) -> str:
    if not isinstance(words, str):
        raise TypeError(f"{type(words).__name__} in the place of text")
    return words


def _wrong(finding: Finding) -> str:
    """A failing probe by name, and what is wrong in a few words."""
    from holdfast.card.checks import CHECKS

    words = {check.name: f" ({check.failure})" for check in CHECKS if check.failure}
    return line(finding.probe, WIDTH // 3) + words.get(finding.probe, "")


def _lines(subject: Subject, most: int) -> list[str]:
    """A subject for a terminal, its failures first."""
    lines = [line(f"{subject.name} ({subject.kind})", 10 * WIDTH)]
    for finding in subject.ordered():
        if finding.outcome is not Outcome.INAPPLICABLE:
            head = f"{finding.outcome}: ".rjust(12) + f"{line(finding.probe, WIDTH // 3)}: "
            lines += _wrapped(head, finding.sentence, most)
            if finding.remedy is not None:
                lines += _wrapped(" " * len(head) + "Try: ", f"{finding.remedy.text}.", min(most, 2))
    unfit = []
    for finding in subject.of(Outcome.INAPPLICABLE):
        if finding.sentence.startswith(NEEDS):
            lines += _wrapped("    not yet: " + f"{line(finding.probe, WIDTH // 3)}: ", finding.sentence, most)
        else:
            unfit.append(finding.probe)
    if unfit:
        lines += _wrapped("            not for this: ", ", ".join(unfit), most)
    return lines


def _wrapped(head: str, text: str, most: int) -> list[str]:
    """A head and a text of at most so many lines."""
    lines = textwrap.wrap(line(text), WIDTH - len(head), max_lines=most, placeholder=" …") or [""]
    return [head + lines[0], *(" " * len(head) + further for further in lines[1:])]
