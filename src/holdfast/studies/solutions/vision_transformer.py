"""A small vision transformer whose weights are all matrices of linear layers."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from holdfast.errors import ArgumentError
from holdfast.lab.seeds import generator_for
from holdfast.studies.digits import CLASSES, linear
from holdfast.studies.solutions.streams import WEIGHTS


class Block(nn.Module):
    """Attention and a feed-forward layer, both on a residual stream, with LayerNorm without parameters before them.

    Arguments:
        dim: width of the stream.
        heads: of the attention.
        generator: of the weights.
    """

    def __init__(self, dim: int, heads: int, generator: torch.Generator) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.output = (linear(dim, dim, 1.0, generator, bias=False) for _ in range(4))
        self.up = linear(dim, 4 * dim, 2**0.5, generator, bias=False)
        self.down = linear(4 * dim, dim, 1.0, generator, bias=False)

    def forward(self, x: Float[Tensor, "batch tokens dim"]) -> Float[Tensor, "batch tokens dim"]:
        """The stream after the block."""
        normed = functional.layer_norm(x, x.shape[-1:])
        query, key, value = (
            layer(normed).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        mixed = functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        x = x + self.output(mixed)
        changed: Tensor = x + self.down(functional.relu(self.up(functional.layer_norm(x, x.shape[-1:]))))
        return changed


class VisionTransformer(nn.Module):
    """Patches of an image as tokens, blocks, and a head on their mean. Positions are fixed sines.

    Arguments:
        side: of the images, which come as rows of pixels.
        patch: side of a patch, a divisor of the image's.
        dim: width of the residual stream.
        depth: number of blocks.
        heads: of each attention.
        seed: of the weights.

    Errors:
        ArgumentError: patches do not tile the image.
    """

    def __init__(self, side: int, patch: int, *, dim: int, depth: int, heads: int, seed: int) -> None:
        super().__init__()
        if side % patch:
            raise ArgumentError("patch", f"a divisor of {side}", patch)
        generator = generator_for(seed, WEIGHTS)
        self.side, self.patch = side, patch
        self.embed = linear(patch**2, dim, 1.0, generator, bias=False)
        places = torch.arange((side // patch) ** 2)[:, None] / 10 ** (torch.arange(dim) / dim)
        self.register_buffer("positions", places.sin())
        self.blocks = nn.Sequential(*(Block(dim, heads, generator) for _ in range(depth)))
        self.head = linear(dim, CLASSES, 1.0, generator, bias=False)

    def forward(self, images: Float[Tensor, "batch pixels"]) -> Float[Tensor, "batch classes"]:
        """Logits."""
        squares = images.view(-1, 1, self.side, self.side)
        patches = functional.unfold(squares, self.patch, stride=self.patch).mT
        x = self.blocks(self.embed(patches) + self.get_buffer("positions"))
        logits: Tensor = self.head(functional.layer_norm(x, x.shape[-1:]).mean(1))
        return logits
