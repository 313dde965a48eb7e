"""Extend a list function from short lists to lists of any length, exactly, if it is filter equivariant.

    long_sort = extrapolate(short_sort, capacity=8)
    long_sort(xs)

The extension never shows the function more than `capacity` elements. It equals the function on every list if
`f . filter p == filter p . f`. This is tried first (calibration), and every contradiction that comes to light later is
an error with the lists that show it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from holdfast.errors import ArgumentError
from holdfast.lists.errors import BadAnswer, OutOfBudget
from holdfast.lists.extend.answering import Extension, placeholders_of, prepare
from holdfast.lists.extend.calibration import POOL, Calibration, calibrate_on
from holdfast.lists.extend.labels import Translator
from holdfast.lists.extend.rounds import Run, finish
from holdfast.lists.extend.settings import Engine, Mode, OnInconsistent, Presentation, Relabel, Settings
from holdfast.lists.oracle import Oracle


def extrapolate(
    f: Callable[..., Any],
    capacity: int,
    *,
    mode: Mode = "auto",
    engine: Engine = "auto",
    votes: int = 1,
    presentation: Presentation = "auto",
    on_inconsistent: OnInconsistent = "raise",
    relabel: Relabel | None = None,
    placeholders: Sequence[Any] | None = None,
    calibrate: int | None = None,
    seed: int = 0,
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
        f: list -> list (or text -> text); or a coroutine function; or an `Oracle` of a function, which says how it is
            asked: many lists at once, within a budget, with a cache or a time limit, with a key to its elements.
        capacity: most elements that `f` may be shown; at least 2, and in mode auto at least 3.
        mode: see above. With votes, `auto` means group.
        engine: see above.
        votes: how often every pair of values is asked for, each time among other values and anew; more than 1 for a
            function that errs.
        presentation: in which order its votes are asked for. `"given"`: as elements stand in the list. `"both"`: every
            second time the other way round, for a function that is meant to compare values and nothing else, such as a
            judge, which may yet favour what comes first. `"auto"`: the other way round as well where a pair has
            several votes and no element occurs twice; what turns with the list is put down to the function if it looks
            like a function's, and else to a bias that the two orders cancel.
        on_inconsistent: what to do where no list fits the answers. `"raise"`: an error. `"repair"`: the list with the
            fewest votes against it, without the answers that break a law. `"return"`: the same, and an `Extension`
            without output where even that does not exist. With the engine `blocks` a function that errs is asked few
            questions, and its neighbours in the result once more among others; with other engines each pair `votes`
            times.
        relabel: show `f` placeholders instead of the elements. `"any"`: it is blind to values, and the answer to two
            of them settles every list. `"rank"`: it only compares values, and two answers do.
        placeholders: what is shown then, in increasing order; `None`: 0 to 4, for texts a to e.
        calibrate: how many lists are tried before the first list is extended; 0: none; `None`: 24 in mode auto, else 0.
            Where there is nothing to choose by, mode auto is mode group.
        seed: of the lists that are tried, and of the sublists for votes.

    Returns:
        The extension, which can be called, with `explain`, `batch` and `calibration`.

    Errors:
        ArgumentError: an argument is out of range, a list has duplicates in mode distinct, or two values have too many
            copies for mode group.
        NotExtendable: `f` was seen to break the rule that the mode rests on.
        AlienValue, WrongMultiplicity, Cycle: no filter-equivariant function gives such answers.
        OutOfBudget: more queries are needed than allowed; without a budget, than a million.
        BadAnswer: an answer is no list.
        Undetermined: so many votes are unusable that the order of some values is open.

    Source: the amalgamation of arXiv 2507.08796, derived in docs/systems/lists.md.
    """
    settings = Settings(
        capacity, mode, engine, votes, presentation, on_inconsistent, relabel, placeholders, calibrate, seed
    )
    oracle = Oracle.of(f)
    if oracle.capacity is not None and oracle.capacity < capacity:
        raise ArgumentError("capacity", f"at most {oracle.capacity}, the capacity of the oracle", capacity)
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
        extension: Extension = self.explain_batch([xs])[0]
        return extension

    def batch(self, lists: Iterable[Any], *, return_exceptions: bool = False) -> list[Any]:
        """The answers to several lists, which go forward together: each round is one batch of questions.

        Arguments:
            lists: the lists.
            return_exceptions: where a list has an error, put it in place of the answer, and go on with the others.
        """
        results = self.explain_batch(lists, return_exceptions=return_exceptions)
        return [result.output if isinstance(result, Extension) else result for result in results]

    def explain_batch(self, lists: Iterable[Any], *, return_exceptions: bool = False) -> list[Any]:
        """The same as `batch`, with what each answer rests on."""
        if not isinstance(lists, Iterable):
            raise ArgumentError("lists", "lists", type(lists).__name__)
        runs = [Run.of(xs, self.oracle.key, return_exceptions) for xs in lists]
        if runs and self._settings.lists_to_try:
            self._calibrate(max(runs, key=lambda run: run.translator.size))
        for run in runs:
            if run.result is None:
                with run.guarded():
                    prepare(run, self._settings, self._mode, self.oracle.max_queries)
        try:
            finish(runs, self.oracle, tolerant=self._settings.by_votes)
        except OutOfBudget as error:
            hint = error.hint or "a larger capacity, or engine='blocks', needs fewer"
            raise OutOfBudget(error.budget, error.needed, hint) from None
        return [self._counted(run) for run in runs]

    @property
    def _mode(self) -> Mode:
        """What calibration has settled on, or the mode that was named."""
        mode = self._settings.mode_to_try
        if mode != "auto":
            return mode
        return "group" if self.calibration is None else self.calibration.mode

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

    def _calibrate(self, run: Run) -> None:
        """Try the function on lists of the values of this one, unless as many were tried before."""
        settings, translator = self._settings, run.translator
        if settings.relabel is not None:
            translator = placeholders_of(settings, run.is_text)
        most = settings.capacity if settings.mode == "distinct" else POOL
        if self.calibration is not None and self.calibration.values >= min(most, translator.size):
            return
        if translator.size == 0:
            return
        rng = np.random.default_rng(settings.seed)
        chosen = np.sort(rng.permutation(translator.size)[:most]).tolist()
        key = self.oracle.key if settings.relabel is None else None
        pool = Translator([translator.values[label] for label in chosen], key, run.is_text)
        self.calibration = calibrate_on(self._answers, pool, settings)

    def _answers(self, queries: list[Any], fresh: bool) -> list[list[Any]]:
        if not self._settings.by_votes:
            return self.oracle.ask(queries, fresh=fresh)
        # What is no answer is an answer that fits nothing.
        answers = self.oracle.attempt(queries, fresh=fresh)
        return [[answer] if isinstance(answer, BadAnswer) else answer for answer in answers]
