"""The language model of this study: an embedding, blocks, and the same embedding as its head."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from holdfast.lab.seeds import generator_for
from holdfast.nn import Backbone, BackboneConfig, BackboneState


class LanguageModel(nn.Module):
    """Logits of the next token.

    Arguments:
        config: of the blocks.
        vocabulary: number of tokens.
        seed: of the weights.
        stream: of the weights' random numbers.
    """

    def __init__(self, config: BackboneConfig, vocabulary: int, seed: int, stream: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.backbone = Backbone(config)
        self.embedding = nn.Embedding(vocabulary, config.dim)
        nn.init.normal_(self.embedding.weight, std=0.02, generator=generator_for(seed, stream))

    def forward(self, tokens: Int[Tensor, "batch time"]) -> Float[Tensor, "batch time vocabulary"]:
        """Logits at every token of whole sequences."""
        return self.step(tokens, None)[0]

    def step(
        self, tokens: Int[Tensor, "batch time"], state: BackboneState | None
    ) -> tuple[Float[Tensor, "batch time vocabulary"], BackboneState]:
        """Logits, and the state to go on from."""
        mixed, after = self.backbone(self.embedding(tokens), state)
        return mixed @ self.embedding.weight.T, after
