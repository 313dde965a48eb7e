"""Masks leave what they should, stay, and resume."""

from __future__ import annotations

import copy
import io
import sys

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from holdfast.errors import ArgumentError, MissingExtraError
from holdfast.optim.power_propagation import (
    GradualPruning,
    PowerProp,
    apply_masks_,
    export_masks,
    magnitude_masks,
    pack_two_of_four_,
    two_of_four_masks,
)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 20), nn.ReLU(), nn.Linear(20, 5))


def train(model, optimizer, steps, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        x = torch.randn(16, 8, generator=generator)
        optimizer.zero_grad()
        (model(x) - x[:, :5].abs()).square().mean().backward()
        optimizer.step()


def test_the_largest_of_each_layer_stay(model):
    masks = magnitude_masks(model, 0.1)
    assert {name: int(mask.sum()) for name, mask in masks.items()} == {"0.weight": 16, "2.weight": 20}  # head: 2 · 0.1
    kept, gone = model[0].weight[masks["0.weight"]], model[0].weight[~masks["0.weight"]]
    assert kept.abs().min() >= gone.abs().max()
    assert magnitude_masks(model, 0.1, output=1)["2.weight"].all()
    assert set(magnitude_masks(model, 0.1, exclude=["0"])) == {"2.weight"}
    assert magnitude_masks(model, 1e-9)["0.weight"].sum() == 1


def test_of_equal_weights_no_more_stay():
    layer = nn.Linear(10, 1, bias=False)
    nn.init.constant_(layer.weight, -1.0)
    assert magnitude_masks(layer, 0.3, output=0.3)["weight"].tolist() == [[True] * 3 + [False] * 7]


def test_shares_and_weights_that_cannot_be_ranked(model):
    for kept in (0.0, 1.5, float("nan")):
        with pytest.raises(ArgumentError, match="kept"):
            magnitude_masks(model, kept)
    model[2].weight.data[0, 0] = torch.nan
    with pytest.raises(ArgumentError, match=r"2\.weight"):
        magnitude_masks(model, 0.5)


def test_two_of_four(model):
    masks = two_of_four_masks(model)
    for name, mask in masks.items():
        assert (mask.view(-1, 4).sum(1) == 2).all()
        weight = dict(model.named_parameters())[name].detach().abs().view(-1, 4)
        kept = (weight * mask.view(-1, 4)).sum(1)
        assert torch.equal(kept, weight.topk(2).values.sum(1))
    assert set(two_of_four_masks(nn.Linear(6, 4))) == set()


def test_masks_are_exported_to_torch(model):
    masks = magnitude_masks(model, 0.2)
    pruned, x = copy.deepcopy(model), torch.randn(3, 8)
    apply_masks_(pruned, masks)
    export_masks(model, masks)
    assert torch.equal(model(x), pruned(x))
    assert prune.is_pruned(model)
    prune.remove(model[0], "weight")
    assert torch.equal(model[0].weight, pruned[0].weight)
    with pytest.raises(ArgumentError, match="names of parameters"):
        export_masks(model, {"1.weight": torch.ones(1)})
    with pytest.raises(ArgumentError, match="shape"):
        apply_masks_(pruned, {"0.weight": torch.ones(1)})


def wide(dtype=torch.float16):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 5)).to(dtype)


def test_what_torchao_cannot_pack_is_refused(monkeypatch):
    whole, kept = wide(), wide().state_dict()
    masks = two_of_four_masks(whole, exclude=["2"])
    for model, wrong, words in (
        (whole, None, r"32 · n outputs and 64 · m inputs, got 2\.weight of shape \(5, 32\)"),
        (wide(torch.float32), masks, r"float16 or bfloat16, got 0\.weight in torch\.float32"),
        (whole, {"0.weight": torch.ones(32, 64)}, "at most two of four"),
        (whole, {"0.bias": torch.ones(32)}, "weights of linear layers"),
        (nn.Sequential(nn.Conv1d(64, 32, 1)).half(), {"0.weight": torch.ones(32, 64, 1)}, "weights of linear layers"),
    ):
        with pytest.raises(ArgumentError, match=words):
            pack_two_of_four_(model, wrong)
    monkeypatch.setitem(sys.modules, "torchao", None)
    with pytest.raises(MissingExtraError, match="pip install torchao"):
        pack_two_of_four_(whole, masks)
    assert all(torch.equal(whole.state_dict()[name], value) for name, value in kept.items())


# torchao says which of its own libraries did not load, and Python what it thinks of its docstrings.
of_torchao = pytest.mark.filterwarnings("ignore::SyntaxWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")


@of_torchao
def test_torchao_is_given_no_weights_on_a_cpu():
    pytest.importorskip("torchao")
    model = wide()
    with pytest.raises(ArgumentError, match=r"on a GPU, got 0\.weight on cpu"):
        pack_two_of_four_(model, two_of_four_masks(model, exclude=["2"]))


@of_torchao
@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_torchao_packs_what_is_on_a_gpu():
    pytest.importorskip("torchao")
    model = wide().cuda()
    masks = two_of_four_masks(model, exclude=["2"])
    masked, x = copy.deepcopy(model), torch.randn(64, 64, dtype=torch.float16, device="cuda")
    apply_masks_(masked, masks)
    pack_two_of_four_(model, masks)
    assert "SparseSemiStructured" in type(model[0].weight).__name__
    assert type(model[2].weight) is nn.Parameter
    with torch.no_grad():
        torch.testing.assert_close(model(x), masked(x), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(("alpha", "form"), [(1, "exact"), (3, "exact"), (3, "first-order"), (3, "decoupled")])
def test_masks_hold_and_leave_roots(model, alpha, form):
    optimizer = PowerProp(model, torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9), alpha=alpha, form=form)
    train(model, optimizer, 5)
    roots = {name: value.detach().clone() for name, value in optimizer.roots.items()}
    masks = magnitude_masks(model, 0.3)
    optimizer.set_masks(masks)
    assert ((model[0].weight != 0) == masks["0.weight"]).all()
    for name, value in roots.items():
        assert torch.equal(optimizer.roots[name], value)
    before = model[0].weight.detach().clone()
    train(model, optimizer, 5)  # a warning of foreign writes would be an error
    assert ((model[0].weight != 0) == masks["0.weight"]).all()
    assert not torch.allclose(model[0].weight, before, atol=1e-3)
    with pytest.raises(ArgumentError, match="names among"):
        optimizer.set_masks({"0.bias": torch.ones(20)})
    with pytest.raises(ArgumentError, match="shape"):
        optimizer.set_masks({"0.weight": torch.ones(20)})


def test_a_mask_is_part_of_the_model_that_is_written_in_roots(model):
    """Masked weights get no gradient: SGD leaves their roots, and unmasked they are as they were."""
    optimizer = PowerProp(model, torch.optim.SGD(model.parameters(), lr=0.05), alpha=2)
    train(model, optimizer, 3)
    before = model[0].weight.detach().clone()
    mask = magnitude_masks(model, 0.3)["0.weight"]
    optimizer.set_masks({"0.weight": mask})
    train(model, optimizer, 5)
    optimizer.set_masks({})
    assert torch.equal(model[0].weight[~mask], before[~mask])


@pytest.mark.parametrize("powered", [True, False])
def test_gradual_pruning_follows_its_schedule_and_resumes(model, powered):
    def build(model):
        inner = torch.optim.AdamW(model.parameters(), lr=1e-2)
        optimizer = PowerProp(model, inner, alpha=2, zeros="keep") if powered else inner
        return optimizer, GradualPruning(model, optimizer, kept=0.1, begin=4, end=20, every=4)

    twin = copy.deepcopy(model)
    optimizer, pruning = build(model)
    assert pruning.share(0) == pruning.share(4) == 1
    assert pruning.share(12) == pytest.approx(0.1 + 0.9 / 8)
    gone = torch.zeros(20, 8, dtype=torch.bool)
    for number in range(30):
        train(model, optimizer, 1, seed=number)
        zero = model[0].weight == 0
        assert int((~zero).sum()) == round(160 * pruning.share(number + 1 - (number + 1) % 4))
        assert (zero | ~gone).all()  # nothing comes back
        gone = zero
    assert int((~gone).sum()) == 16

    other, its = build(twin)
    for number in range(10):
        train(twin, other, 1, seed=number)
    file = io.BytesIO()
    torch.save([twin.state_dict(), other.state_dict(), its.state_dict()], file)
    file.seek(0)
    weights, state, schedule = torch.load(file, weights_only=True)
    third = copy.deepcopy(twin)
    last, its = build(third)
    third.load_state_dict(weights)
    last.load_state_dict(state)
    its.load_state_dict(schedule)
    for number in range(10, 30):
        train(third, last, 1, seed=number)
    assert torch.equal(third[0].weight, model[0].weight)


def test_a_schedule_that_cannot_be(model):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for options in ({"kept": 0.0}, {"end": 4}, {"every": 0}):
        with pytest.raises(ArgumentError, match=next(iter(options))):
            GradualPruning(model, optimizer, **{"kept": 0.1, "begin": 4, "end": 20, **options})
