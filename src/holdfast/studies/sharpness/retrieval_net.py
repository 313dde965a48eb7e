"""One attention head that looks a set up: the network in which "Softmax is not enough" measures dispersion.

    h_i = psi_x(x_i)    logit_i = <Q psi_q(q), K h_i> / sqrt(width)    output = phi(sum_i weight_i V h_i)

The normaliser (logits -> weights) is an argument of `forward`, so that one set of parameters can be tried
with many. All parameters have a leading axis of seeds: several networks train side by side as one tensor
program.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from holdfast.errors import ArgumentError

Normaliser: TypeAlias = Callable[[Tensor], Tensor]
"""Maps logits to weights of the same shape that sum to one over the last axis."""


def softmax(logits: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
    """The plain normaliser."""
    return logits.softmax(dim=-1)


class StackedLinear(nn.Module):
    """Linear layers of the same shape side by side, one a seed, initialised like `torch.nn.Linear`.

    Arguments:
        n_in: input width.
        n_out: output width.
        generators: one generator a seed. A layer draws the same numbers alone as in company.
        bias: whether the layers have a bias.
    """

    def __init__(self, n_in: int, n_out: int, generators: Sequence[torch.Generator], *, bias: bool = True) -> None:
        super().__init__()

        def draw(*shape: int) -> nn.Parameter:
            uniform = [torch.rand(*shape, generator=generator) for generator in generators]
            return nn.Parameter((2 * torch.stack(uniform) - 1) / math.sqrt(n_in))

        self.weight = draw(n_in, n_out)
        self.bias = draw(1, n_out) if bias else None

    def forward(self, x: Float[Tensor, "seed row n_in"]) -> Float[Tensor, "seed row n_out"]:
        """Apply each seed's layer to that seed's rows."""
        if self.bias is None:
            return torch.bmm(x, self.weight)
        return torch.baddbmm(self.bias, x, self.weight)


class MaxRetrievalNet(nn.Module):
    """The paper's single-head network for sets, one a seed.

    Keys, values and the second layer of `psi_x` are linear in the hidden layer of `psi_x`. So they are
    applied to the one query and to the one weighted mean of a set instead of to each of its items: the same
    function, at a cost an item of one hidden layer and two products.

    Arguments:
        seeds: one network is initialised from each.
        features: width of an item.
        classes: width of the output.
        width: width of everything between.

    Source: arXiv 2410.01104, appendix A. Depth of the perceptrons and the scale of the logits are not stated
    there; one hidden layer and 1/sqrt(width) are used.
    """

    def __init__(self, seeds: Sequence[int], *, features: int = 11, classes: int = 10, width: int = 128) -> None:
        super().__init__()
        if not seeds:
            raise ArgumentError("seeds", "at least one seed", "none")
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.width = width
        self.item_in = StackedLinear(features, width, generators)
        self.item_out = StackedLinear(width, width, generators)
        self.query_in = StackedLinear(1, width, generators)
        self.query_out = StackedLinear(width, width, generators)
        self.to_query = StackedLinear(width, width, generators, bias=False)
        self.to_key = StackedLinear(width, width, generators, bias=False)
        self.to_value = StackedLinear(width, width, generators, bias=False)
        self.read_in = StackedLinear(width, width, generators)
        self.read_out = StackedLinear(width, classes, generators)

    def encode(
        self,
        items: Float[Tensor, "seed batch n features"],
        query: Float[Tensor, "seed batch"],
        mask: Bool[Tensor, "seed batch n"] | None = None,
    ) -> tuple[Float[Tensor, "seed batch n width"], Float[Tensor, "seed batch n"]]:
        """What the head attends over, and the logits that a normaliser turns into weights.

        Arguments:
            items: features of the items.
            query: the query scalar.
            mask: true where an item exists; logits are -inf elsewhere.

        Returns:
            The hidden layer of `psi_x` for every item, and the logits.
        """
        seeds, batch, n, features = items.shape
        gelu = nn.functional.gelu
        hidden = gelu(self.item_in(items.reshape(seeds, batch * n, features)))
        key_query = self.to_query(self.query_out(gelu(self.query_in(query.unsqueeze(-1)))))
        key_query = torch.bmm(key_query, self.to_key.weight.mT) / math.sqrt(self.width)
        hidden_query = torch.bmm(key_query, self.item_out.weight.mT)
        assert self.item_out.bias is not None
        offset = (key_query * self.item_out.bias).sum(dim=-1, keepdim=True)
        hidden = hidden.view(seeds * batch, n, self.width)
        logits = torch.bmm(hidden, hidden_query.view(seeds * batch, self.width, 1))
        logits = logits.view(seeds, batch, n) + offset
        if mask is not None:
            logits = logits.masked_fill(~mask, -math.inf)
        return hidden.view(seeds, batch, n, self.width), logits

    def read(
        self, hidden: Float[Tensor, "seed batch n width"], weights: Float[Tensor, "arm seed batch n"]
    ) -> Float[Tensor, "arm seed batch classes"]:
        """Class logits from attention weights; several sets of weights share one pass over the items.

        Arguments:
            hidden: what `encode` returned.
            weights: attention weights of each arm, summing to one over the last axis.
        """
        arms, seeds, batch, n = weights.shape
        weights = weights.permute(1, 2, 0, 3).reshape(seeds * batch, arms, n)
        mean = torch.bmm(weights, hidden.reshape(seeds * batch, n, self.width))
        value = self.to_value(self.item_out(mean.view(seeds, batch * arms, self.width)))
        output: Tensor = self.read_out(nn.functional.gelu(self.read_in(value)))
        return output.view(seeds, batch, arms, -1).permute(2, 0, 1, 3)

    def forward(
        self,
        items: Float[Tensor, "seed batch n features"],
        query: Float[Tensor, "seed batch"],
        mask: Bool[Tensor, "seed batch n"] | None = None,
        *,
        normalise: Normaliser = softmax,
    ) -> Float[Tensor, "seed batch classes"]:
        """Class logits of each set.

        Arguments:
            items: features of the items.
            query: the query scalar.
            mask: true where an item exists; `None` where all sets are full.
            normalise: turns logits into weights.
        """
        hidden, logits = self.encode(items, query, mask)
        return self.read(hidden, normalise(logits).unsqueeze(0)).squeeze(0)
