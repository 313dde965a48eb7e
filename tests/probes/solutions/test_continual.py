"""Tasks one after the other: in a loop of one's own, in paired runs, and with the direction of another optimiser."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from holdfast.errors import ArgumentError
from holdfast.probes.solutions import (
    Arm,
    ContinualEvaluation,
    ContinualTask,
    DirectionSwap,
    compare_matched,
    sweeps,
    train_paired,
)


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 8, bias=False), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 4, bias=False))


def task(first: int) -> ContinualTask:
    """Two classes, each in a quadrant of its own."""
    y = first + torch.arange(2).repeat(20)
    x = 3 * torch.eye(4)[y] + 0.1 * torch.randn(40, 4, generator=torch.Generator().manual_seed(first))
    return ContinualTask((x, y), (x[:20], y[:20]))


TASKS = [task(0), task(2)]


def sgd(parameters, rate):
    return torch.optim.SGD(parameters, lr=rate)


def adam(parameters, rate):
    return torch.optim.Adam(parameters, lr=rate)


def test_a_loop_of_one_s_own():
    torch.manual_seed(0)
    model = network()
    evaluation = ContinualEvaluation(model, [one.test for one in TASKS])
    with pytest.raises(ArgumentError):
        _ = evaluation.retention  # no task is over
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for number, one in enumerate(TASKS):
        for _ in range(30):
            optimizer.zero_grad()
            cross_entropy(model(one.train[0]), one.train[1]).backward()
            optimizer.step()
        before = torch.get_rng_state()
        accuracies = evaluation.after_task()
        assert torch.equal(before, torch.get_rng_state())
        assert model.training
        assert accuracies[number] == 1
    with pytest.raises(ArgumentError, match="2 calls, one a task"):
        evaluation.after_task()
    assert evaluation.retention.learn == 1
    assert len(evaluation.snapshots) == 3
    assert torch.equal(evaluation.snapshots[-1]["0.weight"], model[0].weight)
    with torch.no_grad():
        model[0].weight.zero_()
    assert evaluation.snapshots[-1]["0.weight"].abs().sum() > 0


def test_arms_share_weights_and_batches_at_a_seed():
    arms = {"one": Arm(sgd, (0.5,)), "again": Arm(sgd, (0.5,)), "adam": Arm(adam, (0.01, 0.1))}
    before = torch.get_rng_state()
    runs = train_paired(network, arms, TASKS, seeds=(5, 6), steps=10, batch=8, snapshots=True)
    assert torch.equal(before, torch.get_rng_state())
    for one, other in zip(runs["one"], runs["again"], strict=True):
        assert torch.equal(one.snapshots[-1]["0.weight"], other.snapshots[-1]["0.weight"])
    assert [(run.seed, run.rate) for run in runs["adam"]] == [(5, 0.01), (5, 0.1), (6, 0.01), (6, 0.1)]
    for run in runs["adam"][:2]:
        assert torch.equal(run.snapshots[0]["0.weight"], runs["one"][0].snapshots[0]["0.weight"])
    assert not torch.equal(runs["one"][0].snapshots[0]["0.weight"], runs["one"][1].snapshots[0]["0.weight"])
    assert list(sweeps(runs["adam"])) == [5, 6]
    # One rate cannot bracket anything.
    assert compare_matched(sweeps(runs["one"]), sweeps(runs["adam"])).reason


def test_an_optimiser_that_is_made_anew_forgets_its_state():
    arms = {name: Arm(adam, (0.05,), reset=reset) for name, reset in (("kept", False), ("reset", True))}
    runs = {name: found[0] for name, found in train_paired(
        network, arms, TASKS, seeds=(0,), steps=10, batch=8, snapshots=True).items()}  # fmt: skip
    weights = {name: [state["0.weight"] for state in run.snapshots] for name, run in runs.items()}
    assert torch.equal(weights["kept"][1], weights["reset"][1])
    assert not torch.equal(weights["kept"][2], weights["reset"][2])


def matrix(gradient: torch.Tensor) -> nn.Parameter:
    weight = nn.Parameter(torch.zeros_like(gradient))
    weight.grad = gradient.clone()
    return weight


def test_the_direction_is_of_one_and_the_length_of_the_other():
    weight = matrix(torch.diag(torch.tensor([3.0, 4.0], dtype=torch.float64)))
    gradient = weight.grad.clone()
    # Adam's first step on diag(3, 4) is the identity; SGD's has the length 5.
    swap = DirectionSwap(torch.optim.Adam([weight], lr=1.0, eps=1e-30), torch.optim.SGD([weight], lr=1.0))
    swap.step()
    torch.testing.assert_close(weight.detach(), -5 / 2**0.5 * torch.eye(2, dtype=torch.float64), atol=1e-9, rtol=0)
    assert torch.equal(weight.grad, gradient)
    swap.param_groups[0]["lr"] = 0.0
    before = weight.detach().clone()
    swap.step()
    assert torch.equal(weight, before)


def test_an_optimiser_swapped_with_itself_is_itself():
    def twin() -> list[nn.Parameter]:
        return [nn.Parameter(torch.ones(3, 2, dtype=torch.float64)), nn.Parameter(torch.ones(2, dtype=torch.float64))]

    swapped, plain = twin(), twin()
    swap = DirectionSwap(*(torch.optim.Adam(swapped, lr=0.1) for _ in range(2)))
    adam_alone = torch.optim.Adam(plain, lr=0.1)
    for number in range(20):
        for ours, theirs in zip(swapped, plain, strict=True):
            drawn = torch.randn(ours.shape, generator=torch.Generator().manual_seed(number), dtype=torch.float64)
            ours.grad, theirs.grad = drawn, drawn.clone()
        swap.step()
        adam_alone.step()
    for ours, theirs in zip(swapped, plain, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=0)


def test_swaps_that_cannot_be_are_refused():
    weight, other = matrix(torch.ones(2, 2)), matrix(torch.ones(2, 2))
    with pytest.raises(ArgumentError, match="magnitude: expected the 1 parameters"):
        DirectionSwap(torch.optim.SGD([weight], lr=1.0), torch.optim.SGD([other], lr=1.0))
    with pytest.raises(ArgumentError, match="direction: expected an optimiser with weight_decay=0"):
        DirectionSwap(torch.optim.AdamW([weight]), torch.optim.SGD([weight], lr=1.0))
    swap = DirectionSwap(torch.optim.SGD([weight], lr=1.0), torch.optim.SGD([weight], lr=1.0))
    weight.grad[0, 0] = float("nan")
    with pytest.raises(ArgumentError, match="of parameter 0"):
        swap.step()
    assert torch.equal(weight.detach(), torch.zeros(2, 2))


def test_a_swap_resumes():
    def made(weight: nn.Parameter) -> DirectionSwap:
        return DirectionSwap(torch.optim.Adam([weight], lr=1.0), torch.optim.SGD([weight], lr=0.1, momentum=0.9))

    whole, first = matrix(torch.ones(2, 2)), matrix(torch.ones(2, 2))
    swap, begun = made(whole), made(first)
    for number in range(6):
        if number == 3:
            second = nn.Parameter(first.detach().clone())
            resumed = made(second)
            resumed.load_state_dict(begun.state_dict())
            first, begun = second, resumed
        for weight in (whole, first):
            weight.grad = torch.randn(2, 2, generator=torch.Generator().manual_seed(number))
        swap.step()
        begun.step()
    assert torch.equal(whole, first)
