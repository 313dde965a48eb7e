"""What our backbones are compared with, where it is installed: NX-AI's xLSTM, transformers' decision transformer."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from holdfast.benches.action.settings import TOKENS
from holdfast.nn import XLSTMConfig

WIDTH = 39
"""Numbers of an observation that the decision transformer reads, as of Meta-World."""

ACTIONS = 4
"""Numbers of its actions."""


def nxai_stack(shape: XLSTMConfig, context: int) -> Any:
    """NX-AI's stack of a shape, on the CPU; `None`: the package is not installed.

    `pip install --no-deps xlstm==2.0.6` is enough: its kernels, under a licence of their own, are not used.

    Arguments:
        shape: of the stack.
        context: tokens that its parallel form can take.
    """
    if find_spec("xlstm") is None:
        return None
    package = importlib.import_module("xlstm")
    return package.xLSTMBlockStack(
        package.xLSTMBlockStackConfig(
            mlstm_block=package.mLSTMBlockConfig(mlstm=package.mLSTMLayerConfig(num_heads=shape.heads)),
            slstm_block=package.sLSTMBlockConfig(
                slstm=package.sLSTMLayerConfig(backend="vanilla", num_heads=shape.heads)
            )
            if shape.slstm_at
            else None,
            context_length=context,
            num_blocks=shape.layers,
            embedding_dim=shape.dim,
            slstm_at=list(shape.slstm_at),
        )
    )


class TokenByToken:
    """NX-AI's step, which takes one token at a time, over those of a timestep.

    Arguments:
        stack: of theirs.
    """

    def __init__(self, stack: Any) -> None:
        self._stack, self._state = stack, None

    def __call__(self, x: Tensor) -> Tensor:
        """Outputs of the next tokens."""
        outputs = []
        for token in x.split(1, 1):
            output, self._state = self._stack.step(token, self._state)
            outputs.append(output)
        return torch.cat(outputs, 1)


def decision_transformer(
    shape: XLSTMConfig, batch: int, timesteps: int, device: str, dtype: torch.dtype
) -> Callable[[], object] | None:
    """transformers' decision transformer over the last timesteps, all of which it reads again at every step.

    It has no cache. Its encoders and heads, linear maps, are part of it.

    Arguments:
        shape: of the xLSTM that has about as many parameters.
        batch: episodes side by side.
        timesteps: that it reads.
        device: where.
        dtype: of weights and inputs.

    Returns:
        One step; `None`: the package is not installed.
    """
    if find_spec("transformers") is None:
        return None
    transformers: Any = importlib.import_module("transformers")
    config = transformers.DecisionTransformerConfig(
        state_dim=WIDTH,
        act_dim=ACTIONS,
        hidden_size=shape.dim,
        max_ep_len=timesteps,
        n_layer=max(1, shape.layers // 2),
        n_head=max(1, shape.dim // 64),
        n_positions=TOKENS * timesteps,
        bos_token_id=None,
        eos_token_id=None,
    )
    model: nn.Module = transformers.DecisionTransformerModel(config).to(device, dtype).eval()
    inputs = {
        "states": torch.randn(batch, timesteps, WIDTH, device=device, dtype=dtype),
        "actions": torch.randn(batch, timesteps, ACTIONS, device=device, dtype=dtype),
        "rewards": torch.randn(batch, timesteps, 1, device=device, dtype=dtype),
        "returns_to_go": torch.randn(batch, timesteps, 1, device=device, dtype=dtype),
        "timesteps": torch.arange(timesteps, device=device).expand(batch, timesteps),
        "attention_mask": torch.ones(batch, timesteps, device=device, dtype=dtype),
    }
    return lambda: model(**inputs).action_preds[:, -1]
