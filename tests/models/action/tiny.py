"""Small action models over every backbone, and trajectories for them to read."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from holdfast.models.action.batch import Batch
from holdfast.models.action.config import ActionConfig, BackboneShape
from holdfast.models.action.domain import Continuous, Discrete, Domain, Image, Vector
from holdfast.models.action.mamba import MambaConfig
from holdfast.models.action.model import ActionModel
from holdfast.nn import MIXERS, BackboneConfig, XLSTMConfig


def schedule(*mixers: str, **changes: Any) -> BackboneConfig:
    shape: dict[str, Any] = {"dim": 24, "heads": 2, "chunk_size": 4, "window": 7, "memory": 16, "expansion": 2}
    return BackboneConfig(mixers=mixers, **{**shape, **changes})


BACKBONES: dict[str, BackboneShape] = {
    **{name: schedule(name, name) for name in MIXERS},
    "attention without positions": schedule("attention", "attention", rope_theta=None),
    "hybrid": schedule("rat", "window", "rnn", "attention"),
    "xlstm": XLSTMConfig(dim=24, layers=3, heads=2, slstm_at=(1,)),
    "mamba": MambaConfig(dim=24, layers=2, state_size=4),
}

ARM = Domain(
    name="arm",
    observation=Vector(5),
    action=Continuous((-1.0, -2.0), (1.0, 6.0)),
    reward_scale=4.0,
    target_return=20.0,
)
MAZE = Domain(name="maze", observation=Vector(3, slots=(6, 0, 4)), action=Discrete(3), target_return=5.0)
GAME = Domain(name="game", observation=Image(1, 16, 16), action=Discrete(5), target_return=2.0)


def strengthened(module: nn.Module) -> nn.Module:
    """With weights far from their start, so that every token matters for a long time."""
    torch.manual_seed(0)
    for name, parameter in module.named_parameters():
        if parameter.ndim == 2 and not name.endswith("A_log"):
            nn.init.normal_(parameter, std=0.25)
        elif name.endswith("dt_proj.bias"):  # of Mamba, whose steps are tiny at first
            nn.init.normal_(parameter, mean=-1.0)
    return module


def model(backbone: BackboneShape, **changes: Any) -> ActionModel:
    """With weights far from their start, and not training."""
    torch.manual_seed(0)
    settings = {"domains": (ARM, MAZE, GAME), "image": Image(3, 16, 16), "image_channels": (4, 4), **changes}
    made = ActionModel(ActionConfig(backbone=backbone, **settings))
    strengthened(made.backbone)
    for parameter in made.head.parameters():
        nn.init.normal_(parameter, std=0.5)
    return made.eval()


def batch(domain: Domain, rows: int, time: int, seed: int = 1) -> Batch:
    """Whole windows of random numbers."""
    generator = torch.Generator().manual_seed(seed)
    shape = (rows, time, *domain.observation.shape)
    if isinstance(domain.observation, Image):
        observation = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    else:
        observation = torch.randn(shape, generator=generator)
    if isinstance(domain.action, Discrete):
        action = torch.randint(0, domain.action.n, (rows, time, 1), generator=generator)
    else:
        low, high = torch.tensor(domain.action.low), torch.tensor(domain.action.high)
        action = low + (high - low) * torch.rand(rows, time, domain.action.dims, generator=generator)
    reward = torch.randn(rows, time, generator=generator)
    return Batch(
        domain=domain,
        observation=observation,
        action=action,
        valid=torch.ones(rows, time, dtype=torch.bool),
        returns_to_go=reward.flip(1).cumsum(1).flip(1),
        reward=reward,
    )


def padded(whole: Batch, left: int, right: int) -> Batch:
    """With timesteps that are not valid on both sides, full of what must not be read."""

    def pad(tensor: Tensor) -> Tensor:
        junk = torch.nan if tensor.is_floating_point() else 255 if tensor.dtype == torch.uint8 else -7
        sides = [tensor.new_full((len(tensor), number, *tensor.shape[2:]), junk) for number in (left, right)]
        return torch.cat([sides[0], tensor, sides[1]], 1)

    assert whole.returns_to_go is not None
    assert whole.reward is not None
    no = [torch.zeros(len(whole.valid), number, dtype=torch.bool) for number in (left, right)]
    return replace(
        whole,
        observation=pad(whole.observation),
        action=pad(whole.action),
        returns_to_go=pad(whole.returns_to_go),
        reward=pad(whole.reward),
        valid=torch.cat([no[0], whole.valid, no[1]], 1),
    )
