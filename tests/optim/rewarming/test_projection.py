"""Norms that stay where they are, on every kind of weight that a network may have."""

from __future__ import annotations

import copy
import io
import math
import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from holdfast.errors import ArgumentError
from holdfast.optim import EffectiveLR, NonFiniteParameter, ProjectionWarning, Projector, attached
from holdfast.optim.rewarming.layers import check_module


def net(width=16, dtype=torch.float32, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(8, width, bias=False), nn.LayerNorm(width), nn.ReLU(),
        nn.Linear(width, width, bias=False), nn.LayerNorm(width), nn.ReLU(),
        nn.Linear(width, 3),
    ).to(dtype)  # fmt: skip


def data(dtype=torch.float32, n=32):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, 8, generator=generator, dtype=dtype), torch.randint(3, (n,), generator=generator)


def train(model, optimizer, steps, dtype=torch.float32):
    x, y = data(dtype)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x).to(torch.promote_types(dtype, torch.float32)), y).backward()
        optimizer.step()


def norms(projector):
    return {layer.name: float(layer.parameter.detach().double().norm()) for layer in projector.projected}


def off(projector):
    """Largest relative distance of a norm from its target."""
    targets = {name: float(target) for name, target in projector.targets.items()}
    return max(abs(norm / targets[name] - 1) for name, norm in norms(projector).items())


def scrambled(model, factor=2.0):
    """Weights that are far from where they were."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(factor)


@pytest.mark.parametrize("fused", [False, True])
def test_a_thousand_steps_of_adam(fused):
    model = net()
    head = float(model[6].weight.detach().norm())
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3, fused=fused)
    projector = Projector(model, optimizer)
    before = norms(projector)
    train(model, optimizer, 1000)
    assert list(projector.targets) == ["0.weight", "3.weight"]
    for name, norm in norms(projector).items():
        assert norm == pytest.approx(before[name], rel=1e-5)
    assert abs(float(model[6].weight.detach().norm()) / head - 1) > 0.01
    assert projector.skips == {}


def test_scale_equivalence():
    """c times the weights at c squared times the rate are the same run. Source: arXiv 2507.20057, equation 1."""
    x, y = data(torch.float64)
    small, large = net(dtype=torch.float64), net(dtype=torch.float64)
    for model in (small, large):  # what a norm divides by makes it inexact
        model[1].eps = model[4].eps = 0.0
    with torch.no_grad():
        for place in (0, 3):
            large[place].weight.mul_(3)
    optimizers = [
        torch.optim.SGD(
            [{"params": [m[0].weight, m[3].weight], "lr": lr}, {"params": [m[1].weight, m[6].weight]}], lr=0.1
        )
        for m, lr in ((small, 0.1), (large, 0.9))
    ]
    for _ in range(50):
        square = {}
        for model, optimizer in zip((small, large), optimizers, strict=True):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            for place in (0, 3):
                weight = model[place].weight
                square[model, place] = weight.detach().square().sum() + (
                    optimizer.param_groups[0]["lr"] ** 2 * weight.grad.square().sum()
                )
            optimizer.step()
        for (model, place), expected in square.items():  # the gradient is orthogonal to the weight
            torch.testing.assert_close(model[place].weight.detach().square().sum(), expected, rtol=1e-12, atol=0)
    for place in (0, 3):
        torch.testing.assert_close(large[place].weight, 3 * small[place].weight, rtol=0, atol=1e-12)
    torch.testing.assert_close(large[6].weight, small[6].weight, rtol=0, atol=1e-12)


def test_projection_leaves_a_network_with_norms_as_it_was():
    model = net(dtype=torch.float64)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    projector = Projector(model, optimizer)
    for layer in (model[0], model[3]):
        layer.weight.data.mul_(3)
    assert projector.output_change(model, data(torch.float64)[0]) < 1e-4  # the epsilon of the norms
    assert off(projector) == pytest.approx(2)
    projector.project()
    assert off(projector) < 1e-15


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_projecting_twice_changes_no_bit(dtype):
    model = net(width=300, dtype=dtype)
    projector = Projector(model, torch.optim.SGD(model.parameters(), lr=0.1))
    scrambled(model, 1.7)
    projector.project()
    once = [parameter.detach().clone() for parameter in model.parameters()]
    projector.project()
    assert all(torch.equal(old, new) for old, new in zip(once, model.parameters(), strict=True))


def test_a_norm_of_many_entries_is_exact():
    """Two million squares, one by one in float32, would be 4e-5 off."""
    model = nn.Sequential(nn.Linear(1024, 2048, bias=False), nn.LayerNorm(2048), nn.Linear(2048, 1))
    projector = Projector(model, torch.optim.SGD(model.parameters(), lr=0.1))
    exact = float(model[0].weight.detach().double().norm())
    assert float(projector.targets["0.weight"]) == pytest.approx(exact, rel=1e-6)
    transposed = nn.Parameter(model[0].weight.detach().t())
    model[0].weight = transposed
    again = Projector(model, torch.optim.SGD(model.parameters(), lr=0.1))
    assert float(again.targets["0.weight"]) == pytest.approx(exact, rel=1e-6)


def test_every_kth_step():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    projector = Projector(model, optimizer, every=3)
    train(model, optimizer, 2)
    assert off(projector) > 1e-4
    change = projector.output_change(model, data()[0])
    assert change < 0.01
    train(model, optimizer, 1)
    assert off(projector) < 1e-6
    assert projector.steps == 3


def test_the_jump_of_a_network_that_is_not_invariant_is_told():
    model = nn.Sequential(nn.Linear(8, 4, bias=False), nn.ReLU(), nn.Linear(4, 2, bias=False))
    with pytest.warns(ProjectionWarning, match="has no norms"):
        projector = Projector(model, torch.optim.SGD(model.parameters(), lr=0.1), every=10)
    model[0].weight.data.mul_(2)
    state = copy.deepcopy(model.state_dict())
    assert projector.output_change(model, data()[0]) == pytest.approx(0.5, rel=1e-5)
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())


def test_a_zero_weight_is_never_projected_unless_a_radius_names_it():
    model = net()
    nn.init.ones_(model[4].bias)  # a rectifier at 0 has no gradient
    nn.init.zeros_(model[3].weight)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    with pytest.warns(ProjectionWarning, match=r"zero, and never projected unless radius names them: 3\.weight"):
        projector = Projector(model, optimizer)
    assert projector.excluded["3.weight"] == "zero when it was attached"
    train(model, optimizer, 3)
    assert list(projector.targets) == ["0.weight"]
    assert float(model[3].weight.detach().norm()) > 0
    projector.remove()
    nn.init.zeros_(model[3].weight)
    other = Projector(model, torch.optim.Adam(model.parameters(), lr=1e-2), radius={"3.weight": 2.0}, strict=True)
    train(model, other.optimizer, 1)
    assert norms(other)["3.weight"] == pytest.approx(2.0, rel=1e-6)
    assert other.skips == {"3.weight": 1}  # at the time it was attached


def test_the_b_of_a_low_rank_adapter_is_left_alone():
    class Adapted(nn.Module):
        def __init__(self):
            super().__init__()
            self.base = nn.Linear(8, 8, bias=False).requires_grad_(False)
            self.lora_A = nn.Linear(8, 2, bias=False)
            self.lora_B = nn.Linear(2, 8, bias=False)
            nn.init.zeros_(self.lora_B.weight)
            self.norm = nn.LayerNorm(8)
            self.head = nn.Linear(8, 3)

        def forward(self, x):
            return self.head(self.norm(self.base(x) + self.lora_B(self.lora_A(x))))

    model = Adapted()
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    with pytest.warns(ProjectionWarning, match=r"lora_B\.weight"):
        projector = Projector(model, optimizer)
    train(model, optimizer, 5)
    assert list(projector.targets) == ["lora_A.weight"]
    assert float(model.lora_B.weight.detach().norm()) > 0


@pytest.mark.parametrize("value", [0.0, math.nan, math.inf])
def test_a_weight_that_breaks_is_skipped_and_counted(value):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    projector = Projector(model, optimizer)
    with torch.no_grad():
        model[0].weight.fill_(value)
        model[3].weight.mul_(2)
    for _ in range(2):
        projector.project()
    assert projector.skips == {"0.weight": 2}
    assert off(projector) == pytest.approx(1) if value == 0 else not math.isfinite(off(projector))
    assert norms(projector)["3.weight"] == pytest.approx(float(projector.targets["3.weight"]), rel=1e-6)
    torch.testing.assert_close(model[0].weight.detach(), torch.full((16, 8), value), equal_nan=True)
    projector.strict = True
    with pytest.raises(NonFiniteParameter, match=r"not projected: 0\.weight"):
        projector.project()


def test_tied_weights_are_projected_once():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(5, 8)
            self.norm = nn.LayerNorm(8)
            self.head = nn.Linear(8, 5, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, x):
            return self.head(self.norm(self.embed(x)))

    model = Tied()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ArgumentError, match="a layer to project beside the output layer"):
        Projector(model, optimizer)
    with pytest.warns(ProjectionWarning, match=r"that of embed\.weight by a factor of"):
        projector = Projector(model, optimizer, include="all", radius={"head.weight": 3.0})
    assert list(projector.targets) == ["embed.weight"]
    assert norms(projector)["embed.weight"] == pytest.approx(3.0, rel=1e-6)


def test_weight_norm_holds_magnitude_and_direction():
    model = net()
    parametrizations.weight_norm(model[0])
    parametrizations.spectral_norm(model[3])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    projector = Projector(model, optimizer)
    before = float(model[0].weight.detach().norm())
    assert list(projector.targets) == [
        "0.parametrizations.weight.original0",
        "0.parametrizations.weight.original1",
        "3.parametrizations.weight.original",
    ]
    train(model, optimizer, 20)
    assert float(model[0].weight.detach().norm()) == pytest.approx(before, rel=1e-5)
    assert off(projector) < 1e-6
    model.eval()  # a spectral norm iterates in training
    x = data()[0]
    output = model(x).detach()
    with torch.no_grad():
        model[0].parametrizations.weight.original1.mul_(2)
        model[3].parametrizations.weight.original.mul_(2)
    projector.project()
    torch.testing.assert_close(model(x).detach(), output)


class Convolutions(nn.Module):
    """A convolution whose BatchNorm is defined elsewhere, and one whose next defined module does not read it."""

    def __init__(self, traceable=True):
        super().__init__()
        self.first_norm = nn.BatchNorm2d(4)
        self.second_norm = nn.BatchNorm2d(4)
        self.first = nn.Conv2d(2, 4, 3)
        self.second = nn.Conv2d(4, 4, 3, bias=False)
        self.unread = nn.Conv2d(4, 4, 1, bias=False)
        self.last_norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 3)
        self.traceable = traceable

    def forward(self, x):
        if not self.traceable and x.sum() == 0:
            return x
        x = torch.relu(self.first_norm(self.first(x)))
        x = torch.relu(self.second_norm(self.second(x)))
        x = self.last_norm(torch.relu(self.unread(x)))
        return self.head(x.mean((2, 3)))


def warmed(model):
    torch.manual_seed(0)
    model.train()
    for _ in range(30):
        model(torch.randn(8, 2, 9, 9) + 1)
    return model.eval()


def test_the_batch_norm_that_reads_a_layer_is_found_whatever_is_defined_beside_it():
    model = Convolutions()
    with pytest.warns(ProjectionWarning, match="stale after a projection.*: last_norm$"):
        projector = Projector(model, torch.optim.SGD(model.parameters(), lr=0.1), every=5)
    followed = {name: [item.norm for item in items] for name, items in projector._followers.items()}
    assert followed == {"first.weight": [model.first_norm], "second.weight": [model.second_norm]}


@pytest.mark.filterwarnings("ignore:these BatchNorms do not read one layer alone")
@pytest.mark.parametrize("factor", [0.5, 3.0])
def test_a_rescaled_convolution_computes_the_same_in_eval(factor):
    model = warmed(Convolutions())
    x = torch.randn(4, 2, 9, 9)
    output = model(x).detach()
    names = ("first.weight", "second.weight")
    radius = {name: factor * float(model.get_parameter(name).detach().norm()) for name in names}
    with pytest.warns(ProjectionWarning, match="norms of 2 layers change now"):
        Projector(model, torch.optim.SGD(model.parameters(), lr=0.1), radius=radius)
    assert (model(x).detach() - output).norm() / output.norm() < 1e-3  # what BatchNorm adds to the variance


class Reused(nn.Module):
    """Tied convolutions with a BatchNorm each, and one with its BatchNorm that is called twice."""

    def __init__(self, both):
        super().__init__()
        self.first, self.second = (nn.Conv2d(2, 2, 3, padding=1) for _ in range(2))
        self.second.weight = self.first.weight
        self.first_norm, self.second_norm = nn.BatchNorm2d(2), nn.BatchNorm2d(2)
        self.again, self.norm = nn.Conv2d(2, 2, 3, padding=1), nn.BatchNorm2d(2)
        self.head = nn.Linear(2, 3)
        self.both = both

    def forward(self, x):
        x = torch.relu(self.first_norm(self.first(x)))
        x = torch.relu(self.second_norm(self.second(x)))
        x = torch.relu(self.norm(self.again(x)))
        x = torch.relu(self.norm(self.again(x) if self.both else x))
        return self.head(x.mean((2, 3)))


def test_statistics_follow_tied_and_repeated_convolutions():
    model = warmed(Reused(both=True))
    x = torch.randn(4, 2, 9, 9)
    output = model(x).detach()
    radius = {name: 3 * float(model.get_parameter(name).detach().norm()) for name in ("first.weight", "again.weight")}
    with pytest.warns(ProjectionWarning, match="norms of 2 layers change now") as told:
        Projector(model, torch.optim.SGD(model.parameters(), lr=0.1), radius=radius)
    assert not [warning for warning in told if "stale" in str(warning.message)]
    assert (model(x).detach() - output).norm() / output.norm() < 1e-3


def test_statistics_of_more_than_one_layer_follow_none_and_are_named():
    model = Reused(both=False)
    with pytest.warns(ProjectionWarning, match="stale after a projection.*: norm$"):
        projector = Projector(model, torch.optim.SGD(model.parameters(), lr=0.1), every=5)
    assert list(projector._followers) == ["first.weight"]


def test_batch_norm_of_a_network_that_cannot_be_traced():
    model = warmed(Convolutions(traceable=False))
    with pytest.warns(ProjectionWarning, match="or the network cannot be traced.*: first_norm, second_norm, last_norm"):
        projector = Projector(model, torch.optim.SGD(model.parameters(), lr=0.1), every=5)
    assert projector._followers == {}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Projector(model, torch.optim.SGD(model.parameters(), lr=0.1))


def test_a_norm_without_running_statistics_has_nothing_to_follow():
    model = nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4, track_running_stats=False), nn.Linear(4, 3))
    assert Projector(model, torch.optim.SGD(model.parameters(), lr=0.1))._followers == {}


def test_bfloat16_stays_near_and_masters_stay_exact():
    errors = {}
    for masters in (False, True):
        model = net(width=64, dtype=torch.bfloat16)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        projector = Projector(model, optimizer, masters=masters)
        train(model, optimizer, 100, torch.bfloat16)
        errors[masters] = off(projector)
    # A factor within half of the spacing of bfloat16, 2 ** -8 of a value, changes none of its entries.
    assert errors[False] < 2**-7
    # Entries are rounded each by itself, with 2 ** -9 at most: the norm of 512 of them averages that out.
    assert errors[True] < 2**-9 / math.sqrt(512) * 5
    twin = copy.deepcopy((model, optimizer, projector))
    for group in ((model, optimizer), twin):
        train(*group[:2], 5, torch.bfloat16)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin[0].parameters(), strict=True))


def test_decoupled_decay_of_projected_weights_is_told():
    model = net()
    with pytest.warns(ProjectionWarning, match=r"does nothing: 0\.weight, 3\.weight; give their group"):
        Projector(model, torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1))
    groups = [{"params": model[:6].parameters(), "weight_decay": 0.0}, {"params": model[6].parameters()}]
    Projector(model, torch.optim.AdamW(groups, lr=1e-3, weight_decay=0.1))
    Projector(model, torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=0.1))


def test_radii():
    model = net()
    with pytest.warns(ProjectionWarning, match=r"effective learning rates jump the other way"):
        projector = Projector(model, torch.optim.SGD(model.parameters(), lr=0.1), radius="unit")
    assert norms(projector) == pytest.approx({"0.weight": 1, "3.weight": 1}, rel=1e-6)
    reference = Projector(other := net(seed=1), torch.optim.SGD(other.parameters(), lr=0.1))
    model = net()
    with pytest.warns(ProjectionWarning, match="norms of 2 layers change now"):
        projector = Projector(
            model, torch.optim.SGD(model.parameters(), lr=0.1), radius=reference.state_dict()["targets"]
        )
    assert norms(projector) == pytest.approx(norms(reference), rel=1e-6)
    Projector(other, torch.optim.SGD(other.parameters(), lr=0.1), radius=reference.state_dict()["targets"])
    for bad in (0, -1.0, math.nan, {"0.weight": 0.0}, True):
        with pytest.raises(ArgumentError, match="radius: expected init, unit, a positive number"):
            Projector(model, torch.optim.SGD(model.parameters(), lr=0.1), radius=bad)
    with pytest.raises(ArgumentError, match=r"radius: expected names of layers .*, got 6\.weight, x"):
        Projector(model, torch.optim.SGD(model.parameters(), lr=0.1), radius={"x": 1.0, "6.weight": 1.0})


def test_what_cannot_be_projected_is_refused():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ArgumentError, match="optimizer: expected one that holds a layer of the model"):
        Projector(net(), optimizer)
    with pytest.raises(ArgumentError, match="every: expected a whole number of at least 1"):
        Projector(model, optimizer, every=0)
    assert attached(optimizer) == ()
    projector = Projector(model, optimizer, exclude=["0"])
    with pytest.raises(ArgumentError, match=r"without a projector of the same layers, got 3\.weight"):
        Projector(model, optimizer)
    other = Projector(model, optimizer, exclude=["3"])
    assert attached(optimizer) == (projector, other)
    with pytest.raises(ArgumentError, match=r"0\.weight of an unknown shape"):
        Projector(nn.Sequential(nn.LazyLinear(3), nn.Linear(3, 3)), optimizer)
    with pytest.raises(ArgumentError, match=r"0\.weight on the device meta"):
        Projector(net().to("meta"), optimizer)
    model[0].weight.data.fill_(math.nan)
    with pytest.raises(ArgumentError, match=r"weights that are finite, got 0\.weight"):
        Projector(model, torch.optim.SGD(model.parameters(), lr=0.1))


def test_flat_parameters_are_refused():
    FullyShardedDataParallel = type("FullyShardedDataParallel", (nn.Sequential,), {})
    model = FullyShardedDataParallel(*net())
    with pytest.raises(ArgumentError, match=r"sharded by fully_shard \(FSDP2\), got one under FSDP1"):
        Projector(model, torch.optim.SGD(model.parameters(), lr=0.1))
    model = net()
    model[0].weight.ds_id = 0
    with pytest.raises(ArgumentError, match="got one under ZeRO-3"):
        Projector(model, torch.optim.SGD(model.parameters(), lr=0.1))


def test_groups_that_are_added_later_are_taken_in():
    model = net()
    optimizer = torch.optim.SGD(model[3:].parameters(), lr=0.1)
    projector = Projector(model, optimizer)
    assert list(projector.targets) == ["3.weight"]
    before = float(model[0].weight.detach().norm())
    optimizer.add_param_group({"params": model[0].parameters(), "lr": 0.5})
    train(model, optimizer, 1)
    assert list(projector.targets) == ["3.weight", "0.weight"]
    # The first step of the group ran before its norm was known.
    held = float(projector.targets["0.weight"])
    assert held == pytest.approx(before, rel=0.05)
    train(model, optimizer, 5)
    assert norms(projector)["0.weight"] == pytest.approx(held, rel=1e-6)


def test_a_state_goes_on_bit_for_bit_and_names_what_does_not_fit():
    def parts():
        model = net()
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        return model, optimizer, Projector(model, optimizer, every=4)

    whole = parts()
    train(*whole[:2], 10)
    file = io.BytesIO()
    torch.save([part.state_dict() for part in whole], file)
    file.seek(0)
    resumed = parts()
    for part, state in zip(resumed, torch.load(file, weights_only=True), strict=True):
        part.load_state_dict(state)
    for group in (whole, resumed):
        train(*group[:2], 7)
    assert all(torch.equal(a, b) for a, b in zip(whole[0].parameters(), resumed[0].parameters(), strict=True))
    state = whole[2].state_dict()
    state["targets"]["x"] = state["targets"].pop("0.weight")
    with pytest.raises(
        ArgumentError, match=r"expected the layers of this projector, got missing 0\.weight; unexpected x"
    ):
        whole[2].load_state_dict(state)
    with pytest.raises(ArgumentError, match="state: expected the entries steps, targets, zero, got steps"):
        whole[2].load_state_dict({"steps": 1})


class Adapted(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm, self.head = nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 3)
        self.b = nn.Linear(8, 8, bias=False)
        nn.init.zeros_(self.b.weight)

    def forward(self, x):
        x = self.norm(self.first(x))
        return self.head(torch.relu(x + self.b(x)))


@pytest.mark.filterwarnings("ignore:zero, and never projected")
@pytest.mark.parametrize("weights_first", [True, False])
def test_what_was_zero_at_the_start_is_left_alone_after_a_resume_too(weights_first):
    def parts():
        model = Adapted()
        return model, torch.optim.Adam(model.parameters(), lr=1e-2)

    model, optimizer = parts()
    projector = Projector(model, optimizer)
    train(model, optimizer, 5)
    resumed, other = parts()
    if weights_first:
        resumed.load_state_dict(model.state_dict())
        other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    its_projector = Projector(resumed, other)
    assert ("b.weight" in its_projector.targets) == weights_first
    its_projector.load_state_dict(projector.state_dict())
    if not weights_first:
        resumed.load_state_dict(model.state_dict())
        other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert its_projector.targets == projector.targets
    assert its_projector.excluded == projector.excluded
    for pair in ((model, optimizer), (resumed, other)):
        train(*pair, 5)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), resumed.parameters(), strict=True))


def test_a_layer_that_is_zero_now_and_was_not_then_is_held():
    model = Adapted()
    nn.init.ones_(model.b.weight)
    state = Projector(model, torch.optim.Adam(model.parameters())).state_dict()
    fresh = Adapted()
    with pytest.warns(ProjectionWarning, match="zero, and never projected"):
        projector = Projector(fresh, torch.optim.Adam(fresh.parameters()))
    projector.load_state_dict(state)
    assert float(projector.targets["b.weight"]) == 8
    assert "b.weight" not in projector.excluded
    with pytest.raises(ArgumentError, match=r"state\['zero'\]: expected layers of this projector, got unexpected c"):
        projector.load_state_dict({**state, "zero": ["c"]})


def test_copied_together_it_projects_the_copy():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    projector = Projector(model, optimizer)
    twin_model, twin_optimizer, twin = copy.deepcopy((model, optimizer, projector))
    assert attached(twin_optimizer) == (twin,)
    scrambled(twin_model)
    train(twin_model, twin_optimizer, 1)
    assert norms(twin) == pytest.approx(norms(projector), rel=1e-6)
    assert {id(layer.parameter) for layer in twin.projected} <= {id(parameter) for parameter in twin_model.parameters()}
    assert attached(copy.deepcopy(optimizer)) == ()


def test_a_scaler_that_skips_steps():
    for fused in (False, True):
        model = net()
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2, fused=fused)
        projector = Projector(model, optimizer, every=2)
        scaler = torch.amp.GradScaler("cpu")
        for good in (True, False, True, False):
            x, y = data()
            loss = nn.functional.cross_entropy(model(x), y) * (1.0 if good else math.inf)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
        assert projector.steps == 2
        assert off(projector) < 1e-6


def test_the_monitor_sees_the_step_before_it_is_projected():
    model = net(dtype=torch.float64)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    Projector(model, optimizer, exclude=["3"])
    monitor = EffectiveLR(model, optimizer, every=1)
    model[0].weight.grad = -model[0].weight.detach().clone()
    optimizer.step()
    assert monitor.last["elr/0"] == pytest.approx(0.1)
    assert monitor.last["elr/global"] == pytest.approx(0.1)  # of what is projected


def test_compiled_and_wrapped_models():
    model = torch.compile(nn.DataParallel(net()), backend="eager")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    projector = Projector(model, optimizer)
    assert list(projector.targets) == ["0.weight", "3.weight"]
    train(model, optimizer, 3)
    assert off(projector) < 1e-6


class Heads(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Linear(8, 8), nn.LayerNorm(8)
        self.policy, self.value = nn.Linear(8, 3), nn.Linear(8, 1)

    def forward(self, x):
        x = torch.relu(self.norm(self.first(x)))
        return {"policy": self.policy(x).softmax(-1), "value": self.value(x).squeeze(-1)}, x


def test_all_heads_that_a_trace_sees_are_output_layers():
    model = Heads()
    projector = Projector(model, torch.optim.Adam(model.parameters()))
    assert list(projector.targets) == ["first.weight"]
    assert projector.excluded == dict.fromkeys(["policy.weight", "value.weight"], "the output layer")


def test_a_model_and_an_optimiser_in_the_wrong_places_are_told_apart():
    model = net()
    with pytest.raises(ArgumentError, match=r"model: expected a torch\.nn\.Module, got Adam"):
        check_module(torch.optim.Adam(model.parameters()))
    with pytest.raises(ArgumentError, match=r"optimizer: .*, got Sequential$"):
        Projector(model, model)
