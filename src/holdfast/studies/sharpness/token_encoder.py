"""A small transformer encoder over tokens whose attention logits can be looked at, head by head.

It stands for the premises of theorem 2.2 of "Softmax is not enough" (arXiv 2410.01104): a finite vocabulary,
layers of continuous maps and softmax self-attention, causal (GPT style) or not (BERT style). Tokens have no
positions, so that nothing in the network grows with the length.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from holdfast.errors import ArgumentError


@dataclass(frozen=True)
class HeadLogits:
    """What the heads of one layer see for some queries.

    Arguments:
        logits: scaled logits, -inf where the query does not see the key.
        visible: which keys each query sees.
        bound: upper bound on the spread (greatest minus least visible logit) of each row:
            2 sigma_max(Q) sigma_max(K) |y| max_i |x_i| / sqrt(head width), for the head's matrices Q and K,
            the query's input y and the visible keys' inputs x_i. Source: arXiv 2410.01104, proposition 3.1.
    """

    logits: Float[Tensor, "batch head query key"]
    visible: Bool[Tensor, "query key"]
    bound: Float[Tensor, "batch head query"]

    @property
    def spread(self) -> Float[Tensor, "batch head query"]:
        """Greatest minus least visible logit of each row, in nats."""
        least = self.logits.masked_fill(~self.visible, math.inf).amin(dim=-1)
        return self.logits.amax(dim=-1) - least


class SelfAttention(nn.Module):
    """Multi-head softmax self-attention without biases or positions.

    Arguments:
        dim: width of the residual stream.
        heads: number of heads, a divisor of `dim`.
        causal: whether a token sees only itself and the tokens before it.
    """

    def __init__(self, dim: int, heads: int, *, causal: bool) -> None:
        super().__init__()
        if dim % heads:
            raise ArgumentError("heads", f"a divisor of dim = {dim}", heads)
        self.heads = heads
        self.causal = causal
        self.query = nn.Linear(dim, dim, bias=False)
        self.key = nn.Linear(dim, dim, bias=False)
        self.value = nn.Linear(dim, dim, bias=False)
        self.output = nn.Linear(dim, dim, bias=False)

    def _split(self, x: Float[Tensor, "batch time dim"]) -> Float[Tensor, "batch head time width"]:
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)

    def forward(self, x: Float[Tensor, "batch time dim"]) -> Float[Tensor, "batch time dim"]:
        """Mix the tokens; no table of weights is ever made."""
        mixed = nn.functional.scaled_dot_product_attention(
            self._split(self.query(x)),
            self._split(self.key(x)),
            self._split(self.value(x)),
            is_causal=self.causal,
        )
        output: Tensor = self.output(mixed.transpose(1, 2).flatten(2))
        return output

    def head_logits(self, x: Float[Tensor, "batch time dim"], queries: int) -> HeadLogits:
        """Logits of the last `queries` positions, with their spectral bound.

        Arguments:
            x: the layer's (normalised) input.
            queries: how many positions, counted from the end.
        """
        time = x.shape[1]
        query_input = x[:, time - queries :]
        query, key = self._split(self.query(query_input)), self._split(self.key(x))
        width = query.shape[-1]
        logits = query @ key.mT / math.sqrt(width)
        visible = torch.ones(queries, time, dtype=torch.bool, device=x.device)
        if self.causal:
            visible = visible.tril(diagonal=time - queries)
        key_norm = x.norm(dim=-1).unsqueeze(1).masked_fill(~visible, 0).amax(dim=-1)
        norms = query_input.norm(dim=-1) * key_norm
        sigma = [
            torch.linalg.matrix_norm(linear.weight.view(self.heads, width, -1), ord=2)
            for linear in (self.query, self.key)
        ]
        bound = 2 * (sigma[0] * sigma[1])[:, None] * norms.unsqueeze(1) / math.sqrt(width)
        return HeadLogits(logits.masked_fill(~visible, -math.inf), visible, bound)


class TokenEncoder(nn.Module):
    """Pre-norm transformer encoder with random weights.

    Arguments:
        vocabulary: number of tokens.
        dim: width of the residual stream.
        heads: heads a layer.
        layers: number of layers.
        causal: GPT style (a token sees the past) or BERT style (a token sees all).
        generator: source of the weights, which are normal with variance 1 / fan-in. Logits are then about
            standard normal, a spread of roughly 5 nats.
    """

    def __init__(
        self,
        *,
        vocabulary: int = 16,
        dim: int = 64,
        heads: int = 4,
        layers: int = 1,
        causal: bool = False,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, dim)
        self.attention = nn.ModuleList(SelfAttention(dim, heads, causal=causal) for _ in range(layers))
        self.perceptron = nn.ModuleList(
            nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim)) for _ in range(layers)
        )
        self.attention_norm = nn.ModuleList(nn.LayerNorm(dim) for _ in range(layers))
        self.perceptron_norm = nn.ModuleList(nn.LayerNorm(dim) for _ in range(layers))
        with torch.no_grad():
            self.embedding.weight.normal_(generator=generator)
            for module in self.modules():
                if isinstance(module, nn.Linear):
                    module.weight.normal_(std=module.in_features**-0.5, generator=generator)
                    if module.bias is not None:
                        module.bias.zero_()

    def forward(self, tokens: Int[Tensor, "batch time"]) -> Float[Tensor, "batch time dim"]:
        """The residual stream after the last layer."""
        return self._run(tokens, queries=0)[0]

    def head_logits(self, tokens: Int[Tensor, "batch time"], *, queries: int) -> list[HeadLogits]:
        """Attention logits of every layer for the last positions.

        Memory grows with `queries` times the length, not with its square.

        Arguments:
            tokens: the input.
            queries: how many positions to look at, counted from the end.

        Returns:
            One entry a layer.

        Errors:
            ArgumentError: `queries` is not between 1 and the length.
        """
        if not 1 <= queries <= tokens.shape[1]:
            raise ArgumentError("queries", f"a number between 1 and the length {tokens.shape[1]}", queries)
        return self._run(tokens, queries=queries)[1]

    def _run(
        self, tokens: Int[Tensor, "batch time"], *, queries: int
    ) -> tuple[Float[Tensor, "batch time dim"], list[HeadLogits]]:
        x: Tensor = self.embedding(tokens)
        seen = []
        for norm, attention, perceptron_norm, perceptron in zip(
            self.attention_norm, self.attention, self.perceptron_norm, self.perceptron, strict=True
        ):
            normed = norm(x)
            if queries:
                assert isinstance(attention, SelfAttention)
                seen.append(attention.head_logits(normed, queries))
            x = x + attention(normed)
            x = x + perceptron(perceptron_norm(x))
        return x, seen
