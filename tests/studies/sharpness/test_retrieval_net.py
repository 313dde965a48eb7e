"""The network that looks up a set, against a plain writing of its formula."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from holdfast.errors import ArgumentError
from holdfast.studies.sharpness.item_sets import ItemSets, sample_item_sets, stack
from holdfast.studies.sharpness.retrieval_net import MaxRetrievalNet, StackedLinear

SEEDS = (3, 5, 8)


def net(*seeds: int, width: int = 16) -> MaxRetrievalNet:
    return MaxRetrievalNet(seeds, width=width).double()


def sets(seed: int, batch: int = 6, size: int | tuple[int, int] = (3, 9)) -> ItemSets:
    drawn = sample_item_sets(batch, size, generator=torch.Generator().manual_seed(seed))
    return ItemSets(drawn.items.double(), drawn.query.double(), drawn.mask, drawn.winner, drawn.classes)


def naive(model: MaxRetrievalNet, s: int, given: ItemSets) -> Tensor:
    """The formula, item by item, for seed number `s`."""

    def linear(layer: StackedLinear, x: Tensor) -> Tensor:
        y = x @ layer.weight[s]
        return y if layer.bias is None else y + layer.bias[s, 0]

    gelu = nn.functional.gelu
    h = linear(model.item_out, gelu(linear(model.item_in, given.items)))
    u = linear(model.query_out, gelu(linear(model.query_in, given.query[:, None])))
    key, value = linear(model.to_key, h), linear(model.to_value, h)
    logits = (linear(model.to_query, u)[:, None] * key).sum(-1) / math.sqrt(model.width)
    if given.mask is not None:
        logits = torch.where(given.mask, logits, -math.inf)
    z = (logits.softmax(-1)[..., None] * value).sum(1)
    return linear(model.read_out, gelu(linear(model.read_in, z)))


def gradients(model: MaxRetrievalNet, output: Tensor) -> list[Tensor]:
    weight = torch.linspace(-1, 1, output.numel(), dtype=torch.float64).view(output.shape)
    return list(torch.autograd.grad((output * weight).sum(), list(model.parameters())))


def test_equals_the_formula_in_value_and_gradient() -> None:
    model, given = net(3), sets(0)
    assert given.mask is not None
    output = model(given.items[None], given.query[None], given.mask[None])
    expected = naive(model, 0, given)[None]
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-12)
    for ours, theirs in zip(gradients(model, output), gradients(model, expected), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)


def test_stacked_equals_single_in_value_and_gradient() -> None:
    stacked = net(*SEEDS)
    given = stack([sets(seed) for seed in SEEDS])
    output = stacked(given.items, given.query, given.mask)
    # The same weights for each output, so that gradients can be compared seed by seed.
    weight = torch.linspace(-1, 1, output[0].numel(), dtype=torch.float64).view(output[0].shape)
    all_gradients = torch.autograd.grad((output * weight).sum(), list(stacked.parameters()))
    for i, seed in enumerate(SEEDS):
        single = net(seed)
        alone = single(*(x[None] for x in (given[i].items, given[i].query, given[i].mask)))
        torch.testing.assert_close(alone[0], output[i], rtol=0, atol=1e-10)
        for ours, theirs in zip(gradients(single, alone), all_gradients, strict=True):
            torch.testing.assert_close(ours[0], theirs[i], rtol=0, atol=1e-10)


def test_stacked_training_equals_single_training() -> None:
    def trained(seeds: tuple[int, ...]) -> list[Tensor]:
        model = net(*seeds)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-3, fused=True)
        for step in range(5):
            given = stack([sets(100 * seed + step) for seed in seeds])
            output = model(given.items, given.query, given.mask)
            loss = nn.functional.cross_entropy(output.flatten(0, 1), given.winning_class.flatten(), reduction="none")
            optimizer.zero_grad()
            loss.view(len(seeds), -1).mean(dim=1).sum().backward()
            optimizer.step()
        return [parameter.detach() for parameter in model.parameters()]

    together = trained(SEEDS)
    for i, seed in enumerate(SEEDS):
        for ours, theirs in zip(trained((seed,)), together, strict=True):
            torch.testing.assert_close(ours[0], theirs[i], rtol=0, atol=1e-10)


def test_order_of_items_and_padding_are_invisible() -> None:
    model, given = net(3), sets(0, size=7)
    output = model(given.items[None], given.query[None])
    shuffled = given.items[:, torch.randperm(7, generator=torch.Generator().manual_seed(1))]
    torch.testing.assert_close(model(shuffled[None], given.query[None]), output, rtol=0, atol=1e-12)
    padded = torch.cat([given.items, torch.full((6, 4, 11), 1e3, dtype=torch.float64)], dim=1)
    mask = (torch.arange(11) < 7).expand(6, -1)
    torch.testing.assert_close(model(padded[None], given.query[None], mask[None]), output, rtol=0, atol=1e-12)


def test_chunks_equal_the_whole() -> None:
    model, given = net(*SEEDS), stack([sets(seed, batch=7) for seed in SEEDS])
    assert given.mask is not None
    whole = model(given.items, given.query, given.mask)
    parts = [
        model(given.items[:, i : i + 3], given.query[:, i : i + 3], given.mask[:, i : i + 3]) for i in range(0, 7, 3)
    ]
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=0, atol=1e-12)


def test_several_arms_share_one_pass() -> None:
    model, given = net(*SEEDS), stack([sets(seed, size=5) for seed in SEEDS])

    def hard(logits: Tensor) -> Tensor:
        return nn.functional.one_hot(logits.argmax(-1), logits.shape[-1]).to(logits.dtype)

    hidden, logits = model.encode(given.items, given.query)
    both = model.read(hidden, torch.stack([logits.softmax(-1), hard(logits)]))
    torch.testing.assert_close(both[0], model(given.items, given.query), rtol=0, atol=1e-12)
    torch.testing.assert_close(both[1], model(given.items, given.query, normalise=hard), rtol=0, atol=1e-12)


def test_initialised_like_a_linear_layer_and_by_seed_alone() -> None:
    model, alone = net(*SEEDS), net(SEEDS[1])
    for ours, single in zip(model.parameters(), alone.parameters(), strict=True):
        assert torch.equal(ours[1], single[0])
    weight = MaxRetrievalNet([0], width=128).item_out.weight
    bound = 1 / math.sqrt(128)
    assert weight.abs().max() <= bound
    assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.02)


def test_no_seeds() -> None:
    with pytest.raises(ArgumentError, match="seeds"):
        MaxRetrievalNet([])
