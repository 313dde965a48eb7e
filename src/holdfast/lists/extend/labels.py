"""Answers as labels, and the two laws that every answer of a filter-equivariant function keeps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import numpy as np

from holdfast.lists.errors import AlienValue, Cycle, NotExtendable, WrongMultiplicity
from holdfast.lists.extend.pairs import Labels
from holdfast.lists.values import Alphabet, Key


class Translator:
    """Between lists as the function sees them and labels.

    Arguments:
        elements: the list whose values get labels 0, 1, 2, ...
        key: what decides whether elements are the same value.
        text: the function sees texts.
    """

    def __init__(self, elements: Sequence[Any], key: Key, text: bool) -> None:
        self._alphabet = Alphabet(elements, key)
        self._text = text
        self.labels = self._alphabet.labels
        self.values: list[Any] = list(self._alphabet.values)
        """The values by label, then the aliens that answers held."""
        self.size = len(self.values)
        """Number of values."""

    def query(self, labels: Labels) -> Any:
        """A list of labels as the function sees it."""
        elements = self.show(labels)
        return "".join(elements) if self._text else elements

    def show(self, labels: Labels) -> list[Any]:
        """A list of labels as values; a label that stands for none, as itself."""
        values, plain = self.values, labels.tolist()
        try:
            return [values[label] for label in plain]
        except IndexError:
            return [values[label] if label < len(values) else label for label in plain]

    def read(self, answers: Sequence[Sequence[Any]]) -> list[Labels]:
        """Answers as labels; values that are none of the list's get labels from `size`."""
        flat = list(chain.from_iterable(answers))
        labels = self._alphabet.encode(flat)
        for place in np.flatnonzero(labels < 0).tolist():
            labels[place] = self._alien(flat[place])
        ends = np.cumsum([len(answer) for answer in answers]).tolist()
        return [labels[end - len(answer) : end] for end, answer in zip(ends, answers, strict=True)]

    def _alien(self, value: Any) -> int:
        for label in range(self.size, len(self.values)):
            if type(self.values[label]) is type(value) and repr(self.values[label]) == repr(value):
                return label
        self.values.append(value)
        return len(self.values) - 1


class Laws:
    """Checks that answers hold no values but the list's, and of each value always as many copies.

    For lists each of which holds a value either not at all or as often as all others do that hold it.

    Arguments:
        translator: what labels stand for in errors.
    """

    def __init__(self, translator: Translator) -> None:
        self._translator = translator
        self._copies = np.full(translator.size, -1, dtype=np.int64)
        self._shown: dict[int, tuple[Labels, Labels]] = {}

    def check(self, queries: Sequence[Labels], answers: Sequence[Labels]) -> None:
        """Check some answers.

        Errors:
            AlienValue, WrongMultiplicity: an answer breaks a law.
        """
        if not queries:
            return
        size = max(len(self._translator.values), 1)
        asked, answered = (_numbered(lists, size) for lists in (queries, answers))
        names = np.unique(asked)
        at = np.searchsorted(names, answered)
        alien = (
            (at == len(names)) | (names[np.minimum(at, len(names) - 1)] != answered) if len(names) else answered >= 0
        )
        if alien.any():
            query, label = divmod(int(answered[np.argmax(alien)]), size)
            raise AlienValue(*self._both(queries[query], answers[query]), self._translator.values[label])
        copies = np.bincount(at, minlength=len(names))
        query_of, label_of = np.divmod(names, size)
        new = np.flatnonzero(self._copies[label_of] < 0)
        labels, first = np.unique(label_of[new], return_index=True)
        self._copies[labels] = copies[new[first]]
        for label, query in zip(labels.tolist(), query_of[new[first]].tolist(), strict=True):
            self._shown[label] = queries[query], answers[query]
        wrong = np.flatnonzero(copies != self._copies[label_of])
        if len(wrong):
            label, query = int(label_of[wrong[0]]), int(query_of[wrong[0]])
            first_seen, second = self._both(*self._shown[label]), self._both(queries[query], answers[query])
            raise WrongMultiplicity(self._translator.values[label], first_seen, second)

    def _both(self, query: Labels, answer: Labels) -> tuple[list[Any], list[Any]]:
        return self._translator.show(query), self._translator.show(answer)


def _numbered(lists: Sequence[Labels], size: int) -> Labels:
    """All labels of some lists, each with the number of its list."""
    number = np.repeat(np.arange(len(lists)), [len(labels) for labels in lists])
    return np.asarray(number * size + np.concatenate([np.zeros(0, dtype=np.int64), *lists]))


def in_values(error: Cycle | NotExtendable, show: Callable[[Any], list[Any]]) -> Cycle | NotExtendable:
    """An error about labels, as one about values.

    Arguments:
        error: the error.
        show: labels to values.
    """
    if isinstance(error, NotExtendable):
        return NotExtendable(error.rule, *(show(np.asarray(xs, int)) for xs in (error.query, error.want, error.got)))
    first, second, third = ((show(np.array([label]))[0], copy) for label, copy in error.tokens)
    answers = ((show(np.asarray(query)), show(np.asarray(answer))) for query, answer in error.answers)
    return Cycle((first, second, third), tuple(answers))
