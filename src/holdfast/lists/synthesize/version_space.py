"""What examples alone say about a filter-equivariant function: its answers on pairs of values, and what follows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, islice, product
from typing import Any

from holdfast.errors import ArgumentError
from holdfast.lists.errors import AlienValue, Cycle, ListFunctionError, Undetermined, WrongMultiplicity, show
from holdfast.lists.synthesize.words import Circle, Word, before, glue, restrict
from holdfast.lists.values import Alphabet, as_given

Example = tuple[Sequence[Any], Sequence[Any]]

CANDIDATES = 10
"""Answers that are called few."""
TRIANGLE_LABELS = 100
"""Values whose triples are searched where there are very many pairs."""
TRIANGLES = 100_000
"""Triples of known pairs that are searched for a circle among several examples."""


class Contradiction(ListFunctionError):
    """Two examples disagree about the same list: with values deleted from both, no answer fits both.

    Arguments:
        query: the list that is left of both.
        first: an example, and what is left of its answer.
        second: another one.
    """

    def __init__(
        self, query: Sequence[Any], first: tuple[Example, Sequence[Any]], second: tuple[Example, Sequence[Any]]
    ) -> None:
        super().__init__(query, first, second)
        self.query, self.first, self.second = query, first, second

    def __str__(self) -> str:
        sides = [
            f"{show(answer)}, since {show(example[0])} gives {show(example[1])}"
            if list(example[0]) != list(self.query)
            else f"{show(answer)}, as given"
            for example, answer in (self.first, self.second)
        ]
        return f"the examples break the law of deletion: {show(self.query)} gives {sides[0]}; and {sides[1]}"


@dataclass(frozen=True)
class VersionSpace:
    """The filter-equivariant functions that agree with examples.

    An example gives away the answers on every part of its list that keeps some values and drops the others. So all that
    is known is how many copies of a value come out (`counts`), and how two values are interleaved (`pair_words`).

    Arguments:
        examples: lists with their answers.
        alphabet: the values of these lists.
        labelled: the examples as labels.
        counts: by label and its copies in a list: copies in the answer, and the number of an example that shows it.
        pair_words: by a list of two labels: the answer, and the number of an example that shows it.
    """

    examples: tuple[Example, ...]
    alphabet: Alphabet
    labelled: tuple[tuple[Word, Word], ...]
    counts: Mapping[tuple[int, int], tuple[int, int]] = field(repr=False)
    pair_words: Mapping[Word, tuple[Word, int]] = field(repr=False)

    def predict(self, xs: Sequence[Any]) -> Any:
        """The one answer to a list that the examples leave, in the type of the list.

        Errors:
            Undetermined: there are more; with the lists that are missing and, where they are few, the candidates.
            ListFunctionError: there is none; a `Cycle`, where three known answers on pairs show it.
        """
        alphabet = Alphabet([x for given, _ in self.examples for x in given] + list(xs))
        word: Word = tuple(alphabet.labels[len(alphabet.labels) - len(xs) :].tolist())
        labels = sorted(set(word))
        counts = {x: self.counts.get((x, word.count(x))) for x in labels}
        pairs = {pair: restrict(word, pair) for pair in combinations(labels, 2)}
        missing = [part for part in pairs.values() if part not in self.pair_words]
        if len(labels) == 1 and counts[labels[0]] is None:
            missing = [word]
        sizes = {x: known[0] for x, known in counts.items() if known is not None}
        known_words = {pair: self.pair_words[part][0] for pair, part in pairs.items() if part in self.pair_words}
        if not missing:
            glued = glue(sizes, known_words)
            if isinstance(glued, Circle):
                raise self._cycle(glued, pairs)
            return as_given(xs, alphabet.decode(glued))
        gaps = [alphabet.decode(part) for part in missing]
        if len(sizes) < len(labels):
            raise Undetermined(gaps)
        candidates = list(islice(_orders(sizes, known_words), CANDIDATES + 1))
        if not candidates:
            raise ListFunctionError(f"no list fits: what the examples say of {show(xs)} goes round in a circle")
        if len(candidates) == 1:
            return as_given(xs, alphabet.decode(candidates[0]))
        raise Undetermined(
            gaps, [alphabet.decode(candidate) for candidate in candidates] if len(candidates) <= CANDIDATES else []
        )

    def _cycle(self, circle: Circle, pairs: Mapping[tuple[int, int], Word]) -> Cycle:
        """The error for three tokens, with the pair answers that order them."""
        values = self.alphabet.values
        answers = []
        for s, t in zip(circle.tokens, circle.tokens[1:] + circle.tokens[:1], strict=True):
            part = pairs[min(s[0], t[0]), max(s[0], t[0])]
            answers.append((self.alphabet.decode(part), self.alphabet.decode(self.pair_words[part][0])))
        (x, a), (y, b), (z, c) = circle.tokens
        return Cycle(((values[x], a), (values[y], b), (values[z], c)), tuple(answers))

    def check_triples(self) -> None:
        """Look for three pairs of values, from several examples, whose answers go round in a circle.

        Errors:
            Cycle: there are such; no filter-equivariant function agrees with the examples.
        """
        parts: dict[tuple[int, int], list[Word]] = {}
        # Of very many pairs those of the first values make as many triples as are searched.
        most = TRIANGLE_LABELS if len(self.pair_words) > TRIANGLES else len(self.alphabet.values)
        for part in self.pair_words:
            if part[0] >= most or part[-1] >= most:
                continue
            x, y = part if len(part) == 2 else set(part)
            if x >= most or y >= most:
                continue
            parts.setdefault((x, y) if x < y else (y, x), []).append(part)
        for pairs in islice(_triples(parts), TRIANGLES):
            if len({self.pair_words[part][1] for part in pairs.values()}) == 1:
                continue
            labels = sorted({x for pair in pairs for x in pair})
            whole = glue({x: _copies(x, pairs) for x in labels}, pairs)
            if isinstance(whole, Circle):
                continue  # no list has these three parts
            answers = {pair: self.pair_words[part][0] for pair, part in pairs.items()}
            glued = glue({x: _copies(x, answers) for x in labels}, answers)
            if isinstance(glued, Circle):
                raise self._cycle(glued, pairs)


class PairsOf(Mapping[Word, tuple[Word, int]]):
    """The pair words of one example, found when they are wanted: there are half a million on a thousand values.

    Arguments:
        word: labels of the list.
        answered: labels of its answer.
    """

    def __init__(self, word: Word, answered: Word) -> None:
        self._places, self._answer_places = _places(word), _places(answered)

    def __getitem__(self, part: Word) -> tuple[Word, int]:
        labels = set(part)
        if len(labels) == 2:
            x, y = labels
            if x in self._places and y in self._places and _restricted(x, y, self._places) == part:
                return _restricted(x, y, self._answer_places), 0
        raise KeyError(part)

    def __iter__(self) -> Iterator[Word]:
        return (_restricted(x, y, self._places) for x, y in combinations(sorted(self._places), 2))

    def __len__(self) -> int:
        return len(self._places) * (len(self._places) - 1) // 2


def version_space(examples: Sequence[Example]) -> VersionSpace:
    """Learn from examples.

    Arguments:
        examples: lists with their answers.

    Errors:
        AlienValue: an answer holds a value that its list did not.
        WrongMultiplicity: as many copies of a value went in, and not as many came out.
        Contradiction: two examples say different things about the same list, after deletion of values.
        Cycle: three answers on pairs, from several examples, go round in a circle.
    """
    alphabet = Alphabet([x for given, _ in examples for x in given])
    labelled: list[tuple[Word, Word]] = []
    counts: dict[tuple[int, int], tuple[int, int]] = {}
    eager: dict[Word, tuple[Word, int]] = {}
    pair_words: Mapping[Word, tuple[Word, int]] = eager
    wholes: dict[Word, int] = {}
    for number, (given, answer) in enumerate(examples):
        start = sum(len(earlier_list) for earlier_list, _ in examples[:number])
        word: Word = tuple(alphabet.labels[start : start + len(given)].tolist())
        answered: Word = tuple(alphabet.encode(answer).tolist())
        kept = set(word)
        for label, value in zip(answered, answer, strict=True):
            if label not in kept:
                raise AlienValue(given, answer, value)
        labelled.append((word, answered))
        earlier = wholes.setdefault(word, number)
        if answered != labelled[earlier][1]:
            raise Contradiction(given, (examples[earlier], examples[earlier][1]), (examples[number], answer))
        labels = sorted(set(word))
        for x in labels:
            copies, shown = counts.setdefault((x, word.count(x)), (answered.count(x), number))
            if copies != answered.count(x):
                raise WrongMultiplicity(alphabet.values[x], examples[shown], examples[number])
        if len(examples) == 1:
            pair_words = PairsOf(word, answered)
            break
        places, answer_places = _places(word), _places(answered)
        for part, rest in _parts(labels, places, answer_places):
            known, shown = eager.setdefault(part, (rest, number))
            if known != rest:
                raise Contradiction(
                    alphabet.decode(part),
                    (examples[shown], alphabet.decode(known)),
                    (examples[number], alphabet.decode(rest)),
                )
    space = VersionSpace(tuple(examples), alphabet, tuple(labelled), counts, pair_words)
    if len(examples) > 1:
        space.check_triples()
    return space


def as_examples(examples: Sequence[Example]) -> list[Example]:
    """Examples as they were given, or an error that says what is wrong with them."""
    plain_examples: list[Example] = []
    if not isinstance(examples, Iterable):
        raise ArgumentError("examples", "pairs (list, its answer)", examples)
    for number, example in enumerate(examples):
        if not isinstance(example, tuple | list) or len(example) != 2:
            raise ArgumentError(f"examples[{number}]", "a pair (list, its answer)", example)
        sides: list[Sequence[Any]] = []
        for side in example:
            plain = side.tolist() if hasattr(side, "tolist") else side
            if not isinstance(plain, list | tuple | str):
                raise ArgumentError(f"examples[{number}]", "two lists, tuples or texts", type(side).__name__)
            sides.append(plain)
        plain_examples.append((sides[0], sides[1]))
    if not plain_examples:
        raise ArgumentError("examples", "at least one pair (list, its answer)", "none")
    return plain_examples


def _places(word: Word) -> dict[int, list[int]]:
    """Where each label occurs."""
    places: dict[int, list[int]] = {}
    for place, label in enumerate(word):
        places.setdefault(label, []).append(place)
    return places


def _parts(
    labels: Sequence[int], places: Mapping[int, list[int]], answer_places: Mapping[int, list[int]]
) -> Iterator[tuple[Word, Word]]:
    """What is left of a list and of its answer, for every two labels."""
    ways = places, answer_places
    if all(len(way) == len(labels) and all(len(at) == 1 for at in way.values()) for way in ways):
        # A permutation of a list without duplicates: half a million pairs on a thousand labels.
        given, answered = ({label: at[0] for label, at in way.items()} for way in ways)
        for number, x in enumerate(labels):
            here, there = given[x], answered[x]
            for y in labels[number + 1 :]:
                forth, back = (x, y), (y, x)
                yield forth if here < given[y] else back, forth if there < answered[y] else back
        return
    for x, y in combinations(labels, 2):
        yield _restricted(x, y, places), _restricted(x, y, answer_places)


def _restricted(x: int, y: int, places: Mapping[int, list[int]]) -> Word:
    """As `restrict` to two labels, in time of what is left."""
    of_x, of_y = places.get(x, ()), places.get(y, ())
    if len(of_x) == 1 == len(of_y):
        return (x, y) if of_x[0] < of_y[0] else (y, x)
    ordered = sorted([*((place, x) for place in of_x), *((place, y) for place in of_y)])
    return tuple([label for _, label in ordered])


def _copies(label: int, words: Mapping[tuple[int, int], Word]) -> int:
    return next(word.count(label) for pair, word in words.items() if label in pair)


def _triples(parts: Mapping[tuple[int, int], list[Word]]) -> Iterator[dict[tuple[int, int], Word]]:
    """Known lists on the three pairs of three labels, with one count of copies of each label."""
    labels = sorted({label for pair in parts for label in pair})
    for (x, y), firsts in parts.items():
        for z in (label for label in labels if label > y):
            if (x, z) not in parts or (y, z) not in parts:
                continue
            for xy, xz, yz in product(firsts, parts[x, z], parts[y, z]):
                if xy.count(x) == xz.count(x) and xy.count(y) == yz.count(y) and xz.count(z) == yz.count(z):
                    yield {(x, y): xy, (x, z): xz, (y, z): yz}


def _orders(counts: Mapping[int, int], known: Mapping[tuple[int, int], Word]) -> Iterator[Word]:
    """All words with these copies of each label and these restrictions to pairs."""
    used = dict.fromkeys(counts, 0)
    length = sum(counts.values())
    word: list[int] = []

    def free() -> list[int]:
        """The labels whose next copy may come now: nothing that is left has to come before it."""
        left = [x for x in counts if used[x] < counts[x]]
        return [
            x
            for x in left
            if not any(
                before((y, used[y]), (x, used[x]), known) for y in left if y != x and (min(x, y), max(x, y)) in known
            )
        ]

    def take(x: int) -> None:
        used[x] += 1
        word.append(x)

    def grow() -> Iterator[Word]:
        if len(word) == length:
            yield tuple(word)
        for x in free():
            take(x)
            yield from grow()
            used[word.pop()] -= 1

    # Where any one way gets stuck there is a circle, and all of them do; else none does.
    while now := free():
        take(now[0])
    stuck = len(word) < length
    used.update(dict.fromkeys(counts, 0))
    word.clear()
    return iter(()) if stuck else grow()
