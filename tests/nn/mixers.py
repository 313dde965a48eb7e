"""The mixers that stand under the contract, by name, small and in float64, with weights far from their start."""

from __future__ import annotations

import torch
from torch import nn

from holdfast.nn import MLSTM, RAT, SLSTM, Adaptive, CausalAttention, GatedRNN, Llama4, ScaleInvariant

DIM = 24

BUILD = {
    "rat": lambda: RAT(DIM, 4, chunk_size=4, rope_theta=100.0),
    "rat-1": lambda: RAT(DIM, 4, chunk_size=1, qk_groups=None, rope_theta=None),
    "rat-64": lambda: RAT(DIM, 4, chunk_size=64, qk_groups=1),
    "rat-adaptive": lambda: RAT(DIM, 4, chunk_size=3, normaliser=Adaptive()),
    "rat-distance": lambda: RAT(DIM, 4, chunk_size=4, normaliser=ScaleInvariant()),
    "rnn": lambda: GatedRNN(DIM, memory=10),
    "mlstm": lambda: MLSTM(DIM, 4),
    "mlstm-1": lambda: MLSTM(DIM, 1),
    "slstm": lambda: SLSTM(DIM, 4),
    "slstm-1": lambda: SLSTM(DIM, 1, block=1, blocks=3),
    "attention": lambda: CausalAttention(DIM, 4, kv_heads=2, rope_theta=100.0),
    "attention-gated": lambda: CausalAttention(DIM, 4, rope_theta=None, output_gate=True),
    "attention-adaptive": lambda: CausalAttention(DIM, 4, kv_heads=1, normaliser=Adaptive()),
    "window": lambda: CausalAttention(DIM, 4, kv_heads=2, window=5, rope_theta=100.0),
    "window-1": lambda: CausalAttention(DIM, 4, window=1),
    "window-position": lambda: CausalAttention(DIM, 4, window=5, normaliser=Llama4(8.0, 0.3)),
}


def mixer(name: str, seed: int = 0) -> nn.Module:
    """The mixer of that name."""
    torch.manual_seed(seed)
    module = BUILD[name]().double()
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.4)
    return module
