"""The first k of an order that is only known through answers about a few elements at a time.

What the answers so far say is a partial order. An element with k others known to be before it is out; an element that
nothing is known to be before is a head. Heads are compared with each other in whole windows, as in a tournament whose
matches have many players, until few are left; then each window holds the elements with the fewest known to be before
them, which are the likeliest to come next.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from holdfast.errors import count_of


class Selection:
    """Finds the first k of some elements, numbered from 0.

    Ask for `windows()`, tell each answer to `learn`, and go on until `done`.

    Arguments:
        sizes: for each element, how many of the k places it takes: more than 1 for equal elements that stand together.
        k: places to fill, at least 1.
        capacity: most elements of a window, at least 2.

    Errors:
        ArgumentError: `k` or `capacity` is too small.

    Source: this project's own. At least (n - 1) / (w - 1) windows of w are needed to find even the first of n, since
    each joins at most w elements; for k up to about w this needs a few more.
    """

    def __init__(self, sizes: Sequence[int], k: int, capacity: int) -> None:
        self.best: list[int] = []
        """What is known to be first, in order."""
        self.contradictions = 0
        """Pairs that an answer ordered otherwise than the answers before it."""
        self._sizes = sizes
        self._left = count_of("k", k, 1)
        self._capacity = count_of("capacity", capacity, 2)
        self._above: dict[int, set[int]] = {element: set() for element in range(len(sizes))}
        self._below: dict[int, set[int]] = {element: set() for element in range(len(sizes))}
        self._heads = dict.fromkeys(range(len(sizes)))
        self._settle()

    @property
    def done(self) -> bool:
        """Whether `best` is complete: it fills k places, or holds all elements."""
        return self._left <= 0 or not self._above

    def windows(self) -> list[list[int]]:
        """Elements to be ordered next, each window by itself, and none in two of them."""
        heads = list(self._heads)
        full = len(heads) // self._capacity
        if full:
            return [heads[start : start + self._capacity] for start in range(0, full * self._capacity, self._capacity)]
        by_hope = sorted(self._above, key=lambda element: (len(self._above[element]), -len(self._below[element])))
        return [by_hope[: self._capacity]]

    def fit(self, answer: Sequence[int]) -> list[int]:
        """An answer without what earlier answers contradict: the order closest to its front that keeps to them."""
        rest = [element for element in answer if element in self._above]
        fitted: list[int] = []
        while rest:
            inside = set(rest)
            # The order that is known has no circles, so that some element has nothing before it.
            chosen = next(element for element in rest if not self._above[element] & inside)
            rest.remove(chosen)
            fitted.append(chosen)
        return fitted

    def learn(self, answer: Sequence[int]) -> None:
        """Take in an answer: a window, first to last. Where it contradicts earlier ones, they hold."""
        fitted = self.fit(answer)
        place = {element: at for at, element in enumerate(fitted)}
        given = [place[element] for element in answer if element in place]
        self.contradictions += sum(later < earlier for at, earlier in enumerate(given) for later in given[at + 1 :])
        before: set[int] = set()
        for element in fitted:
            if before - self._above[element]:
                self._heads.pop(element, None)
                for other in (element, *self._below[element]):
                    new = before - self._above[other]
                    self._above[other] |= new
                    for earlier in new:
                        self._below[earlier].add(other)
            before = self._above[element] | {element}
        self._drop_hopeless([other for element in fitted for other in (element, *self._below[element])])
        self._settle()

    def _drop_hopeless(self, elements: Iterable[int]) -> None:
        """Forget what has no place left. All that is known to come after it has none either, and goes with it."""
        for element in elements:
            above = self._above.get(element)
            if above is not None and sum(self._sizes[other] for other in above) >= self._left:
                self._remove(element)

    def _settle(self) -> None:
        """Put a head that is alone in the next place."""
        while len(self._heads) == 1 and self._left > 0:
            [head] = self._heads
            self._remove(head)
            self.best.append(head)
            self._left -= self._sizes[head]

    def _remove(self, element: int) -> None:
        self._heads.pop(element, None)
        for other in self._below.pop(element):
            self._above[other].discard(element)
            if not self._above[other]:
                self._heads[other] = None
        for other in self._above.pop(element):
            self._below[other].discard(element)
