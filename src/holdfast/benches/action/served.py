"""A server of an action model with random weights, or of one that does nothing, so that what the model costs is seen.

By itself: `python -m holdfast.benches.action.served DIM LAYERS HEADS OBSERVATION ACTION DEADLINE_MS` prints its port,
and serves until its standard input ends. With 0 as DIM nothing is computed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from holdfast.errors import HoldfastError
from holdfast.models.action.domain import Continuous, Domain, Vector
from holdfast.serving.run import serving
from holdfast.serving.server import Server, ServerConfig
from holdfast.serving.stepper import Decided, PolicyStepper, Step, Stepper


class Echo:
    """Answers with one action, and remembers nothing.

    Arguments:
        domain: of all sessions.
    """

    def __init__(self, domain: Domain) -> None:
        self.domains: Mapping[str, Domain] = {domain.name: domain}
        self._action = np.zeros(domain.action.dims, np.float32)

    def begin(self, domain: str, target_return: float | None) -> Any:
        """Nothing."""
        return None

    def act(self, steps: Sequence[Step]) -> list[Decided | HoldfastError]:
        """The one action."""
        return [(self._action, None) for _ in steps]


def stepper_of(dim: int, layers: int, heads: int, domain: Domain) -> Stepper:
    """An xLSTM[1:0] with random weights, or an echo."""
    if not dim:
        return Echo(domain)
    import torch

    from holdfast.models.action.config import ActionConfig
    from holdfast.models.action.model import ActionModel
    from holdfast.nn import XLSTMConfig

    torch.set_num_threads(1)
    torch.manual_seed(0)
    backbone = XLSTMConfig(dim=dim, layers=layers, heads=heads)
    return PolicyStepper(ActionModel(ActionConfig(backbone=backbone, domains=(domain,))))


def main(words: list[str]) -> int:
    """Serve."""
    dim, layers, heads, observation, action, deadline_ms = map(int, words)
    bounds = (-1.0,) * action, (1.0,) * action
    domain = Domain(name="bench", observation=Vector(observation), action=Continuous(*bounds), target_return=100.0)
    config = ServerConfig(deadline_s=deadline_ms / 1e3 if deadline_ms else None)
    with serving(Server(stepper_of(dim, layers, heads, domain), config)) as address:
        print(address.rpartition(":")[2], flush=True)
        sys.stdin.read()
    return 0


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    sys.exit(main(sys.argv[1:]))
