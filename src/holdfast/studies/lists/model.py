"""A small transformer that learns list functions on short lists, and what can be done with it on long ones.

It is right on lists as long as those it was trained on and wrong on all longer ones. `as_list_function` makes it a
function that `holdfast.lists.extrapolate` can extend without another step of training; `distil` puts what the extension
finds back into the weights (amalgamation distillation).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from holdfast.errors import ArgumentError
from holdfast.lists import Oracle, extrapolate
from holdfast.models.decoder import Decoder, DecoderConfig
from holdfast.studies.lists.tasks import ListBatch, ListTokens, find_task, sample_batch, sample_lists, to_lists, to_rows

BatchedListFunction = Callable[[Sequence[Sequence[int]]], list[list[int]]]
"""Lists -> their answers, in the same order."""

Report = Callable[[float, float], None]
"""Called now and then with the share of the work that is done, and the loss."""

AT_ONCE = 4096
"""Lists that are answered together; bounds the memory."""


@dataclass(frozen=True, kw_only=True)
class ListModelConfig:
    """Shape and training of a model of list functions.

    Arguments:
        tasks: names of the tasks it learns, all at once.
        values: number of values.
        longest: lists it is trained on have 1 to so many elements.
        width: of the residual stream.
        layers: number of blocks.
        heads: attention heads a block.
        rope_base: base of the rotary frequencies.
        rotary_share: share of the rotary frequencies in use, see `DecoderConfig`; 0: no positions but the causal mask.
        steps: batches it is trained on.
        batch: lists a batch.
        rate: greatest learning rate, of a one-cycle schedule.
        weight_decay: of AdamW.
        clip: greatest norm of the gradient.
        augment: filter the lists and their answers alike, as more data (`filter_augment`).
        shuffled: train on answers in random order, from which no task can be learned (`shuffled_labels`).
    """

    tasks: tuple[str, ...] = ("reverse", "sort", "id+reverse", "partition")
    values: int = 128
    longest: int = 6
    width: int = 64
    layers: int = 2
    heads: int = 4
    rope_base: float = 10_000.0
    rotary_share: float = 1.0
    steps: int = 3000
    batch: int = 128
    rate: float = 4e-3
    weight_decay: float = 0.01
    clip: float = 1.0
    augment: bool = False
    shuffled: bool = False

    def __post_init__(self) -> None:
        for argument in ("longest", "steps", "batch", "rate", "clip"):
            if not getattr(self, argument) > 0:
                raise ArgumentError(argument, "a positive number", getattr(self, argument))
        if self.longest > self.values:
            raise ArgumentError("longest", f"at most {self.values}, the number of values", self.longest)
        ListTokens(self.tasks, self.values)

    @property
    def tokens(self) -> ListTokens:
        """Its token numbers."""
        return ListTokens(self.tasks, self.values)


class ListTransformer(nn.Module):
    """A decoder that reads a task and a list, and writes the answer.

    Arguments:
        config: the shape.
    """

    def __init__(self, config: ListModelConfig) -> None:
        super().__init__()
        self.config = config
        self.tokens = config.tokens
        self.decoder = Decoder(
            DecoderConfig(
                vocabulary=self.tokens.size,
                width=config.width,
                layers=config.layers,
                heads=config.heads,
                rope_base=config.rope_base,
                rotary_share=config.rotary_share,
            )
        )

    def loss(self, batch: ListBatch) -> Float[Tensor, ""]:
        """Mean cross-entropy of the tokens of the answers, in nats.

        Arguments:
            batch: texts.
        """
        device = self.decoder.embedding.weight.device
        tokens = torch.from_numpy(batch.tokens).to(device)
        answer = torch.from_numpy(batch.answer[:, 1:]).to(device)
        logits = self.decoder(tokens[:, :-1])[answer]
        return nn.functional.cross_entropy(logits, tokens[:, 1:][answer])

    @torch.no_grad()
    def answer(self, task: str, lists: Sequence[Sequence[int]]) -> list[list[int]]:
        """The most likely answers, token by token.

        Lists of one length are answered together. An answer that does not end is cut two tokens after the longest that
        the task can have, and a token that is no value stays in it as its number, so that both show as mistakes.

        Arguments:
            task: name of the task.
            lists: of values, of any lengths.

        Errors:
            ArgumentError: the model has not learnt the task, or an element is no value.
        """
        self.tokens.task(task)
        by_length: dict[int, list[int]] = {}
        for number, xs in enumerate(lists):
            by_length.setdefault(len(xs), []).append(number)
            for x in xs:
                if not isinstance(x, int | np.integer) or not 0 <= x < self.tokens.values:
                    raise ArgumentError("lists", f"whole numbers from 0 to {self.tokens.values - 1}", x)
        answers: list[list[int]] = [[] for _ in lists]
        for length, numbers in by_length.items():
            for start in range(0, len(numbers), AT_ONCE):
                chunk = numbers[start : start + AT_ONCE]
                rows = np.array([list(lists[number]) for number in chunk], dtype=np.int64).reshape(len(chunk), length)
                for number, answer in zip(chunk, self._decode(task, rows), strict=True):
                    answers[number] = answer
        return answers

    def _decode(self, task: str, xs: Int[np.ndarray, "batch n"]) -> list[list[int]]:
        prompts = torch.from_numpy(self.tokens.prompts(task, xs)).to(self.decoder.embedding.weight.device)
        steps = find_task(task).copies * xs.shape[1] + 2
        rows = self.decoder.generate(prompts, steps=steps, stop=self.tokens.stop, pad=self.tokens.stop).tolist()
        return [row[: row.index(self.tokens.stop)] if self.tokens.stop in row else row for row in rows]


def as_list_function(model: ListTransformer, task: str) -> BatchedListFunction:
    """The model as a batched list function, for an `Oracle(..., batched=True)`: to extend, or to probe.

    Arguments:
        model: answers.
        task: name of the task.

    Errors:
        ArgumentError: the model has not learnt the task.
    """
    model.tokens.task(task)
    return lambda lists: model.answer(task, lists)


def train_list_model(
    config: ListModelConfig, *, seed: int, device: str = "cpu", report: Report | None = None
) -> ListTransformer:
    """Train a model from nothing. The seed decides everything, up to the rounding of the device.

    Arguments:
        config: shape and training.
        seed: of the parameters and of the data.
        device: where; on CUDA in bfloat16.
        report: is told how far it is.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = ListTransformer(config).to(device)
    rng = np.random.default_rng(seed)

    def draw() -> ListBatch:
        return sample_batch(
            config.tokens,
            config.batch,
            (1, config.longest),
            rng,
            augment=config.augment,
            shuffled=config.shuffled,
        )

    _fit(model, draw, steps=config.steps, rate=config.rate, report=report)
    return model


def _fit(
    model: ListTransformer, draw: Callable[[], ListBatch], *, steps: int, rate: float, report: Report | None
) -> None:
    """Train on what is drawn, with AdamW and one cycle of the learning rate."""
    config = model.config
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=rate, total_steps=steps)
    on_gpu = model.decoder.embedding.weight.is_cuda
    model.train()
    for step in range(1, steps + 1):
        with torch.autocast("cuda" if on_gpu else "cpu", torch.bfloat16, enabled=on_gpu):
            loss = model.loss(draw())
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), config.clip)
        optimiser.step()
        schedule.step()
        if report is not None and (step % 50 == 0 or step == steps):
            report(step / steps, loss.item())
    model.eval()


@dataclass(frozen=True)
class Targets:
    """Lists with answers that were glued from answers to shorter ones.

    Arguments:
        lists: the lists that could be glued without a contradiction.
        answers: their answers.
        tried: number of lists that were tried.
    """

    lists: list[list[int]]
    answers: list[list[int]]
    tried: int

    @property
    def kept(self) -> float:
        """Share of the lists that could be glued."""
        return len(self.lists) / self.tried if self.tried else 1.0


def amalgamation_targets(f: BatchedListFunction, lists: Sequence[Sequence[int]], capacity: int = 2) -> Targets:
    """Label long lists by gluing the answers to their short sublists. What contradicts itself is left out.

    Arguments:
        f: answers lists of up to `capacity` elements.
        lists: lists without repeated values.
        capacity: most elements that `f` is shown. Two is the strictest: every pair is asked for, and every
            contradiction found. More elements take fewer questions of a model that answers them as surely.

    Errors:
        ArgumentError: a list repeats a value, or the capacity is below 2.
    """
    engine: Literal["pairs", "cover"] = "pairs" if capacity == 2 else "cover"
    oracle = Oracle(f, batched=True, progress=False)
    extended = extrapolate(oracle, capacity, mode="distinct", engine=engine)
    answers = extended.batch(lists, return_exceptions=True)
    glued = [(list(xs), ys) for xs, ys in zip(lists, answers, strict=True) if not isinstance(ys, Exception)]
    return Targets([xs for xs, _ in glued], [ys for _, ys in glued], len(lists))


@dataclass(frozen=True)
class DistilRound:
    """One round of amalgamation distillation.

    Arguments:
        longest: elements of the longest lists learnt.
        kept: by task, the share of the new lists that could be labelled.
    """

    longest: int
    kept: dict[str, float]


def distil(
    model: ListTransformer,
    *,
    rounds: int = 3,
    stretch: int = 3,
    lists: int = 2048,
    steps: int = 300,
    rate: float | None = None,
    capacity: int = 2,
    seed: int = 0,
    report: Report | None = None,
) -> tuple[ListTransformer, tuple[DistilRound, ...]]:
    """Teach a model its own amalgamation: each round labels longer lists by gluing, and trains on them.

    The teacher is the model as it came: what is glued from its short answers is as right at any length, while a student
    that labels for itself drifts. Every other batch is of the lists that the model was first trained on, so that it
    does not forget them; the others are of the labelled lists of all rounds so far.

    Arguments:
        model: is copied.
        rounds: how often.
        stretch: by how many elements the lists grow each round.
        lists: new lists a round and task.
        steps: batches a round.
        rate: greatest learning rate; `None`: half of what the model was trained with.
        capacity: see `amalgamation_targets`.
        seed: of the lists and batches.
        report: is told how far it is.

    Returns:
        The new model, and what each round did.

    Errors:
        ArgumentError: a number is below 1, or lists would become longer than there are values.

    Source: self-training on one's own extrapolation, arXiv 2502.01612, with gluing in the place of a majority vote.
    """
    for argument, number in (("rounds", rounds), ("stretch", stretch), ("lists", lists), ("steps", steps)):
        if number < 1:
            raise ArgumentError(argument, "at least 1", number)
    config = model.config
    if config.longest + rounds * stretch > config.values:
        expected = f"lists of at most {config.values} elements, the number of values, in the last round"
        raise ArgumentError("rounds", expected, config.longest + rounds * stretch)
    student = copy.deepcopy(model)
    rng = np.random.default_rng(seed)
    tokens = model.tokens
    names: list[int] = []
    labelled: list[list[int]] = []
    answers: list[list[int]] = []
    done = []
    for number in range(rounds):
        longest = config.longest + number * stretch
        kept = {}
        for task in config.tasks:
            xs = sample_lists(lists, (longest + 1, longest + stretch), rng, values=config.values)
            targets = amalgamation_targets(as_list_function(model, task), to_lists(xs), capacity)
            names += [tokens.task(task)] * len(targets.lists)
            labelled += targets.lists
            answers += targets.answers
            kept[task] = targets.kept
        done.append(DistilRound(longest + stretch, kept))
        if not labelled:
            continue
        pool = np.array(names), to_rows(labelled), to_rows(answers)
        turn = 0

        def draw(pool: tuple[np.ndarray, np.ndarray, np.ndarray] = pool) -> ListBatch:
            nonlocal turn
            turn += 1
            if turn % 2:
                return sample_batch(tokens, config.batch, (1, config.longest), rng)
            rows = rng.integers(len(pool[0]), size=config.batch)
            return tokens.batch(*(part[rows] for part in pool))

        def tell(share: float, loss: float, number: int = number) -> None:
            if report is not None:
                report((number + share) / rounds, loss)

        _fit(student, draw, steps=steps, rate=config.rate / 2 if rate is None else rate, report=tell)
    return student, tuple(done)
