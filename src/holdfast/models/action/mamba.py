"""Mamba blocks of transformers as a backbone: padding is inert, and a state is continued one token at a time.

Several tokens at once against the library's cache give wrong numbers without a word: its scan begins from zero.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from holdfast.errors import ArgumentError, count_of, require
from holdfast.nn.layout import Layout, check_input
from holdfast.nn.state import State, limit_of, of_kind


@dataclass(frozen=True, kw_only=True)
class MambaConfig:
    """Shape of a stack of Mamba blocks.

    Arguments:
        dim: width of the residual stream.
        layers: number of blocks.
        state_size: numbers that a channel keeps.
        conv_kernel: tokens that the convolution sees.
        expand: inner width in multiples of `dim`.
    """

    dim: int
    layers: int
    state_size: int = 16
    conv_kernel: int = 4
    expand: int = 2

    def __post_init__(self) -> None:
        for name in ("dim", "layers", "state_size", "conv_kernel", "expand"):
            count_of(name, getattr(self, name), least=1)


@dataclass(frozen=True, kw_only=True)
class MambaState(State):
    """State of all blocks.

    Arguments:
        inputs: last inputs of each block's convolution.
        recurrent: what each channel keeps.
    """

    inputs: Float[Tensor, "batch layers inner kernel"]
    recurrent: Float[Tensor, "batch layers inner size"]


class Mamba(nn.Module):
    """Blocks of transformers' Mamba one after the other, and a last norm.

    Arguments:
        config: the shape.

    Errors:
        MissingExtraError: transformers is not installed.

    Source: arXiv 2312.00752; the blocks are those of transformers.
    """

    def __init__(self, config: MambaConfig) -> None:
        super().__init__()
        transformers = require("transformers", "hf")
        self.config = config
        self.shape = transformers.MambaConfig(
            vocab_size=1,
            hidden_size=config.dim,
            num_hidden_layers=config.layers,
            state_size=config.state_size,
            conv_kernel=config.conv_kernel,
            expand=config.expand,
        )
        model = transformers.MambaModel(self.shape)
        self.blocks, self.norm = model.layers, model.norm_f

    def init_state(self, batch: int, *, limit: int | None = None) -> MambaState:
        """The state before the first token; see `RAT.init_state`."""
        weight = self.norm.weight
        inner, config = self.shape.intermediate_size, self.config
        return MambaState(
            seen=torch.zeros(batch, dtype=torch.long, device=weight.device),
            limit=limit_of(limit),
            inputs=weight.new_zeros(batch, config.layers, inner, config.conv_kernel).detach(),
            recurrent=weight.new_zeros(batch, config.layers, inner, config.state_size).detach(),
        )

    def forward(
        self, x: Float[Tensor, "batch time dim"], state: State | None = None, layout: Layout | None = None
    ) -> tuple[Float[Tensor, "batch time dim"], MambaState]:
        """The residual stream after all blocks, normed; see `RAT.forward`."""
        check_input(x, self.config.dim, layout)
        if state is None:
            before = self.init_state(len(x) if layout is None else len(layout.lengths))
        else:
            before = self._checked(state, x, layout)
        if x.shape[1] == 0:
            return x, before
        lengths = None
        if layout is not None:
            x, lengths = layout.unpack(layout.cleared(x)), layout.lengths
        if 0 in x.shape[:2]:
            mixed, after = x, before
        elif before.longest == 0:
            mixed, after = self._whole(x, before, lengths)
        else:
            mixed, after = self._steps(x, before, lengths)
        if layout is not None:
            mixed, after = layout.pack(mixed), after.reorder(layout.last) if layout.packed else after
        return mixed, before.followed_by(after)

    def _checked(self, given: State, x: Tensor, layout: Layout | None) -> MambaState:
        """A state that these blocks may continue."""
        state = of_kind(given, MambaState)
        state.check(x, tokens=x.shape[1], packed=layout is not None and layout.packed)
        config, inner = self.config, self.shape.intermediate_size
        ours = ((config.layers, inner, config.conv_kernel), (config.layers, inner, config.state_size))
        theirs = (tuple(state.inputs.shape[1:]), tuple(state.recurrent.shape[1:]))
        if ours != theirs:
            raise ArgumentError("state", f"parts of shape {ours}", f"{theirs}")
        return state

    def _whole(self, x: Tensor, before: MambaState, lengths: Tensor | None) -> tuple[Tensor, MambaState]:
        """From the first token on. Sequences end together, so that the library's state is that of each one's end."""
        mask = shift = None
        if lengths is not None:
            place = torch.arange(x.shape[1], device=x.device)
            lacking = x.shape[1] - lengths[:, None]
            mask = place >= lacking
            shift = (place + lacking) % x.shape[1]  # from the left to where it stands, and its inverse
            x = x.gather(1, ((place - lacking) % x.shape[1])[..., None].expand_as(x)) * mask[..., None]
        cache = _cache(self.shape)
        mixed = self._through(x, cache, mask)
        if shift is not None:
            mixed = mixed.gather(1, shift[..., None].expand_as(mixed))
        return mixed, self._after(before, cache, x.shape[1], lengths)

    def _steps(self, x: Tensor, before: MambaState, lengths: Tensor | None) -> tuple[Tensor, MambaState]:
        """One token after the other, on copies of what was kept: the library writes in place."""
        cache = _cache(self.shape)
        for number, layer in enumerate(cache.layers):
            inputs, recurrent = before.inputs[:, number].clone(), before.recurrent[:, number].clone()
            layer.conv_states[0], layer.recurrent_states[0] = inputs, recurrent
            layer.conv_kernel_size[0], layer.device, layer.dtype = self.config.conv_kernel, inputs.device, inputs.dtype
            layer.is_conv_states_initialized[0] = layer.is_recurrent_states_initialized[0] = True
            layer.has_previous_state[0] = True
        outputs = []
        for step in range(x.shape[1]):
            ended = None if lengths is None else lengths <= step
            kept = [(layer.conv_states[0].clone(), layer.recurrent_states[0].clone()) for layer in cache.layers]
            outputs.append(self._through(x[:, step : step + 1], cache, None))
            if ended is not None:
                for layer, (inputs, recurrent) in zip(cache.layers, kept, strict=True):
                    rows = ended[:, None, None]
                    layer.conv_states[0] = torch.where(rows, inputs, layer.conv_states[0])
                    layer.recurrent_states[0] = torch.where(rows, recurrent, layer.recurrent_states[0])
        return torch.cat(outputs, 1), self._after(before, cache, x.shape[1], lengths)

    def _through(self, x: Tensor, cache: Any, mask: Tensor | None) -> Float[Tensor, "batch time dim"]:
        for block in self.blocks:
            x = block(x, cache_params=cache, attention_mask=mask)
        normed: Tensor = self.norm(x)
        return normed

    def _after(self, before: MambaState, cache: Any, tokens: int, lengths: Tensor | None) -> MambaState:
        return replace(
            before,
            **before.counts(tokens, lengths),
            inputs=torch.stack([layer.conv_states[0] for layer in cache.layers], 1),
            recurrent=torch.stack([layer.recurrent_states[0] for layer in cache.layers], 1),
        )


def _cache(shape: Any) -> Any:
    from transformers import DynamicCache

    return DynamicCache(config=shape)
