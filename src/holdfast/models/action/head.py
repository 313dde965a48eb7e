"""The action head: one linear map for all domains, for all dimensions of an action at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear

from holdfast.errors import ArgumentError
from holdfast.models.action.discretise import Vocabulary
from holdfast.models.action.domain import ActionSpace


class ActionHead(nn.Module):
    """Logits of the discrete actions, and of every bin of every dimension.

    Of a domain's actions only the rows of the map that are its own are computed: a continuous dimension cannot become
    a discrete action, whatever the weights, and dimensions that a domain lacks have no part in its loss.

    Arguments:
        dim: width of the hidden state.
        vocabulary: ids of actions.
    """

    def __init__(self, dim: int, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.linear = nn.Linear(dim, vocabulary.discrete + vocabulary.dims * vocabulary.bins)

    def forward(self, hidden: Float[Tensor, "*batch dim"], space: ActionSpace) -> Float[Tensor, "*batch dims choices"]:
        """Logits of a domain's actions.

        Arguments:
            hidden: state at the token that the action is read from.
            space: the domain's actions.

        Returns:
            For each dimension of an action, logits of its ids, from the first that the space has.
        """
        first, choices = self.vocabulary.first(space), self.vocabulary.choices(space)
        rows = slice(first, first + space.dims * choices)
        logits = linear(hidden, self.linear.weight[rows], self.linear.bias[rows])
        return logits.view(*logits.shape[:-1], space.dims, choices)

    def choose(
        self,
        logits: Float[Tensor, "*batch dims choices"],
        space: ActionSpace,
        *,
        temperature: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> Int64[Tensor, "*batch dims"]:
        """Ids of actions.

        Arguments:
            logits: of the domain's actions.
            space: the domain's actions.
            temperature: 0: the most likely id; otherwise it divides the logits of which one is drawn.
            generator: of random numbers.

        Errors:
            ArgumentError: a temperature below 0.
        """
        if not 0 <= temperature < float("inf"):
            raise ArgumentError("temperature", "0, or a positive number", temperature)
        if temperature == 0:
            chosen = logits.argmax(-1)
        else:
            probability = torch.softmax(logits.float() / temperature, -1).flatten(0, -2)
            chosen = torch.multinomial(probability, 1, generator=generator).view(logits.shape[:-1])
        return chosen + self.vocabulary.first(space)


@dataclass(frozen=True)
class Loss:
    """A mean, and of how many it is.

    Arguments:
        mean: in nats; 0 where there is nothing to take the mean of.
        elements: pairs of a valid timestep and a dimension of the domain's actions.
    """

    mean: Float[Tensor, ""]
    elements: Int64[Tensor, ""]


def action_loss(
    logits: Float[Tensor, "batch time dims choices"],
    ids: Int64[Tensor, "batch time dims"],
    valid: Bool[Tensor, "batch time"],
    first: int,
) -> Loss:
    """Mean cross-entropy of the actions of valid timesteps.

    Arguments:
        logits: of each dimension's ids.
        ids: of the actions that were taken.
        valid: which timesteps count.
        first: the id that the first logit is of.
    """
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    entropy = cross_entropy(wide.flatten(0, 2), (ids - first).flatten(), reduction="none").view(ids.shape)
    elements = valid.sum() * ids.shape[2]
    return Loss(entropy.masked_fill(~valid[..., None], 0.0).sum() / elements.clamp(min=1), elements)
