"""What a probe borrows it gives back as it was."""

from __future__ import annotations

import torch
from torch import nn

from holdfast.probes.report import evaluating


class Restless(nn.Module):
    """Every forward changes one buffer and replaces the other, in evaluation mode too."""

    def __init__(self):
        super().__init__()
        self.drop = nn.Dropout(0.5)
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("last", torch.zeros(3))

    def forward(self, x):
        self.calls += 1
        self.last = x
        return self.drop(x)


def test_modes_and_buffers_are_given_back():
    model = Restless()
    model.drop.eval()  # frozen in a model that trains
    calls, last = model.calls, model.last
    with evaluating(model):
        assert not model.training
        model(torch.ones(3))
        assert model.calls == 1
    assert model.training
    assert not model.drop.training
    assert model.calls is calls
    assert model.last is last
    assert calls == 0
