"""Parts stay attached to an optimiser through all that its user does."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from torch import nn

from holdfast.errors import ArgumentError
from holdfast.optim import attached
from holdfast.optim.rewarming import hooks
from holdfast.optim.rewarming.hooks import CHANGE, MEASURE, PROJECT, StepPart


class Recorder(StepPart):
    """Writes down what it is called for."""

    def __init__(self, optimizer, log=None, rank=CHANGE):
        self.log = [] if log is None else log
        self.rank = rank
        super().__init__(optimizer)

    def before_step(self):
        self.log.append(("before", self.rank))

    def after_step(self):
        self.log.append(("after", self.rank))


def trained(optimizer, weight, gradient=1.0):
    weight.grad = torch.full_like(weight, gradient)
    optimizer.step()


@pytest.fixture
def weight():
    return nn.Parameter(torch.ones(2, 2))


def test_parts_act_by_rank_whatever_came_first(weight):
    optimizer, log = torch.optim.SGD([weight], lr=0.1), []
    parts = [Recorder(optimizer, log, rank) for rank in (PROJECT, CHANGE, MEASURE)]
    trained(optimizer, weight)
    ranks = [MEASURE, CHANGE, PROJECT]
    assert log == [("before", rank) for rank in ranks] + [("after", rank) for rank in ranks]
    assert attached(optimizer) == tuple(reversed(parts))
    parts[0].attach()
    assert len(attached(optimizer)) == 3


def test_a_removed_part_acts_no_longer_and_leaves_no_hook(weight):
    optimizer = torch.optim.SGD([weight], lr=0.1)
    first, second = Recorder(optimizer), Recorder(optimizer)
    first.remove()
    trained(optimizer, weight)
    assert (len(first.log), len(second.log)) == (0, 2)
    second.remove()
    second.remove()
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks
    second.attach()
    trained(optimizer, weight)
    assert len(second.log) == 4


def test_a_step_with_a_closure_and_a_scheduler(weight):
    optimizer = torch.optim.SGD([weight], lr=0.1)
    part = Recorder(optimizer)
    scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer)

    def closure():
        assert [word for word, _ in part.log] == ["before"]
        optimizer.zero_grad()
        loss = weight.square().sum()
        loss.backward()
        return loss

    assert float(optimizer.step(closure).detach()) == 4
    scheduler.step()
    assert [word for word, _ in part.log] == ["before", "after"]


def test_groups_added_and_states_loaded_keep_the_part(weight):
    optimizer = torch.optim.Adam([weight], lr=0.1)
    part = Recorder(optimizer)
    optimizer.add_param_group({"params": [nn.Parameter(torch.ones(3))], "lr": 0.2})
    optimizer.load_state_dict(optimizer.state_dict())
    trained(optimizer, weight)
    assert len(part.log) == 2


def through_pickle(thing):
    return pickle.loads(pickle.dumps(thing))


def through_a_file(thing):
    file = io.BytesIO()
    torch.save(thing, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("copied", [copy.deepcopy, through_pickle, through_a_file])
def test_copied_together_it_attaches_again(weight, copied):
    optimizer = torch.optim.SGD([weight], lr=0.1)
    part, idle = Recorder(optimizer), Recorder(optimizer)
    idle.remove()
    twin_weight, twin, twin_part, twin_idle = copied((weight, optimizer, part, idle))
    assert attached(twin) == (twin_part,)
    assert twin_part.optimizer is twin
    trained(twin, twin_weight)
    assert (len(twin_part.log), len(twin_idle.log), len(part.log)) == (2, 0, 0)
    twin_idle.attach()
    assert attached(twin) == (twin_part, twin_idle)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, through_pickle])
def test_a_lone_copy_is_bare_and_says_so(weight, copied):
    optimizer = torch.optim.SGD([weight], lr=0.1)
    part = Recorder(optimizer)
    twin = copied(optimizer)
    assert attached(twin) == ()
    assert attached(optimizer) == (part,)


def test_a_scaler_that_skips_runs_no_hook_or_a_hook_that_can_tell():
    for fused in (False, True):
        weight = nn.Parameter(torch.ones(2, 2))
        optimizer = torch.optim.Adam([weight], lr=0.1, fused=fused)
        seen = []

        class Asking(StepPart):
            def after_step(self, seen=seen):
                seen.append(hooks.skipped(self.optimizer))

        Asking(optimizer)
        scaler = torch.amp.GradScaler("cpu")
        for gradient in (float("inf"), 1.0):
            scaler.scale(weight.sum() * gradient).backward()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
        assert [value and float(value) for value in seen] == ([1.0, 0.0] if fused else [None])


def test_wrappers_without_hooks_are_seen_through(weight):
    class Wrapper:
        def __init__(self, optimizer):
            self.optimizer = optimizer

        def step(self):
            self.optimizer.step()

    optimizer = torch.optim.SGD([weight], lr=0.1)
    part = Recorder(Wrapper(Wrapper(optimizer)))
    assert attached(Wrapper(optimizer)) == (part,)
    with pytest.raises(ArgumentError, match=r"optimizer: expected a torch\.optim\.Optimizer"):
        Recorder(weight)
