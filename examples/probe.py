"""Probe: how fast does the attention of a model of one's own spread as its input grows?"""

import torch
from torch import nn

from holdfast.probes.sharpness import probe_sharpness

HEADS, WIDTH = 2, 64
torch.manual_seed(0)
query, key = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)


def logits_of(n):
    """Attention logits of the last 16 tokens of an input of n tokens: (heads, rows, n)."""
    x = torch.randn(n, WIDTH, generator=torch.Generator().manual_seed(n))
    q, k = (layer(x).view(n, HEADS, -1).transpose(0, 1) for layer in (query, key))
    return q[:, -16:] @ k.mT / (WIDTH / HEADS) ** 0.5


if __name__ == "__main__":
    print(probe_sharpness(logits_of, sizes=[16, 64, 256, 1024]))
