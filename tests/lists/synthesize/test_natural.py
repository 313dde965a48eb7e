"""Natural filter-equivariant functions: the law, the normal form, and their algebra."""

from __future__ import annotations

import random
from itertools import islice, product
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import ArgumentError
from holdfast.lists.errors import Cycle
from holdfast.lists.synthesize.natural import (
    EMPTY,
    IDENTITY,
    REVERSE,
    Block,
    Natural,
    inflate,
    natural,
    natural_sums,
    natural_words,
)
from holdfast.lists.synthesize.words import Circle, glue, rows, three_cycle, two_letter_words, words_with

COUNTS = [1, 2, 6, 18, 54, 162, 486, 1458]
"""By multiplicity, from 0: 2 * 3 ** (k - 1)."""

blocks = st.builds(Block, st.integers(1, 3), st.booleans())
naturals = st.builds(Natural, st.lists(blocks, max_size=3).map(tuple))
lists = st.lists(st.integers(0, 4), max_size=7)


def extends(word) -> bool:
    """Whether a word on 0 and 1 extends to three values: by looking for the list itself."""
    return any(
        all(
            tuple(int(x == high) for x in whole if x in (low, high)) == tuple(word)
            for low, high in ((0, 1), (1, 2), (0, 2))
        )
        for whole in words_with((sum(word),) * 3)
    )


@pytest.mark.parametrize("k", range(8))
def test_law_and_normal_form_agree(k):
    by_law, by_form = list(natural(k)), list(natural_sums(k))
    assert len(by_law) == len(by_form) == COUNTS[k]
    assert set(by_law) == set(by_form)
    assert all(f.multiplicity == k for f in by_form)


@pytest.mark.parametrize("k", range(4))
def test_words_are_those_that_extend_to_three_values(k):
    words = [word for word in two_letter_words(k, k) if extends(word)]
    assert words == list(natural_words(k))
    assert len(list(two_letter_words(k, k))) == comb(2 * k, k)


def test_the_first_words_that_extend_to_nothing():
    left_out = set(two_letter_words(3, 3)) - set(natural_words(3))
    assert {"".join(map(str, word)) for word in left_out} == {"001011", "110100"}
    assert all(len(list(natural_words(k))) == comb(2 * k, k) for k in range(3))


@pytest.mark.parametrize("word", ["001011", "110100", "0010110101"])
def test_a_word_without_a_function_has_a_cycle(word):
    with pytest.raises(Cycle, match="no list fits") as caught:
        Natural.from_word(word)
    tokens, answers = caught.value.tokens, caught.value.answers
    assert len({value for value, _ in tokens}) == 3
    for (x, a), (y, b) in zip(tokens, tokens[1:] + tokens[:1], strict=True):
        answer = next(answer for query, answer in answers if set(query) == {x, y})
        places = [[i for i, z in enumerate(answer) if z == value][copy] for value, copy in ((x, a), (y, b))]
        assert places[0] < places[1]


@given(naturals)
def test_a_word_gives_the_function_back(f):
    assert Natural.from_word(f.word) == f
    assert Natural.from_word("".join(map(str, f.word))) == f


@given(naturals, lists, st.integers(0, 4), st.integers(-3, 3), st.integers(2, 3))
def test_naturals_obey_both_laws(f, xs, value, shift, modulus):
    assert f([x for x in xs if x != value]) == [y for y in f(xs) if y != value]
    assert f([(x + shift) % modulus for x in xs]) == [(y + shift) % modulus for y in f(xs)]


@given(naturals, naturals, lists)
def test_sum_and_composition_are_those_of_the_functions(f, g, xs):
    assert (f + g)(xs) == f(xs) + g(xs)
    assert (f @ g)(xs) == f(g(xs))
    assert (f @ g).multiplicity == f.multiplicity * g.multiplicity


@given(naturals, naturals, naturals, st.integers(0, 3))
def test_laws_of_the_algebra(f, g, h, m):
    assert f @ IDENTITY == IDENTITY @ f == f + EMPTY == EMPTY + f == f
    assert (f + g) @ h == f @ h + g @ h
    assert (f @ g) @ h == f @ (g @ h)
    assert inflate(m) @ (g + h) == inflate(m) @ g + inflate(m) @ h
    assert REVERSE @ (g + h) == REVERSE @ h + REVERSE @ g
    assert f @ EMPTY == EMPTY @ f == EMPTY


def test_composition_does_not_commute():
    double, palindrome = IDENTITY + IDENTITY, IDENTITY + REVERSE
    assert double @ palindrome == IDENTITY + REVERSE + IDENTITY + REVERSE
    assert palindrome @ double == IDENTITY + IDENTITY + REVERSE + REVERSE
    assert double @ palindrome != palindrome @ double
    assert palindrome @ inflate(2) == inflate(2) @ palindrome == inflate(2) + inflate(2) @ REVERSE


def test_the_laws_hold_for_plain_functions_on_random_lists():
    rng = random.Random(0)

    def reverse(xs):
        return xs[::-1]

    def twice(xs):
        return [x for x in xs for _ in range(2)]

    def double(xs):
        return xs + xs

    def palindrome(xs):
        return xs + xs[::-1]

    differ = 0
    for _ in range(200):
        xs = [rng.randrange(5) for _ in range(rng.randrange(8))]
        g, h = double(xs), palindrome(xs)
        assert reverse(g + h) == reverse(h) + reverse(g)
        assert twice(g + h) == twice(g) + twice(h)
        assert palindrome(twice(xs)) == twice(palindrome(xs)) == twice(xs) + twice(reverse(xs))
        differ += double(palindrome(xs)) != palindrome(double(xs))
        assert sorted(g) + sorted(h) == sorted(g + h) or len(set(xs)) > 1
    assert differ > 100


def test_distribution_from_the_left_fails_for_sort():
    assert sorted([2, 1, 1, 2]) != sorted([2, 1]) + sorted([1, 2])


@given(naturals, lists)
def test_code_does_the_same(f, xs):
    space: dict = {}
    exec(f.to_python("program"), space)
    assert space["program"](xs) == f(xs)


def test_names():
    assert repr(inflate(2) @ REVERSE + IDENTITY) == "inflate 2 . reverse + id"
    assert repr(EMPTY) == "const []"
    assert repr(inflate(3) + REVERSE) == "inflate 3 + reverse"
    assert (EMPTY.size, REVERSE.size, (inflate(2) @ REVERSE + IDENTITY).size) == (1, 1, 3)


def test_what_comes_in_comes_out():
    f = IDENTITY + REVERSE
    assert f("abc") == "abccba"
    assert f((1, 2)) == (1, 2, 2, 1)
    xs = [[1], [2]]
    assert IDENTITY(xs) == xs
    assert IDENTITY(xs) is not xs


@pytest.mark.parametrize("word", ["0", "012", "0x", [0, 0, 1], "00"])
def test_bad_words(word):
    with pytest.raises(ArgumentError, match="word: expected as many zeros as ones"):
        Natural.from_word(word)


def test_bad_multiplicities():
    with pytest.raises(ArgumentError, match="k: expected"):
        natural(-1)
    with pytest.raises(ArgumentError, match="multiplicity: expected"):
        Block(0)
    with pytest.raises(ArgumentError, match="multiplicity: expected"):
        inflate(True)


@pytest.mark.parametrize("counts", [(1, 1, 1), (2, 1, 1), (2, 2, 1), (2, 2, 2), (3, 2, 0)])
def test_glue_finds_the_word_or_a_circle(counts):
    pairs = ((0, 1), (0, 2), (1, 2))
    by_shadow = {tuple(tuple(x for x in word if x in pair) for pair in pairs): word for word in words_with(counts)}
    for words in product(*(list(two_letter_words(counts[i], counts[j])) for i, j in pairs)):
        named = tuple(tuple(pair[x] for x in word) for pair, word in zip(pairs, words, strict=True))
        found = glue(dict(enumerate(counts)), dict(zip(pairs, named, strict=True)))
        circle = three_cycle(rows(words[0]), rows(words[2]), rows(words[1]))
        if named in by_shadow:
            assert found == by_shadow[named]
            assert circle is None
        else:
            assert isinstance(found, Circle)
            assert circle is not None
            for tokens in (found.tokens, circle):
                for (x, a), (y, b) in zip(tokens, tokens[1:] + tokens[:1], strict=True):
                    word = named[pairs.index((min(x, y), max(x, y)))]
                    at = {x: [i for i, z in enumerate(word) if z == x], y: [i for i, z in enumerate(word) if z == y]}
                    assert at[x][a] < at[y][b]


def test_iterators_are_lazy():
    assert len(list(islice(natural_sums(40), 5))) == 5
    assert len(list(islice(natural(12), 5))) == 5
