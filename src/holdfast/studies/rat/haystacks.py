"""Sequences of noise with needles in them, pairs of a key and a value, and questions for the values at the end.

Each token has three channels, whose embeddings are added: a key, a value (0: none) and a kind. Needles stand at random
places before the questions, with keys that differ; each is asked for once, in random order.

    task      needle                          question                          asked for
    joint     one token with key and value    the key                           the value
    apart     key, then the value             the key                           the value
    string    key, then 8 values              key, then the first 7 values      all 8 values

`apart` is multi-query associative recall (arXiv 2312.04927), `string` stands for RULER's needles with long values
(arXiv 2404.06654): right is who has all of them right.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast.errors import ArgumentError
from holdfast.studies.rat.training import IGNORED

if TYPE_CHECKING:
    import torch
    from jaxtyping import Bool, Int
    from torch import Tensor

VALUES_OF = {"joint": 0, "apart": 1, "string": 8}
"""Tokens of a value behind its key, by task; 0: the key's own token has it."""


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """How many of each there are.

    Arguments:
        keys: keys of needles.
        values: values of needles; a guess is right once in so many times.
        noise: kinds of noise.
    """

    keys: int = 64
    values: int = 16
    noise: int = 16

    @property
    def needle(self) -> int:
        """Kind of a needle's tokens."""
        return self.noise

    @property
    def question(self) -> int:
        """Kind of a question's tokens."""
        return self.noise + 1

    @property
    def channels(self) -> tuple[int, int, int]:
        """Number of keys, values and kinds, absent ones included."""
        return self.keys + 1, self.values + 1, self.noise + 2


@dataclass(frozen=True)
class Haystacks:
    """A batch.

    Arguments:
        tokens: key, value and kind of each token.
        targets: the value asked for at a token, from 0; `IGNORED` where nothing is asked.
        needles: number of needles, and of questions, a row.
    """

    tokens: Int[Tensor, "batch time 3"]
    targets: Int[Tensor, "batch time"]
    needles: int

    def right(self, guesses: Int[Tensor, "batch time"]) -> Bool[Tensor, "batch needles"]:
        """Whether each question is answered rightly, to the last token."""
        asked = self.targets != IGNORED
        same = (guesses == self.targets)[asked]
        return same.view(len(self.tokens), self.needles, -1).all(-1)


def sample_haystacks(
    task: str, batch: int, time: int, needles: int, vocabulary: Vocabulary, generator: torch.Generator
) -> Haystacks:
    """Draw a batch.

    Arguments:
        task: see this module.
        batch: number of rows.
        time: tokens a row, questions included.
        needles: needles a row.
        vocabulary: of keys, values and noise.
        generator: of all that is drawn.

    Errors:
        ArgumentError: there is no such task, or no room for so many needles.
    """
    import torch

    if task not in VALUES_OF:
        raise ArgumentError("task", f"one of {', '.join(VALUES_OF)}", task)
    behind = VALUES_OF[task]
    block, question, count = 1 + behind, max(1, behind), max(1, behind)
    first = time - needles * question  # of the questions
    spare = first - needles * block
    if spare < 0 or needles > vocabulary.keys:
        expected = f"at most {vocabulary.keys}, and {block + question} tokens each of {time}"
        raise ArgumentError("needles", expected, needles)

    keys = _distinct(batch, vocabulary.keys, needles, generator) + 1
    values = torch.randint(1, vocabulary.values + 1, (batch, needles, count), generator=generator)
    # Every needle is one of so many places while it is drawn, and makes room for its own tokens then.
    places = _distinct(batch, spare + needles, needles, generator).sort(-1).values
    starts = places + torch.arange(needles) * behind

    tokens = torch.zeros(batch, time, 3, dtype=torch.long)
    tokens[..., 2] = torch.randint(0, vocabulary.noise, (batch, time), generator=generator)
    tokens[:, first:, 2] = vocabulary.question
    row = torch.arange(batch)[:, None]
    tokens[row, starts, 0] = keys
    for token in range(block):
        tokens[row, starts + token, 2] = vocabulary.needle
    for token in range(count):
        tokens[row, starts + token + (behind > 0), 1] = values[..., token]

    order = _distinct(batch, needles, needles, generator)
    asked, answers = keys.gather(1, order), values[row, order]
    targets = torch.full((batch, time), IGNORED)
    begin = first + torch.arange(needles) * question
    tokens[:, begin, 0] = asked
    for token in range(count):
        targets[:, begin + token] = answers[..., token] - 1
        if token:
            tokens[:, begin + token, 1] = answers[..., token - 1]
    return Haystacks(tokens, targets, needles)


def _distinct(batch: int, of: int, count: int, generator: torch.Generator) -> Int[Tensor, "batch count"]:
    """Different numbers below `of`, in random order."""
    import torch

    return torch.rand(batch, of, generator=generator).argsort(-1)[:, :count]
