"""Any causal language model of transformers, in process: exact log-probabilities of labels, many prompts at a time."""

from __future__ import annotations

import itertools
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from scipy.special import logsumexp
from torch import Tensor

from holdfast.confidence.extraction import OptionReading
from holdfast.confidence.responders.interface import Answer, Ask, Backend
from holdfast.confidence.responders.shared_prefix import LastLogits
from holdfast.errors import ArgumentError, require
from holdfast.hub import offline
from holdfast.llm import Message

TOP = 5
"""Likeliest tokens that an answer names."""

TAIL = 64
"""Characters at the end of a prompt that decide how a label behind it is cut into tokens."""


@dataclass(frozen=True)
class Spellings:
    """How labels can be written behind a prompt.

    Arguments:
        tokens: for each label its spellings, each as tokens, none of which stands for another label too.
    """

    tokens: tuple[tuple[tuple[int, ...], ...], ...]

    @property
    def longest(self) -> int:
        """Tokens of the longest spelling."""
        return max(len(spelling) for spellings in self.tokens for spelling in spellings)


class HuggingFaceResponder:
    """A causal language model in process.

    A label's score is the log-probability of all its spellings together ("A", " A", "a"…) that leave the tokens of the
    prompt as they are. Where each label has some of one token, these are read from one set of logits; otherwise every
    spelling is scored to its end. What prompts begin with alike is computed once, where the model's cache allows it.

    Arguments:
        model: of transformers, on its device.
        tokenizer: of the model.
        name: under which its readings are kept; left out: where it was loaded from.
        chat: use the tokenizer's chat template; `None`: if it has one. Without it prompts have one message, and the
            text goes in as it is.
        chat_template_kwargs: for the chat template, for example `{"enable_thinking": False}`.
        batch_tokens: most tokens of one forward call.
        window: prompts that are looked at together.
        share_prefix: compute what prompts begin with alike only once.

    Errors:
        ArgumentError: a chat template is wanted and there is none.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        name: str | None = None,
        chat: bool | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        batch_tokens: int = 8192,
        window: int = 512,
        share_prefix: bool = True,
    ) -> None:
        require("transformers", "hf")
        has_template = bool(getattr(tokenizer, "chat_template", None))
        if chat and not has_template:
            raise ArgumentError("chat", "a tokenizer with a chat template, or the flat form", "none")
        self._model, self._tokenizer, self._window = model, tokenizer, window
        self._chat = has_template if chat is None else chat
        self._template_kwargs = dict(chat_template_kwargs or {})
        self._logits = LastLogits(model, batch_tokens, share_prefix)
        self._spellings: dict[tuple[tuple[str, ...], str], Spellings] = {}
        self._name = name or str(getattr(model.config, "_name_or_path", "") or type(model).__name__)
        self._most, self._vocabulary = _positions(model), model.get_input_embeddings().num_embeddings
        first = tokenizer("x")["input_ids"][:1]
        bos = tokenizer.bos_token_id
        self._begin = [bos] if bos is not None and first == [bos] and not self._chat else []

    @classmethod
    def load(
        cls, target: str | Path, *, device: str | None = None, dtype: str = "auto", **options: Any
    ) -> HuggingFaceResponder:
        """A model from a folder or the hub.

        Arguments:
            target: the folder, or the id on the hub.
            device: where to run; left out: CUDA if there is any.
            dtype: of the weights, or `"auto"`: as they are stored.
            options: of the responder.

        Errors:
            ArgumentError: the model does not load, or not onto the device, or it has no tokenizer.
            MissingExtraError: transformers is not installed.
        """
        transformers = require("transformers", "hf")
        try:
            model = transformers.AutoModelForCausalLM.from_pretrained(target, dtype=dtype, **offline(str(target)))
        except Exception as error:  # transformers, safetensors and tokenizers have errors of their own for a bad file
            raise ArgumentError(
                "model", "a causal language model of transformers", f"{target} ({_first(error)})"
            ) from error
        tokenizer = _tokenizer(transformers, target)
        place = device or ("cuda" if torch.cuda.is_available() else "cpu")
        try:
            model = model.to(place)
        except (AssertionError, RuntimeError) as error:  # torch has no error of its own for a device that is not there
            raise ArgumentError(
                "device", "a device that this machine has room on", f"{place} ({_first(error)})"
            ) from error
        return cls(model, tokenizer, name=options.pop("name", str(target)), **options)

    @property
    def backend(self) -> Backend:
        """The model, its precision, and how prompts are written."""
        params = {"chat": self._chat, "dtype": str(self._model.dtype).removeprefix("torch.")}
        more = {"chat_template_kwargs": self._template_kwargs} if self._template_kwargs else {}
        return Backend(self._name, "huggingface", params={**params, **more})

    def answer(self, asks: Iterable[Ask]) -> Generator[Answer, None, None]:
        """Answer prompts, some hundred at a time; see `Responder.answer`.

        Errors:
            ArgumentError: a conversation of several messages without a chat template, one that the chat template does
                not take, a prompt that is empty, longer than the model reads or of tokens that it does not have, or a
                label that cannot follow the prompt.
        """
        waiting = iter(asks)
        training = self._model.training
        self._model.eval()
        try:
            while window := list(itertools.islice(waiting, self._window)):
                yield from self._answer(window)
        finally:
            self._model.train(training)

    def _answer(self, asks: Sequence[Ask]) -> Iterator[Answer]:
        texts = [self._text(ask.messages) for ask in asks]
        prompts = self._encode(texts)
        spelled = [self._spelled(ask.labels, text) for ask, text in zip(asks, texts, strict=True)]
        short = [place for place, spellings in enumerate(spelled) if spellings.longest == 1]
        started = time.perf_counter()
        for members, logits in self._logits([prompts[place] for place in short]):
            places = [short[member] for member in members]
            log_probs = logits[:, 0].float().log_softmax(dim=-1)
            scores = _scores(log_probs, [spelled[place] for place in places])
            tops = self._tops(log_probs)
            seconds = (time.perf_counter() - started) / len(places)
            for place, score, tokens in zip(places, scores, tops, strict=True):
                yield _answered(asks[place].key, score, tokens, seconds)
            started = time.perf_counter()
        long = sorted(set(range(len(asks))) - set(short))
        if long:
            started = time.perf_counter()
            answers = self._to_the_end([prompts[place] for place in long], [spelled[place] for place in long])
            for place, (score, tokens) in zip(long, answers, strict=True):
                yield _answered(asks[place].key, score, tokens, (time.perf_counter() - started) / len(long))

    def _to_the_end(
        self, prompts: Sequence[list[int]], spelled: Sequence[Spellings]
    ) -> list[tuple[list[float], list[tuple[str, float]]]]:
        """For each prompt log-probabilities of labels of several tokens, and the likeliest first tokens."""
        longest = max(spellings.longest for spellings in spelled)
        every = [
            (place, label, spelling)
            for place, spellings in enumerate(spelled)
            for label, group in enumerate(spellings.tokens)
            for spelling in group
        ]
        # A row ends with what its spelling lacks to the longest one: what comes later is not seen by what is read.
        rows = [[*prompts[place], *spelling[:-1], *[0] * (longest - len(spelling))] for place, _, spelling in every]
        values: list[list[list[float]]] = [[[] for _ in spellings.tokens] for spellings in spelled]
        tops: dict[int, list[tuple[str, float]]] = {}
        for members, logits in self._logits(rows, keep=longest):
            for member, log_probs in zip(members, logits.float().log_softmax(dim=-1), strict=True):
                place, label, spelling = every[member]
                values[place][label].append(float(sum(log_probs[at, token] for at, token in enumerate(spelling))))
                if place not in tops:
                    tops[place] = self._tops(log_probs[:1])[0]
        return [([float(logsumexp(group)) for group in groups], tops[place]) for place, groups in enumerate(values)]

    def _tops(self, log_probs: Tensor) -> list[list[tuple[str, float]]]:
        """Likeliest tokens of each row, as text."""
        values, ids = log_probs.topk(min(TOP, log_probs.shape[-1]), dim=-1)
        return [
            [(self._tokenizer.decode([token]), value) for token, value in zip(tokens, row, strict=True)]
            for tokens, row in zip(ids.tolist(), values.tolist(), strict=True)
        ]

    def _text(self, messages: Sequence[Message]) -> str:
        """A conversation as the model reads it, up to where its answer begins."""
        if not self._chat:
            if len(messages) != 1:
                problem = f"{len(messages)} messages for a model without a chat template"
                raise ArgumentError("form", "the flat form, which has one message", problem)
            return messages[0]["content"]
        try:
            text = self._tokenizer.apply_chat_template(
                list(messages), tokenize=False, add_generation_prompt=True, **self._template_kwargs
            )
        except Exception as error:  # of jinja2, or what a template raises by itself
            problem = f"the chat template does not take the conversation ({error}): try the flat form"
            raise ArgumentError("form", "one that the chat template takes", problem) from None
        return str(text)

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        encoded = self._tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        prompts = [[*self._begin, *tokens] for tokens in encoded]
        longest, highest = max(map(len, prompts)), max((max(tokens, default=0) for tokens in prompts), default=0)
        if not all(prompts):
            raise ArgumentError("prompts", "at least one token each", "none")
        if self._most is not None and longest > self._most:
            raise ArgumentError("prompts", f"at most {self._most} tokens, as many as the model reads", longest)
        if highest >= self._vocabulary:
            expected = f"the tokenizer of the model, which has {self._vocabulary} tokens"
            raise ArgumentError("tokenizer", expected, f"one that makes token {highest}")
        return prompts

    def _spelled(self, labels: tuple[str, ...], text: str) -> Spellings:
        """Spellings of the labels behind a text.

        Errors:
            ArgumentError: a label has none.
        """
        name = (labels, text[-TAIL:])
        if name not in self._spellings:
            self._spellings[name] = self._spell(labels, text)
        return self._spellings[name]

    def _spell(self, labels: tuple[str, ...], text: str) -> Spellings:
        by_case = len({label.casefold() for label in labels}) < len(labels)
        words = [(label,) if by_case else tuple(dict.fromkeys((label, label.lower()))) for label in labels]
        texts = [[f"{space}{word}" for word in group for space in ("", " ")] for group in words]
        prompt, *written = self._encode([text, *(f"{text}{spelling}" for group in texts for spelling in group)])
        ends = iter(written)
        spelled: list[set[tuple[int, ...]]] = []
        for group in texts:
            # A label that changes the tokens before it is not what the model is asked for at this place.
            behind = [tokens[len(prompt) :] for tokens in itertools.islice(ends, len(group)) if _begins(tokens, prompt)]
            spelled.append(
                {tuple(tokens) for tokens in behind if tokens and self._tokenizer.unk_token_id not in tokens}
            )
        clear = [
            {spelling for spelling in mine if not any(_clash(spelling, other) for other in _but(spelled, label))}
            for label, mine in enumerate(spelled)
        ]
        short = [{spelling for spelling in mine if len(spelling) == 1} for mine in clear]
        chosen = short if all(short) else clear
        lost = [label for label, mine in zip(labels, chosen, strict=True) if not mine]
        if lost:
            problem = f"{', '.join(map(repr, lost))} behind {text[-20:]!r}"
            raise ArgumentError(
                "labels", "labels whose tokens can follow the prompt and differ from each other", problem
            )
        return Spellings(tuple(tuple(sorted(mine)) for mine in chosen))


def _positions(model: Any) -> int | None:
    """Places that a model has a table of; `None`: it has none, and computes any place."""
    most: int | None = getattr(model.config, "max_position_embeddings", None)
    tables = [part for part in model.modules() if isinstance(part, torch.nn.Embedding)]
    # Some tables begin with a few places for padding.
    table = most is not None and any(
        most <= part.num_embeddings <= most + 8 for part in tables if part is not model.get_input_embeddings()
    )
    return most if table else None


def _tokenizer(transformers: Any, target: str | Path) -> Any:
    """The tokenizer of a model.

    Errors:
        ArgumentError: there is none. For some models transformers makes an empty one then.
    """
    reason = "it makes no token of a letter"
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(target, **offline(str(target)))
        if tokenizer("A", add_special_tokens=False)["input_ids"]:
            return tokenizer
    except Exception as error:  # likewise
        reason = _first(error)
    problem = f"{target}, whose tokenizer is missing or does not load ({reason})"
    raise ArgumentError("model", "a model with its tokenizer, both saved in one folder", problem) from None


def _first(error: BaseException) -> str:
    """The first line of an error, or all of it where that line only begins a list."""
    text = str(error).strip() or type(error).__name__
    first = text.splitlines()[0]
    return " ".join(text.split()) if first.rstrip().endswith(":") else first


def _begins(tokens: Sequence[int], prompt: Sequence[int]) -> bool:
    return list(tokens[: len(prompt)]) == list(prompt)


def _but(spelled: Sequence[set[tuple[int, ...]]], label: int) -> Iterator[tuple[int, ...]]:
    """Spellings of all labels but one."""
    return itertools.chain.from_iterable(group for place, group in enumerate(spelled) if place != label)


def _clash(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Whether one spelling is the other, or its beginning: it would be counted for both."""
    length = min(len(one), len(other))
    return one[:length] == other[:length]


def _scores(log_probs: Tensor, spelled: Sequence[Spellings]) -> list[list[float]]:
    """Log-probability of each label of each row, from spellings of one token."""
    ids = [[[token for (token,) in group] for group in spellings.tokens] for spellings in spelled]
    width = max(len(group) for groups in ids for group in groups)
    count = max(len(groups) for groups in ids)
    index = torch.zeros(len(ids), count, width, dtype=torch.long)
    hidden = torch.ones(len(ids), count, width, dtype=torch.bool)
    for row, groups in enumerate(ids):
        for label, group in enumerate(groups):
            index[row, label, : len(group)] = torch.tensor(group)
            hidden[row, label, : len(group)] = False
    gathered = log_probs.gather(1, index.flatten(1).to(log_probs.device)).reshape(index.shape).cpu()
    values = gathered.masked_fill(hidden, -torch.inf).logsumexp(dim=-1).tolist()
    return [row[: len(groups)] for row, groups in zip(values, ids, strict=True)]


def _answered(key: str, scores: Sequence[float], tokens: Sequence[tuple[str, float]], seconds: float) -> Answer:
    values = torch.tensor(scores, dtype=torch.float64)
    reading = OptionReading(values.numpy(), min(float(values.exp().sum()), 1.0))
    return Answer.of_reading(key, reading, tokens=tuple(tokens), seconds=seconds)
