"""Words over labels, and when words on pairs of values are the shadows of one word.

A word is a list of labels. What a filter-equivariant function answers on two values is a word on two labels, a *pair
word*; its answer on more values is the one word whose restrictions to two labels are these. Pair words have such a
word, they *glue*, if and only if no three of their tokens go round in a circle.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from holdfast.lists.tokens import Token, circle_through

Word = tuple[int, ...]


@dataclass(frozen=True)
class Circle:
    """Three tokens, each of which comes before the next, and the last before the first."""

    tokens: tuple[Token, Token, Token]


def restrict(word: Sequence[int], labels: Collection[int]) -> Word:
    """What is left of a word where only some labels stay."""
    return tuple(label for label in word if label in labels)


def two_letter_words(zeros: int, ones: int) -> Iterator[Word]:
    """All words with so many zeros and ones, in lexicographic order."""
    for places in combinations(range(zeros + ones), zeros):
        here = set(places)
        yield tuple(0 if place in here else 1 for place in range(zeros + ones))


def words_with(counts: Sequence[int]) -> Iterator[Word]:
    """All words with `counts[label]` copies of each label, in lexicographic order."""
    left = list(counts)
    word: list[int] = []

    def grow() -> Iterator[Word]:
        if len(word) == sum(counts):
            yield tuple(word)
        for label, copies in enumerate(left):
            if copies:
                left[label] -= 1
                word.append(label)
                yield from grow()
                word.pop()
                left[label] += 1

    return grow()


def rows(word: Word) -> tuple[int, ...]:
    """Which ones of a word on 0 and 1 follow each of its zeros: bit b of row a says that zero a comes before one b."""
    ones = sum(word)
    following, passed = [], 0
    for letter in word:
        if letter:
            passed += 1
        else:
            following.append((1 << ones) - (1 << passed))
    return tuple(following)


def three_cycle(
    xy: tuple[int, ...], yz: tuple[int, ...], xz: tuple[int, ...]
) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]] | None:
    """Three tokens that go round in a circle, or `None`: then the three words glue.

    Arguments:
        xy: rows of the pair word of values 0 and 1, with 0 as its zero.
        yz: the same of values 1 and 2.
        xz: the same of values 0 and 2.

    Returns:
        Tokens of the values 0, 1 and 2, each of which comes before the next, and the last before the first.

    Source: a tournament without 3-cycles is transitive.
    """
    for a, later in enumerate(xy):
        for b, after in enumerate(yz):
            if later >> b & 1:
                wrong = after & ~xz[a]
                if wrong:
                    return (0, a), (1, b), (2, _lowest(wrong))
            else:
                wrong = xz[a] & ~after
                if wrong:
                    return (0, a), (2, _lowest(wrong)), (1, b)
    return None


def _lowest(bits: int) -> int:
    return (bits & -bits).bit_length() - 1


def glue(counts: Mapping[int, int], pair_words: Mapping[tuple[int, int], Word]) -> Word | Circle:
    """The word with given restrictions to two labels, or a circle that shows that there is none.

    The place of a token is the number of tokens before it, which is read off the pair words.

    Arguments:
        counts: copies of each label.
        pair_words: for each pair of labels, the smaller first, the word on them; it holds as many copies as `counts`.
    """
    place = {label: list(range(copies)) for label, copies in counts.items()}
    for x, y in pair_words:
        seen = {x: 0, y: 0}
        for label in pair_words[x, y]:
            place[label][seen[label]] += seen[y if label == x else x]
            seen[label] += 1
    at: dict[int, Token] = {}
    for label, places in place.items():
        for copy, here in enumerate(places):
            if here in at:
                s, t = at[here], (label, copy)
                return Circle(circle_through(s, t, lambda token: _before(token, counts, pair_words)))
            at[here] = (label, copy)
    return tuple(at[here][0] for here in range(len(at)))


def _before(token: Token, counts: Mapping[int, int], pair_words: Mapping[tuple[int, int], Word]) -> dict[int, int]:
    """How many tokens of each label stand before a token."""
    x, copy = token
    here = {
        y: _place(pair_words[(x, y) if x < y else (y, x)], x, copy) - copy if copies and y != x else 0
        for y, copies in counts.items()
    }
    return {**here, x: copy}


def before(s: Token, t: Token, pair_words: Mapping[tuple[int, int], Word]) -> bool:
    """Whether one token comes before another one."""
    (x, a), (y, b) = s, t
    if x == y:
        return a < b
    word = pair_words[(x, y) if x < y else (y, x)]
    return _place(word, x, a) < _place(word, y, b)


def _place(word: Word, label: int, copy: int) -> int:
    return [place for place, letter in enumerate(word) if letter == label][copy]
