"""The network that looks for needles."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from holdfast.lab.seeds import generator_for
from holdfast.nn import Backbone, BackboneConfig
from holdfast.studies.rat.haystacks import Vocabulary


class HaystackNet(nn.Module):
    """Sum of the channels' embeddings, blocks, and a linear layer to the values.

    Arguments:
        config: of the blocks.
        vocabulary: of the channels.
        seed: of the weights.
        stream: of the weights' random numbers.
    """

    def __init__(self, config: BackboneConfig, vocabulary: Vocabulary, seed: int, stream: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.backbone = Backbone(config)
        embeddings = [nn.Embedding(size, config.dim) for size in vocabulary.channels]
        self.embeddings = nn.ModuleList(embeddings)
        self.head = nn.Linear(config.dim, vocabulary.values, bias=False)
        # A stream of its own, so that all arms of a seed have the same embeddings.
        generator = generator_for(seed, stream)
        for embedding in embeddings:
            nn.init.normal_(embedding.weight, std=0.5, generator=generator)
        nn.init.normal_(self.head.weight, std=config.dim**-0.5, generator=generator)
        for module in self.backbone.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=module.in_features**-0.5, generator=generator)

    def forward(self, tokens: Int[Tensor, "batch time 3"]) -> Float[Tensor, "batch time values"]:
        """Logits of the value that is asked for at each token."""
        x = torch.stack([embedding(tokens[..., i]) for i, embedding in enumerate(self.embeddings)]).sum(0)
        mixed, _ = self.backbone(x)
        logits: Tensor = self.head(mixed)
        return logits
