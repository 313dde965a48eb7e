"""Weights that several processes share, beside the same run in one."""

from __future__ import annotations

import torch
from torch import nn

from holdfast.optim import EffectiveLR, Projector


def net():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(6, 5), nn.LayerNorm(5), nn.ReLU(), nn.Linear(5, 1, bias=False), nn.BatchNorm1d(1), nn.ReLU(),
        nn.Linear(1, 2),
    )  # fmt: skip
    return model.double()


def trained(model, optimizer, steps=5):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(16, 6, generator=generator, dtype=torch.float64)
    y = torch.randn(16, 2, generator=generator, dtype=torch.float64)
    for _ in range(steps):
        optimizer.zero_grad()
        (model(x) - y).square().mean().backward()
        optimizer.step()


def parts(model):
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    projector = Projector(model, optimizer, every=5)
    return optimizer, projector, EffectiveLR(model, optimizer, every=5)


def shared(rank, rendezvous, expected):
    """One of two processes. Each row of the second layer is in one of them, so the other has nothing of it."""
    from torch.distributed.fsdp import fully_shard

    torch.distributed.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2)
    try:
        model = fully_shard(net())
        optimizer, projector, monitor = parts(model)
        trained(model, optimizer)
        for name, weight in model.state_dict().items():
            whole = weight.full_tensor() if hasattr(weight, "full_tensor") else weight
            torch.testing.assert_close(whole, expected["weights"][name], msg=lambda text, name=name: f"{name}: {text}")
        for name, number in expected["rates"].items():
            torch.testing.assert_close(monitor.last[name], number, msg=lambda text, name=name: f"{name}: {text}")
        assert projector.state_dict()["steps"] == 5
        torch.testing.assert_close(projector.state_dict()["targets"], expected["targets"])
        torch.distributed.barrier()  # who leaves while another still asks aborts it
    finally:
        torch.distributed.destroy_process_group()


def shared_by_the_other(number, *given):
    shared(number + 1, *given)


def test_two_processes_hold_the_norms_of_whole_tensors(tmp_path):
    model = net()
    optimizer, projector, monitor = parts(model)
    trained(model, optimizer)
    expected = {
        "weights": {name: value.detach() for name, value in model.state_dict().items()},
        "rates": monitor.last,
        "targets": projector.state_dict()["targets"],
    }
    rendezvous = str(tmp_path / "rendezvous")
    other = torch.multiprocessing.spawn(shared_by_the_other, (rendezvous, expected), nprocs=1, join=False)
    try:
        shared(0, rendezvous, expected)
        while not other.join():
            pass
    finally:
        for process in other.processes:
            process.kill()
