"""Whatever a training does, it ends bit for bit where it would without the watch, and what is watched is right."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from holdfast.probes.watch import Watch, watch_once
from holdfast.probes.watch.watching import WatchWarning

STEPS = 4


class Net(nn.Module):
    """Draws while it is traced, changes its input, and has a buffer that every forward changes."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 6)
        self.norm, self.drop = nn.BatchNorm1d(8), nn.Dropout(0.2)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        noise = torch.randn(8)
        self.calls += 1
        x = x.mul_(2)
        hidden = self.drop(torch.relu(self.norm(self.first(x)))) + 0.01 * noise
        return self.second(hidden) + 0.01 * self.calls


def tied(model: Net) -> None:
    model.second.weight = nn.Parameter(torch.randn(6, 8))
    model.third = nn.Linear(8, 6)
    model.third.weight = model.second.weight


def train(watched: bool, change: Callable[[Net], Any] | None = None, *, autocast: bool = False, parts: int = 1) -> Any:
    """Weights, buffers and random states at the end, and what was told."""
    torch.manual_seed(0)
    np.random.seed(0)
    model: Any = Net()
    if change is not None:
        changed = change(model)
        model = model if changed is None else changed
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    scaler = torch.amp.GradScaler("cpu", enabled=autocast)
    running = (lambda: torch.autocast("cpu", torch.bfloat16)) if autocast else nullcontext
    told = []
    watch = Watch(model, optimizer, every=2, rows=5, running=running) if watched else None
    data = torch.randn(STEPS, parts, 9, 6, generator=torch.Generator().manual_seed(1))
    for step in range(STEPS):
        if watch:
            watch.before_step(step)
        for part in range(parts):
            with running():
                loss = model(data[step, part]).square().mean()
            scaler.scale(loss).backward()
            if watch and part < parts - 1:
                assert watch.after_step(step) == {}
                watch.before_step(step)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        if watch:
            told.append(watch.after_step(step + 1))
        model.eval()
        with torch.no_grad():
            model(data[step, 0].clone())
        model.train()
    if watch:
        watch.remove()
    # Python's generator is left out: the type checks that tests add draw from it.
    return [*model.state_dict().values(), torch.get_rng_state(), torch.tensor(np.random.rand())], told


@pytest.fixture
def process_group() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


compiled: list[Any] = []


def counted(graph: Any, inputs: Any) -> Any:
    """A backend that changes nothing."""
    compiled.append(graph)
    return graph.forward


CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "gradients summed up": {"parts": 3},
    "mixed precision": {"autocast": True},
    "frozen": {"change": lambda model: model.first.requires_grad_(False) and None},
    "tied": {"change": tied},
    "compiled": {"change": lambda model: torch.compile(model, backend=counted)},
    "compiled in place": {"change": lambda model: model.compile(backend=counted)},
    "data parallel": {"change": lambda model: nn.parallel.DistributedDataParallel(model)},
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("case", CASES)
def test_a_training_ends_as_it_would(case: str, request: pytest.FixtureRequest) -> None:
    if case == "data parallel":
        request.getfixturevalue("process_group")
    if case.startswith("compiled"):
        torch._dynamo.reset()
    plain, _ = train(False, **CASES[case])
    graphs = len(compiled)
    if graphs:
        torch._dynamo.reset()
    ends, told = train(True, **CASES[case])
    assert len(compiled) == 2 * graphs
    assert bool(graphs) == case.startswith("compiled")
    compiled.clear()
    changed = [place for place, (one, other) in enumerate(zip(plain, ends, strict=True)) if not torch.equal(one, other)]
    assert changed == []
    assert [bool(numbers) for numbers in told] == [False, True, False, True]
    for numbers in told[1::2]:
        # A hook inside of compiled code would change the code.
        assert ("rank/relu" in numbers) == (case != "compiled in place")
        strange = {name for name, number in numbers.items() if not math.isfinite(number)}
        assert strange == ({"elr/spread"} if case == "frozen" else set())  # there no layer but the output one moves
        assert 0 < numbers["weight_rank/second"] <= 6
        assert ("weight_rank/first" in numbers) == (case != "frozen")
        assert ("weight_rank/third" in numbers) is False
        assert numbers["elr/second"] > 0
        assert numbers["elr/first"] >= 0
        assert numbers["cost"] > 0


def test_what_is_watched_is_the_batch_as_it_was_given() -> None:
    torch.manual_seed(0)
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    watch = Watch(model, optimizer, every=1, rows=5)
    x = torch.randn(5, 6)
    given = x.clone()
    watch.before_step(0)
    model(x).sum().backward()
    optimizer.step()
    numbers = watch.after_step(1)
    watch.remove()
    assert not torch.equal(x, given)
    expected = watch_once(model, given.clone(), attention=False)
    assert numbers["rank/relu"] == expected["rank/relu"]
    assert float(model.calls) == 1


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_step_that_a_scaler_leaves_out_has_no_rate() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    watch = Watch(model, optimizer, every=1)
    scaler = torch.amp.GradScaler("cpu")
    told = []
    for step, factor in enumerate((1.0, math.inf, 1.0)):
        watch.before_step(step)
        optimizer.zero_grad()
        scaler.scale(model(torch.ones(2, 3)).sum() * factor).backward()
        scaler.step(optimizer)
        scaler.update()
        told.append(watch.after_step(step + 1))
    watch.remove()
    assert ["elr/0" in numbers for numbers in told] == [True, False, True]
    assert all("rank/1" in numbers for numbers in told)


def test_a_model_that_does_not_take_some_rows_trains_on() -> None:
    class Picky(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            if len(x) != 9:
                raise RuntimeError("nine, please")
            return torch.relu(self.layer(x))

    model = Picky()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    watch = Watch(model, optimizer, every=1, rows=5)
    for step in range(2):
        watch.before_step(step)
        model(torch.ones(9, 3)).sum().backward()
        optimizer.step()
        with pytest.warns(WatchWarning, match="RuntimeError: nine, please") if step == 0 else nullcontext():
            numbers = watch.after_step(step + 1)
        assert {"elr/layer", "weight_rank/layer", "cost"} <= set(numbers)
    watch.remove()


def test_optimisers_by_name() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    lone = nn.Linear(2, 2)
    one, two, other = (torch.optim.SGD(part.parameters(), lr=0.1) for part in (model[0], model[1], lone))
    watch = Watch(model, {"one": one, "two": two, "other": other}, every=1)
    watch.before_step(0)
    before = model[1].weight.detach().clone()
    model(torch.ones(2, 3)).sum().backward()
    two.step()
    first = float((model[1].weight.detach() - before).norm() / before.norm())
    two.step()
    numbers = watch.after_step(1)
    watch.remove()
    assert {name for name in numbers if name.startswith("elr/")} == {"elr/two/1", "elr/two/global", "elr/two/spread"}
    assert numbers["elr/two/1"] == pytest.approx(first, rel=1e-5)
    assert {"weight_rank/0", "weight_rank/1"} <= set(numbers)
