"""Sets of prioritised items, and two questions about them.

*Max retrieval* asks for the class of the item with the largest priority, so that the answer depends on one
item of the set ("Softmax is not enough", arXiv 2410.01104, appendix A). *Class shares* asks for the share of
each class, so that the answer depends on all items alike: the negative control.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from holdfast.errors import ArgumentError

CLASSES = 10
"""Number of item classes in the paper."""


@dataclass(frozen=True)
class ItemSets:
    """A batch of sets, each with a query.

    Arguments:
        items: features `[priority, one-hot class]`; zero where `mask` is false.
        query: one number a set, uniform on (0, 1). It carries no information: the question never changes.
        mask: true where an item exists; `None` where all sets are full.
        winner: position of the item with the largest priority (the first, where float32 priorities tie).
        classes: number of item classes.
    """

    items: Float[Tensor, "*batch n features"]
    query: Float[Tensor, "*batch"]
    mask: Bool[Tensor, "*batch n"] | None
    winner: Int[Tensor, "*batch"]
    classes: int

    @property
    def winning_class(self) -> Int[Tensor, "*batch"]:
        """Target of max retrieval: the class of the item with the largest priority."""
        index = self.winner[..., None, None].expand(*self.winner.shape, 1, self.classes)
        return self.items[..., 1:].gather(-2, index).squeeze(-2).argmax(dim=-1)

    @property
    def class_shares(self) -> Float[Tensor, "*batch classes"]:
        """Target of the control: the share of each class among the items, summing to one."""
        counts = self.items[..., 1:].sum(dim=-2)
        return counts / counts.sum(dim=-1, keepdim=True)

    def view(self, *batch: int) -> ItemSets:
        """The same sets with their batch axes reshaped to `batch`."""
        return ItemSets(
            items=self.items.view(*batch, *self.items.shape[-2:]),
            query=self.query.view(*batch),
            mask=None if self.mask is None else self.mask.view(*batch, self.mask.shape[-1]),
            winner=self.winner.view(*batch),
            classes=self.classes,
        )

    def __getitem__(self, index: int | slice | tuple[int | slice, ...]) -> ItemSets:
        """Some of the sets, by indexing their batch axes."""
        mask = None if self.mask is None else self.mask[index]
        return ItemSets(self.items[index], self.query[index], mask, self.winner[index], self.classes)


def sample_item_sets(
    batch: int,
    size: int | tuple[int, int],
    *,
    generator: torch.Generator,
    classes: int = CLASSES,
    skewed: bool = False,
) -> ItemSets:
    """Draw sets: priorities are uniform on (0, 1), classes are independent of them.

    The result depends on nothing but the arguments and the generator's state, and lies on the generator's
    device.

    Arguments:
        batch: number of sets.
        size: items in every set, or the least and the greatest number, of which each set draws one uniformly.
            Sets are padded to the greatest.
        generator: where the randomness comes from.
        classes: number of classes.
        skewed: draw the class probabilities of each set uniformly from the simplex, so that a set has a most
            frequent class worth asking for; otherwise classes are equally likely.

    Returns:
        The sets, in float32, with one batch axis.

    Errors:
        ArgumentError: a count is not positive, or the least size exceeds the greatest.

    Source: arXiv 2410.01104, appendix A.
    """
    least, greatest = (size, size) if isinstance(size, int) else size
    for argument, value in (("batch", batch), ("classes", classes), ("size", least)):
        if value < 1:
            raise ArgumentError(argument, "a positive number", value)
    if greatest < least:
        raise ArgumentError("size", "the least number of items before the greatest", (least, greatest))
    device = generator.device
    priority = torch.rand(batch, greatest, generator=generator, device=device)
    if skewed:
        share = torch.empty(batch, classes, device=device).exponential_(generator=generator)
        label = torch.multinomial(share, greatest, replacement=True, generator=generator)
    else:
        label = torch.randint(classes, (batch, greatest), generator=generator, device=device)
    query = torch.rand(batch, generator=generator, device=device)
    features = torch.nn.functional.one_hot(label, classes).to(priority.dtype)
    items = torch.cat([priority.unsqueeze(-1), features], dim=-1)
    if least == greatest:
        return ItemSets(items, query, None, priority.argmax(dim=-1), classes)
    count = torch.randint(least, greatest + 1, (batch, 1), generator=generator, device=device)
    mask = torch.arange(greatest, device=device) < count
    winner = priority.masked_fill(~mask, -1).argmax(dim=-1)
    return ItemSets(items * mask.unsqueeze(-1), query, mask, winner, classes)


def stack(sets: Sequence[ItemSets]) -> ItemSets:
    """Put batches of one shape side by side along a new leading axis, for example one batch a seed.

    Arguments:
        sets: batches with the same sizes, padding and number of classes.

    Errors:
        ArgumentError: there is nothing to stack.
    """
    if not sets:
        raise ArgumentError("sets", "at least one batch", "none")
    masks = [batch.mask for batch in sets if batch.mask is not None]
    return ItemSets(
        items=torch.stack([batch.items for batch in sets]),
        query=torch.stack([batch.query for batch in sets]),
        mask=torch.stack(masks) if masks else None,
        winner=torch.stack([batch.winner for batch in sets]),
        classes=sets[0].classes,
    )


@dataclass(frozen=True)
class Question:
    """What is asked about a set.

    Arguments:
        target: sets -> what a cross-entropy takes: a class each, or a share for each class.
        right: class logits, of one or more arms, and sets -> whether the class named is right.
        skewed: ask about sets that have a most frequent class; see `sample_item_sets`.
    """

    target: Callable[[ItemSets], Tensor]
    right: Callable[[Float[Tensor, "*arm seed batch classes"], ItemSets], Bool[Tensor, "*arm seed batch"]]
    skewed: bool


def _names_the_winner(
    logits: Float[Tensor, "*arm seed batch classes"], sets: ItemSets
) -> Bool[Tensor, "*arm seed batch"]:
    return logits.argmax(dim=-1) == sets.winning_class


def _names_the_most_frequent(
    logits: Float[Tensor, "*arm seed batch classes"], sets: ItemSets
) -> Bool[Tensor, "*arm seed batch"]:
    """Any of several most frequent classes is right."""
    answer = logits.argmax(dim=-1)
    shares = sets.class_shares.expand(*answer.shape, -1)
    return torch.gather(shares, -1, answer.unsqueeze(-1)).squeeze(-1) == shares.amax(dim=-1)


MAX_RETRIEVAL = Question(lambda sets: sets.winning_class, _names_the_winner, skewed=False)
"""The class of the item with the largest priority."""

CLASS_SHARES = Question(lambda sets: sets.class_shares, _names_the_most_frequent, skewed=True)
"""The share of each class; scored by naming the most frequent one."""
