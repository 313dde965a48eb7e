"""Method: adaptive temperature in an attention layer of one's own, and what it does to a needle in a haystack.

At 1024 keys the published law no longer acts, and a warning says so; a law fitted to these logits still does.
"""

import torch
from torch import nn

from holdfast.nn import adaptive_softmax, fit_temperature


class Attention(nn.Module):
    """Single-head self-attention; the only change is the call that turns logits into weights."""

    def __init__(self, dim, temperature=None):
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(dim, dim, bias=False) for _ in range(3))
        self.temperature = temperature

    def forward(self, x):
        logits = self.query(x) @ self.key(x).mT / x.shape[-1] ** 0.5
        return adaptive_softmax(logits, temperature=self.temperature) @ self.value(x)


def needles(rows, n, margin):
    """Logits in which the first key stands `margin` above the rest, which are noise."""
    logits = 0.1 * torch.randn(rows, n)
    logits[:, 0] += margin
    return logits


torch.manual_seed(0)
layer = Attention(dim=32)
print("output:", tuple(layer(torch.randn(2, 100, 32)).shape))

# A law for these logits, fitted without labels: entropies are brought down to those at the smallest size.
law = fit_temperature({n: needles(128, n, 4 + 8 * torch.rand(128)) for n in (16, 32, 64, 128, 256, 512, 1024)})

print("weight of a needle 5 nats above the hay:")
print("     n  softmax  published law  fitted law")
for n in (16, 64, 256, 1024):
    row = needles(1, n, 5.0)
    weights = row.softmax(-1), adaptive_softmax(row), adaptive_softmax(row, temperature=law)
    print("{:6d}  {:7.3f}  {:13.3f}  {:10.3f}".format(n, *(w[0, 0].item() for w in weights)))
