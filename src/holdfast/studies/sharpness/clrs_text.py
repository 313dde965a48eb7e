"""Algorithms written out step by step as text: four tasks in the format of CLRS-Text (arXiv 2406.04229, with hints).

    insertion_sort:
    key: [0.549 0.715 0.603 0.545], initial_trace: [0.549 0.715 0.603 0.545]
    trace | pred:
    [0.549 0.715 0.603 0.545], [0.549 0.603 0.715 0.545] | [0.545 0.549 0.603 0.715]

The prompt ends with the last colon and its newline. The states between the first, which the prompt shows, and the
last, which is the answer proper, are the trace.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from holdfast.errors import ArgumentError

ALGORITHMS = ("minimum", "insertion_sort", "bubble_sort", "binary_search")
"""Names of the tasks."""

OUTPUTS = {"minimum": "min", "insertion_sort": "pred", "bubble_sort": "pred", "binary_search": "(low, high)"}
"""What each task calls its answer."""

SEPARATOR = " | "
"""Stands between trace and answer."""

STOP = "\n\n"
"""Ends a text."""


@dataclass(frozen=True)
class Example:
    """One run of an algorithm.

    Arguments:
        prompt: the question, up to and with its last newline.
        answer: trace, separator, answer proper and stop.
    """

    prompt: str
    answer: str


def split_answer(answer: str) -> tuple[str, str]:
    """Trace and answer proper of a text that may be a model's: the part after the last ` | ` is the answer.

    Arguments:
        answer: with or without its stop; what follows the stop is dropped.

    Returns:
        The trace and the answer proper; the latter is empty where there is no separator.
    """
    kept = answer.partition(STOP)[0]
    if SEPARATOR not in kept:
        return kept, ""
    trace, _, last = kept.rpartition(SEPARATOR)
    return trace, last


def states(algorithm: str, values: Sequence[int], target: int = 0) -> list[str]:
    """Run an algorithm and write its states down.

    Arguments:
        algorithm: one of `ALGORITHMS`.
        values: the numbers, in thousandths; ascending for `binary_search`.
        target: what `binary_search` looks for, in thousandths; others ignore it.

    Returns:
        All states, from the one before the first step to the result: the index of the smallest number so far,
        the array, or the pair (low, high).

    Errors:
        ArgumentError: the algorithm is unknown.

    Source: Cormen et al., Introduction to Algorithms; recorded where google-deepmind/clrs records its hints.
    """
    numbers = list(values)
    n = len(numbers)
    match algorithm:
        case "minimum":
            best = 0
            written = ["0"]
            for i in range(1, n):
                best = i if numbers[i] < numbers[best] else best
                written.append(str(best))
        case "insertion_sort":
            written = [_array(numbers)]
            for j in range(1, n):
                number, i = numbers[j], j - 1
                while i >= 0 and numbers[i] > number:
                    numbers[i + 1] = numbers[i]
                    i -= 1
                numbers[i + 1] = number
                written.append(_array(numbers))
        case "bubble_sort":
            written = [_array(numbers)]
            for i in range(n - 1):
                for j in range(n - 1, i, -1):
                    if numbers[j] < numbers[j - 1]:
                        numbers[j], numbers[j - 1] = numbers[j - 1], numbers[j]
                    written.append(_array(numbers))
        case "binary_search":
            low, high = 0, n - 1
            written = [f"({low}, {high})"]
            while low < high:
                middle = (low + high) // 2
                if target <= numbers[middle]:
                    high = middle
                else:
                    low = middle + 1
                written.append(f"({low}, {high})")
        case _:
            raise ArgumentError("algorithm", f"one of {', '.join(ALGORITHMS)}", algorithm)
    return written


def write(algorithm: str, values: Sequence[int], target: int = 0) -> Example:
    """The text of one run.

    Arguments:
        algorithm: one of `ALGORITHMS`.
        values: at least two numbers from 1 to 999, in thousandths; ascending for `binary_search`.
        target: what `binary_search` looks for, likewise; others ignore it.

    Errors:
        ArgumentError: the algorithm is unknown, or the numbers are not such numbers.
    """
    if len(values) < 2:
        raise ArgumentError("values", "at least two numbers", list(values))
    if not all(0 < value < 1000 for value in values):
        raise ArgumentError("values", "thousandths from 1 to 999", list(values))
    sought = ""
    if algorithm == "binary_search":
        if list(values) != sorted(values):
            raise ArgumentError("values", "ascending numbers for binary_search", list(values))
        if not 0 < target < 1000:
            raise ArgumentError("target", "thousandths from 1 to 999", target)
        sought = f", target: {_forms(target)[1]}"
    run = states(algorithm, values, target)
    prompt = f"{algorithm}:\nkey: {_array(values)}{sought}, initial_trace: {run[0]}\ntrace | {OUTPUTS[algorithm]}:\n"
    return Example(prompt, f"{', '.join(run[1:-1])}{SEPARATOR}{run[-1]}{STOP}")


def sample_example(algorithm: str, size: int, rng: np.random.Generator) -> Example:
    """Draw an input and write the run down.

    Numbers are uniform on 0.001, 0.002, ..., 0.999 and may repeat: CLRS draws from (0, 1) and keeps three decimals.

    Arguments:
        algorithm: one of `ALGORITHMS`.
        size: how many numbers, at least 2.
        rng: where the randomness comes from.

    Errors:
        ArgumentError: the algorithm is unknown, or the size is too small.
    """
    if size < 2:
        raise ArgumentError("size", "at least 2", size)
    values: list[int] = rng.integers(1, 1000, size).tolist()
    if algorithm == "binary_search":
        return write(algorithm, sorted(values), int(rng.integers(1, 1000)))
    return write(algorithm, values)


def max_tokens(algorithm: str, size: int) -> int:
    """Most tokens that a text of this size can have in `Vocabulary`; for both sorts all texts have as many.

    Arguments:
        algorithm: one of `ALGORITHMS`.
        size: numbers in the input, at least 2.

    Errors:
        ArgumentError: the algorithm is unknown.
    """
    digits = len(str(size - 1))
    halvings = (size - 1).bit_length()
    counts = {
        "minimum": (digits, size - 2),
        "insertion_sort": (size + 2, size - 2),
        "bubble_sort": (size + 2, size * (size - 1) // 2 - 1),
        "binary_search": (3 + 2 * digits, halvings - 1),
    }
    if algorithm not in counts:
        raise ArgumentError("algorithm", f"one of {', '.join(ALGORITHMS)}", algorithm)
    state, steps = counts[algorithm]
    prompt = size + 7 + (3 if algorithm == "binary_search" else 0) + state
    return prompt + steps * state + max(0, steps - 1) + state + 2


class Vocabulary:
    """Tokens of these texts: a fraction is one token, a whole number one token a digit, punctuation one a piece.

    Whole numbers are split since sizes beyond training need indices that training never wrote. The space between
    two fractions is no token: `decode` puts it back, and `decode(encode(text)) == text` for every text that `encode`
    accepts.
    """

    def __init__(self) -> None:
        fractions = dict.fromkeys(text for value in range(1, 1000) for text in _forms(value))
        pieces = [
            *(f"{algorithm}:\n" for algorithm in ALGORITHMS),
            *dict.fromkeys(f"\ntrace | {output}:\n" for output in OUTPUTS.values()),
            *("key: ", "target: ", "initial_trace: ", ", ", SEPARATOR, "[", "]", "(", ")", STOP),
        ]
        self.tokens: tuple[str, ...] = ("", *pieces, *"0123456789", *fractions)
        """Text of each token by its number; the first is padding."""
        self.pad = 0
        """Number of the padding token."""
        self._number = {token: number for number, token in enumerate(self.tokens)}
        self.stop = self._number[STOP]
        """Number of the token that ends a text."""
        longest_first = sorted(pieces, key=len, reverse=True)
        self._pattern = re.compile(
            r"(0\.\d{1,3})(?!\d)(?: (?=0\.))?|(" + "|".join(map(re.escape, longest_first)) + r"|\d(?!\.))"
        )

    def __len__(self) -> int:
        """Number of tokens, with padding."""
        return len(self.tokens)

    def encode(self, text: str) -> list[int]:
        """Token numbers of a text.

        Errors:
            ArgumentError: a part of the text is none of this format.
        """
        numbers = []
        at = 0
        for match in self._pattern.finditer(text):
            number = self._number.get(match[1] or match[2])
            if match.start() != at or number is None:
                break
            numbers.append(number)
            at = match.end()
        if at != len(text):
            raise ArgumentError("text", "text in the format of CLRS-Text", repr(text[at : at + 20]))
        return numbers

    def decode(self, numbers: Sequence[int]) -> str:
        """Text of token numbers; padding is left out.

        Errors:
            ArgumentError: a number is no token.
        """
        parts: list[str] = []
        after_fraction = False
        for number in numbers:
            if not 0 <= number < len(self.tokens):
                raise ArgumentError("numbers", f"token numbers below {len(self.tokens)}", number)
            token = self.tokens[number]
            fraction = token.startswith("0.")
            parts.append(f" {token}" if fraction and after_fraction else token)
            after_fraction = fraction
        return "".join(parts)


@dataclass(frozen=True)
class TextBatch:
    """Texts side by side, padded on the right.

    Arguments:
        tokens: token numbers.
        lengths: tokens of each text.
        answer: true on the tokens of the answers (trace and stop included), which a loss should count.
    """

    tokens: Int[np.ndarray, "batch time"]
    lengths: Int[np.ndarray, " batch"]
    answer: Bool[np.ndarray, "batch time"]


def to_batch(examples: Sequence[Example], vocabulary: Vocabulary) -> TextBatch:
    """Encode examples and pad them to the longest.

    Arguments:
        examples: at least one.
        vocabulary: whose tokens to use.

    Errors:
        ArgumentError: there are no examples.
    """
    if not examples:
        raise ArgumentError("examples", "at least one example", "none")
    prompts = [vocabulary.encode(example.prompt) for example in examples]
    answers = [vocabulary.encode(example.answer) for example in examples]
    starts = np.array([len(prompt) for prompt in prompts])
    lengths = starts + np.array([len(answer) for answer in answers])
    tokens = np.full((len(examples), int(lengths.max())), vocabulary.pad, dtype=np.int64)
    for row, prompt, answer in zip(tokens, prompts, answers, strict=True):
        row[: len(prompt) + len(answer)] = prompt + answer
    at = np.arange(tokens.shape[1])
    return TextBatch(tokens, lengths, (at >= starts[:, None]) & (at < lengths[:, None]))


def _array(values: Sequence[int]) -> str:
    return f"[{' '.join(_SHORT[value] for value in values)}]"


def _forms(value: int) -> tuple[str, str]:
    """The two ways in which the format writes a number: in arrays, and as a target."""
    return f"{value / 1000:.3g}", f"{value / 1000:.3f}"


_SHORT = [_forms(value)[0] for value in range(1000)]
