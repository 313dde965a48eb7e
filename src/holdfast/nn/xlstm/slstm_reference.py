"""The core of the sLSTM as a loop of plain operations, which autograd differentiates."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid


class SLSTMMemory(NamedTuple):
    """What is kept of the tokens before, of every unit.

    Arguments:
        cell: c, the true value times exp(-stabiliser).
        normaliser: n, likewise; at least one once a token has been read.
        hidden: h, the last output.
        stabiliser: m, -inf before the first token. No gradient goes through it: no output depends on it.
    """

    cell: Float[Tensor, "*time heads batch dim"]
    normaliser: Float[Tensor, "*time heads batch dim"]
    hidden: Float[Tensor, "*time heads batch dim"]
    stabiliser: Float[Tensor, "*time heads batch dim"]


def slstm_steps(
    inputs: Float[Tensor, "time heads batch gates"], recurrent: Float[Tensor, "heads dim gates"], before: SLSTMMemory
) -> SLSTMMemory:
    """The memory after every token; see `slstm`."""
    cell, normaliser, hidden, stabiliser = before
    steps = []
    for entry in inputs.unbind(0):
        i, f, z, o = torch.baddbmm(entry, hidden, recurrent).chunk(4, -1)
        # Before the first token `kept` is -inf, whatever the gates are: no row needs a branch of its own.
        kept = logsigmoid(f) + stabiliser
        stabiliser = torch.maximum(kept, i).detach()
        keep, let_in = torch.exp(kept - stabiliser), torch.exp(i - stabiliser)
        cell = keep * cell + let_in * torch.tanh(z)
        normaliser = keep * normaliser + let_in
        hidden = torch.sigmoid(o) * cell / normaliser
        steps.append((cell, normaliser, hidden, stabiliser))
    return SLSTMMemory(*(torch.stack(parts) for parts in zip(*steps, strict=True)))
