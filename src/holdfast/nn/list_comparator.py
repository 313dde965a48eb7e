"""A network for list functions that is filter equivariant by construction, at any length.

It never sees a list. It is asked of two elements, the earlier one of the list first, which of their copies comes out
first, and of each value how many copies come out. The answers to all pairs are glued: a copy's place is the number of
copies that come before it. What is said of two elements depends on nothing else in the list, so that deleting a value
from the list deletes it from the output, as long as no three copies contradict each other (their tournament is
transitive).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from holdfast.errors import ArgumentError

PAIRS_AT_ONCE = 1 << 16
"""Pairs that are compared together; bounds the memory."""


class ListComparator(nn.Module):
    """Compares the elements of a list, and makes an output of all comparisons.

    The logit that copy a of x comes before copy b of y is c(x, y, s) = g(x, y, s) - g(y, x, -s), where s is the sign of
    the position of y less that of x, and g a perceptron on embeddings of values and copies. So c is antisymmetric:
    c(y, x, -s) = -c(x, y, s). Elements of one value are not compared: their copies look the same, and stand in the
    order that the other elements give them.

    Where the comparisons contradict each other, copies stand in the order of how many others come before them
    (Copeland's order), and equivariance is not promised; `consistent` tells.

    Arguments:
        values: number of values; they are 0 to `values - 1`.
        copies: most times that an element comes out.
        embedding: width of the embeddings.
        width: of the perceptron's two hidden layers.

    Errors:
        ArgumentError: a number is below 1.

    Source: the definition of arXiv 2507.08796, and the theorem that a tournament without 3-cycles is transitive.
    """

    def __init__(self, values: int, *, copies: int = 1, embedding: int = 32, width: int = 64) -> None:
        super().__init__()
        for argument, number in (("values", values), ("copies", copies), ("embedding", embedding), ("width", width)):
            if number < 1:
                raise ArgumentError(argument, "at least 1", number)
        self.values = values
        self.copies = copies
        self.value_embedding = nn.Embedding(values, embedding)
        self.copy_embedding = nn.Embedding(copies, embedding)
        self.compare = nn.Sequential(
            nn.Linear(2 * embedding + 1, width), nn.GELU(), nn.Linear(width, width), nn.GELU(), nn.Linear(width, 1)
        )
        self.count = nn.Linear(embedding, copies + 1)

    def forward(self, earlier: Int[Tensor, "*pairs 2"], later: Int[Tensor, "*pairs 2"]) -> Float[Tensor, "*pairs"]:
        """Logits that copies of earlier elements come before copies of later ones.

        Arguments:
            earlier: value and copy, from 0, of an element that stands earlier in the list.
            later: the same of one that stands later.
        """
        x, y = self._embed(earlier), self._embed(later)
        sign = x.new_ones(*x.shape[:-1], 1)
        forth = self.compare(torch.cat([x, y, sign], dim=-1))
        back = self.compare(torch.cat([y, x, -sign], dim=-1))
        logits: Tensor = (forth - back).squeeze(-1)
        return logits

    def count_logits(self, values: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch counts"]:
        """Logits of how many copies of a value come out, from 0 to `copies`.

        Arguments:
            values: the values.
        """
        logits: Tensor = self.count(self.value_embedding(values))
        return logits

    def answer(self, lists: Sequence[Sequence[int]]) -> list[list[int]]:
        """The outputs of lists.

        Arguments:
            lists: of values; values may repeat.

        Errors:
            ArgumentError: an element is no value.
        """
        return [output for output, _ in self._glue(lists)]

    def consistent(self, xs: Sequence[int]) -> bool:
        """Whether the comparisons of a list contradict each other nowhere, so that filter equivariance holds for it.

        Arguments:
            xs: a list of values.

        Errors:
            ArgumentError: an element is no value.
        """
        return self._glue([xs])[0][1]

    def soft_positions(
        self, xs: Sequence[int], temperature: float = 1.0
    ) -> tuple[Int[Tensor, " copies"], Float[Tensor, " copies"]]:
        """Where the copies stand in the output, with gradients: how many come before, each by its probability.

        Arguments:
            xs: a list of values.
            temperature: divides the logits; towards 0 the positions become those of `answer`.

        Returns:
            The values of all copies, and their positions from 0.

        Errors:
            ArgumentError: an element is no value, or the temperature is not positive.
        """
        if not temperature > 0:
            raise ArgumentError("temperature", "a positive number", temperature)
        copies = self._copies(xs)
        place = torch.from_numpy(copies[:, :2]).to(self.value_embedding.weight.device)
        first, second = (torch.from_numpy(numbers).to(place.device) for numbers in _compared(copies))
        before = torch.sigmoid(self(place[first], place[second]) / temperature)
        score = before.new_zeros(len(copies)).index_add(0, second, before).index_add(0, first, 1 - before)
        rank = _rank_in_value(copies[:, 0], score.detach().cpu().numpy())
        return place[:, 0], score + torch.from_numpy(rank).to(score)

    def soft_answer(self, xs: Sequence[int], temperature: float = 1.0) -> Float[Tensor, "m values"]:
        """The probabilities of the values in each place of the output, with gradients.

        Each place is shared out among the copies by the softmax of how near their soft positions are to it.

        Arguments:
            xs: a list of values.
            temperature: divides logits and distances; towards 0 each place holds the value that `answer` puts there.

        Errors:
            ArgumentError: an element is no value, or the temperature is not positive.

        Source: the relaxation of sorting by distances, SoftSort (arXiv 2006.16038), on positions instead of keys.
        """
        values, positions = self.soft_positions(xs, temperature)
        places = torch.arange(len(values), device=positions.device)[:, None]
        shares = torch.softmax(-(places - positions).abs() / temperature, dim=-1)
        return shares @ nn.functional.one_hot(values, self.values).to(shares)

    def _embed(self, copies: Int[Tensor, "*pairs 2"]) -> Float[Tensor, "*pairs embedding"]:
        embedded: Tensor = self.value_embedding(copies[..., 0]) + self.copy_embedding(copies[..., 1])
        return embedded

    @torch.no_grad()
    def _copies(self, xs: Sequence[int]) -> Int[np.ndarray, "copies 3"]:
        """Value, number of the copy, and position of the element, of all that comes out; by position, then copy."""
        for x in xs:
            if not isinstance(x, int | np.integer) or not 0 <= x < self.values:
                raise ArgumentError("xs", f"whole numbers from 0 to {self.values - 1}", x)
        values = np.array(list(xs), dtype=np.int64)
        # All values are counted together, so that a count does not hang on what else is in the list by rounding.
        counts = self.count_logits(torch.arange(self.values, device=self.value_embedding.weight.device))
        count = counts.argmax(dim=-1).cpu().numpy()[values]
        position = np.repeat(np.arange(len(values)), count)
        number = np.arange(len(position)) - np.repeat(np.cumsum(count) - count, count)
        return np.stack([values[position], number, position], axis=1)

    def _glue(self, lists: Sequence[Sequence[int]]) -> list[tuple[list[int], bool]]:
        """The outputs of lists, and whether their comparisons contradict each other nowhere."""
        every = [self._copies(xs) for xs in lists]
        # What two copies are compared by, as one number each, so that no comparison is made twice.
        span = self.values * self.copies
        pairs = [_compared(copies) for copies in every]
        codes = [
            (copies[first, :2] @ (self.copies, 1)) * span + copies[second, :2] @ (self.copies, 1)
            for copies, (first, second) in zip(every, pairs, strict=True)
        ]
        distinct, which = np.unique(np.concatenate([*codes, np.empty(0, dtype=np.int64)]), return_inverse=True)
        known = self._before(np.stack(np.divmod(distinct, span), axis=1))[which]
        glued = []
        for copies, (first, second), code in zip(every, pairs, codes, strict=True):
            before, known = known[: len(code)], known[len(code) :]
            score = np.bincount(np.where(before, second, first), minlength=len(copies))
            position = score + _rank_in_value(copies[:, 0], score)
            order = np.argsort(position, kind="stable")
            consistent = bool((position[order] == np.arange(len(order))).all())
            glued.append((copies[order, 0].tolist(), consistent))
        return glued

    @torch.no_grad()
    def _before(self, codes: Int[np.ndarray, "pairs 2"]) -> Bool[np.ndarray, " pairs"]:
        """Whether the earlier copy of each pair comes first. A copy's code is value * copies + number of the copy."""
        place = torch.from_numpy(np.stack(np.divmod(codes, self.copies), axis=-1))
        # In double precision, so that rounding, which depends on what is computed together, decides no comparison.
        exact = {name: parameter.double() for name, parameter in self.named_parameters()}
        before = [np.empty(0, dtype=bool)]
        for start in range(0, len(place), PAIRS_AT_ONCE):
            part = place[start : start + PAIRS_AT_ONCE].to(self.value_embedding.weight.device)
            logits = torch.func.functional_call(self, exact, (part[:, 0], part[:, 1]))
            before.append((logits > 0).cpu().numpy())
        return np.concatenate(before)


def _compared(copies: Int[np.ndarray, "copies 3"]) -> tuple[Int[np.ndarray, " pairs"], Int[np.ndarray, " pairs"]]:
    """Numbers of all two copies of different values, the earlier element's first."""
    first, second = np.triu_indices(len(copies), 1)
    differ = copies[first, 0] != copies[second, 0]
    return first[differ], second[differ]


def _rank_in_value(values: Int[np.ndarray, " copies"], score: np.ndarray) -> Int[np.ndarray, " copies"]:
    """How many copies of its own value come before each copy: those with lower scores."""
    order = np.lexsort((score, values))
    ordered = values[order]
    rank = np.empty(len(values), dtype=np.int64)
    rank[order] = np.arange(len(values)) - np.searchsorted(ordered, ordered)
    return rank


@dataclass(frozen=True)
class Comparisons:
    """What lists and their outputs say about pairs.

    Arguments:
        earlier: value and copy of the element that stands earlier in the list.
        later: the same of the one that stands later.
        before: whether the earlier element's copy comes out first.
        value: values of all elements.
        count: how many copies of each of them come out.
    """

    earlier: Int[Tensor, "pairs 2"]
    later: Int[Tensor, "pairs 2"]
    before: Float[Tensor, " pairs"]
    value: Int[Tensor, " elements"]
    count: Int[Tensor, " elements"]


def comparisons(lists: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], copies: int = 1) -> Comparisons:
    """Every ordered pair inside every list, with what the output says of it.

    Arguments:
        lists: lists without repeated values.
        answers: their outputs.
        copies: most times that an element may come out.

    Errors:
        ArgumentError: there are not as many answers as lists, a list repeats a value, or an answer has a value that
            the list has not, or more than `copies` of one.
    """
    if len(lists) != len(answers):
        raise ArgumentError("answers", f"one for each of {len(lists)} lists", len(answers))
    groups: dict[tuple[int, int], list[int]] = defaultdict(list)
    for number, (xs, ys) in enumerate(zip(lists, answers, strict=True)):
        if len(set(xs)) < len(xs):
            raise ArgumentError("lists", "lists without repeated values", list(xs))
        if not set(ys) <= set(xs):
            raise ArgumentError("answers", f"values of the list {list(xs)}", list(ys))
        groups[len(xs), len(ys)].append(number)
    earlier, later, before = [np.empty((0, 2), int)], [np.empty((0, 2), int)], [np.empty(0, bool)]
    value, count = [np.empty(0, int)], [np.empty(0, int)]
    for (n, m), numbers in groups.items():
        shown = np.array([lists[number] for number in numbers], dtype=np.int64).reshape(-1, n)
        given = np.array([answers[number] for number in numbers], dtype=np.int64).reshape(-1, m)
        there = shown[:, :, None] == given[:, None, :]
        counts = there.sum(axis=2)
        if counts.max(initial=0) > copies:
            raise ArgumentError("answers", f"at most {copies} copies of an element", int(counts.max()))
        value.append(shown.ravel())
        count.append(counts.ravel())
        # Position in the output of each copy of each element, where there is such a copy.
        position = np.argsort(~there, axis=2, kind="stable")
        for i, j in zip(*np.triu_indices(n, 1), strict=True):
            for a in range(min(copies, m)):
                for b in range(min(copies, m)):
                    both = (counts[:, i] > a) & (counts[:, j] > b)
                    earlier.append(np.stack([shown[both, i], np.full(both.sum(), a)], axis=1))
                    later.append(np.stack([shown[both, j], np.full(both.sum(), b)], axis=1))
                    before.append(position[both, i, a] < position[both, j, b])
    return Comparisons(
        torch.from_numpy(np.concatenate(earlier)),
        torch.from_numpy(np.concatenate(later)),
        torch.from_numpy(np.concatenate(before)).float(),
        torch.from_numpy(np.concatenate(value)),
        torch.from_numpy(np.concatenate(count)),
    )


def train_list_comparator(
    lists: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
    *,
    values: int,
    copies: int = 1,
    seed: int = 0,
    steps: int = 1200,
    batch: int = 1024,
    rates: tuple[float, float] = (3e-3, 3e-4),
    report: Callable[[float, float], None] | None = None,
) -> ListComparator:
    """Train a comparator on short lists and their outputs, by Adam on the cross-entropy of pairs and of counts.

    Arguments:
        lists: lists without repeated values; at least one with two elements of which copies come out.
        answers: their outputs.
        values: number of values; they are 0 to `values - 1`.
        copies: most times that an element comes out.
        seed: of parameters and batches.
        steps: batches to train on.
        batch: pairs a batch, drawn with replacement.
        rates: learning rate for the first two thirds of the steps, and for the rest.
        report: is called now and then with the share of the steps done, and the loss.

    Errors:
        ArgumentError: a list or an answer is not as said, or an element is no value.
    """
    pairs = comparisons(lists, answers, copies)
    for x in (pairs.value.min().item(), pairs.value.max().item()) if len(pairs.value) else ():
        if not 0 <= x < values:
            raise ArgumentError("lists", f"values from 0 to {values - 1}", x)
    if not len(pairs.before):
        raise ArgumentError("answers", "a list with two elements that come out", "none")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        comparator = ListComparator(values, copies=copies)
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(comparator.parameters(), lr=rates[0])
    for step in range(1, steps + 1):
        optimiser.param_groups[0]["lr"] = rates[0] if 3 * step <= 2 * steps else rates[1]
        pair = torch.randint(len(pairs.before), (batch,), generator=generator)
        logits = comparator(pairs.earlier[pair], pairs.later[pair])
        loss = nn.functional.binary_cross_entropy_with_logits(logits, pairs.before[pair])
        element = torch.randint(len(pairs.value), (batch,), generator=generator)
        counts = comparator.count_logits(pairs.value[element])
        loss = loss + nn.functional.cross_entropy(counts, pairs.count[element])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        if report is not None and (step % 50 == 0 or step == steps):
            report(step / steps, loss.item())
    return comparator.eval()
