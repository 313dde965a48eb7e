"""Second-order classes of other packages do what their names say, or say that they do not."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from torch import nn

from holdfast.errors import ArgumentError
from holdfast.optim import (
    NonFiniteGradient,
    SecondOrder,
    SecondOrderWarning,
    second_order,
    split_parameters,
)

package = pytest.importorskip("pytorch_optimizer")
METHODS = ("shampoo", "soap", "muon")


def matrix(rows, columns, dtype=torch.float64):
    layer = nn.Linear(columns, rows, bias=False, dtype=dtype)
    nn.init.zeros_(layer.weight)
    return layer


def network():
    torch.manual_seed(0)
    convolution, norm = nn.Conv2d(2, 4, 3, bias=False), nn.BatchNorm2d(4)
    return nn.Sequential(convolution, norm, nn.ReLU(), nn.Flatten(), nn.Linear(36, 6), nn.Linear(6, 3))


def train(model, optimizer, first, last, each=None):
    for step in range(first, last):
        generator = torch.Generator().manual_seed(step)
        x = torch.randn(8, 2, 5, 5, generator=generator)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), x[:, 0, 0, :3].argmax(1)).backward()
        if each is not None:
            each()
        optimizer.step()


def update(layer, optimizer, gradient):
    before = layer.weight.detach().clone()
    layer.weight.grad = gradient.clone()
    optimizer.step()
    return before - layer.weight.detach()


def test_the_first_step_of_shampoo_by_hand():
    """G = diag(3, 4): statistics of a share 1 − β of G Gᵀ make (1 − β)^(−1/2) · I, and a graft 5/√2 · I."""
    gradient = torch.diag(torch.tensor([3.0, 4.0], dtype=torch.float64))
    identity = torch.eye(2, dtype=torch.float64)
    layer = matrix(2, 2)
    grafted = second_order("shampoo", layer, lr=1.0, every=1, matrix_eps=1e-12)
    assert torch.allclose(update(layer, grafted, gradient), 5 / 2**0.5 * identity, atol=1e-9)
    layer = matrix(2, 2)
    bare = second_order("shampoo", layer, lr=1.0, every=1, graft="none", beta=0.96, matrix_eps=1e-12)
    assert torch.allclose(update(layer, bare, gradient), 5 * identity, atol=1e-9)


def test_the_first_step_of_muon_by_hand():
    layer = matrix(2, 2)
    optimizer = second_order("muon", layer, lr=1.0, beta=0.0, head=True)
    gradient = torch.diag(torch.tensor([3.0, 4.0], dtype=torch.float64))
    assert torch.allclose(
        update(layer, optimizer, gradient).diagonal(), torch.tensor([0.695, 1.094]).double(), atol=0.01
    )


def test_shampoo_is_that_of_its_paper():
    """Twelve steps against roots of eigenvalues in float64."""
    torch.manual_seed(0)
    gradients = torch.randn(12, 4, 3, dtype=torch.float64)
    layer = matrix(4, 3)
    optimizer = second_order("shampoo", layer, lr=0.1, every=3, beta=0.9)
    left, right = 1e-6 * torch.eye(4, dtype=torch.float64), 1e-6 * torch.eye(3, dtype=torch.float64)
    roots = torch.eye(4, dtype=torch.float64), torch.eye(3, dtype=torch.float64)
    weight = torch.zeros(4, 3, dtype=torch.float64)
    for step, gradient in enumerate(gradients, 1):
        left = 0.9 * left + 0.1 * gradient @ gradient.T
        right = 0.9 * right + 0.1 * gradient.T @ gradient
        if step % 3 == 0:
            roots = tuple(
                vectors @ (values.clamp_min(0) + 1e-6).pow(-0.25).diag() @ vectors.T
                for values, vectors in map(torch.linalg.eigh, (left, right))
            )
        direction = roots[0] @ gradient @ roots[1]
        weight -= 0.1 * direction * gradient.norm() / direction.norm()
        update(layer, optimizer, gradient)
    assert torch.allclose(layer.weight, weight, atol=1e-6)


@pytest.mark.parametrize("scale", [1.0, 1e3])
@pytest.mark.parametrize("beta", [0.5, 0.99])
def test_a_direction_without_gradients_has_a_finite_root(beta, scale):
    """The gradients of all classes add up to zero under softmax; a moving average forgets the ε that it began with."""
    generator = torch.Generator().manual_seed(0)
    layer = nn.Linear(3, 2, bias=False)
    sums = layer.weight.detach().sum(0)
    optimizer = second_order("shampoo", layer, lr=0.1, every=1, beta=beta)
    for _ in range(2000):
        row = scale * torch.randn(3, generator=generator)
        layer.weight.grad = torch.stack([row, -row])
        optimizer.step()
    assert layer.weight.isfinite().all()
    assert torch.allclose(layer.weight.detach().sum(0), sums, atol=1e-3 * scale)


def test_parameters_are_told_apart_by_their_modules():
    class Language(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.mix, self.norm = nn.Embedding(7, 4), nn.Linear(4, 4), nn.LayerNorm(4)
            self.scale = nn.Parameter(torch.ones(4, 4))
            self.head = nn.Linear(4, 7)
            self.frozen = nn.Linear(4, 4).requires_grad_(False)

        def forward(self, tokens):
            return self.head(self.norm(self.frozen(self.mix(self.embed(tokens)) @ self.scale)))

    model = Language()
    split = split_parameters(model)
    assert set(split.matrices) == {"mix.weight"}
    assert set(split.head) == {"head.weight"}
    assert set(split.embeddings) == {"embed.weight"}
    assert set(split.vectors) == {"mix.bias", "norm.weight", "norm.bias", "scale", "head.bias"}
    model.head.weight = model.embed.weight
    assert set(split_parameters(model).embeddings) == {"embed.weight"}
    of_muon = second_order("muon", model, lr=0.01).matrices.param_groups[0]["params"]
    assert [id(p) for p in of_muon] == [id(model.mix.weight)]


@pytest.mark.parametrize("method", METHODS)
def test_gradients_stay_all_move_and_rates_are_shared(method):
    model = network()
    before = copy.deepcopy(model.state_dict())
    optimizer = second_order(method, model, lr=0.02, every=2)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 4, gamma=0.5)
    kept = {}

    def keep():
        kept.update({name: (p.grad, p.grad.clone()) for name, p in model.named_parameters()})

    for step in range(5):
        train(model, optimizer, step, step + 1, keep)
        scheduler.step()
        for given, copied in kept.values():
            assert torch.equal(given, copied)
    for name, parameter in model.named_parameters():
        assert parameter.grad is kept[name][0]
        assert not torch.equal(parameter, before[name]), name
    assert optimizer.matrices.param_groups[0]["lr"] == 0.01
    in_matrices = {id(p) for group in optimizer.matrices.param_groups for p in group["params"]}
    assert id(model[0].weight) in in_matrices
    assert (id(model[5].weight) in in_matrices) == (method != "muon")


@pytest.mark.parametrize("method", METHODS)
def test_a_convolution_is_the_matrix_of_its_outputs(method):
    torch.manual_seed(0)
    convolution, linear = nn.Conv2d(2, 4, 3, bias=False), nn.Linear(18, 4, bias=False)
    linear.weight.data = convolution.weight.detach().flatten(1).clone()
    channels_last = copy.deepcopy(convolution).to(memory_format=torch.channels_last)
    layers = (convolution, linear, channels_last)
    optimizers = [second_order(method, layer, lr=0.1, every=2, head=True) for layer in layers]
    for _ in range(5):
        gradient = torch.randn(4, 2, 3, 3)
        for layer, optimizer in zip(layers, optimizers, strict=True):
            layer.weight.grad = gradient.reshape(layer.weight.shape).clone()
            optimizer.step()
    assert torch.equal(convolution.weight.flatten(1), linear.weight)
    assert torch.equal(channels_last.weight, convolution.weight)


@pytest.mark.parametrize("method", METHODS)
def test_a_training_that_resumes_goes_on_bit_for_bit(method):
    whole, first, second = network(), network(), network()
    train(whole, second_order(method, whole, lr=0.02, every=3), 0, 100)
    optimizer = second_order(method, first, lr=0.02, every=3)
    train(first, optimizer, 0, 50)
    file = io.BytesIO()
    torch.save((first.state_dict(), optimizer.state_dict()), file)
    file.seek(0)
    weights, state = torch.load(file, weights_only=True)
    second.load_state_dict(weights)
    optimizer = second_order(method, second, lr=0.02, every=3)
    optimizer.load_state_dict(state)
    train(second, optimizer, 50, 100)
    assert all(torch.equal(one, other) for one, other in zip(whole.parameters(), second.parameters(), strict=True))
    assert optimizer.steps_made == 100
    other = next(name for name in METHODS if name != method)
    with pytest.raises(ArgumentError, match="classes"):
        second_order(other, second, lr=0.02).load_state_dict(state)


def test_copies_go_on_alike():
    model = network()
    optimizer = second_order("shampoo", model, lr=0.02, every=2)
    torch.optim.lr_scheduler.StepLR(optimizer, 100)  # keeps `step` as the optimiser's own
    train(model, optimizer, 0, 4)
    twin, its = copy.deepcopy((model, optimizer))
    train(model, optimizer, 4, 8)
    train(twin, its, 4, 8)
    assert torch.equal(model[0].weight, twin[0].weight)


@pytest.mark.parametrize("method", METHODS)
def test_a_gradient_that_is_not_finite_is_named_before_anything_has_seen_it(method):
    model = network()
    optimizer = second_order(method, model, lr=0.02, every=2)
    train(model, optimizer, 0, 3)
    state, weights = copy.deepcopy(optimizer.state_dict()), copy.deepcopy(model.state_dict())

    def spoil():
        model[0].weight.grad[0, 0, 0, 0] = torch.nan

    with pytest.raises(NonFiniteGradient, match=r"step 4: .* 0\.weight \(nan\)"):
        train(model, optimizer, 3, 4, spoil)
    for name in ("0.weight", "1.bias", "5.weight"):
        assert torch.equal(model.state_dict()[name], weights[name])
    assert str(optimizer.state_dict()) == str(state)
    optimizer.nonfinite = "skip"
    train(model, optimizer, 3, 4, spoil)
    assert (optimizer.skipped, optimizer.steps_made) == (1, 3)
    train(model, optimizer, 4, 5)
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_gradients_of_zero_at_first():
    for method in METHODS:
        model = network()
        optimizer = second_order(method, model, lr=0.02, every=1)
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        assert all(
            torch.equal(one, other) for one, other in zip(model.parameters(), network().parameters(), strict=True)
        )


def test_shampoo_that_is_plain_sgd_is_refused():
    torch.manual_seed(0)
    shampoo, sgd = nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False)
    sgd.load_state_dict(shampoo.state_dict())
    one = package.ScalableShampoo(shampoo.parameters(), lr=0.05)
    other = torch.optim.SGD(sgd.parameters(), lr=0.05, momentum=0.9, nesterov=True)
    for _ in range(60):  # so it is, with the package's defaults
        x = torch.randn(4, 8)
        for layer, optimizer in ((shampoo, one), (sgd, other)):
            optimizer.zero_grad()
            (layer(x) - x.flip(1)).square().mean().backward()
            optimizer.step()
    assert torch.allclose(shampoo.weight, sgd.weight, atol=1e-5)
    with pytest.raises(ArgumentError, match="plain SGD"):
        SecondOrder(shampoo, one)
    small = package.ScalableShampoo(shampoo.parameters(), preconditioning_compute_steps=2, start_preconditioning_step=1)
    with pytest.raises(ArgumentError, match="shape_interpretation"):
        SecondOrder(shampoo, small)
    with pytest.raises(ArgumentError, match="at most half"):
        second_order("shampoo", shampoo, lr=0.1, every=30, steps=50)
    with pytest.raises(ArgumentError, match="within 100 steps"):
        second_order("shampoo", shampoo, lr=0.1, every=1000)
    second_order("shampoo", shampoo, lr=0.1, every=1000, steps=10_000)


def test_preconditioners_that_stay_identities_are_noticed():
    layer = matrix(600, 3, torch.float32)
    optimizer = second_order("shampoo", layer, lr=0.1, every=2, no_preconditioning_for_layers_with_dim_gt=500)
    for _ in range(3):
        update(layer, optimizer, torch.randn(600, 3))
    with pytest.raises(ArgumentError, match="0 identities after 4 steps: plain SGD"):
        update(layer, optimizer, torch.randn(600, 3))


def test_stale_statistics_without_a_graft_warn():
    with pytest.warns(SecondOrderWarning, match="explode"):
        second_order("shampoo", matrix(3, 3), lr=0.1, graft="none", every=5)
    second_order("shampoo", matrix(3, 3), lr=0.1, graft="none", every=1)


def test_what_cannot_be_is_refused():
    model = network()
    with pytest.raises(ArgumentError, match="only Shampoo"):
        second_order("soap", model, lr=0.1, graft="rmsprop")
    with pytest.raises(ArgumentError, match="every"):
        second_order("soap", model, lr=0.1, every=0)
    with pytest.raises(ArgumentError, match="linear or convolutional"):
        second_order("muon", nn.LayerNorm(4), lr=0.1)
    with pytest.raises(ArgumentError, match="param_group"):
        second_order("muon", model, lr=0.1).add_param_group({"params": [nn.Parameter(torch.ones(2, 2))]})
    with pytest.raises(ValueError, match="2D"):
        torch.optim.Muon([nn.Parameter(torch.ones(3))])
