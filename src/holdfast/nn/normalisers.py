"""The known ways from attention logits to attention weights, under one interface: compare before you choose.

    factor of the row       Plain, LogN, SSMax, YaRN, Llama4, Adaptive    softmax(factor x logits)
    another one a head      ByHead
    affine in the distance  ScaleInvariant                                softmax(a logits + m)
    another normaliser      Hard, Entmax, Sparsemax

Each is a frozen dataclass. `weights` is the plain form, on whole rows; what is a factor of the row also has
`factor`, which lets `adaptive_attention` work in bounded memory.
"""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from holdfast.errors import ArgumentError
from holdfast.nn.masking import hidden_keys
from holdfast.nn.softmax import row_entropy, shifted_rows
from holdfast.nn.temperature import PUBLISHED, AdaptiveTemperature


@dataclass(frozen=True)
class Rows:
    """Where the rows and columns of a block of logits stand in the sequence.

    Arguments:
        query: position of each query, from 0.
        key: position of each key, from 0.
        sink: whether the last column is an attention sink: part of the distribution, but no key.
    """

    query: Int[Tensor, " query"]
    key: Int[Tensor, " key"]
    sink: bool = False

    @classmethod
    def aligned(cls, logits: Float[Tensor, "*batch query key"]) -> Rows:
        """Queries at the end of the keys, as in decoding and in self-attention."""
        queries, keys = logits.shape[-2:]
        key = torch.arange(keys, device=logits.device)
        return cls(torch.arange(keys - queries, keys, device=logits.device), key)


class Normaliser(abc.ABC):
    """Turns attention logits into weights that sum to one over the keys."""

    @property
    def heads(self) -> int | None:
        """How many heads it is for; `None`: any number."""
        return None

    def of_heads(self, heads: slice) -> Normaliser:
        """The same for some of the heads."""
        return self

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """What it holds that may have a gradient."""
        return ()

    @abc.abstractmethod
    def weights(
        self, logits: Float[Tensor, "*batch query key"], rows: Rows | None = None
    ) -> Float[Tensor, "*batch query key"]:
        """Attention weights of whole rows.

        Arguments:
            logits: scaled, biased, softcapped; a masked key has -inf, or at most half the dtype's lowest value.
            rows: positions; by default the queries stand at the end of the keys.

        Returns:
            Weights of the shape and dtype of `logits`; zeros in a row without a visible key.
        """


class FactorNormaliser(Normaliser):
    """A softmax of logits times a factor of the row: what GPU kernels and streaming can do."""

    needs_entropy: bool = False
    """Whether `factor` reads the entropy; if not, zeros may be given."""

    detach: bool = True
    """Whether the factor is a constant in the backward pass."""

    @abc.abstractmethod
    def factor(
        self,
        entropy: Float[Tensor, "*batch query 1"],
        visible: Int[Tensor, "*#batch query 1"],
        position: Int[Tensor, "query 1"],
    ) -> Float[Tensor, ...]:
        """What the logits of each row are multiplied by; it broadcasts against the rows.

        Arguments:
            entropy: of the row's softmax, in nats.
            visible: keys that the query sees.
            position: of the query, from 0.
        """

    def weights(
        self, logits: Float[Tensor, "*batch query key"], rows: Rows | None = None
    ) -> Float[Tensor, "*batch query key"]:
        """See `Normaliser.weights`."""
        rows = Rows.aligned(logits) if rows is None else rows
        shifted, hidden, empty = shifted_rows(logits)
        entropy = torch.zeros_like(shifted[..., :1])
        if self.needs_entropy:
            entropy = row_entropy(shifted.detach() if self.detach else shifted, hidden, empty)
        visible = (~hidden).sum(-1, keepdim=True) - int(rows.sink)
        factor = self.factor(entropy, visible, rows.query.unsqueeze(-1)).to(shifted.dtype)
        weight = (factor * shifted).exp().masked_fill(hidden, 0.0)
        total = weight.sum(-1, keepdim=True).masked_fill(empty, 1.0)
        return (weight / total).to(logits.dtype)


@dataclass(frozen=True)
class Plain(FactorNormaliser):
    """The softmax."""

    def factor(self, entropy: Tensor, visible: Tensor, position: Tensor) -> Tensor:
        """One."""
        return torch.ones_like(entropy)


@dataclass(frozen=True)
class Adaptive(FactorNormaliser):
    """Adaptive temperature: the row's own entropy decides.

    Arguments:
        temperature: the law.
        detach: treat the factor as a constant in the backward pass.

    Source: arXiv 2410.01104, section 3.
    """

    temperature: AdaptiveTemperature = PUBLISHED
    detach: bool = True
    needs_entropy: bool = field(default=True, init=False, repr=False)

    def factor(self, entropy: Tensor, visible: Tensor, position: Tensor) -> Tensor:
        """The law's inverse temperature."""
        return self.temperature.beta(entropy)


@dataclass(frozen=True)
class LogN(FactorNormaliser):
    """Logits times max(1, ln n / ln n_train), n the visible keys: nothing changes up to the trained length.

    Arguments:
        train_length: n_train, at least 2.

    Source: Chiang and Cholak, arXiv 2202.12172, normalised by the training length as in Qwen's models.
    """

    train_length: int

    def __post_init__(self) -> None:
        if self.train_length < 2:
            raise ArgumentError("train_length", "at least 2", self.train_length)

    def factor(self, entropy: Tensor, visible: Tensor, position: Tensor) -> Tensor:
        """max(1, ln n / ln n_train)."""
        return (visible.clamp(min=1).to(entropy.dtype).log() / math.log(self.train_length)).clamp(min=1.0)


@dataclass(frozen=True)
class SSMax(FactorNormaliser):
    """Scalable softmax: logits times s ln n, n the visible keys.

    Arguments:
        scale: s, one number, or one a head (heads are the third dimension from the end); or a tensor of one a head,
            none of them negative, which may have a gradient.
        learned: whether the layer that it is given to makes a parameter of each head's scale, which begins at `scale`
            (`LearnedScale`). Without such a layer there is nothing to learn, and it is refused.

    Source: arXiv 2501.19399, where s is learned for each head; 0.43 is its opening example.
    """

    scale: float | tuple[float, ...] | Tensor = 0.43
    learned: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.scale, Tensor):
            if self.scale.ndim != 1 or len(self.scale) == 0 or not self.scale.is_floating_point() or self.learned:
                expected = "a tensor of one float a head, and then not `learned`"
                raise ArgumentError("scale", expected, f"{self.scale.dtype} of shape {tuple(self.scale.shape)}")
            return
        scales = self.scale if isinstance(self.scale, tuple) else (self.scale,)
        if not scales or not all(0 <= scale < math.inf for scale in scales):
            raise ArgumentError("scale", "a number of at least 0, or one a head", self.scale)
        if self.learned and 0 in scales:
            raise ArgumentError("scale", "above 0 where it is learned, since its logarithm is", self.scale)

    @property
    def heads(self) -> int | None:
        """How many scales there are, unless it is one for all."""
        return len(self.scale) if isinstance(self.scale, tuple | Tensor) else None

    def of_heads(self, heads: slice) -> SSMax:
        """With the scales of these heads."""
        return replace(self, scale=self.scale[heads]) if isinstance(self.scale, tuple | Tensor) else self

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The scales, where they are a tensor."""
        return (self.scale,) if isinstance(self.scale, Tensor) else ()

    def factor(self, entropy: Tensor, visible: Tensor, position: Tensor) -> Tensor:
        """The product s ln n."""
        if self.learned:
            expected = "a layer that learns the scale (CausalAttention, RAT, learn_scales), or a tensor as its scale"
            raise ArgumentError("normaliser", expected, repr(self))
        log_n = visible.clamp(min=1).to(entropy.dtype).log()
        if isinstance(self.scale, Tensor):
            return self.scale.to(entropy.dtype)[:, None, None] * log_n
        if isinstance(self.scale, tuple):
            return entropy.new_tensor(self.scale)[:, None, None] * log_n
        return self.scale * log_n


@dataclass(frozen=True)
class ByHead(FactorNormaliser):
    """Another normaliser for each head, such as a law of its own.

    Arguments:
        normalisers: one a head (heads are the third dimension from the end), each a factor of the row for one head: a
            law as `Adaptive(law)`, or `Plain()` for a head that is left as it is.
    """

    normalisers: tuple[FactorNormaliser, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "normalisers", tuple(self.normalisers))
        wrong = [one for one in self.normalisers if not isinstance(one, FactorNormaliser) or one.heads is not None]
        if not self.normalisers or wrong:
            expected = "one a head among Plain, Adaptive, LogN, SSMax, YaRN and Llama4"
            raise ArgumentError("normalisers", expected, repr(wrong[0]) if wrong else "none")
        if any(isinstance(one, SSMax) and one.learned for one in self.normalisers):
            raise ArgumentError("normalisers", "no learned scale, which SSMax alone has for all heads", "one")
        if len({one.detach for one in self.normalisers if one.needs_entropy}) > 1:
            raise ArgumentError("normalisers", "laws of one kind, all with detach or none", "both kinds")

    # A property would have no setter, which the class attributes of the base ask type checkers for.
    @property
    def needs_entropy(self) -> bool:  # type: ignore[override]
        """Whether any of them does."""
        return any(one.needs_entropy for one in self.normalisers)

    @property
    def detach(self) -> bool:  # type: ignore[override]
        """Whether the factors are constants in the backward pass."""
        return all(one.detach for one in self.normalisers)

    @property
    def heads(self) -> int | None:
        """How many there are."""
        return len(self.normalisers)

    def of_heads(self, heads: slice) -> ByHead:
        """Those of these heads."""
        return ByHead(self.normalisers[heads])

    def factor(self, entropy: Tensor, visible: Tensor, position: Tensor) -> Tensor:
        """The factor of each head by its own normaliser."""
        if entropy.ndim < 3 or entropy.shape[-3] != len(self.normalisers):
            raise ArgumentError("normaliser", f"rows of {len(self.normalisers)} heads", f"{tuple(entropy.shape)}")
        by_head = []
        for head, one in enumerate(self.normalisers):
            of_all = visible.ndim < 3 or visible.shape[-3] == 1
            sees = visible if of_all else visible[..., head : head + 1, :, :]
            rows = entropy[..., head : head + 1, :, :]
            by_head.append(one.factor(rows, sees, position).expand_as(rows))
        return torch.cat(by_head, -3)


@dataclass(frozen=True)
class YaRN(FactorNormaliser):
    """Logits times (0.1 ln s + 1)^2: YaRN's attention factor, which it puts on queries and on keys.

    Arguments:
        extension: s, how many times longer the context is than in training, at least 1.

    Source: arXiv 2309.00071, section 3.4.
    """

    extension: float

    def __post_init__(self) -> None:
        if not self.extension >= 1:
            raise ArgumentError("extension", "at least 1", self.extension)

    def factor(self, entropy: Tensor, visible: Tensor, position: Tensor) -> Tensor:
        """(0.1 ln s + 1)^2."""
        return torch.full_like(entropy, (0.1 * math.log(self.extension) + 1) ** 2)


@dataclass(frozen=True)
class Llama4(FactorNormaliser):
    """Queries times 1 + a ln(1 + floor((position + 1) / floor_scale)), as in Llama 4's layers without RoPE.

    Arguments:
        attn_scale: a.
        floor_scale: positions up to which nothing changes.

    Source: `transformers`, the model `llama4`.
    """

    attn_scale: float = 0.1
    floor_scale: float = 8192.0

    def factor(self, entropy: Tensor, visible: Tensor, position: Tensor) -> Tensor:
        """1 + a ln(1 + floor((position + 1) / floor_scale))."""
        steps = torch.floor((position.clamp(min=0).to(entropy.dtype) + 1) / self.floor_scale)
        return 1 + self.attn_scale * torch.log1p(steps)


@dataclass(frozen=True)
class ScaleInvariant(Normaliser):
    """softmax(a_t z + m_t), t the distance from query to key: a_t^2 = 2 (ln(t / tau + 1) + 1/2), m_t = 1 - a_t^2.

    Arguments:
        tau: distance scale.

    Source: arXiv 2505.17083.
    """

    tau: float = 10.0

    def __post_init__(self) -> None:
        if not self.tau > 0:
            raise ArgumentError("tau", "a positive distance", self.tau)

    def coefficients(
        self, distance: Float[Tensor, "*shape"]
    ) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
        """a_t and m_t at the given distances."""
        square = 2 * (torch.log1p(distance / self.tau) + 0.5)
        return square.sqrt(), 1 - square

    def weights(
        self, logits: Float[Tensor, "*batch query key"], rows: Rows | None = None
    ) -> Float[Tensor, "*batch query key"]:
        """See `Normaliser.weights`. Sinks have no distance, and are refused."""
        rows = Rows.aligned(logits) if rows is None else rows
        if rows.sink:
            raise ArgumentError("sinks", "none with ScaleInvariant, since a sink has no distance", "some")
        hidden = hidden_keys(logits)
        z = logits.to(torch.promote_types(logits.dtype, torch.float32)).masked_fill(hidden, 0.0)
        a, m = self.coefficients((rows.query[:, None] - rows.key).abs().to(z.dtype))
        # Logits that a would carry beyond the dtype's range are made smaller by a number of their row for as long as it
        # takes to subtract the largest.
        size = z.detach().abs().amax(-1, keepdim=True) * (16 / torch.finfo(z.dtype).max)
        size = size.clamp(min=1.0)
        small = (a * (z / size) + m / size).masked_fill(hidden, -math.inf)
        top = small.detach().amax(-1, keepdim=True).clamp(min=torch.finfo(z.dtype).min)
        return Plain().weights((small - top) * size).to(logits.dtype)


@dataclass(frozen=True)
class Hard(Normaliser):
    """All weight on the largest logit; ties share it equally. No gradient flows to the logits."""

    def weights(
        self, logits: Float[Tensor, "*batch query key"], rows: Rows | None = None
    ) -> Float[Tensor, "*batch query key"]:
        """See `Normaliser.weights`."""
        shifted, hidden, empty = shifted_rows(logits)
        top = ((shifted == 0) & ~hidden).to(shifted.dtype)
        weight = top / top.sum(-1, keepdim=True).clamp(min=1.0)
        broken = shifted.isnan().any(-1, keepdim=True) & ~empty
        return weight.masked_fill(broken, math.nan).to(logits.dtype)


@dataclass(frozen=True)
class Entmax(Normaliser):
    """alpha-entmax: a normaliser that gives low logits a weight of exactly zero.

    Arguments:
        alpha: 1.5, or any number above 1 (2 is sparsemax). The threshold of other values is found by bisection, slower.

    Source: arXiv 1905.05702, algorithms 1 (bisection) and 2 (1.5) and, for 2, arXiv 1602.02068; for length
    generalisation arXiv 2506.16640.
    """

    alpha: float = 1.5

    def __post_init__(self) -> None:
        if not self.alpha > 1:
            raise ArgumentError("alpha", "a number above 1", self.alpha)

    def weights(
        self, logits: Float[Tensor, "*batch query key"], rows: Rows | None = None
    ) -> Float[Tensor, "*batch query key"]:
        """See `Normaliser.weights`."""
        shifted, hidden, empty = shifted_rows(logits)
        broken = shifted.isnan().any(-1, keepdim=True) & ~empty
        # The threshold lies between -1 and 0, so that nothing below -1 has weight.
        z = ((self.alpha - 1) * shifted).clamp(min=-1.0).masked_fill(hidden, -1.0).masked_fill(broken, 0.0)
        power = 1 / (self.alpha - 1)
        with torch.no_grad():
            threshold = self._threshold(z)
            support = (z > threshold) & ~hidden
        # Two steps of Newton's method for sum w = 1 leave the threshold where it is, and make it a function of the
        # logits whose first and second derivatives are exact.
        for _ in range(2):
            gap = torch.where(support, z - threshold, 1.0)
            total = torch.where(support, gap**power, 0.0).sum(-1, keepdim=True)
            slope = power * torch.where(support, gap ** (power - 1), 0.0).sum(-1, keepdim=True)
            threshold = threshold + (total - 1) / slope.masked_fill(empty, 1.0)
        gap = torch.where(support, z - threshold, 1.0).clamp(min=0.0)
        weight = torch.where(support, gap**power, 0.0)
        return weight.masked_fill(broken, math.nan).to(logits.dtype)

    def _threshold(self, z: Float[Tensor, "*batch query key"]) -> Float[Tensor, "*batch query 1"]:
        """The t with sum max(0, z - t)^(1 / (alpha - 1)) = 1, for z of at most 0 with a 0 in each row."""
        count = torch.arange(1, z.shape[-1] + 1, device=z.device, dtype=z.dtype)
        if self.alpha == 2.0 or self.alpha == 1.5:
            ordered = z.sort(-1, descending=True).values
            mean = ordered.cumsum(-1) / count
            if self.alpha == 2.0:
                candidates = mean - 1 / count
            else:
                spread = count * ((ordered * ordered).cumsum(-1) / count - mean * mean)
                candidates = mean - ((1 - spread) / count).clamp(min=0.0).sqrt()
            last = (candidates <= ordered).sum(-1, keepdim=True) - 1
            return candidates.gather(-1, last)
        low = torch.full_like(z[..., :1], -1.0)
        high = torch.full_like(low, -(float(z.shape[-1]) ** (1 - self.alpha)))
        for _ in range(30 if z.dtype == torch.float32 else 60):
            middle = (low + high) / 2
            above = (z - middle).clamp(min=0.0).pow(1 / (self.alpha - 1)).sum(-1, keepdim=True) >= 1
            low, high = torch.where(above, middle, low), torch.where(above, high, middle)
        return low


@dataclass(frozen=True)
class Sparsemax(Entmax):
    """Entmax with alpha = 2: the Euclidean projection onto the simplex."""

    alpha: float = field(default=2.0, init=False)


def checked_normaliser(given: Any) -> Normaliser:
    """A normaliser as it is; the softmax for `None`.

    Errors:
        ArgumentError: it is something else, such as a name.
    """
    if given is None:
        return Plain()
    if not isinstance(given, Normaliser):
        raise ArgumentError("normaliser", "a Normaliser, such as Adaptive(), or None", repr(given))
    return given


NORMALISERS: dict[str, type[Normaliser]] = {
    "plain": Plain,
    "adaptive": Adaptive,
    "log-n": LogN,
    "ssmax": SSMax,
    "yarn": YaRN,
    "llama4": Llama4,
    "scale-invariant": ScaleInvariant,
    "hard": Hard,
    "entmax": Entmax,
    "sparsemax": Sparsemax,
}
"""All of them, by name."""
