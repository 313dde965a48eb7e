"""A small decoder-only transformer whose attention takes any normaliser, and tells how dispersed its heads are.

Pre-norm blocks, rotary positions, GELU, embedding tied to the output. The normaliser can be exchanged at any time:
one set of parameters can be tried with many.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from holdfast.errors import ArgumentError
from holdfast.nn import Normaliser, Plain, entropy_of
from holdfast.nn.attention import AttentionCall, plain


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """Shape of a decoder.

    Arguments:
        vocabulary: number of tokens.
        width: of the residual stream.
        layers: number of blocks.
        heads: attention heads a block; `width / heads` must be even.
        expansion: hidden width of the feed-forward layers, in multiples of `width`.
        rope_base: base of the rotary frequencies.
        rotary_share: share of the frequencies, from the highest down, that turn with the position; the others
            stand still, which leaves channels for content at any distance (p-RoPE, arXiv 2410.06205).
    """

    vocabulary: int
    width: int = 384
    layers: int = 6
    heads: int = 6
    expansion: int = 4
    rope_base: float = 10_000.0
    rotary_share: float = 1.0

    def __post_init__(self) -> None:
        for argument in ("vocabulary", "width", "layers", "heads", "expansion"):
            if getattr(self, argument) < 1:
                raise ArgumentError(argument, "a positive number", getattr(self, argument))
        if self.width % (2 * self.heads):
            raise ArgumentError("width", f"a multiple of twice the heads, {2 * self.heads}", self.width)
        if not 0 <= self.rotary_share <= 1:
            raise ArgumentError("rotary_share", "a share from 0 to 1", self.rotary_share)


@dataclass(frozen=True)
class HeadEntropies:
    """How dispersed each attention row is, in nats; NaN at padding.

    Arguments:
        logits: entropy of the softmax of the row's logits, whatever the normaliser: what a law of adaptive
            temperature reads.
        weights: entropy of the weights that the normaliser makes of them.
    """

    logits: Float[Tensor, "layer batch head time"]
    weights: Float[Tensor, "layer batch head time"]


class KeyValueCache:
    """Keys and values of the tokens that a decoder has read.

    Arguments:
        capacity: tokens that there is room for.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.length = 0
        """Tokens read so far."""
        self._stored: dict[int, tuple[Tensor, Tensor]] = {}

    def extend(
        self, layer: int, key: Float[Tensor, "batch head time dim"], value: Float[Tensor, "batch head time dim"]
    ) -> tuple[Float[Tensor, "batch head keys dim"], Float[Tensor, "batch head keys dim"]]:
        """Keep a layer's new keys and values, and return all of them. The decoder then moves `length`.

        Errors:
            ArgumentError: there is no room.
        """
        stop = self.length + key.shape[2]
        if stop > self.capacity:
            raise ArgumentError("cache", f"room for {stop} tokens", f"a capacity of {self.capacity}")
        if layer not in self._stored:
            shape = (*key.shape[:2], self.capacity, key.shape[3])
            self._stored[layer] = (key.new_empty(shape), value.new_empty(shape))
        keys, values = self._stored[layer]
        keys[:, :, self.length : stop] = key
        values[:, :, self.length : stop] = value
        return keys[:, :, :stop], values[:, :, :stop]


class DecoderBlock(nn.Module):
    """Attention and feed-forward layer, each on the normed residual stream."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.attention_norm = nn.RMSNorm(config.width)
        self.to_query_key_value = nn.Linear(config.width, 3 * config.width, bias=False)
        self.to_output = nn.Linear(config.width, config.width, bias=False)
        self.feed_norm = nn.RMSNorm(config.width)
        self.feed_in = nn.Linear(config.width, config.expansion * config.width)
        self.feed_out = nn.Linear(config.expansion * config.width, config.width)

    def forward(
        self,
        x: Float[Tensor, "batch time width"],
        turns: Float[Tensor, "2 time pairs"],
        normaliser: Normaliser,
        cache: KeyValueCache | None,
        layer: int,
        entropies: list[HeadEntropies] | None,
    ) -> Float[Tensor, "batch time width"]:
        """The residual stream after the block.

        Arguments:
            x: the residual stream before it.
            turns: of queries and keys; see `rotate`.
            normaliser: turns logits into weights.
            cache: what was read before.
            layer: the block's number in the cache.
            entropies: gets the entropies of this block, with one layer, appended.
        """
        batch, time, width = x.shape
        joint = self.to_query_key_value(self.attention_norm(x)).view(batch, time, 3, self.heads, -1)
        joint = joint.permute(2, 0, 3, 1, 4)
        query, key = rotate(joint[:2], turns)
        value = joint[2]
        if cache is not None:
            key, value = cache.extend(layer, key, value)
        mixed = attend(query, key, value, normaliser, entropies)
        x = x + self.to_output(mixed.transpose(1, 2).reshape(batch, time, width))
        hidden = nn.functional.gelu(self.feed_in(self.feed_norm(x)))
        output: Tensor = x + self.feed_out(hidden)
        return output


class Decoder(nn.Module):
    """Next-token logits of token sequences.

    No token sees a later one. So padding on the right changes nothing before it, and needs no mask.

    Arguments:
        config: the shape.
        normaliser: turns attention logits into weights, in every head. May be exchanged later by assignment.

    Source: arXiv 2410.01104, section 5, where the softmax of every head of a language model is replaced.
    """

    def __init__(self, config: DecoderConfig, normaliser: Normaliser | None = None) -> None:
        super().__init__()
        self.config = config
        self.normaliser: Normaliser = Plain() if normaliser is None else normaliser
        self.embedding = nn.Embedding(config.vocabulary, config.width)
        self.blocks = nn.ModuleList([DecoderBlock(config) for _ in range(config.layers)])
        self.norm = nn.RMSNorm(config.width)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                last = name.endswith(("to_output.weight", "feed_out.weight"))
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * config.layers) if last else 0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(
        self, tokens: Int[Tensor, "batch time"], *, cache: KeyValueCache | None = None
    ) -> Float[Tensor, "batch time vocabulary"]:
        """Logits of the token after each token.

        Arguments:
            tokens: token numbers; padding, if any, on the right.
            cache: continue what it holds, and put these tokens into it. Use it without gradients.

        Errors:
            ArgumentError: the cache has no room for the tokens.
        """
        return nn.functional.linear(self._hidden(tokens, cache, None), self.embedding.weight)

    @torch.no_grad()
    def head_entropies(
        self, tokens: Int[Tensor, "batch time"], lengths: Int[Tensor, " batch"] | None = None
    ) -> HeadEntropies:
        """Entropy of every attention row. Memory grows with the square of the time.

        Arguments:
            tokens: token numbers, padded on the right.
            lengths: tokens of each sequence; `None`: no padding.
        """
        layers: list[HeadEntropies] = []
        self._hidden(tokens, None, layers)
        logits = torch.cat([layer.logits for layer in layers])
        weights = torch.cat([layer.weights for layer in layers])
        if lengths is not None:
            padding = torch.arange(tokens.shape[1], device=tokens.device) >= lengths[:, None]
            logits = logits.masked_fill(padding[:, None], math.nan)
            weights = weights.masked_fill(padding[:, None], math.nan)
        return HeadEntropies(logits, weights)

    @torch.no_grad()
    def generate(
        self, prompt: Int[Tensor, "batch time"], *, steps: int, stop: int | None = None, pad: int = 0
    ) -> Int[Tensor, "batch new"]:
        """Continue prompts of one length with the most likely token, again and again.

        Arguments:
            prompt: token numbers without padding.
            steps: most tokens to add.
            stop: token after which a sequence is finished; `None`: none.
            pad: what follows a finished sequence.

        Returns:
            The new tokens, the stop included: fewer than `steps` where all sequences finished before.

        Errors:
            ArgumentError: no prompt, or no step.
        """
        if prompt.shape[1] < 1:
            raise ArgumentError("prompt", "at least one token", "none")
        if steps < 1:
            raise ArgumentError("steps", "at least 1", steps)
        cache = KeyValueCache(prompt.shape[1] + steps)
        finished = torch.zeros(len(prompt), dtype=torch.bool, device=prompt.device)
        new: list[Tensor] = []
        step = prompt
        for _ in range(steps):
            token = self(step, cache=cache)[:, -1].argmax(dim=-1).masked_fill(finished, pad)
            new.append(token)
            step = token.unsqueeze(1)
            if stop is not None:
                finished = finished | (token == stop)
                if bool(finished.all()):
                    break
        return torch.stack(new, dim=1)

    def _hidden(
        self, tokens: Tensor, cache: KeyValueCache | None, entropies: list[HeadEntropies] | None
    ) -> Float[Tensor, "batch time width"]:
        start = 0 if cache is None else cache.length
        x: Tensor = self.embedding(tokens)
        turns = self._turns(start, tokens.shape[1], x)
        for layer, block in enumerate(self.blocks):
            x = block(x, turns, self.normaliser, cache, layer, entropies)
        if cache is not None:
            cache.length += tokens.shape[1]
        normed: Tensor = self.norm(x)
        return normed

    def _turns(self, start: int, time: int, like: Tensor) -> Float[Tensor, "2 time pairs"]:
        pairs = self.config.width // self.config.heads // 2
        dtype = torch.promote_types(like.dtype, torch.float32)
        number = torch.arange(pairs, device=like.device, dtype=dtype)
        frequency = self.config.rope_base ** (-number / pairs)
        frequency = frequency.masked_fill(number >= round(self.config.rotary_share * pairs), 0.0)
        angle = torch.arange(start, start + time, device=like.device, dtype=dtype)[:, None] * frequency
        return torch.stack([angle.cos(), angle.sin()])


def rotate(
    x: Float[Tensor, "*batch time dim"], turns: Float[Tensor, "2 time pairs"]
) -> Float[Tensor, "*batch time dim"]:
    """Turn each pair of channels (i, i + dim/2) by its angle.

    Arguments:
        x: queries or keys.
        turns: cosine and sine of the angles.

    Source: rotary positions, arXiv 2104.09864, in the arrangement with halves.
    """
    first, second = x.to(turns.dtype).chunk(2, dim=-1)
    cosine, sine = turns
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1).to(x.dtype)


def attend(
    query: Float[Tensor, "batch head queries dim"],
    key: Float[Tensor, "batch head keys dim"],
    value: Float[Tensor, "batch head keys dim"],
    normaliser: Normaliser,
    entropies: list[HeadEntropies] | None = None,
) -> Float[Tensor, "batch head queries dim"]:
    """Causal attention, the last query at the last key; all heads of all sequences at once.

    Logits, weights and entropies are in float32 or better, under autocast too. The plain softmax takes PyTorch's
    fused form, other normalisers a full table of logits: simple and fast where it fits into memory. Where it does
    not, `holdfast.nn.adaptive_attention` works in pieces.

    Arguments:
        query: queries.
        key: keys.
        value: values.
        normaliser: turns logits into weights.
        entropies: gets the entropies of the rows, with one layer, appended.
    """
    queries, keys = query.shape[2], key.shape[2]
    if type(normaliser) is Plain and entropies is None and (queries == keys or queries == 1):
        return nn.functional.scaled_dot_product_attention(query, key, value, is_causal=queries == keys)
    call = AttentionCall.of(query, key, value, causal=True, normaliser=normaliser)
    with torch.autocast(query.device.type, enabled=False):
        logits = plain.logits(call)
        weights = normaliser.weights(logits)
        if entropies is not None:
            of_weights = torch.special.entr(weights).sum(dim=-1)
            entropies.append(HeadEntropies(entropy_of(logits).unsqueeze(0), of_weights.unsqueeze(0)))
        return weights.to(value.dtype) @ value
