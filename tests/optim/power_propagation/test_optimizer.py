"""The optimiser does what a model written in φ would do, whatever is around it."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from torch import nn

from holdfast.errors import ArgumentError
from holdfast.optim import Projector, attached, power_adamw
from holdfast.optim.power_propagation import PowerProp, PowerPropWarning, powers
from holdfast.optim.power_propagation.powers import root

SGD, AdamW = torch.optim.SGD, torch.optim.AdamW
INNER = {
    "sgd": lambda groups: SGD(groups, lr=0.1),
    "momentum": lambda groups: SGD(groups, lr=0.03, momentum=0.9),
    "adamw": lambda groups: AdamW(groups, lr=3e-3, weight_decay=0.1),
}


class Written(nn.Module):
    """A layer that is written in φ."""

    def __init__(self, layer, alpha):
        super().__init__()
        self.alpha = alpha
        self.value = nn.Parameter(root(layer.weight.detach(), alpha))
        self.bias = nn.Parameter(layer.bias.detach().clone())

    @property
    def weight(self):
        return self.value * self.value.abs() ** (self.alpha - 1)

    def forward(self, x):
        return nn.functional.linear(x, self.weight, self.bias)


def network(seed=0, dtype=torch.float32):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3)).to(dtype)


def written(model, alpha):
    return nn.Sequential(Written(model[0], alpha), nn.Tanh(), Written(model[2], alpha))


def batches(steps, dtype=torch.float32, seed=1):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        x = torch.randn(8, 6, generator=generator, dtype=dtype)
        yield x, torch.stack([x[:, 0] * x[:, 1], x[:, 2], x[:, 3].abs()], 1)


def trained(model, optimizer, steps=100, after=None, dtype=torch.float32):
    for x, y in batches(steps, dtype):
        optimizer.zero_grad()
        (model(x) - y).square().mean().backward()
        optimizer.step()
        if after is not None:
            after()
    return model


def apart(one, other):
    return max((one[k].weight - other[k].weight).abs().max().item() for k in (0, 2))


def one_step(alpha, weight, gradient, form="exact", inner=None, lr=0.1, **options):
    model = nn.Linear(1, 1, bias=False, dtype=torch.float64)
    nn.init.constant_(model.weight, weight)
    inner = SGD(model.parameters(), lr=lr) if inner is None else inner(model.parameters())
    optimizer = PowerProp(model, inner, alpha=alpha, form=form, **options)
    model.weight.grad = torch.full_like(model.weight, gradient)
    optimizer.step()
    return model.weight.item()


def adam(parameters):
    return torch.optim.Adam(parameters, lr=0.1, eps=1e-300)


@pytest.mark.parametrize(
    ("alpha", "weight", "gradient", "lr", "exact", "first"),
    [
        (2, 0.25, 1, 0.1, 0.16, 0.15),
        (3, 0.008, 2, 0.05, 0.006644672, 0.00656),
        (4, -0.0625, 1, 0.1, -0.09150625, -0.0875),
    ],
)
def test_one_step_of_sgd_by_hand(alpha, weight, gradient, lr, exact, first):
    assert one_step(alpha, weight, gradient, lr=lr) == pytest.approx(exact, abs=1e-9)
    assert one_step(alpha, weight, gradient, "first-order", lr=lr) == pytest.approx(first, abs=1e-9)
    assert one_step(alpha, weight, gradient, "decoupled", lr=lr) == pytest.approx(first, abs=1e-9)


@pytest.mark.parametrize(
    ("alpha", "weight", "exact", "decoupled"), [(2, 0.25, 0.16, 0.15), (4, -0.0625, -0.1296, -0.0875)]
)
@pytest.mark.parametrize("gradient", [0.01, 7.0])
def test_one_step_of_adam_by_hand(alpha, weight, exact, decoupled, gradient):
    assert one_step(alpha, weight, gradient, inner=adam) == pytest.approx(exact, abs=1e-9)
    assert one_step(alpha, weight, gradient, "decoupled", inner=adam) == pytest.approx(decoupled, abs=1e-9)


def test_first_order_with_a_floor_moves_zero_when_asked():
    assert one_step(2, 0.25, 1, "first-order", floor=0.05) == pytest.approx(0.25 - 0.1 * 4 * 0.3)


@pytest.mark.parametrize("form", ["exact", "first-order", "decoupled"])
@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_with_alpha_of_one_it_is_the_inner_optimiser(form, name):
    if (form, name) == ("first-order", "adamw"):
        form = "exact"
    plain, powered = network(), network()
    trained(plain, INNER[name](plain.parameters()), 20)
    trained(powered, PowerProp(powered, INNER[name](powered.parameters()), alpha=1, form=form), 20)
    assert all(torch.equal(one, other) for one, other in zip(plain.parameters(), powered.parameters(), strict=True))


@pytest.mark.parametrize("alpha", [2, 3, 4, 2.5])
@pytest.mark.parametrize("name", INNER)
def test_it_is_the_model_written_in_its_roots(name, alpha):
    model = network()
    reference = written(model, alpha)
    trained(reference, INNER[name](reference.parameters()))
    trained(model, PowerProp(model, INNER[name](model.parameters()), alpha=alpha))
    assert apart(model, network()) > 0.05
    assert apart(model, reference) <= 1e-5


def by_layer(model):
    return [{"params": model[0].parameters(), "lr": 0.02}, {"params": model[2].parameters()}]


@pytest.mark.parametrize("on", ["wrapper", "inner"])
def test_groups_and_schedulers(on):
    model = network()
    reference = written(model, 3)
    optimizer = PowerProp(model, SGD(by_layer(model), lr=0.1, momentum=0.5), alpha=3)
    other = SGD(by_layer(reference), lr=0.1, momentum=0.5)
    lr_scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer if on == "wrapper" else optimizer.inner, 60)
    other_scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(other, 60)
    trained(model, optimizer, after=lr_scheduler.step)
    trained(reference, other, after=other_scheduler.step)
    assert optimizer.param_groups[0]["lr"] == other.param_groups[0]["lr"]
    assert apart(model, reference) <= 1e-5


def test_a_closure_is_called_once_at_the_weights():
    model = network()
    reference = written(model, 2)
    optimizer, other = PowerProp(model, INNER["adamw"](model.parameters())), INNER["adamw"](reference.parameters())
    seen = []
    for x, y in batches(50):

        def closure(x=x, y=y):
            optimizer.zero_grad()
            loss = (model(x) - y).square().mean()
            loss.backward()
            seen.append(loss.item())
            return loss

        assert optimizer.step(closure).item() == seen[-1]
        other.zero_grad()
        loss = (reference(x) - y).square().mean()
        loss.backward()
        other.step()
        assert seen[-1] == pytest.approx(loss.item(), rel=1e-4)
    assert len(seen) == 50
    assert apart(model, reference) <= 1e-5


def test_gradients_that_are_summed_up_and_scaled():
    model = network()
    reference = written(model, 3)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
    optimizer, other = PowerProp(model, INNER["sgd"](model.parameters()), alpha=3), INNER["sgd"](reference.parameters())
    for number, (x, y) in enumerate(batches(100)):
        scaler.scale((model(x) - y).square().mean() / 2).backward()
        ((reference(x) - y).square().mean() / 2).backward()
        if number == 50:  # a step that the scaler leaves out
            model[0].weight.grad[0, 0] = torch.inf
        if number % 2:
            before = model[0].weight.detach().clone()
            scaler.step(optimizer)
            scaler.update()
            if number == 51:
                assert torch.equal(model[0].weight, before)
            else:
                other.step()
            optimizer.zero_grad()
            other.zero_grad()
    assert apart(model, reference) <= 1e-5


@pytest.mark.parametrize("alpha", [2, 3, 4])
def test_the_first_order_forms_error_falls_with_the_rate(alpha):
    errors = []
    for lr, steps in ((0.05, 30), (0.005, 300)):
        exact, first = network(dtype=torch.float64), network(dtype=torch.float64)
        batch = next(iter(batches(1, torch.float64)))
        for model, form in ((exact, "exact"), (first, "first-order")):
            optimizer = PowerProp(model, SGD(model.parameters(), lr=lr), alpha=alpha, form=form)
            for _ in range(steps):
                optimizer.zero_grad()
                (model(batch[0]) - batch[1]).square().mean().backward()
                optimizer.step()
        errors.append(apart(exact, first))
    assert 6 < errors[0] / errors[1] < 16


@pytest.mark.parametrize("name", ["sgd", "momentum", "adamw"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_training_that_resumes_goes_on_bit_for_bit(name, dtype):
    def build():
        model = network(dtype=dtype)
        return model, PowerProp(model, INNER[name](model.parameters()), alpha=3)

    data = list(batches(100, dtype))

    def train(model, optimizer, part):
        for x, y in part:
            optimizer.zero_grad()
            (model(x) - y).square().mean().backward()
            optimizer.step()

    whole, optimizer = build()
    train(whole, optimizer, data)
    first, optimizer = build()
    train(first, optimizer, data[:50])
    file = io.BytesIO()
    torch.save((first.state_dict(), optimizer.state_dict()), file)
    file.seek(0)
    weights, state = torch.load(file, weights_only=True)
    second, optimizer = build()
    second.load_state_dict(weights)
    optimizer.load_state_dict(state)
    train(second, optimizer, data[50:])
    assert all(torch.equal(one, other) for one, other in zip(whole.parameters(), second.parameters(), strict=True))


def test_a_root_of_full_precision_keeps_what_a_half_weight_rounds_away():
    model = nn.Linear(1, 1, bias=False).bfloat16()
    nn.init.constant_(model.weight, 1.0)
    optimizer = PowerProp(model, SGD(model.parameters(), lr=1e-4), alpha=2)
    for _ in range(100):  # each alone is below half of the last bit of a weight of 1
        model.weight.grad = torch.ones_like(model.weight)
        optimizer.step()
    value = optimizer.roots["weight"]
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx((1 - 2e-4) ** 100, rel=1e-5)
    assert model.weight.item() == pytest.approx(value.item() ** 2, rel=2**-8)


@pytest.mark.parametrize("change", ["data", "load", "mask"])
def test_weights_that_somebody_else_writes_are_noticed(change):
    model = network()
    optimizer = PowerProp(model, INNER["momentum"](model.parameters()), alpha=3)
    trained(model, optimizer, 5)
    roots = {name: value.detach().clone() for name, value in optimizer.roots.items()}
    moments = optimizer.state[model[0].weight]["momentum_buffer"]
    if change == "data":
        model[0].weight.data[0, 0] = 0.5
    elif change == "load":
        model.load_state_dict({**model.state_dict(), "0.weight": torch.full((16, 6), 0.5)})
    else:
        with torch.no_grad():
            model[0].weight[0, 0] = 0.0
    target = model[0].weight.detach().clone()
    model.zero_grad()
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    for group in optimizer.param_groups:
        group["momentum"] = 0.0  # a step that changes nothing: only what was written is seen
    with pytest.warns(PowerPropWarning, match=r"0\.weight: written"):
        optimizer.step()
    assert torch.allclose(model[0].weight, target, rtol=1e-5)
    assert optimizer.state[model[0].weight]["momentum_buffer"] is moments
    if change != "load":
        kept = optimizer.roots["0.weight"].flatten()[1:]
        assert torch.equal(kept, roots["0.weight"].flatten()[1:])  # roots of other elements are not rounded anew
    model[0].weight.data.mul_(0.5)
    optimizer.step()  # said once: a second warning would be an error here


def test_weights_as_they_were_at_first_are_no_news():
    model = network()
    before = copy.deepcopy(model)
    optimizer = PowerProp(model, INNER["adamw"](model.parameters()), alpha=2.5)
    assert apart(model, before) == 0
    trained(model, optimizer, 2)  # a warning would be an error


def test_gradients_stay_and_autograd_sees_the_change():
    model = network()
    optimizer = PowerProp(model, INNER["adamw"](model.parameters()), alpha=2)
    x, y = next(iter(batches(1)))
    loss = (model(x) - y).square().mean()
    loss.backward(retain_graph=True)
    gradients = [(parameter.grad, parameter.grad.clone()) for parameter in model.parameters()]
    places = [parameter.data_ptr() for parameter in model.parameters()]
    optimizer.step()
    for (given, before), parameter in zip(gradients, model.parameters(), strict=True):
        assert parameter.grad is given
        assert torch.equal(given, before)
    assert places == [parameter.data_ptr() for parameter in model.parameters()]
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_layouts_and_frozen_parameters():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 36, 4))
    other = copy.deepcopy(model).to(memory_format=torch.channels_last)
    x = torch.randn(2, 3, 8, 8)
    for network in (model, other):
        network[2].weight.requires_grad_(False)
        optimizer = PowerProp(network, INNER["sgd"](network.parameters()), alpha=3)
        for _ in range(3):
            optimizer.zero_grad()
            network(x).square().mean().backward()
            optimizer.step()
        assert set(optimizer.weights) == {"0.weight", "2.weight"}
        assert network[2].weight not in optimizer.state
    assert torch.allclose(model[0].weight, other[0].weight, atol=1e-6)


def test_what_is_left_alone_and_why():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.mix, self.head = nn.Embedding(5, 4), nn.Linear(4, 4), nn.Linear(4, 5)
            self.norm = nn.LayerNorm(4)
            self.head.weight = self.embed.weight

        def forward(self, tokens):
            return self.head(self.norm(self.mix(self.embed(tokens))))

    model = Tied()
    optimizer = PowerProp(model, SGD(model.parameters(), lr=0.1))
    assert set(optimizer.weights) == {"mix.weight"}
    assert optimizer.excluded == {"embed.weight": "an embedding, tied with head.weight"}
    with pytest.raises(ArgumentError, match="exclude"):
        PowerProp(model, SGD(model.parameters(), lr=0.1), exclude=["mixer"])
    with pytest.raises(ArgumentError, match="linear or convolutional"):
        PowerProp(model, SGD(model.parameters(), lr=0.1), exclude=["mix"])


def test_a_matrix_of_zeros_is_refused_by_name():
    model = nn.ModuleDict({"lora_A": nn.Linear(4, 2, bias=False), "lora_B": nn.Linear(2, 4, bias=False)})
    nn.init.zeros_(model["lora_B"].weight)
    with pytest.raises(ArgumentError, match=r"lora_B\.weight, of which 100% is zero"):
        PowerProp(model, SGD(model.parameters(), lr=0.1))
    PowerProp(model, SGD(model.parameters(), lr=0.1), exclude=["lora_B"])
    PowerProp(model, SGD(model.parameters(), lr=0.1), alpha=1)
    PowerProp(model, SGD(model.parameters(), lr=0.1), zeros="keep")


@pytest.mark.parametrize(
    ("options", "inner", "words"),
    [
        ({"alpha": 0.5}, SGD, "alpha"),
        ({"alpha": float("nan")}, SGD, "alpha"),
        ({"form": "first-order"}, AdamW, "P cancels"),
        ({"form": "first-order"}, torch.optim.RMSprop, "P cancels"),
        ({"form": "decoupled"}, torch.optim.Adafactor, "for this form"),
        ({"floor": 0.1}, SGD, "floor"),
        ({}, torch.optim.LBFGS, "LBFGS"),
        ({}, torch.optim.SparseAdam, "SparseAdam"),
    ],
)
def test_what_would_give_a_wrong_number_is_refused(options, inner, words):
    model = network()
    with pytest.raises(ArgumentError, match=words):
        PowerProp(model, inner(model.parameters(), lr=0.1), **options)


def test_decay_in_the_decoupled_form_is_refused_when_it_comes():
    model = network()
    optimizer = PowerProp(model, AdamW(model.parameters(), weight_decay=0.0), form="decoupled")
    trained(model, optimizer, 1)
    optimizer.param_groups[0]["weight_decay"] = 0.1
    with pytest.raises(ArgumentError, match="weight decay"):
        optimizer.step()


def test_a_steep_power_warns():
    model = network()
    with pytest.warns(PowerPropWarning, match="zero for ever"):
        PowerProp(model, SGD(model.parameters(), lr=0.1), alpha=7)


def test_parts_belong_on_the_outer_optimiser():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.LayerNorm(16), nn.Tanh(), nn.Linear(16, 3))
    inner = SGD(model.parameters(), lr=0.05)
    part = Projector(model, inner)
    with pytest.raises(ArgumentError, match="Projector"):
        PowerProp(model, inner)
    part.remove()
    optimizer = PowerProp(model, inner, alpha=2)
    part = Projector(model, optimizer)
    assert attached(optimizer) == (part,)
    start, norm = model[0].weight.detach().clone(), model[0].weight.norm().item()
    with pytest.warns(PowerPropWarning, match="written"):
        trained(model, optimizer, 5)
    assert not torch.allclose(model[0].weight, start, rtol=1e-3)
    assert model[0].weight.norm().item() == pytest.approx(norm, rel=1e-5)


def test_checkpoints_of_something_else_are_refused():
    model = network()

    def build(alpha=2, form="exact", inner=SGD, **options):
        return PowerProp(model, inner(model.parameters(), lr=0.1), alpha=alpha, form=form, **options)

    optimizer = build()
    before = optimizer.roots["0.weight"].detach().clone()
    for state, words in (
        (build(alpha=3).state_dict(), "alpha 2.0, got 3.0"),
        (build(form="first-order").state_dict(), "form"),
        (build(inner=AdamW).state_dict(), "inner"),
        (build(exclude=["2"]).state_dict(), "weights"),
        (SGD(model.parameters(), lr=0.1).state_dict(), "PowerProp"),
    ):
        with pytest.raises(ArgumentError, match=words):
            optimizer.load_state_dict(state)
    assert torch.equal(optimizer.roots["0.weight"], before)


def test_parameters_that_come_later_and_copies():
    model = network()
    optimizer = PowerProp(model, SGD(model[0].parameters(), lr=0.05, momentum=0.9), alpha=2)
    trained(model, optimizer, 3)
    optimizer.add_param_group({"params": model[2].parameters(), "lr": 0.01})
    assert set(optimizer.roots) == {"0.weight", "2.weight"}
    copied, twin = copy.deepcopy((model, optimizer))
    for each, its in ((model, optimizer), (copied, twin)):
        trained(each, its, 3)
    assert apart(model, copied) == 0
    assert apart(model, network()) > 0


@pytest.mark.parametrize("alpha", [2, 3, 4, 2.5])
def test_pieces_are_put_together(monkeypatch, alpha):
    found = []
    for piece in (powers.PIECE, 7):  # 96 and 48 elements: one piece, and several with a rest
        monkeypatch.setattr(powers, "PIECE", piece)
        model = network()
        optimizer = PowerProp(model, INNER["adamw"](model.parameters()), alpha=alpha)
        trained(model, optimizer, 10)
        optimizer.set_masks({"0.weight": model[0].weight.abs() > 0.1})
        with torch.no_grad():
            model[2].weight[1, 5] = 0.5
        with pytest.warns(PowerPropWarning, match=r"2\.weight: written"):
            trained(model, optimizer, 10)
        found.append(model.state_dict())
    for name, value in found[0].items():  # what is left of a piece has another rounding of powers that are none of ours
        torch.testing.assert_close(value, found[1][name], rtol=1e-4, atol=1e-6)


def test_roots_that_another_device_took_are_no_news():
    model = network()
    optimizer = PowerProp(model, INNER["sgd"](model.parameters()), alpha=3)
    for value in optimizer.roots.values():
        value.data = value.nextafter(2 * value).detach()
    trained(model, optimizer, 2)  # a warning would be an error


@pytest.mark.parametrize("on", ["wrapper", "inner"])
def test_copies_and_pickles_of_what_a_scheduler_has_patched(on):
    model = network()
    optimizer = PowerProp(model, INNER["momentum"](model.parameters()), alpha=2)
    torch.optim.lr_scheduler.StepLR(optimizer if on == "wrapper" else optimizer.inner, 1)  # keeps `step` as its own
    trained(model, optimizer, 3)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    for other, its in (copy.deepcopy((model, optimizer)), pickle.loads(pickle.dumps((model, optimizer)))):
        trained(other, its, 3)
        assert apart(other, model) > 0
    assert all(torch.equal(one, other) for one, other in zip(before, model.parameters(), strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_step_that_fails_leaves_the_weights(dtype):
    model = network(dtype=dtype)
    optimizer = PowerProp(model, INNER["sgd"](model.parameters()), alpha=3)
    trained(model, optimizer, 3, dtype=dtype)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    handle = optimizer.inner.register_step_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        trained(model, optimizer, 1, dtype=dtype)
    assert all(torch.equal(one, other) for one, other in zip(before, model.parameters(), strict=True))
    handle.remove()
    trained(model, optimizer, 1, dtype=dtype)  # a warning of foreign writes would be an error


def test_the_recipe_decays_roots_alone():
    model = network()
    reference = written(model, 4)
    optimizer = power_adamw(model, lr=3e-3, decay=0.5)
    values = [reference[0].value, reference[2].value]
    groups = [{"params": values, "weight_decay": 0.5}, {"params": [reference[0].bias, reference[2].bias]}]
    trained(model, optimizer)
    trained(reference, AdamW(groups, lr=3e-3, weight_decay=0.0))
    assert apart(model, reference) <= 1e-5
    assert torch.allclose(model[2].bias, reference[2].bias, atol=1e-5)
