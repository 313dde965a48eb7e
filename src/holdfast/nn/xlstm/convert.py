"""An xLSTM with the weights of a block stack of NX-AI's package `xlstm`, of which nothing has to be installed."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from holdfast.errors import ArgumentError
from holdfast.nn.xlstm.stack import XLSTM, XLSTMConfig


def xlstm_from_nxai(weights: Mapping[str, Tensor], *, prefix: str = "") -> XLSTM:
    """A network that computes what an `xLSTMBlockStack` with these weights computes, in the dtype that they have.

        network = xlstm_from_nxai(stack.state_dict())

    The shape is read off the weights. Three things are stored otherwise than their names or shapes say: norms as what
    is added to one, the sLSTM's input gate in the layer `fgate` and its forget gate in `igate`, and the sLSTM's
    recurrent weights and biases in one order for the backend `cuda` and in another for `vanilla`.

    Arguments:
        weights: the state dict of a stack, with convolutions of four tokens, without biases of projections, with
            feed-forward layers of factor 1.3 and GELU, and with a norm at the end; or that of a model with one inside.
        prefix: of the stack's names in it, for example `xlstm_block_stack.`; others are left alone.

    Errors:
        ArgumentError: a weight is missing, is left over or has another shape than such a stack has.

    Source: github.com/NX-AI/xlstm 2.0.6, Apache-2.0.
    """
    rest = {name.removeprefix(prefix): tensor.detach() for name, tensor in weights.items() if name.startswith(prefix)}
    rest = {name: tensor for name, tensor in rest.items() if not name.endswith(".causal_mask")}
    config = _config_of(rest)
    ours = {"norm.weight": 1 + _taken(rest, "post_blocks_norm.weight")}
    for layer in range(config.layers):
        where = f"blocks.{layer}."
        block = _slstm_block(rest, where, config.dim) if layer in config.slstm_at else _mlstm_block(rest, where)
        ours |= {where + name: tensor for name, tensor in block.items()}
    if rest:
        raise ArgumentError("weights", "those of an xLSTMBlockStack alone", f"besides {', '.join(sorted(rest))}")
    with torch.device("meta"):
        network = XLSTM(config)
    for name, parameter in network.state_dict().items():
        if ours[name].shape != parameter.shape:
            expected = f"{name} of shape {tuple(parameter.shape)}, for {config}"
            raise ArgumentError("weights", expected, f"shape {tuple(ours[name].shape)}")
    network.load_state_dict({name: tensor.clone() for name, tensor in ours.items()}, assign=True)
    return network


Weights = dict[str, Tensor]


def _config_of(weights: Weights) -> XLSTMConfig:
    """The shape of a stack with such weights."""
    numbers = {int(found[1]) for name in weights if (found := re.match(r"blocks\.(\d+)\.", name))}
    if numbers != set(range(len(numbers))) or not numbers:
        raise ArgumentError("weights", "names from blocks.0. on, behind the prefix", f"blocks {sorted(numbers)}")
    slstm_at = tuple(layer for layer in sorted(numbers) if f"blocks.{layer}.xlstm.slstm_cell._bias_" in weights)
    heads = set()
    for layer in numbers:
        cell = "slstm_cell._recurrent_kernel_" if layer in slstm_at else "mlstm_cell.igate.weight"
        heads.add(len(_named(weights, f"blocks.{layer}.xlstm.{cell}")))
    if len(heads) > 1:
        raise ArgumentError("weights", "as many heads in all blocks", f"{sorted(heads)}")
    dim = len(_named(weights, "post_blocks_norm.weight"))
    return XLSTMConfig(dim=dim, layers=len(numbers), heads=heads.pop(), slstm_at=slstm_at)


def _named(weights: Weights, name: str) -> Tensor:
    """The tensor of that name."""
    if name not in weights:
        raise ArgumentError("weights", f"a tensor {name}", "none of that name")
    return weights[name]


def _taken(weights: Weights, name: str) -> Tensor:
    """The tensor of that name, which is then no longer among the weights."""
    tensor = _named(weights, name)
    del weights[name]
    return tensor


def _mlstm_block(weights: Weights, where: str) -> Weights:
    def take(name: str) -> Tensor:
        return _taken(weights, where + name)

    return {
        "mixer_norm.weight": 1 + take("xlstm_norm.weight"),
        "mixer.in_proj.weight": take("xlstm.proj_up.weight"),
        "mixer.out_proj.weight": take("xlstm.proj_down.weight"),
        "mixer.convolution.weight": take("xlstm.conv1d.conv.weight"),
        "mixer.convolution.bias": take("xlstm.conv1d.conv.bias"),
        "mixer.qkv": torch.stack([take(f"xlstm.{kind}_proj.weight") for kind in "qkv"]),
        "mixer.gates.weight": torch.cat([take(f"xlstm.mlstm_cell.{kind}gate.weight") for kind in "if"]),
        "mixer.gates.bias": torch.cat([take(f"xlstm.mlstm_cell.{kind}gate.bias") for kind in "if"]),
        "mixer.norm": 1 + take("xlstm.mlstm_cell.outnorm.weight"),
        "mixer.skip": take("xlstm.learnable_skip"),
    }


def _slstm_block(weights: Weights, where: str, dim: int) -> Weights:
    def take(name: str) -> Tensor:
        return _taken(weights, where + name)

    recurrent, bias = _cell(take("xlstm.slstm_cell._recurrent_kernel_"), take("xlstm.slstm_cell._bias_"), dim)
    return {
        "mixer_norm.weight": 1 + take("xlstm_norm.weight"),
        "mixer.convolution.weight": take("xlstm.conv1d.conv.weight"),
        "mixer.convolution.bias": take("xlstm.conv1d.conv.bias"),
        "mixer.gates": torch.stack([take(f"xlstm.{kind}gate.weight") for kind in "fizo"]),
        "mixer.recurrent": recurrent,
        "mixer.bias": bias,
        "mixer.norm": 1 + take("xlstm.group_norm.weight"),
        "feed_norm.weight": 1 + take("ffn_norm.weight"),
        "feed_forward.in_proj.weight": take("ffn.proj_up.weight"),
        "feed_forward.out_proj.weight": take("ffn.proj_down.weight"),
    }


def _cell(
    recurrent: Float[Tensor, "heads rows columns"], bias: Float[Tensor, " gates"], dim: int
) -> tuple[Float[Tensor, "heads size 4 size"], Float[Tensor, "heads 4 size"]]:
    """Recurrent weights and biases of an sLSTM, from the order of either backend."""
    heads, rows, columns = recurrent.shape
    size = dim // heads
    if bias.numel() != 4 * dim or (rows, columns) not in ((size, 4 * size), (4 * size, size)):
        expected = f"recurrent weights of shape ({heads}, {size}, {4 * size}) or ({heads}, {4 * size}, {size})"
        raise ArgumentError("weights", expected, f"shape {(heads, rows, columns)} with {bias.numel()} biases")
    if columns == 4 * size:  # cuda
        return recurrent.unflatten(2, (4, size)), bias.view(heads, 4, size)
    return recurrent.unflatten(1, (4, size)).permute(0, 3, 1, 2), bias.view(4, heads, size).transpose(0, 1)
