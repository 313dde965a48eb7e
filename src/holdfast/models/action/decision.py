"""What a model is told at one step of many episodes side by side, before it decides."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Bool, Float, Int64, Num
from torch import Tensor

from holdfast.errors import ArgumentError
from holdfast.models.action.domain import Domain


@dataclass(frozen=True, kw_only=True)
class Decision:
    """The end of the last timestep of each row, as far as it is known, and the beginning of the next one.

    Arguments:
        domain: that all rows are of.
        observation: s_t, of the domain's shape.
        live: which rows decide; the others read nothing, and their state stays.
        returns_to_go: in the environment's units; `None`: the model reads none.
        reward: what answered the last action, in the environment's units; `None`: the model reads none.
        rewarded: which rows have such a reward: none at the first step of an episode, none that was lost.
        action: ids of the last action; `None`: the model reads none.
        acted: which rows have one.

    Errors:
        ArgumentError: shapes that do not fit each other or the domain.
    """

    domain: Domain
    observation: Num[Tensor, "batch ..."]
    live: Bool[Tensor, " batch"]
    returns_to_go: Float[Tensor, " batch"] | None
    reward: Float[Tensor, " batch"] | None
    rewarded: Bool[Tensor, " batch"]
    action: Int64[Tensor, "batch dims"] | None
    acted: Bool[Tensor, " batch"]

    def __post_init__(self) -> None:
        rows = len(self.live)
        wanted = {
            "observation": (rows, *self.domain.observation.shape),
            "returns_to_go": (rows,),
            "reward": (rows,),
            "rewarded": (rows,),
            "action": (rows, self.domain.action.dims),
            "acted": (rows,),
        }
        for name, shape in wanted.items():
            tensor = getattr(self, name)
            if tensor is not None and tuple(tensor.shape) != shape:
                raise ArgumentError(name, f"shape {shape}", f"shape {tuple(tensor.shape)}")
