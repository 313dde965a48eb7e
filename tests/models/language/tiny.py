"""Models of a few thousand weights, and rows of several lengths for them to read."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from holdfast.models.language import HoldfastConfig, HoldfastForCausalLM

SCHEDULES = {
    "rat": ("rat", "rat"),
    "rat+window": ("rat", "window"),
    "attention": ("attention", "attention"),
    "rnn": ("rnn", "rnn"),
}
VOCABULARY, CHUNK = 40, 4
PAD = 0


def config(mixers: tuple[str, ...], **changes: Any) -> HoldfastConfig:
    """Untied and with large weights, so that every token has another favourite."""
    shape: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "num_attention_heads": 4,
        "sliding_window": 6,
        "chunk_size": CHUNK,
        "memory": 16,
        "initializer_range": 0.3,
        "tie_word_embeddings": False,
        "pad_token_id": PAD,
    }
    return HoldfastConfig(mixers=mixers, **{**shape, **changes})


def model(mixers: tuple[str, ...], **changes: Any) -> HoldfastForCausalLM:
    """In float64 and not training."""
    torch.manual_seed(0)
    return HoldfastForCausalLM(config(mixers, **changes)).double().eval()


def rows(*lengths: int) -> list[Tensor]:
    """Tokens, none of them padding."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(1, VOCABULARY, (length,), generator=generator) for length in lengths]


def padded(rows: list[Tensor], side: str) -> tuple[Tensor, Tensor]:
    """Rows as a batch, with padding on a side or in the middle, and its mask."""
    time = max(map(len, rows))
    ids = torch.full((len(rows), time), PAD)
    mask = torch.zeros(len(rows), time, dtype=torch.long)
    for number, row in enumerate(rows):
        lacking = time - len(row)
        at = {"left": lacking, "right": 0, "middle": 0}[side]
        place = torch.arange(len(row)) + at
        if side == "middle":
            place = torch.where(place < len(row) // 2, place, place + lacking)
        ids[number, place] = row
        mask[number, place] = 1
    return ids, mask
