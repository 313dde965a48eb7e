"""`holdfast lists`: check, extend and find functions on lists.

Lists stand in files with one JSON value a line (JSONL): `{"in": [3, 1, 2]}`, and `{"in": [3, 1, 2], "out": [1, 2, 3]}`
where the answer is known.
"""

from __future__ import annotations

import json as jsonlib
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from holdfast.cli.parsing import FAILED, OK, Commands, Target, choose, function_at, say
from holdfast.errors import ArgumentError, count_of

if TYPE_CHECKING:
    from holdfast.lists import Oracle

Law = Literal["filter", "map", "injective", "order", "positional", "invariant"]


@dataclass(frozen=True)
class _Asked:
    """A function, and how it is asked."""

    target: Target
    """A function from a list to a list, as file.py:name or module:name."""
    timeout: float | None = None
    """Seconds after which a call counts as one that never returns."""

    def oracle(self, max_queries: int | None = None) -> Oracle:
        """The function."""
        from holdfast.lists import Oracle

        return Oracle(function_at(self.target), timeout_s=self.timeout, max_queries=max_queries)


@dataclass(frozen=True)
class _Search(_Asked):
    """Options of a search for a list on which a function breaks a law."""

    max_length: int = 12
    """Elements of the longest list."""
    max_examples: int = 500
    """Lists drawn at random for each law, after all short ones."""
    seed: int = 0
    """Of the random lists."""
    json: bool = False
    """Print JSON."""

    def by(self, search: Callable[..., Any]) -> Any:
        """What the search finds."""
        count_of("--seed", self.seed)
        return search(self.oracle(), max_length=self.max_length, max_examples=self.max_examples, seed=self.seed)


@dataclass(frozen=True)
class Check(_Search):
    """Search for a list on which a function breaks a law; exit status 1 if there is one. For a card: holdfast check."""

    law: Law = "filter"
    """filter: deleting a value from the list deletes it from the answer, and no more. map, injective, order: renaming
    values by any map, one-to-one, or in increasing order. positional: deleting one element deletes what it gives.
    invariant: showing the elements in another order makes no difference."""


@dataclass(frozen=True)
class Classify(_Search):
    """Say which laws a function keeps, as far as a search can tell."""


@dataclass(frozen=True, kw_only=True)
class Extrapolate(_Asked):
    """Extend a function that is right on short lists to longer ones, without ever showing it a long list."""

    input: tyro.conf.Positional[Path]
    """JSONL file with the lists, {"in": [...]} each; - for standard input."""
    capacity: int = 8
    """Most elements that the function is shown."""
    mode: Literal["auto", "distinct", "group", "positional"] = "auto"
    """How lists with equal elements become short; auto finds out, or refuses."""
    engine: Literal["auto", "faces", "pairs", "merge", "blocks", "cover"] = "auto"
    """Which sublists are asked for."""
    votes: int = 1
    """How often each pair is asked for, among other elements each time: more than 1 for a function that errs."""
    presentation: Literal["auto", "given", "both"] = "auto"
    """Whether votes are asked for with the elements the other way round as well, against a bias for the first."""
    on_inconsistent: Literal["raise", "repair"] = "raise"
    """What to do where no list fits the answers: stop, or take the list with the fewest votes against it."""
    max_queries: int | None = None
    """Most lists that the function may be shown."""
    calibrate: int = 24
    """Lists that are tried first, in every mode; 0: none, and you answer for the rule."""
    seed: int = 0
    """Of the lists that are tried first, and of the sublists for votes."""


@dataclass(frozen=True, kw_only=True)
class TopK(_Asked):
    """Find the best k of each list with a function that orders a few elements at a time."""

    input: tyro.conf.Positional[Path]
    """JSONL file with the lists, {"in": [...]} each; - for standard input."""
    k: int = 10
    """How many elements are wanted."""
    capacity: int = 20
    """Most elements that the function is shown."""
    votes: int = 1
    """How often each window is ordered: more than 1 for a function that errs, or favours what it sees first."""
    tiers: bool = False
    """Tell ties as well; twice the queries."""
    on_inconsistent: Literal["raise", "repair"] = "raise"
    """What to do where answers contradict each other: stop, or believe the earlier ones."""
    max_queries: int | None = None
    """Most lists that the function may be shown."""
    seed: int = 0
    """Of the order in which elements are shown from the third vote on."""
    json: bool = False
    """Print JSON, an object a list."""


@dataclass(frozen=True)
class Synthesize:
    """Find the simplest function that gives the examples, and say what would settle it where several do."""

    examples: tyro.conf.Positional[Path]
    """JSONL file with the examples, {"in": [...], "out": [...]} each; - for standard input."""
    max_size: int = 3
    """Largest number of named parts in a search for a composed function."""
    code: bool = False
    """Print nothing but the function, as Python."""
    json: bool = False
    """Print JSON."""


def _check(options: Check) -> int:
    from holdfast.lists import check

    laws = {
        "filter": check.check_filter_equivariance,
        "map": check.check_map_equivariance,
        "injective": check.check_injective_equivariance,
        "order": check.check_order_equivariance,
        "positional": check.check_positional,
        "invariant": check.check_order_invariance,
    }
    report = options.by(laws[options.law])
    say(jsonlib.dumps(report.to_dict(), indent=1) if options.json else report)
    return OK if report.holds else FAILED


def _classify(options: Classify) -> int:
    from holdfast.lists import classify

    classification = options.by(classify)
    say(jsonlib.dumps(classification.to_dict(), indent=1) if options.json else classification)
    return FAILED if classification.unfinished else OK


def _extrapolate(options: Extrapolate) -> int:
    from holdfast.lists import extrapolate

    oracle = options.oracle(options.max_queries)
    extended = extrapolate(
        oracle,
        options.capacity,
        mode=options.mode,
        engine=options.engine,
        votes=options.votes,
        presentation=options.presentation,
        on_inconsistent=options.on_inconsistent,
        calibrate=options.calibrate,
        seed=options.seed,
    )
    for place, row in _rows(options.input, "INPUT", ("in",)):
        xs = row["in"]
        if not isinstance(xs, list | str):
            raise ArgumentError(place, 'a list or a text under "in"', xs)
        answer = extended.explain(xs)
        row = {"in": xs, "out": answer.output, "consistent": answer.consistent}
        print(jsonlib.dumps(row, ensure_ascii=False), flush=True)
    print(f"{oracle.queries} lists asked for, the longest of {oracle.longest} elements", file=sys.stderr)
    return OK


def _topk(options: TopK) -> int:
    from holdfast.lists import topk

    oracle = options.oracle(options.max_queries)
    for place, row in _rows(options.input, "INPUT", ("in",)):
        xs = row["in"]
        if not isinstance(xs, list | str):
            raise ArgumentError(place, 'a list or a text under "in"', xs)
        top = topk(
            oracle,
            xs,
            options.k,
            options.capacity,
            votes=options.votes,
            tiers=options.tiers,
            on_inconsistent=options.on_inconsistent,
            seed=options.seed,
        )
        if options.json:
            found = {"out": top.output, "places": top.places}
            if options.tiers:
                found |= {"tiers": top.tiers, "tied_out": top.tied_out}
            counted = {"queries": top.queries, "consistent": top.consistent, "confidence": top.confidence}
            say(jsonlib.dumps(found | counted, ensure_ascii=False))
            continue
        for tier in top.tiers or [(element,) for element in top.output]:
            say(" = ".join(jsonlib.dumps(element, ensure_ascii=False) for element in tier))
    print(f"{oracle.queries} lists asked for, the longest of {oracle.longest} elements", file=sys.stderr)
    return OK


def _synthesize(options: Synthesize) -> int:
    from holdfast.lists import synthesize

    if options.code and options.json:
        raise ArgumentError("--code", "either this or --json", "both")
    rows = _rows(options.examples, "EXAMPLES", ("in", "out"))
    synthesis = synthesize([(row["in"], row["out"]) for _, row in rows], max_size=options.max_size)
    if options.json:
        say(jsonlib.dumps(synthesis.to_dict(), indent=1, ensure_ascii=False))
    elif not options.code:
        say(synthesis.explain())
    elif synthesis.best is not None:
        say(synthesis.best.code)
    return FAILED if synthesis.best is None else OK


def _rows(path: Path, argument: str, names: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of a JSONL file, each with its place."""
    try:
        lines = sys.stdin.read().splitlines() if str(path) == "-" else path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ArgumentError(argument, "a text file", f"{path} ({error})") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        place = f"{path}:{number}"
        try:
            row = jsonlib.loads(line)
        except ValueError as error:
            raise ArgumentError(place, "a JSON object", f"{line[:40]!r} ({error})") from error
        if not isinstance(row, dict) or not set(names) <= row.keys():
            raise ArgumentError(place, f"a JSON object with {' and '.join(map(repr, names))}", line[:40])
        yield place, row


COMMANDS: Commands = {
    "check": (Check, _check),
    "classify": (Classify, _classify),
    "extrapolate": (Extrapolate, _extrapolate),
    "topk": (TopK, _topk),
    "synthesize": (Synthesize, _synthesize),
}


def lists(words: Sequence[str]) -> int:
    """Carry out `holdfast lists`."""
    return choose("lists", "command", "Functions on lists. Commands", COMMANDS, words)
