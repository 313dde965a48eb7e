"""ReDo replaces what is dormant, cleanly: incoming, outgoing, moments, norms, and nothing else."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from holdfast.errors import ArgumentError
from holdfast.optim import ReDo, attached
from tests.optim.baselines.networks import Convolutions, mlp, train


def ones(layer: nn.Module) -> None:
    for parameter in layer.parameters(recurse=False):
        nn.init.ones_(parameter)


def with_dead(model: nn.Sequential, units: list[int]) -> nn.Sequential:
    with torch.no_grad():
        model[0].weight[units] = 0
        model[0].bias[units] = -1
    return model


def adam(model: nn.Module, rate: float = 1e-3) -> torch.optim.Adam:
    return torch.optim.Adam(model.parameters(), rate)


def test_dead_units_begin_anew_with_their_moments_and_nothing_else_does():
    model, x = with_dead(mlp(), [1, 4]), torch.randn(16, 4)
    with torch.no_grad():
        model[2].bias += 3  # all of the second layer is awake
    # In groups and an order of their own: what belongs to a unit is found by its parameter.
    optimizer = torch.optim.Adam([{"params": [p]} for p in reversed(list(model.parameters()))], 0.0)
    part = ReDo(model, optimizer, every=3, threshold=0.0, initialize=ones)
    train(model, optimizer, x, 2)
    assert part.last == {}
    plain, plain_optimizer = copy.deepcopy((model, optimizer))
    train(plain, plain_optimizer, x)
    train(model, optimizer, x)
    assert part.last == {"0": 2, "2": 0}
    places = {"0.weight": (0, 1.0), "0.bias": (0, 1.0), "2.weight": (1, 0.0)}
    for (name, parameter), other in zip(model.named_parameters(), plain.parameters(), strict=True):
        expected = [other.detach().clone(), *(s.clone() for s in plain_optimizer.state[other].values())]
        found = [parameter.detach(), *optimizer.state[parameter].values()]
        if name in places:
            dim, fresh = places[name]
            for tensor, value in zip(expected, (fresh, None, 0.0, 0.0), strict=True):  # weight, step, both moments
                if value is not None:
                    tensor.index_fill_(dim, torch.tensor([1, 4]), value)
        assert all(map(torch.equal, found, expected)), name
    assert bool(optimizer.state[model[2].weight]["exp_avg"].any())


def test_the_score_is_the_mean_size_and_not_the_signed_mean():
    """With tanh a unit that swings around zero is as busy as can be."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(1, 3), nn.Tanh(), nn.Linear(3, 1))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[5.0], [1e-4], [0.0]]))
        model[0].bias.copy_(torch.tensor([0.0, 0.0, 1.0]))
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    part = ReDo(model, optimizer, every=1, threshold=0.1, initialize=ones)
    train(model, optimizer, torch.tensor([[-1.0], [1.0]]))
    assert part.last == {"0": 1}
    assert model[0].weight.flatten().tolist() == [5, 1, 0]


def test_a_function_of_living_units_is_kept():
    model, x = with_dead(mlp(), [0]), torch.randn(16, 4)
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    before = model(x)
    ReDo(model, optimizer, every=1, threshold=0.0)
    train(model, optimizer, x)
    assert torch.equal(model(x), before)
    assert (
        0 < float(model[0].weight[0].detach().abs().max()) <= 0.5
    )  # of the layer's own distribution, uniform up to 1/sqrt(4)


def test_channels_are_replaced_through_norms_and_flattened_images():
    model, x = Convolutions(), torch.randn(6, 2, 3, 3)
    with torch.no_grad():
        model.norm.weight[2], model.norm.bias[2] = 0, -3
        model.second.weight[1], model.second.bias[1] = 0, -3
    optimizer = adam(model, 0.0)
    part = ReDo(model, optimizer, every=1, threshold=0.0, initialize=ones)
    train(model, optimizer, x)
    assert part.last == {"first": 1, "second": 1}
    assert (model.first.weight == 1).flatten(1).all(1).tolist() == [False, False, True, False]
    norm = (model.norm.weight.detach(), model.norm.bias.detach(), model.norm.running_mean, model.norm.running_var)
    assert [float(tensor[2]) for tensor in norm] == [1, 0, 0, 1]
    assert float(model.norm.running_var[1]) != 1
    assert (model.second.weight != 0).any(3).any(2).tolist() == [
        [True, True, False, True],
        [True, True, True, True],  # itself fresh
        [True, True, False, True],
    ]
    columns = model.head.weight.view(2, 3, 9)
    assert (columns != 0).all(2).tolist() == [[True, False, True]] * 2
    assert not bool(optimizer.state[model.head.weight]["exp_avg"].view(2, 3, 9)[:, 1].any())


def test_a_dead_layer_is_replaced_whole():
    model, x = with_dead(mlp(), list(range(6))), torch.randn(8, 4)
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    part = ReDo(model, optimizer, every=1)
    train(model, optimizer, x)
    assert part.last["0"] == 6
    assert bool((model[1](model[0](x)) > 0).any())


def test_only_training_is_listened_to():
    model, x = with_dead(mlp(), [3]), torch.randn(8, 4)
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    part = ReDo(model, optimizer, every=2, threshold=0.0)
    train(model, optimizer, x)
    assert part.last == {}
    loud = x.new_full((8, 4), 100.0)
    with torch.no_grad():
        model[0].weight[3] = 1  # in the forwards that do not count the unit is awake
        model(loud)
        model.eval()
        model(loud)
        model.train()
        model[0].weight[3] = 0
    train(model, optimizer, x)
    assert part.last["0"] == 1


def test_no_run_in_training_mode_is_said_at_the_first_step():
    model = mlp().eval()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    ReDo(model, optimizer, every=1000)
    with pytest.raises(ArgumentError, match="model: expected one that runs in training mode"):
        train(model, optimizer, torch.randn(8, 4))


def test_a_copied_model_is_deaf_and_a_copy_of_all_goes_on():
    model, x = mlp(), torch.randn(8, 4)
    optimizer = adam(model)
    part = ReDo(model, optimizer, every=2, threshold=0.5)
    train(model, optimizer, x)
    target = copy.deepcopy(model)
    target(x.new_full((8, 4), 100.0)).sum().backward()
    assert pickle.loads(pickle.dumps(model))(x).shape == (8, 3)
    for copier in (copy.deepcopy, lambda three: pickle.loads(pickle.dumps(three))):
        other, other_optimizer, other_part = copier((model, optimizer, part))
        assert attached(other_optimizer) == (other_part,)
        torch.manual_seed(1)
        train(other, other_optimizer, x)
        assert sum(other_part.last.values()) > 0
        assert part.last == {}
    torch.manual_seed(1)
    train(model, optimizer, x)
    assert part.last == other_part.last
    assert all(map(torch.equal, model.parameters(), other.parameters()))
    part.remove()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_resumed_run_keeps_its_place():
    model, x = mlp(), torch.randn(8, 4)
    optimizer = adam(model)
    part = ReDo(model, optimizer, every=4, threshold=0.5)
    train(model, optimizer, x, 3)
    other = mlp()
    other.load_state_dict(model.state_dict())
    other_optimizer = adam(other)
    other_optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    other_part = ReDo(other, other_optimizer, every=4, threshold=0.5)
    other_part.load_state_dict(part.state_dict())
    for net, opt in ((model, optimizer), (other, other_optimizer)):
        torch.manual_seed(3)
        train(net, opt, x)
    assert part.last == other_part.last != {}
    assert all(map(torch.equal, model.parameters(), other.parameters()))


@pytest.mark.parametrize("options", [{"every": 0}, {"every": 1, "threshold": -0.1}])
def test_numbers_out_of_range_are_refused(options):
    model = mlp()
    with pytest.raises(ArgumentError, match=next(reversed(options))):
        ReDo(model, torch.optim.SGD(model.parameters(), 0.1), **options)
