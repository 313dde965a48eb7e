"""One vector for each observation: a linear map of vectors, a small convolutional network for pictures."""

from __future__ import annotations

from jaxtyping import Float, Num
from torch import Tensor, nn

from holdfast.errors import ArgumentError
from holdfast.models.action.domain import Domain, Image, Vector


class VectorEncoder(nn.Module):
    """A linear map that all domains share. A domain's numbers stand in its slots of the input, zeros in the others.

    Arguments:
        width: of the input.
        dim: of the output.
    """

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.width = width
        self.linear = nn.Linear(width, dim)

    def check(self, domain: Domain) -> None:
        """Refuse a domain that is too wide.

        Errors:
            ArgumentError: so it is.
        """
        assert isinstance(domain.observation, Vector)
        if domain.observation.reach > self.width:
            expected = f"observations that fit into the width of {self.width}"
            raise ArgumentError(f"domain {domain.name}", expected, f"one that needs {domain.observation.reach}")

    def forward(self, x: Num[Tensor, "*batch width"], observation: Vector) -> Float[Tensor, "*batch dim"]:
        """Encode vectors.

        Arguments:
            x: of a domain's own width.
            observation: of the domain.
        """
        # The columns of the slots alone: what is zero adds nothing.
        columns = slice(observation.width) if observation.slots is None else list(observation.slots)
        weight = self.linear.weight[:, columns]
        return nn.functional.linear(x.to(weight.dtype), weight, self.linear.bias)


class Residual(nn.Module):
    """x + conv(relu(conv(relu(x)))).

    Arguments:
        channels: of input and output.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels height width"]:
        """Of pictures."""
        hidden: Tensor = self.second(nn.functional.relu(self.first(nn.functional.relu(x))))
        return x + hidden


class ImageEncoder(nn.Module):
    """The IMPALA network: blocks of a convolution, a max-pooling that halves each side, and two residual blocks.

    Arguments:
        shape: of the pictures; one with a single channel is repeated for all.
        dim: of the output.
        channels: of each block.

    Source: arXiv 1802.01561, figure 3, as in arXiv 2410.22391.
    """

    def __init__(self, shape: Image, dim: int, channels: tuple[int, ...] = (16, 32, 32)) -> None:
        super().__init__()
        self.shape = shape
        layers: list[nn.Module] = []
        before, height, width = shape.channels, shape.height, shape.width
        for after in channels:
            layers += [
                nn.Conv2d(before, after, 3, padding=1),
                nn.MaxPool2d(3, stride=2, padding=1),
                Residual(after),
                Residual(after),
            ]
            before, height, width = after, -(-height // 2), -(-width // 2)
        self.layers = nn.Sequential(*layers, nn.ReLU(), nn.Flatten())
        self.linear = nn.Linear(before * height * width, dim)

    def check(self, domain: Domain) -> None:
        """Refuse a domain with pictures of another size.

        Errors:
            ArgumentError: so it is.
        """
        assert isinstance(domain.observation, Image)
        if domain.observation.shape not in (self.shape.shape, (1, *self.shape.shape[1:])):
            expected = f"pictures of shape {self.shape.shape}, or with one channel"
            raise ArgumentError(f"domain {domain.name}", expected, f"{domain.observation.shape}")

    def forward(self, x: Num[Tensor, "*batch channels height width"]) -> Float[Tensor, "*batch dim"]:
        """Encode pictures.

        Arguments:
            x: bytes from 0 to 255, or floats from 0 to 1.
        """
        kind = self.linear.weight.dtype
        pictures = x.to(kind) if x.is_floating_point() else x.to(kind) / 255
        flat = pictures.reshape(-1, *x.shape[-3:]).expand(-1, self.shape.channels, -1, -1)
        hidden: Tensor = nn.functional.relu(self.linear(self.layers(flat)))
        return hidden.reshape(*x.shape[:-3], -1)
