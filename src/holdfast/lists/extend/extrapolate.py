"""Extend a list function from short lists to lists of any length, exactly, if it is filter equivariant.

    long_sort = extrapolate(short_sort, capacity=8)
    long_sort(xs)

The extension never shows the function more than `capacity` elements. It equals the function on every list if
`f . filter p == filter p . f`. This is tried first (calibration), and every contradiction that comes to light later is
an error with the lists that show it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal, get_args

import numpy as np

from holdfast.errors import ArgumentError, HoldfastError, count_of
from holdfast.lists.errors import BadAnswer, OutOfBudget
from holdfast.lists.extend.answering import (
    CHEAP_PAIRS,
    Extension,
    Settings,
    duplicate,
    empty_list,
    engine_plan,
    extending,
    nothing,
    relabelling,
    voting,
    whole_list,
)
from holdfast.lists.extend.blocks import Sublists
from holdfast.lists.extend.calibration import POOL, Calibration, calibrate_on
from holdfast.lists.extend.labels import Translator
from holdfast.lists.extend.pairs import Labels
from holdfast.lists.extend.rounds import Run, ask_each, finish
from holdfast.lists.oracle import Oracle

__all__ = ["Calibration", "Extended", "Extension", "extrapolate"]

Mode = Literal["auto", "distinct", "group", "positional"]
Engine = Literal["auto", "faces", "pairs", "merge", "blocks", "cover"]
OnInconsistent = Literal["raise", "repair", "return"]
Relabel = Literal["any", "rank"]

CALIBRATION_LISTS = 24

VOTES_TOLERANCE = 0.6
"""Share of the lists tried that a function which errs may answer otherwise than the mode predicts."""


def extrapolate(
    f: Callable[..., Any],
    capacity: int,
    *,
    mode: Mode = "auto",
    engine: Engine = "auto",
    votes: int = 1,
    on_inconsistent: OnInconsistent = "raise",
    relabel: Relabel | None = None,
    placeholders: Sequence[Any] | None = None,
    key: Callable[[Any], Any] | None = None,
    batched: bool = False,
    max_queries: int | None = None,
    cache: MutableMapping[Any, list[Any]] | None = None,
    timeout_s: float | None = None,
    concurrency: int = 8,
    calibrate: int | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Extended:
    """A function of the same type as `f`, for lists of any length.

    Modes, which say how lists with equal elements become short:

    - `distinct`: not at all, they are refused. Right for every filter-equivariant function.
    - `group`: by deleting all copies of all but two values. Right for every filter-equivariant function, but the copies
      of any two values must fit in the capacity together.
    - `positional`: every element counts for itself; lists of two elements settle a list of any length. Right for
      functions that commute with deleting single elements: identity, reverse, sort, filters, partitions, inflations,
      sums of these; not for what counts copies, such as nub and sorting by frequency.
    - `auto`: what fits on random lists of 3 to `capacity` elements that are made of the list's own values: positional,
      else group, else an error.

    Engines, which say what is asked for:

    - `pairs`: all pairs of values, in one batch; the answer is put together by score scatter, and every contradiction
      is found.
    - `merge`: pairs of values that a merge comes to compare. Few queries, one after the other.
    - `blocks`: block merge with the whole capacity: fewest queries, in few batches; about (2n/c) log2(n/c) + n/c. Most
      pairs of values are never seen together, so that a function that breaks the rule for few of them goes unnoticed.
    - `cover`: sets of values that show every pair, in one batch.
    - `faces`: every set of values, the definition itself; for at most 12 values.
    - `auto`: blocks for lists without equal elements that have more than 50 pairs of values, since there the number of
      queries counts most; else pairs.

    Lists of at most `capacity` elements are asked for as they are, once the function has passed.

    What is tried, in mode auto or with `calibrate`: lists of three to `capacity` elements (32 at most) over up to six
    values of the first list that is extended, and the empty list. A function that errs (`votes`, or
    `on_inconsistent` other than "raise") may miss half of them: `calibration` says how many. Naming a mode without
    `calibrate` tries nothing.

    Arguments:
        f: list -> list (or text -> text); or a coroutine function; with `batched`, lists -> their answers.
        capacity: most elements that `f` may be shown; at least 2, and in mode auto at least 3.
        mode: see above. With votes, `auto` means group.
        engine: see above.
        votes: how often every pair of values is asked for, each time among other values; more than 1 for a function
            that errs.
        on_inconsistent: what to do where no list fits the answers. `"raise"`: an error. `"repair"`: the list with the
            fewest votes against it, without the answers that break a law. `"return"`: the same, and an `Extension`
            without output where even that does not exist. With the engine `blocks` a function that errs is asked few
            questions, and its neighbours in the result once more among others; with other engines each pair `votes`
            times.
        relabel: show `f` placeholders instead of the elements. `"any"`: it is blind to values, and the answer to two
            of them settles every list. `"rank"`: it only compares values, and two answers do.
        placeholders: what is shown then, in increasing order; `None`: 0 to 4, for texts a to e.
        key: what decides whether elements are the same value, see `Alphabet`, and not what to sort by; `None`: the
            elements themselves.
        batched: `f` takes many lists at once.
        max_queries: most lists that `f` may be shown in total.
        cache: where answers are kept; `None`: with this extension.
        timeout_s: seconds that a call of `f` may take.
        concurrency: calls of a coroutine function that are under way together.
        calibrate: how many lists are tried before the first list is extended; 0: none; `None`: 24 in mode auto, else 0.
            Where there is nothing to choose by, mode auto is mode group.
        seed: of the lists that are tried, and of the sublists for votes.
        progress: show a bar on a terminal after two seconds.

    Returns:
        The extension: callable, with `explain`, `batch` and `calibration`.

    Errors:
        ArgumentError: an argument is out of range, a list has duplicates in mode distinct, or two values have too many
            copies for mode group.
        NotExtendable: `f` was seen to break the rule that the mode rests on.
        AlienValue, WrongMultiplicity, Cycle: no filter-equivariant function gives such answers.
        OutOfBudget: more queries are needed than allowed; without `max_queries`, than a million.
        BadAnswer: an answer is no list.
        Undetermined: so many votes are unusable that the order of some values is open.

    Source: the amalgamation of arXiv 2507.08796, derived in docs/systems/lists.md.
    """
    for name, value, known in (
        ("mode", mode, get_args(Mode)),
        ("engine", engine, get_args(Engine)),
        ("on_inconsistent", on_inconsistent, get_args(OnInconsistent)),
        ("relabel", relabel, (*get_args(Relabel), None)),
    ):
        if value not in known:
            raise ArgumentError(name, "one of " + ", ".join(map(str, known)), value)
    count = (CALIBRATION_LISTS if mode == "auto" else 0) if calibrate is None else calibrate
    if calibrate is True:
        count = CALIBRATION_LISTS
    count_of("capacity", capacity, least=2)
    count_of("votes", votes, least=1)
    count_of("calibrate", count)
    count_of("seed", seed)
    if count and capacity < 3:
        raise ArgumentError("capacity", "at least 3, as calibration tries lists of three (calibrate=0: none)", capacity)
    if relabel is not None and mode in ("distinct", "group"):
        raise ArgumentError("mode", "auto or positional with relabel", mode)
    if placeholders is not None and len(placeholders) < 2:
        raise ArgumentError("placeholders", "two or more", len(placeholders))
    by_votes = votes > 1 or on_inconsistent != "raise"
    tolerant = ("auto", "cover") if votes > 1 else ("auto", "cover", "blocks")
    if by_votes and engine not in tolerant:
        raise ArgumentError("engine", f"{' or '.join(tolerant)} where answers are voted on", engine)
    if relabel is not None and (engine not in ("auto", "pairs") or by_votes):
        raise ArgumentError("relabel", "none with votes or with an engine", relabel)
    oracle = Oracle(
        f,
        capacity=capacity,
        batched=batched,
        max_queries=max_queries,
        cache=cache,
        timeout_s=timeout_s,
        concurrency=concurrency,
    )
    settings = Settings(
        capacity, mode, engine, votes, on_inconsistent, relabel, placeholders, key, count, seed, progress
    )
    return Extended(oracle, settings)


class Extended:
    """A list function for lists of any length. `extrapolate` makes it, and says what it does and raises."""

    def __init__(self, oracle: Oracle, settings: Settings) -> None:
        self.oracle = oracle
        """Asks the function, and counts: `queries`, `longest`, `elements`, `calls`."""
        self.calibration: Calibration | None = None
        """What was tried; `None`: nothing yet."""
        self._settings = settings

    def __call__(self, xs: Any) -> Any:
        """The answer to a list, in its type (list, tuple or text)."""
        return self.explain(xs).output

    def explain(self, xs: Any) -> Extension:
        """The answer to a list, with what it rests on."""
        found: Extension = self.explain_batch([xs])[0]
        return found

    def batch(self, lists: Iterable[Any], *, return_exceptions: bool = False) -> list[Any]:
        """The answers to several lists, which go forward together: each round is one batch of questions.

        Arguments:
            lists: the lists.
            return_exceptions: where a list has an error, put it in place of the answer, and go on with the others.
        """
        found = self.explain_batch(lists, return_exceptions=return_exceptions)
        return [each.output if isinstance(each, Extension) else each for each in found]

    def explain_batch(self, lists: Iterable[Any], *, return_exceptions: bool = False) -> list[Any]:
        """The same as `batch`, with what each answer rests on."""
        settings = self._settings
        every = list(lists)
        runs = [Run(Translator([], None, False), nothing()) for _ in every]
        for number, run in enumerate(runs):
            with _kept(run, return_exceptions):
                every[number] = _as_sequence(every[number])
                run.translator = Translator(every[number], settings.key, isinstance(every[number], str))
        if every and settings.calibrate:
            widest = max(range(len(every)), key=lambda number: runs[number].translator.size)
            self._calibrate(runs[widest].translator, isinstance(every[widest], str))
        for run, xs in zip(runs, every, strict=True):
            if run.result is None:
                with _kept(run, return_exceptions):
                    self._prepare(run, xs)
        try:
            finish(
                runs,
                self.oracle,
                keep_errors=return_exceptions,
                by_votes=settings.by_votes,
                progress=settings.progress,
            )
        except OutOfBudget as error:
            hint = error.hint or "a larger capacity, or engine='blocks', needs fewer"
            raise OutOfBudget(error.budget, error.needed, hint) from None
        return [self._counted(run) for run in runs]

    def _counted(self, run: Run) -> Any:
        if not isinstance(run.result, Extension):
            return run.result
        return replace(
            run.result,
            queries=run.queries,
            longest=run.longest,
            calls=run.rounds,
            calibration=self.calibration,
        )

    def _calibrate(self, translator: Translator, text: bool) -> None:
        """Try the function on lists of these values, unless as many were tried before."""
        settings = self._settings
        if settings.relabel is not None:
            translator = self._placeholders(text)
        most = settings.capacity if settings.mode == "distinct" else POOL
        if self.calibration is not None and self.calibration.values >= min(most, translator.size):
            return
        if translator.size == 0:
            return
        rng = np.random.default_rng(settings.seed)
        chosen = np.sort(rng.permutation(translator.size)[:most]).tolist()
        key = settings.key if settings.relabel is None else None
        pool = Translator([translator.values[label] for label in chosen], key, text)

        def ask(queries: list[Labels], fresh: bool) -> list[Labels]:
            return pool.read(self._answers([pool.query(query) for query in queries], fresh))

        self.calibration = calibrate_on(
            ask,
            pool,
            settings.capacity,
            mode="group" if settings.by_votes and settings.mode == "auto" else settings.mode,
            count=settings.calibrate,
            tolerance=VOTES_TOLERANCE if settings.by_votes else 0.0,
            seed=settings.seed,
            relabel=settings.relabel,
        )

    def _answers(self, queries: list[Any], fresh: bool) -> list[list[Any]]:
        if not self._settings.by_votes:
            return self.oracle.ask(queries, fresh=fresh)
        # What is no answer is an answer that fits nothing.
        return [[each] if isinstance(each, BadAnswer) else each for each in ask_each(self.oracle, queries, fresh=fresh)]

    def _placeholders(self, text: bool) -> Translator:
        chosen = self._settings.placeholders
        return Translator(("abcde" if text else range(5)) if chosen is None else chosen, None, text)

    def _prepare(self, run: Run, xs: Any) -> None:
        """Decide how a list will be answered."""
        settings, translator = self._settings, run.translator
        if settings.relabel is not None:
            run.translator = self._placeholders(isinstance(xs, str))
            run.plan = relabelling(xs, translator, run.translator, settings)
            return
        mode = settings.mode
        if mode == "auto":
            mode = "group" if self.calibration is None or settings.by_votes else self.calibration.mode
        sublists = Sublists(translator.labels, translator.values[: translator.size], settings.capacity)
        length, duplicates = len(sublists.labels), len(sublists.labels) > translator.size
        if mode == "distinct" and duplicates:
            raise duplicate(sublists)
        if not length:
            run.plan = empty_list(xs, translator, mode)
        elif settings.by_votes:
            if mode == "positional" and duplicates:
                raise ArgumentError("mode", "group, where votes are asked for on a list with duplicates", mode)
            run.plan = voting(sublists, xs, translator, mode, settings)
        elif length <= settings.capacity:
            run.plan = extending(whole_list(sublists), xs, translator, mode, "direct")
        else:
            engine = settings.engine
            if engine == "auto":
                cheap = duplicates or length * (length - 1) // 2 <= CHEAP_PAIRS
                engine = "pairs" if cheap else "blocks"
            plan, run.expected = engine_plan(engine, mode, duplicates, sublists, self.oracle.max_queries)
            run.plan = extending(plan, xs, translator, mode, engine)


@contextmanager
def _kept(run: Run, keep_errors: bool) -> Iterator[None]:
    """An error is the result of a run, and not raised, if it is to be kept."""
    try:
        yield
    except HoldfastError as error:
        if not keep_errors:
            raise
        run.result = error


def _as_sequence(xs: Any) -> Any:
    """A list, tuple or text as it is; anything else that can be gone through, as a list."""
    if isinstance(xs, str | list | tuple):
        return xs
    try:
        return xs.tolist() if isinstance(xs, np.ndarray) and xs.ndim == 1 else list(xs)
    except TypeError:
        raise ArgumentError("xs", "a list, tuple or text", type(xs).__name__) from None
