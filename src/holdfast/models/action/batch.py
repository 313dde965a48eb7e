"""What an action model learns from: windows of trajectories of one domain, all in the environment's units.

Nothing here is scaled, binned or widened to what all domains share: that is the model's work, so that it is done in one
place, for training and for acting.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Num
from torch import Tensor

from holdfast.errors import ArgumentError
from holdfast.models.action.domain import Domain


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Windows of timesteps. Those that are not valid are padding, anywhere, and hold anything.

    Arguments:
        domain: that all windows are of.
        observation: s_t, of the domain's shape; pictures as bytes (0 to 255) or floats (0 to 1).
        action: a_t to be learnt: floats within the domain's bounds, or one id, as a float or a whole number.
        valid: which timesteps are.
        returns_to_go: sum of r_t and all rewards after it; `None`: not known.
        reward: r_t, what the environment gave in answer to a_t; `None`: not known.
        reward_known: where r_t is known; `None`: everywhere. A reward that is not known is no token, and not 0.
        taken: the actions that were carried out, which a model with past actions reads; `None`: those to be learnt.

    Errors:
        ArgumentError: shapes that do not fit each other or the domain.
    """

    domain: Domain
    observation: Num[Tensor, "batch time *shape"]
    action: Num[Tensor, "batch time dims"]
    valid: Bool[Tensor, "batch time"]
    returns_to_go: Float[Tensor, "batch time"] | None = None
    reward: Float[Tensor, "batch time"] | None = None
    reward_known: Bool[Tensor, "batch time"] | None = None
    taken: Num[Tensor, "batch time dims"] | None = None

    def __post_init__(self) -> None:
        steps = tuple(self.valid.shape)
        wanted = {
            "observation": (*steps, *self.domain.observation.shape),
            "action": (*steps, self.domain.action.dims),
            "returns_to_go": steps,
            "reward": steps,
            "reward_known": steps,
            "taken": (*steps, self.domain.action.dims),
        }
        for name, shape in wanted.items():
            tensor = getattr(self, name)
            if tensor is not None and tuple(tensor.shape) != shape:
                got = f"shape {tuple(tensor.shape)}"
                raise ArgumentError(f"{name} of domain {self.domain.name}", f"shape {shape}", got)

    def to(self, device: torch.device | str) -> Batch:
        """With all tensors on a device."""
        moved: dict[str, Any] = {
            field.name: part.to(device, non_blocking=True)
            for field in fields(self)
            if isinstance(part := getattr(self, field.name), Tensor)
        }
        return replace(self, **moved)


@runtime_checkable
class BatchSource(Protocol):
    """Where training takes its batches from.

    A batch is a function of its number, so that a run that goes on sees what it would have seen, and several processes
    share the numbers.
    """

    @property
    def domains(self) -> Mapping[str, Domain]:
        """All domains, by name."""

    @property
    def fingerprint(self) -> str:
        """Equal for the same data and sampling, for example a sha256: a run goes on with the data it was begun with."""

    def batch(self, number: int, size: int) -> Batch:
        """A batch of training data, for any number from 0 on.

        Arguments:
            number: which; the same one is the same batch.
            size: windows.
        """

    def validation(self, size: int) -> Iterable[Batch]:
        """Every window of the validation data once, or an even choice of them.

        Arguments:
            size: windows a batch, at most.
        """
