"""Rainbow's network: a body for pictures or vectors, and dueling heads of noisy layers that give distributions."""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn import functional

from holdfast.errors import ArgumentError, count_of

Body = Literal["nature", "minatar", "mlp"]
"""What reads the observation: frames of 84 x 84 (Mnih et al. 2015), MinAtar's boards, or a vector."""

FEW_ROWS = 8
"""Below so many rows a noisy layer applies the factors of its noise to what goes in and comes out."""


def _noisy(mean: Tensor, sigma: Tensor, noise: Tensor) -> Tensor:
    """μ + σ ⊙ ε, in forward mode with its change: PyTorch's own rule takes products with constants apart in Python."""
    (mu, mu_change), (scale, scale_change) = forward_ad.unpack_dual(mean), forward_ad.unpack_dual(sigma)
    if mu_change is None or scale_change is None:
        return torch.addcmul(mean, sigma, noise)
    dual: Tensor = forward_ad.make_dual(torch.addcmul(mu, scale, noise), torch.addcmul(mu_change, scale_change, noise))
    return dual


class NoisyLinear(nn.Module):
    """y = (μ + σ ⊙ f(ε_out) f(ε_in)ᵀ) x + μ_b + σ_b ⊙ f(ε_out), f(ε) = sign(ε) √|ε| (Fortunato et al. 2018, eq. 9–11).

    Noise stays until it is drawn anew (`resample` of the network); it is 0 at first.

    Arguments:
        inputs: features that go in.
        outputs: features that come out.
        sigma: size of the noise at first, times √inputs.
    """

    noise_in: Tensor
    noise_out: Tensor

    def __init__(self, inputs: int, outputs: int, sigma: float = 0.5) -> None:
        super().__init__()
        self.inputs, self.outputs = inputs, outputs
        bound, deviation = 1 / math.sqrt(inputs), sigma / math.sqrt(inputs)
        self.weight = nn.Parameter(torch.empty(outputs, inputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(outputs).uniform_(-bound, bound))
        self.weight_sigma = nn.Parameter(torch.full((outputs, inputs), deviation))
        self.bias_sigma = nn.Parameter(torch.full((outputs,), deviation))
        self.register_buffer("noise_in", torch.zeros(inputs))
        self.register_buffer("noise_out", torch.zeros(outputs))

    def forward(self, x: Float[Tensor, "batch inputs"]) -> Float[Tensor, "batch outputs"]:
        """Of features."""
        if len(x) < FEW_ROWS:  # then a noisy copy of the weight would cost more than a second product
            mean = functional.linear(x, self.weight, self.bias)
            noise = functional.linear(x * self.noise_in, self.weight_sigma, self.bias_sigma)
            return mean + noise * self.noise_out
        weight = _noisy(self.weight, self.weight_sigma, torch.outer(self.noise_out, self.noise_in))
        return functional.linear(x, weight, _noisy(self.bias, self.bias_sigma, self.noise_out))


class RainbowNetwork(nn.Module):
    """Distributions of returns of all actions.

    Arguments:
        body: what reads the observation.
        observation: its shape: `nature` wants (frames, 84, 84) and `minatar` (height, width, channels).
        actions: how many there are.
        hidden: width of the hidden layers.
        atoms: of a distribution.
        value_min: the first atom.
        value_max: the last one.
        sigma: size of the noise at first.

    Errors:
        ArgumentError: the observation does not fit the body, or a size is not positive.
    """

    support: Tensor

    def __init__(
        self,
        body: Body,
        observation: tuple[int, ...],
        actions: int,
        *,
        hidden: int = 512,
        atoms: int = 51,
        value_min: float = -10.0,
        value_max: float = 10.0,
        sigma: float = 0.5,
    ) -> None:
        super().__init__()
        count_of("actions", actions, least=1)
        count_of("hidden", hidden, least=1)
        count_of("atoms", atoms, least=2)
        if not value_min < value_max:
            raise ArgumentError("value_max", f"a number above value_min = {value_min:g}", f"{value_max:g}")
        self.kind, self.observation, self.actions, self.atoms = body, observation, actions, atoms
        self.body, features = _body(body, observation, hidden)
        self.value = nn.Sequential(NoisyLinear(features, hidden, sigma), nn.ReLU(), NoisyLinear(hidden, atoms, sigma))
        self.advantage = nn.Sequential(
            NoisyLinear(features, hidden, sigma), nn.ReLU(), NoisyLinear(hidden, actions * atoms, sigma)
        )
        self.register_buffer("support", torch.linspace(value_min, value_max, atoms))

    def forward(self, observations: Shaped[Tensor, "batch ..."]) -> Float[Tensor, "batch actions atoms"]:
        """Logits: value and centred advantage (Wang et al. 2016, eq. 9), an atom at a time."""
        features = self.body(_floats(self.kind, observations, self.support.dtype))
        value = self.value(features).unsqueeze(1)
        advantage = self.advantage(features).unflatten(1, (self.actions, self.atoms))
        logits: Tensor = value + advantage - advantage.mean(1, keepdim=True)
        return logits

    def values(self, observations: Shaped[Tensor, "batch ..."]) -> Float[Tensor, "batch actions"]:
        """Expected returns."""
        return self.expected(self(observations))

    def expected(self, logits: Float[Tensor, "batch actions atoms"]) -> Float[Tensor, "batch actions"]:
        """Expected returns of distributions."""
        return logits.softmax(-1) @ self.support

    @torch.no_grad()
    def resample(self, generator: torch.Generator) -> None:
        """Draw all noise anew.

        Arguments:
            generator: on the device of the network.
        """
        buffers = [buffer for layer in self.modules() if isinstance(layer, NoisyLinear) for buffer in layer.buffers()]
        sizes = [buffer.numel() for buffer in buffers]
        drawn = torch.randn(sum(sizes), generator=generator, device=self.support.device, dtype=self.support.dtype)
        for buffer, noise in zip(buffers, (drawn.sign() * drawn.abs().sqrt()).split(sizes), strict=True):
            buffer.copy_(noise)

    @torch.no_grad()
    def silence(self) -> None:
        """Set all noise to 0, as for an evaluation."""
        for layer in self.modules():
            if isinstance(layer, NoisyLinear):
                layer.noise_in.zero_()
                layer.noise_out.zero_()


def _body(body: Body, observation: tuple[int, ...], hidden: int) -> tuple[nn.Module, int]:
    """The body, and how many features it has."""
    if body == "nature":
        if len(observation) != 3 or observation[1:] != (84, 84):
            raise ArgumentError("observation", "shape (frames, 84, 84) for the body nature", repr(observation))
        layers: list[nn.Module] = []
        for inputs, outputs, size, stride in ((observation[0], 32, 8, 4), (32, 64, 4, 2), (64, 64, 3, 1)):
            layers += [nn.Conv2d(inputs, outputs, size, stride), nn.ReLU()]
        return nn.Sequential(*layers, nn.Flatten()), 64 * 7 * 7
    if body == "minatar":
        if len(observation) != 3 or min(observation[:2]) < 3:
            raise ArgumentError("observation", "shape (height, width, channels) for minatar", repr(observation))
        height, width, channels = observation
        convolution = nn.Sequential(nn.Conv2d(channels, 16, 3), nn.ReLU(), nn.Flatten())
        return convolution, 16 * (height - 2) * (width - 2)
    if body == "mlp":
        return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(observation), hidden), nn.ReLU()), hidden
    raise ArgumentError("body", "nature, minatar or mlp", repr(body))


def _floats(body: Body, observations: Tensor, dtype: torch.dtype) -> Tensor:
    """What the body computes with: bytes from 0 to 1, channels first."""
    x = observations.to(dtype)
    if body == "nature":
        return x / 255
    return x.permute(0, 3, 1, 2) if body == "minatar" else x
