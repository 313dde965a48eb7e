"""Tasks and networks of the study of plasticity."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch.nn import functional

from holdfast.optim import Projector, Rewarm, scale_decay_groups
from holdfast.optim.rewarming.cycle import Cycle
from holdfast.studies.digits import Labelled, digits
from holdfast.studies.plasticity.addition import AdditionMLP, AdditionTransformer, accuracy, learn, split
from holdfast.studies.plasticity.batched import Cell, Cells, train_cells
from holdfast.studies.plasticity.digits import network, on_canvas
from holdfast.studies.plasticity.fitted_q import Grid
from holdfast.studies.plasticity.measures import dead_units
from holdfast.studies.plasticity.shapes import Addition, Layers, MLPShape, TransformerShape
from holdfast.studies.plasticity.shuffling import SOON, hits

ADDITION = Addition(modulus=7, share=0.5)
SHAPE = TransformerShape(dim=12, heads=3, hidden=10, constants=3)


def test_pairs_are_all_pairs() -> None:
    learnt, tests = split(ADDITION, 3)
    assert len(learnt.inputs) == 24
    assert len(tests.inputs) == ADDITION.tests == 25
    rows = [tuple(row) for part in (learnt, tests) for row in part.inputs.tolist()]
    assert len(set(rows)) == 49
    for part in (learnt, tests):
        assert part.sums.tolist() == [(x + y) % 7 for x, y in part.inputs.tolist()]


def test_the_commutativity_floor() -> None:
    """What a table that knows its pairs and their mirrors gets right, on average over many splits."""
    task = Addition(modulus=11, share=0.4)
    shares = []
    for seed in range(200):
        learnt, tests = split(task, seed)
        known = {(y, x) for x, y in learnt.inputs.tolist()}
        shares.append(sum(tuple(row) in known for row in tests.inputs.tolist()) / len(tests.inputs))
    # Standard error of the mean about 0.05 / √200; a pair's mirror is learnt 48 times in 120, not 48.4 in 121.
    assert sum(shares) / len(shares) == pytest.approx(task.commutativity_floor, abs=0.02)
    assert Addition(modulus=43).commutativity_floor == pytest.approx(0.488, abs=5e-4)


@pytest.mark.parametrize("norm", [True, False])
def test_the_transformer_is_a_whole_block_for_each_pair(norm: bool) -> None:
    """The same as attention over all tokens of every pair, written plainly."""
    model = AdditionTransformer(ADDITION, dataclasses.replace(SHAPE, norm=norm), 0).double()
    inputs = split(ADDITION, 0)[0].inputs
    constants = torch.arange(7, 10).expand(len(inputs), 3)
    stream = model.tokens(torch.cat([inputs, constants], 1)) + model.positions(torch.arange(5))
    normed = model.norms[0](stream)
    heads = [layer(normed).unflatten(-1, (3, 4)).transpose(1, 2) for layer in (model.query, model.key, model.value)]
    mixed = functional.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
    stream = stream + model.out(mixed)
    stream = stream + model.down(functional.relu(model.up(model.norms[1](stream))))
    logits = model.unembed(model.norms[2](stream))[:, -1]
    torch.testing.assert_close(model(inputs), logits, rtol=1e-12, atol=1e-12)


def test_the_mlp_is_a_layer_on_both_embeddings() -> None:
    model = AdditionMLP(ADDITION, MLPShape(dim=5, hidden=6), 0).double()
    inputs = split(ADDITION, 0)[0].inputs
    both = torch.cat([model.first(inputs[:, 0]), model.second(inputs[:, 1])], 1)
    logits = model.unembed(functional.relu(model.norm(model.hidden(both))))
    torch.testing.assert_close(model(inputs), logits, rtol=1e-12, atol=1e-12)


def test_initial_weights() -> None:
    model = AdditionTransformer(Addition(), TransformerShape(), 1)
    for name, tensor in model.named_parameters():
        if tensor.ndim > 1 and tensor.numel() > 1000:  # of fewer the spread is too uncertain
            assert float(tensor.detach().std()) == pytest.approx(tensor.shape[1] ** -0.5, rel=0.1), name
    again = AdditionTransformer(Addition(), TransformerShape(), 1)
    assert torch.equal(model.up.weight, again.up.weight)
    assert not torch.equal(model.up.weight, AdditionTransformer(Addition(), TransformerShape(), 2).up.weight)


@pytest.mark.parametrize("place", range(4))
def test_a_cell_is_a_network_by_itself(place: int) -> None:
    """Each cell of a batch against AdamW, projector and schedule on one network."""
    cycle = Cycle(peak=2e-2, final=1e-3, warmup=2, period=6, low=2e-3)
    cells = [
        Cell(1e-2),
        Cell(1e-2, decay=0.3, held=False),
        Cell(2e-3, scale_decay=1.0, cycle=cycle, offset=3),
        Cell(1e-2, scale_decay=1.0, held=False),
    ]
    batch = Cells(ADDITION, SHAPE, cells, seed=4)
    cell, model = cells[place], AdditionTransformer(ADDITION, SHAPE, 4)
    groups = scale_decay_groups(model, cell.scale_decay, weight_decay=cell.decay)
    optimizer = torch.optim.AdamW(groups, lr=cell.rate)
    if cell.held:
        Projector(model, optimizer, include="all")
    learnt, tests = split(ADDITION, 4)
    schedule: Rewarm | None = None
    for step, loss in zip(range(10), learn(model, optimizer, learnt), strict=False):
        assert float(batch.step()[place]) == pytest.approx(float(loss), rel=1e-3)
        if schedule is not None:
            schedule.step()
        if cell.cycle is not None and step + 1 == cell.offset:
            schedule = Rewarm(optimizer, peak=2e-2, final=1e-3, warmup=2, period=6, low=2e-3)
    for name, tensor in model.named_parameters():
        # Adam divides small gradients by their size, so that rounding errors of float32 grow.
        torch.testing.assert_close(batch.weights[name][place], tensor, rtol=1e-2, atol=1e-3, msg=name)
    train, test = batch.accuracies()
    assert train[place] == pytest.approx(accuracy(model, learnt), abs=0.05)
    assert test[place] == pytest.approx(accuracy(model, tests), abs=0.05)


def test_what_becomes_of_cells() -> None:
    told: list[float] = []
    cells = Cells(ADDITION, SHAPE, [Cell(0.0), Cell(1e-2)], seed=0)
    idle, trained = train_cells(cells, 60, 20, 0.0, told.append)
    assert told == [20 / 60, 40 / 60, 1.0]
    assert trained.train > 0.9 > idle.train
    assert trained.step == idle.step == 20, "any accuracy counts"


def test_digits() -> None:
    data = digits(0, extra="plasticity")
    assert data.images.shape == (1797, 64)
    assert float(data.images.min()) == 0.0
    assert float(data.images.max()) == 1.0
    other = digits(1, extra="plasticity")
    assert not torch.equal(data.labels, other.labels)
    assert torch.equal(data.labels.bincount(), other.labels.bincount())


def test_digits_lie_in_their_canvas() -> None:
    images = torch.rand(50, 64)
    canvas = on_canvas(Labelled(images, torch.zeros(50, dtype=torch.long)), 10, 0.0, 0).images.view(50, 10, 10)
    torch.testing.assert_close(canvas.sum((1, 2)), images.sum(1), rtol=1e-5, atol=1e-5)
    corners = set()
    for image, large in zip(images.view(50, 8, 8), canvas, strict=True):
        places = [
            (row, column)
            for row in range(3)
            for column in range(3)
            if torch.equal(large[row : row + 8, column : column + 8], image)
        ]
        assert len(places) == 1
        corners.update(places)
    assert len(corners) > 5
    noisy = on_canvas(Labelled(torch.zeros(50, 64), torch.zeros(50, dtype=torch.long)), 10, 0.2, 0).images
    assert float(noisy.std()) == pytest.approx(0.2, rel=0.1)


def test_networks() -> None:
    model = network(64, 10, Layers(width=96, depth=3), norm=True, seed=0, head=0.1)
    kinds = [type(module).__name__ for module in model]
    assert kinds == ["Linear", "LayerNorm", "ReLU"] * 3 + ["Linear"]
    stds = [float(tensor.detach().std()) for tensor in model.parameters() if tensor.ndim > 1]
    expected = [math.sqrt(2 / 64), math.sqrt(2 / 96), math.sqrt(2 / 96), 0.1 * math.sqrt(1 / 96)]
    assert stds == pytest.approx(expected, rel=0.1)
    assert len(list(network(64, 10, Layers(), norm=False, seed=0))) == 7


@torch.no_grad()
def test_dead_units() -> None:
    model = network(4, 2, Layers(width=4, depth=2), norm=False, seed=0)
    linears = [module for module in model if isinstance(module, torch.nn.Linear)]
    for layer, alive in zip(linears, (4, 3), strict=False):
        layer.weight.zero_()
        layer.bias.copy_(torch.tensor([1.0] * alive + [-1.0] * (4 - alive)))
    assert dead_units(model, torch.rand(5, 4)) == pytest.approx(0.125)


def test_moves_of_a_grid() -> None:
    grid = Grid(3)
    assert grid.observations.shape == (9, 6)
    assert bool((grid.observations.sum(1) == 2).all())
    assert grid.next[0].tolist() == [0, 3, 0, 1], "up and left lead out of the grid"
    assert grid.next[4].tolist() == [1, 7, 3, 5]
    optimal = grid.optimal(8)
    assert optimal[0].tolist() == [False, True, False, True]
    assert optimal[7].tolist() == [False, False, False, True]
    assert not bool(optimal[8].any())


@pytest.mark.parametrize(
    ("alarms", "expected"),
    [
        ([], (0, 0)),
        ([105, 208], (2, 0)),
        ([100 + SOON, 201], (2, 0)),
        ([101 + SOON, 205], (1, 1)),
        ([105, 110, 50, 250], (1, 3)),
        ([100], (0, 1)),
    ],
)
def test_hits_of_the_detector(alarms: list[int], expected: tuple[int, int]) -> None:
    """Of three tasks of 100 steps: losses of the second begin with step 101."""
    assert hits(alarms, 100, 3) == expected
