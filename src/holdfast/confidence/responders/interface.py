"""What a responder is: whatever reads prompts and says how likely each option's label comes next.

A responder in process, one that sends requests, and a simulated one keep to the same interface: `Ask` in, `Answer` out.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol, runtime_checkable

from holdfast.confidence.extraction import OptionReading
from holdfast.confidence.trials import Source
from holdfast.llm import Message

MOST_MASS = 1.001
"""Shares of tokens that were rounded each may come to a little more than 1."""

NOT_FINITE = "not finite"
"""The problem of an answer whose scores are infinite or no numbers, as those of half precision can be."""


@dataclass(frozen=True)
class Backend:
    """What a reading depends on beside the prompt. It stands in the store, and holds no secret.

    Arguments:
        model: its name, as the server knows it, or its folder.
        kind: how it is asked, for example `"huggingface"`, `"chat"` or `"systemone"`. Readings of different kinds are
            never taken for each other.
        host: of the server, without user, password and query; empty in process.
        params: of the requests: whatever changes an answer, as JSON holds it.
        source: where scores come from.
        samples: answers drawn for each reading, where they are shares of samples.
        deterministic: equal prompts have exactly equal answers, whatever is asked beside them. A model is not, in
            process neither: the order of its sums, and with it their rounding, depends on what else is in a batch.
    """

    model: str
    kind: str
    host: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)
    source: Source = "logprobs"
    samples: int = 0
    deterministic: bool = False


@dataclass(frozen=True)
class Ask:
    """One request.

    Arguments:
        key: of the request, which the answer repeats.
        messages: the whole conversation; there is nothing else that a model may know.
        labels: of the options, in the order in which they are shown.
        options: their texts in the same order, for services that score texts in the place of labels.
    """

    key: str
    messages: tuple[Message, ...]
    labels: tuple[str, ...]
    options: tuple[str, ...]


@dataclass(frozen=True)
class Answer:
    """One reading, or why there is none.

    Arguments:
        key: of the request.
        scores: natural log-probability of each label, up to a constant; of a missing one an upper bound. Empty where
            there is a problem.
        mass: share of probability on all labels; NaN: not known.
        missing: places of labels of which only a bound is known.
        problem: why there is no reading, in a word or two: `"refusal"`, `"empty"`, `"length"`, `"content_filter"`,
            `"not finite"`.
        tokens: likeliest tokens at the place of the answer with their log-probabilities, for people.
        raw: what else the answer brought and may be asked for later: `model` and `system_fingerprint` as the server
            reports them (a change of one is noticed), `finish_reason`, `text`, `usage`.
        seconds: from sending to reading.
        attempts: requests that it took.
        errors: of the attempts before the last, a word each.
    """

    key: str
    scores: tuple[float, ...] = ()
    mass: float = math.nan
    missing: tuple[int, ...] = ()
    problem: str = ""
    tokens: tuple[tuple[str, float], ...] = ()
    raw: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    attempts: int = 1
    errors: tuple[str, ...] = ()

    @classmethod
    def of_reading(cls, key: str, reading: OptionReading, **more: Any) -> Answer:
        """An answer from what one of the functions of `holdfast.confidence.extraction` read, and other fields."""
        scores = tuple(map(float, reading.scores))
        if not all(map(math.isfinite, scores)):
            return cls(key, problem=NOT_FINITE, **more)
        return cls(key, scores, reading.mass, reading.missing, **more)

    def to_record(self) -> dict[str, Any]:
        """Plain values for JSON; what has its default value is left out."""
        plain = {name: value for name, value in asdict(self).items() if value and name not in ("key", "mass")}
        return plain if math.isnan(self.mass) else {**plain, "mass": self.mass}

    @classmethod
    def of_record(cls, key: str, record: Mapping[str, Any]) -> Answer:
        """An answer from what `to_record` made of it.

        Errors:
            ValueError, TypeError, LookupError, AttributeError, OverflowError: it is something else.
        """
        get = record.get
        answer = cls(
            key,
            tuple(map(float, get("scores", ()))),
            float(get("mass", math.nan)),
            tuple(map(int, get("missing", ()))),
            str(get("problem", "")),
            tuple((str(text), float(value)) for text, value in get("tokens", ())),
            dict(get("raw", {})),
            float(get("seconds", 0.0)),
            int(get("attempts", 1)),
            tuple(get("errors", ())),
        )
        if bool(answer.scores) == bool(answer.problem) or not all(map(math.isfinite, answer.scores)):
            raise ValueError("neither a reading nor a problem")
        if not (math.isnan(answer.mass) or 0 <= answer.mass <= MOST_MASS):
            raise ValueError("a mass that is no share")
        if not all(0 <= place < len(answer.scores) for place in answer.missing):
            raise ValueError("a label that is not there is missing")
        return answer


@runtime_checkable
class Responder(Protocol):
    """A language model, or what stands in for one."""

    @property
    def backend(self) -> Backend:
        """What its readings depend on."""

    def answer(self, asks: Iterable[Ask]) -> Generator[Answer, None, None]:
        """One answer for each request, in any order, each as soon as it is there.

        Requests that share the beginning of their conversation come one after the other. How many are taken from
        `asks` ahead of their answers is the responder's business: an asynchronous one keeps as many under way as it
        may, one in process takes a batch. Closing the generator ends what is under way.

        Errors:
            HoldfastError: no further answer can be had, for example since log-probabilities are missing from the first
                one, a key is wrong, or a server stays out of reach. What was yielded before is kept. What concerns one
                request alone (a refusal, an empty text) is no error, but the `problem` of its answer.
        """
