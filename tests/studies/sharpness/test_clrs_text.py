"""Traces as text: the format to the letter, and the algorithms against what must hold of them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from holdfast.errors import ArgumentError
from holdfast.studies.sharpness.clrs_text import (
    ALGORITHMS,
    Vocabulary,
    max_tokens,
    sample_example,
    split_answer,
    states,
    to_batch,
    write,
)

VOCABULARY = Vocabulary()


def examples(algorithm: str, sizes=(2, 3, 4, 7, 12, 17)):
    rng = np.random.default_rng(7)
    return [sample_example(algorithm, n, rng) for n in sizes for _ in range(5)]


def text(example) -> str:
    return example.prompt + example.answer


def parsed(example):
    """Input numbers, target, and all states of a text, read back without the module's help."""
    key = example.prompt.split("key: [")[1].split("]")[0]
    values = [float(text) for text in key.split(" ")]
    target = float(example.prompt.split("target: ")[1].split(",")[0]) if "target" in example.prompt else None
    first = example.prompt.split("initial_trace: ")[1].split("\n")[0]
    trace, last = example.answer.removesuffix("\n\n").split(" | ")
    closing = {"[": "]", "(": ")"}.get(first[0])
    middle = trace.split(", ") if closing is None else [part + closing for part in trace.split(f"{closing}, ")]
    if closing is not None:
        middle[-1] = middle[-1].removesuffix(closing)
    return values, target, [first, *(part for part in middle if part), last]


def test_insertion_sort_in_full():
    example = write("insertion_sort", [549, 715, 603, 545, 424])
    assert example.prompt == (
        "insertion_sort:\nkey: [0.549 0.715 0.603 0.545 0.424], "
        "initial_trace: [0.549 0.715 0.603 0.545 0.424]\ntrace | pred:\n"
    )
    assert example.answer == (
        "[0.549 0.715 0.603 0.545 0.424], [0.549 0.603 0.715 0.545 0.424], [0.545 0.549 0.603 0.715 0.424]"
        " | [0.424 0.545 0.549 0.603 0.715]\n\n"
    )


def test_the_other_tasks_in_full():
    assert text(write("minimum", [500, 300, 301, 20])) == (
        "minimum:\nkey: [0.5 0.3 0.301 0.02], initial_trace: 0\ntrace | min:\n1, 1 | 3\n\n"
    )
    assert text(write("binary_search", [424, 545, 549, 603, 715], 550)) == (
        "binary_search:\nkey: [0.424 0.545 0.549 0.603 0.715], target: 0.550, initial_trace: (0, 4)\n"
        "trace | (low, high):\n(3, 4) | (3, 3)\n\n"
    )
    assert text(write("bubble_sort", [3, 2, 1])) == (
        "bubble_sort:\nkey: [0.003 0.002 0.001], initial_trace: [0.003 0.002 0.001]\ntrace | pred:\n"
        "[0.003 0.001 0.002], [0.001 0.003 0.002] | [0.001 0.002 0.003]\n\n"
    )


@pytest.mark.parametrize("algorithm", ["insertion_sort", "bubble_sort"])
def test_sorts(algorithm):
    for example in examples(algorithm):
        values, _, steps = parsed(example)
        arrays = [[float(x) for x in step.strip("[]").split(" ")] for step in steps]
        n = len(values)
        assert len(arrays) == (n if algorithm == "insertion_sort" else 1 + n * (n - 1) // 2)
        assert arrays[0] == values
        assert arrays[-1] == sorted(values)
        for j, array in enumerate(arrays):
            if algorithm == "insertion_sort":
                assert array == sorted(values[: j + 1]) + values[j + 1 :]
            elif j:
                changed = [i for i in range(n) if array[i] != arrays[j - 1][i]]
                assert len(changed) in (0, 2)
                assert not changed or (changed[1] == changed[0] + 1 and array[changed[0]] < array[changed[1]])
            assert sorted(array) == sorted(values)


def test_minimum():
    for example in examples("minimum"):
        values, _, steps = parsed(example)
        assert [int(step) for step in steps] == [int(np.argmin(values[: i + 1])) for i in range(len(values))]


def test_binary_search():
    for example in examples("binary_search"):
        values, target, steps = parsed(example)
        pairs = [tuple(int(x) for x in step.strip("()").split(", ")) for step in steps]
        at = min(int(np.searchsorted(values, target)), len(values) - 1)
        assert values == sorted(values)
        assert pairs[0] == (0, len(values) - 1)
        assert pairs[-1] == (at, at)
        for (low, high), (low2, high2) in pairwise(pairs):
            middle = (low + high) // 2
            assert (low2, high2) in {(low, middle), (middle + 1, high)}
            assert low2 <= at <= high2


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_same_seed_gives_the_same_texts(algorithm):
    assert examples(algorithm) == examples(algorithm)
    assert len(set(map(text, examples(algorithm)))) > 20


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_tokens_turn_back_into_the_text_and_are_counted(algorithm):
    for n in (2, 5, 9, 12, 20):
        lengths = set()
        for example in examples(algorithm, (n,)):
            numbers = VOCABULARY.encode(text(example))
            assert VOCABULARY.decode(numbers) == text(example)
            assert numbers[-1] == VOCABULARY.stop
            lengths.add(len(numbers))
        bound = max_tokens(algorithm, n)
        assert max(lengths) <= bound < max(lengths) + 3 * n
        assert lengths == {bound} or not algorithm.endswith("sort")


def test_every_number_has_one_token():
    for value in range(1, 1000):
        for number in (f"{value / 1000:.3g}", f"{value / 1000:.3f}"):
            assert [VOCABULARY.tokens[i] for i in VOCABULARY.encode(number)] == [number]
    assert VOCABULARY.decode([VOCABULARY.pad] * 3) == ""
    assert len(set(VOCABULARY.tokens)) == len(VOCABULARY)


@pytest.mark.parametrize("other", ["0.1234", "hello", "[0.5 ", "0.50.6", "0.000", "3 4", "[0.5  0.6]", "1 0.5", "0."])
def test_other_text_is_refused(other):
    with pytest.raises(ArgumentError, match="text"):
        VOCABULARY.encode(other)


def test_answers_are_split_at_the_last_separator():
    assert split_answer("1, 1 | 3\n\n") == ("1, 1", "3")
    assert split_answer(" | 3\n\n") == ("", "3")
    assert split_answer("1 | 2 | 3\n\nrest | 4") == ("1 | 2", "3")
    assert split_answer("1, 2") == ("1, 2", "")


def test_a_batch_counts_the_answers_only():
    some = [write("minimum", [5, 3]), write("minimum", [500, 300, 301, 20])]
    batch = to_batch(some, VOCABULARY)
    for row, length, answer, example in zip(batch.tokens, batch.lengths, batch.answer, some, strict=True):
        assert VOCABULARY.decode(row[:length].tolist()) == text(example)
        assert VOCABULARY.decode(row[answer].tolist()) == example.answer
        assert (row[length:] == VOCABULARY.pad).all()


def test_bad_arguments():
    rng = np.random.default_rng(0)
    with pytest.raises(ArgumentError, match="size"):
        sample_example("minimum", 1, rng)
    for wrong in (lambda: states("quicksort", [1]), lambda: max_tokens("quicksort", 4)):
        with pytest.raises(ArgumentError, match="quicksort"):
            wrong()
    for algorithm, values in (("minimum", [1]), ("minimum", [0, 1]), ("binary_search", [2, 1])):
        with pytest.raises(ArgumentError, match="values"):
            write(algorithm, values, 5)
    with pytest.raises(ArgumentError, match="target"):
        write("binary_search", [1, 2], 1000)
    with pytest.raises(ArgumentError, match="below"):
        VOCABULARY.decode([len(VOCABULARY)])
    with pytest.raises(ArgumentError, match="at least one"):
        to_batch([], VOCABULARY)
