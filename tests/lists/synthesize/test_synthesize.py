"""Synthesis from examples: what is left of each class, why others are out, and what is asked next."""

from __future__ import annotations

import random
from collections import Counter
from itertools import chain, product

import pytest

from holdfast.errors import ArgumentError
from holdfast.lists.errors import AlienValue, Cycle, ListFunctionError, Undetermined, WrongMultiplicity
from holdfast.lists.synthesize import (
    CLASSES,
    Contradiction,
    Family,
    Hypothesis,
    natural,
    natural_sums,
    order_natural_sums,
    permutation_type,
    synthesize,
)
from holdfast.lists.synthesize.synthesis import QUESTION_LENGTH
from holdfast.lists.synthesize.terms import BANK_LENGTH, _bank, leaves, search
from holdfast.lists.synthesize.version_space import version_space
from holdfast.lists.values import Alphabet

PALINDROME = [1, 2, 1]


def family(synthesis, name: str) -> Family:
    return next(each for each in synthesis.families if each.name == name)


def runs(hypothesis: Hypothesis, **names):
    space = dict(names)
    exec(hypothesis.code, space)
    return space["f"]


def fits(function, examples) -> bool:
    return all(list(function(list(xs))) == list(ys) for xs, ys in examples)


@pytest.mark.parametrize(
    ("answer", "name"),
    [
        ([1, 2, 1, 2, 2, 1], "id + id + reverse"),
        ([2, 2, 1, 1, 1, 2], "inflate 2 . reverse + id"),
        ([2, 1], "reverse"),
        ([], "const []"),
    ],
)
def test_one_example_that_is_no_palindrome_tells_a_natural_function(answer, name):
    examples = [([1, 2], answer)]
    found = synthesize(examples)
    assert found.best is not None
    assert (found.best.name, found.best.family, found.unique, found.rivals) == (name, "natural", True, ())
    assert fits(found.best, examples)
    assert fits(runs(found.best), examples)
    assert family(found, "natural").total == 1


def test_a_proof_that_no_natural_function_fits():
    found = synthesize([([1, 2], [1, 1, 2, 1, 2, 2])])
    assert found.best is None
    assert not found.unique
    assert found.next_example is None
    assert all(not each.hypotheses and each.reason for each in found.families)
    assert "0 (copy 3) before 1 (copy 2) before 2 before 0 (copy 3)" in family(found, "natural").reason
    text = found.explain()
    assert text.startswith("no function of these classes fits\n  [1, 2] -> [1, 1, 2, 1, 2, 2]\n")
    assert "\nnatural: none of the natural functions of multiplicity 3 can, since on three values no list fits" in text


def test_what_inputs_tell_of_natural_functions():
    """Of all natural functions of multiplicity up to 6."""
    functions = list(chain.from_iterable(natural(k) for k in range(7)))
    assert len(functions) == 729

    def groups(xs):
        return Counter(tuple(f(xs)) for f in functions)

    for xs in ([1, 2], [1, 1, 2], [1, 2, 3]):
        assert len(groups(xs)) == 729
    for xs in ([1, 2, 1], [1, 2, 2, 1]):
        assert len(groups(xs)) == 64
        assert max(groups(xs).values()) == 64
    assert len(groups([1, 1])) == 7
    assert max(groups([1, 1]).values()) == 486


@pytest.mark.parametrize("xs", [PALINDROME, [1, 2, 2, 1], [1, 1], ["a", "b", "a"]])
def test_after_a_palindrome_another_list_is_asked_for(xs):
    for f in random.Random(1).sample(list(natural_sums(4)), 5):
        found = synthesize([(xs, f(xs))], classes=["natural"])
        left = [g for g in natural_sums(4) if g(xs) == f(xs)]
        assert {each.function for each in found.families[0].hypotheses} == set(left)
        assert found.families[0].total == len(left) > 1
        assert not found.unique
        question = found.next_example
        assert question is not None
        assert question != question[::-1]
        assert found.groups == (len(left), len(left))
        again = synthesize([(xs, f(xs)), (question, f(question))], classes=["natural"])
        assert again.unique
        assert again.best is not None
        assert again.best.function == f


@pytest.mark.parametrize("k", [1, 2, 3])
def test_two_examples_tell_an_order_natural_function(k):
    for f in order_natural_sums(k):
        examples = [([4, 7], f([4, 7])), ([7, 4], f([7, 4]))]
        found = synthesize(examples, classes=["order-natural"])
        assert found.unique
        assert found.best is not None
        assert found.best.function == f


def test_what_is_left_of_a_class_is_complete_and_simple_first():
    examples = [([3, 1, 2], [1, 2, 3, 1, 2, 3])]
    found = synthesize(examples, classes=["order-natural"])
    left = {f for f in order_natural_sums(2) if fits(f, examples)}
    assert {each.function for each in found.families[0].hypotheses} == left
    sizes = [each.size for each in found.families[0].hypotheses]
    assert sizes == sorted(sizes)
    found = synthesize([(PALINDROME, PALINDROME * 6)], classes=["natural"], max_hypotheses=10)
    left = [f for f in natural_sums(6) if f(PALINDROME) == PALINDROME * 6]
    assert (found.families[0].total, len(found.families[0].hypotheses)) == (len(left), 10)
    assert not found.families[0].complete
    assert [each.size for each in found.families[0].hypotheses] == sorted(f.size for f in left)[:10]


def test_multiplicities_beyond_any_enumeration():
    word = [1, 2] * 30
    found = synthesize([([1, 2], word)], classes=["natural"])
    assert found.unique
    assert found.best is not None
    assert found.best.name == " + ".join(["id"] * 30)


@pytest.mark.parametrize("n", [2, 3, 4])
def test_permutations_that_fit_are_all_found(n):
    functions = list(permutation_type(n))
    for f in functions[:: max(1, len(functions) // 8)]:
        xs = list(range(n))[::-1]
        for extra in ([], [0, 1, 0], [1, 1, 0]):
            examples = [(xs, f(xs)), (extra, f(extra))]
            found = synthesize(examples, classes=["permutation"])
            # Values are named in the order of appearance; what counts is what they do.
            left = [g for g in functions if fits(g, examples)]
            questions = [list(each) for each in product(range(n), repeat=3) if len(set(each)) == 3 or n < 3]
            assert len(found.families[0].hypotheses) == len(left) == found.families[0].total
            assert {str([h(q) for q in questions]) for h in found.families[0].hypotheses} == {
                str([g(q) for q in questions]) for g in left
            }
            assert f in left
            assert all(fits(each, examples) for each in found.families[0].hypotheses)


def test_a_permutation_is_found_by_asking():
    rng = random.Random(0)
    target = rng.choice(list(permutation_type(4)))
    examples = [([0, 1, 2, 3], target([0, 1, 2, 3]))]
    asked = 0
    found = synthesize(examples, classes=["permutation"])
    while not found.unique:
        question = found.next_example
        assert question is not None
        examples.append((question, target(question)))
        found = synthesize(examples, classes=["permutation"])
        asked += 1
        assert asked < 10
    assert found.best is not None
    assert all(fits(found.best, [(list(xs), target(xs))]) for xs in product(range(4), repeat=4) if len(set(xs)) == 4)


def test_long_examples():
    rng = random.Random(3)
    xs = rng.sample(range(200), 200)
    found = synthesize([(xs, sorted(xs))])
    assert found.best is not None
    assert (found.best.name, found.unique) == ("sort", True)
    assert "more than 64 values" in found.explain()
    xs = [rng.randrange(6) for _ in range(120)]
    found = synthesize([(xs, list(dict.fromkeys(xs))[::-1])])
    assert found.best is not None
    assert found.best.name == "reverse . nub"


def test_many_values_are_cut_short_and_say_so():
    xs = list(range(60))
    found = synthesize([(xs, xs)], classes=["permutation"], max_hypotheses=5)
    assert (len(found.families[0].hypotheses), found.families[0].total) == (5, None)
    assert not found.families[0].complete
    assert not found.unique


@pytest.mark.parametrize(
    ("examples", "name"),
    [
        ([([3, 1, 3, 2, 1], [3, 1, 2])], "nub"),
        ([([3, 1, 2, 3], [1, 2, 3]), ([3, 1, 2, 1, 3], [2, 1, 3])], "nub last"),
        ([([1, 2, 3, 4], [2, 4, 1, 3]), ([2, 1, 1], [2, 1, 1])], "filter even + filter odd"),
        ([([1, 2, 1, 3, 3, 3], [3, 3, 3, 1, 1, 2])], "most frequent first"),
        ([([2, 3, 1, 2], [2, 3, 1, 2, 1, 2, 3])], "id + sort . nub"),
        ([([5, 2, 5, 4], [4, 2]), ([1, 2], [2])], "reverse . filter even"),
    ],
)
def test_terms(examples, name):
    found = synthesize(examples, max_size=3)
    assert found.best is not None
    assert (found.best.name, found.best.family) == (name, "terms")
    for each in family(found, "terms").hypotheses:
        assert fits(each, examples)
        assert fits(runs(each), examples)


def test_keys_and_predicates_of_the_user():
    def long(word: str) -> bool:
        return len(word) > 2

    examples = [(["abc", "de", "f", "ghij"], ["ghij", "abc"])]
    found = synthesize(examples, predicates={"long": long}, keys={"len": len})
    assert found.best is not None
    assert found.best.name == "reverse . filter long"
    assert fits(runs(found.best, long=long), examples)
    assert synthesize([([-3, 1, 2], [1, 2, -3])], keys={"abs": abs}).best.name == "sort by abs"  # type: ignore[union-attr]
    for bad in ("not a name", "class", "xs", "sorted"):
        with pytest.raises(ArgumentError, match="keys: expected names"):
            synthesize(examples, keys={bad: len})


def test_terms_that_are_told_apart_by_the_bank_differ_and_others_agree():
    """The bank holds all lists of two of three values up to a length: to there, terms that agree on it are equal."""
    alphabet = Alphabet([0, 1, 2])
    found_leaves = leaves(alphabet.values, 2, {}, {})
    kept = search([], alphabet, found_leaves, 2).terms
    bank = [list(xs) for xs in _bank(3)]
    answers = [tuple(tuple(f(xs)) for xs in bank) for f in kept]
    assert len(set(answers)) == len(kept) > 100
    # Compare each leaf after leaf with the term that was kept in its place, on lists of three values.
    by_answers = dict(zip(answers, kept, strict=True))
    checked = 0
    for first, second in product(kept[: len(found_leaves)], repeat=2):
        other = by_answers[tuple(tuple(second(first(xs))) for xs in bank)]
        for xs in product(range(3), repeat=BANK_LENGTH):
            assert second(first(list(xs))) == other(list(xs))
            checked += 1
    assert checked > 1000


def test_larger_terms_are_found_too():
    examples = [([2, 1, 2, 3], [3, 2, 2, 1, 3, 1])]
    assert synthesize(examples, classes=["terms"], max_size=2).best is None
    found = synthesize(examples, classes=["terms"], max_size=3)
    assert found.best is not None
    assert found.best.size == 3


def test_the_most_symmetric_class_comes_first_whatever_the_order_of_the_argument():
    found = synthesize([([1, 2], [2, 1])], classes=["permutation", "terms", "natural"])
    assert [each.name for each in found.families] == ["natural", "terms", "permutation"]
    assert found.best is not None
    assert found.best.family == "natural"


def test_the_question_tells_classes_apart_where_one_function_is_left():
    found = synthesize([([1, 2], [1, 2])], classes=["natural", "order-natural"])
    assert found.unique
    assert found.next_example == [2, 1]


@pytest.mark.parametrize(
    ("examples", "error", "text"),
    [
        ([([1], [2])], AlienValue, "alien value 2"),
        ([([1], [1]), ([2], [1])], AlienValue, "alien value 1"),
        ([([1, 2], [1, 2]), ([1, 3], [1, 1, 3])], WrongMultiplicity, "1 comes out once where"),
        ([([1, 2], [1, 2]), ([1, 2], [2, 1])], Contradiction, r"\[1, 2\] gives \[1, 2\], as given; and \[2, 1\]"),
        (
            [([1, 2, 3], [1, 2, 3]), ([4, 1, 3], [3, 4, 1])],
            Contradiction,
            r"law of deletion: \[1, 3\] gives \[1, 3\], since \[1, 2, 3\] .* and \[3, 1\], since \[4, 1, 3\]",
        ),
        ([([1, 2], [1, 2]), ([2, 3], [2, 3]), ([1, 3], [3, 1])], Cycle, "1 before 2 before 3 before 1"),
    ],
)
def test_examples_that_no_filter_equivariant_function_fits(examples, error, text):
    with pytest.raises(error, match=text):
        synthesize(examples)
    assert issubclass(error, ListFunctionError)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"examples": []}, "examples: expected at least one"),
        ({"examples": 5}, "examples: expected pairs"),
        ({"keys": [abs]}, "keys: expected functions by name"),
        ({"predicates": {"even": 2}}, "predicates: expected functions by name"),
        ({"examples": [[1, 2, 3]]}, r"examples\[0\]: expected a pair"),
        ({"examples": [([1], 2)]}, r"examples\[0\]: expected two lists"),
        ({"examples": [([float("nan")], [])]}, "elements that equal themselves"),
        ({"examples": [([1, True], [])]}, "differ if their types do"),
        ({"classes": ["neural"]}, "classes: expected some of natural"),
        ({"classes": "natural"}, "classes: expected some of natural"),
        ({"classes": []}, "classes: expected some of natural"),
        ({"max_size": 0}, "max_size: expected a whole number of at least 1"),
        ({"max_multiplicity": -1}, "max_multiplicity: expected"),
    ],
)
def test_bad_arguments(arguments, text):
    with pytest.raises(ArgumentError, match=text):
        synthesize(**{"examples": [([1], [1])], **arguments})


def test_elements_of_any_kind():
    items = [{"id": 1}, {"id": 2}]
    found = synthesize([(items, items + items[::-1])])
    assert found.best is not None
    assert found.best.name == "id + reverse"
    assert found.best(items) == items + items[::-1]
    assert family(found, "order-natural").reason == "the values have no order"
    assert "without" in family(found, "terms").scope
    found = synthesize([("hello", "helo"), ("abab", "ab")])
    assert found.best is not None
    assert (found.best.name, found.best("banana")) == ("nub", "ban")


def test_an_empty_example_says_almost_nothing():
    found = synthesize([([], [])], classes=["natural"])
    assert not found.families[0].complete
    assert len(found.families[0].hypotheses) == 1 + 2 + 6 + 18 + 54
    assert found.next_example == [0, 1]


def test_uneven_copies_are_the_reason():
    reason = family(synthesize([([1, 2, 1], [1, 2])], classes=["natural"]), "natural").reason
    assert reason.endswith("1 goes in twice and comes out once; 2 goes in once and comes out once")


def test_explanation_is_whole():
    text = str(synthesize([([1, 2], [1, 2, 1, 2, 2, 1])]))
    lines = text.splitlines()
    assert lines[0] == "id + id + reverse  (natural)"
    assert lines[2] == "natural: 1 of the natural functions of multiplicity 3: id + id + reverse"
    assert [line.split(":")[0] for line in lines[2:6]] == list(CLASSES)
    assert lines[-1].startswith("ask next: f([")


def test_predictions_from_examples_alone():
    space = version_space([([1, 2, 3], [3, 1, 2]), ([1, 1, 2], [1, 1, 2])])
    assert space.predict([1, 3]) == [3, 1]
    assert space.predict((2, 3)) == (3, 2)
    assert space.predict([1, 1, 2]) == [1, 1, 2]
    assert space.predict([]) == []
    with pytest.raises(Undetermined) as caught:
        space.predict([2, 1])
    assert caught.value.missing == [[2, 1]]
    assert sorted(caught.value.candidates) == [[1, 2], [2, 1]]
    with pytest.raises(Undetermined) as caught:
        space.predict([1, 4])
    assert caught.value.missing == [[1, 4]]
    assert not caught.value.candidates
    with pytest.raises(Undetermined) as caught:
        space.predict([4])
    assert caught.value.missing == [[4]]


def test_what_follows_from_other_pairs_is_predicted():
    space = version_space([([1, 2], [1, 2]), ([2, 3], [2, 3])])
    assert space.predict([1, 2, 3]) == [1, 2, 3]
    with pytest.raises(Undetermined) as caught:
        version_space([([1, 2], [1, 2]), ([1, 3], [1, 3])]).predict([1, 2, 3])
    assert sorted(caught.value.candidates) == [[1, 2, 3], [1, 3, 2]]


def test_a_prediction_can_be_impossible():
    """A circle of four values through pairs of which two are not known."""
    ring = [([0, 1], [0, 1]), ([1, 2], [1, 2]), ([2, 3], [2, 3]), ([0, 3], [3, 0])]
    with pytest.raises(ListFunctionError, match="goes round in a circle"):
        version_space(ring).predict([0, 1, 2, 3])


def prediction(space, xs):
    """What is predicted, or the error that says what is missing."""
    try:
        return space.predict(xs)
    except Undetermined as error:
        return error


def test_predictions_agree_with_the_function():
    rng = random.Random(2)
    told = opened = 0
    for f in rng.sample(list(order_natural_sums(3)), 20):
        lists = [[rng.randrange(4) for _ in range(rng.randrange(1, 6))] for _ in range(60)]
        space = version_space([(xs, f(xs)) for xs in lists[:40]])
        for xs in lists[40:]:
            found = prediction(space, xs)
            if isinstance(found, Undetermined):
                opened += 1
                assert not found.candidates or f(xs) in found.candidates
                assert len(found.candidates) != 1
                assert all(part == [x for x in xs if x in part] for part in found.missing)
            else:
                told += 1
                assert found == f(xs)
    assert told > 20
    assert opened > 20


def test_synthesis_predicts_without_a_class():
    found = synthesize([([1, 2, 3], [3, 1, 2])])
    assert found.predict([1, 3]) == [3, 1]
    with pytest.raises(Undetermined):
        found.predict([3, 1])


def test_the_question_is_short_and_is_no_example():
    for examples in ([([1, 2, 1], [1, 2])], [([4, 2], [2, 4])], [("ab", "ba")]):
        found = synthesize(examples)
        assert found.next_example is not None
        assert len(found.next_example) <= QUESTION_LENGTH
        assert found.next_example not in [list(xs) for xs, _ in examples]
        parts, compared = found.groups
        assert 1 < parts <= compared


@pytest.mark.slow
def test_what_answers_alike_is_built_upon_once():
    """Of some twenty million terms of four leaves, those that no smaller one equals are few."""
    alphabet = Alphabet([1, 2, 3, 4, 5])
    examples = [((1, 0, 1, 2), (2, 1, 1, 0, 2, 0))]
    available = leaves(alphabet.values, 2, {}, {})
    assert len(available) ** 4 * 40 > 500_000
    assert search(examples, alphabet, available, 4).tried < 200_000


def test_a_thousand_elements_are_one_example():
    xs = random.Random(0).sample(range(10**6), 1000)
    for function, name in ((sorted, "sort"), (lambda xs: xs[::-1], "reverse"), (lambda xs: xs + xs, "id + id")):
        assert synthesize([(xs, function(xs))]).best.name == name
    one = synthesize([(xs, sorted(xs))])
    assert one.predict(xs[5:9]) == sorted(xs[5:9])
    with pytest.raises(Undetermined):
        one.predict(xs[:3][::-1])
    assert synthesize([(xs, random.Random(1).sample(xs, 1000))]).best is None


def test_pair_words_of_one_example_are_those_of_several():
    chance = random.Random(3)
    for _ in range(30):
        xs = chance.choices(range(6), k=chance.randint(2, 12))
        lazy = version_space([(xs, sorted(xs))]).pair_words
        eager = version_space([(xs, sorted(xs))] * 2).pair_words
        assert dict(lazy.items()) == dict(eager.items())
        assert len(lazy) == len(eager)
        assert (9, 8) not in lazy


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": None}, "classes: expected some of"),
        ({"classes": b"x"}, "classes: expected some of"),
        ({"max_multiplicity": 10**30}, "max_multiplicity: expected at most 20"),
        ({"classes": ["natural"], "keys": {"abs": abs}}, "keys: expected none without the class terms"),
    ],
)
def test_what_cannot_be_used_or_does_not_apply_is_named(options, message):
    with pytest.raises(ArgumentError, match=message):
        synthesize([([1, 2], [2, 1])], **options)
