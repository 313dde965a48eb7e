"""The token stream: a timestep is a state, a return-to-go, perhaps the action, and the reward, in this order.

    s_1 R_1 r_1  s_2 R_2 r_2  s_3 R_3 ...
         |            |            |
        a_1          a_2          a_3

The action is read at the return-to-go, so it sees no reward but those before it. There is no timestep embedding:
positions are the backbone's, where it has them.

Source: arXiv 2410.22391, section 3. Past actions are left out by default: with them a policy copies its last action.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from holdfast.errors import ArgumentError


@dataclass(frozen=True)
class Order:
    """Which tokens a timestep has, and where.

    Arguments:
        returns: whether there is a return-to-go.
        actions: tokens of the action, one a dimension; 0: it is not in the context.
        rewards: whether there is a reward.
    """

    returns: bool
    actions: int
    rewards: bool

    @property
    def read(self) -> int:
        """Place of the token that the action is read from: the last one before the action."""
        return 1 if self.returns else 0

    @property
    def decided(self) -> int:
        """Tokens up to that one."""
        return self.read + 1

    @property
    def answered(self) -> int:
        """Tokens after that one."""
        return self.actions + self.rewards

    @property
    def length(self) -> int:
        """Tokens of a timestep."""
        return self.decided + self.answered


class Tokens(nn.Module):
    """Embeds what a timestep consists of, and norms all of it with one LayerNorm.

    Arguments:
        dim: width of a token.
        vocabulary: number of action ids; 0: actions are not in the context.
        returns: whether a timestep has a return-to-go.
        rewards: whether a timestep has a reward.
    """

    def __init__(self, dim: int, *, vocabulary: int, returns: bool, rewards: bool) -> None:
        super().__init__()
        self.returns = nn.Linear(1, dim) if returns else None
        self.rewards = nn.Linear(1, dim) if rewards else None
        self.actions = nn.Embedding(vocabulary, dim) if vocabulary else None
        self.norm = nn.LayerNorm(dim)

    def order(self, dims: int) -> Order:
        """Of a domain's timesteps.

        Arguments:
            dims: dimensions of its actions.
        """
        return Order(self.returns is not None, dims if self.actions is not None else 0, self.rewards is not None)

    def decided(
        self, state: Float[Tensor, "*batch dim"], returns_to_go: Float[Tensor, "*batch"] | None
    ) -> Float[Tensor, "*batch decided dim"]:
        """Tokens of a timestep up to the one that the action is read from.

        Arguments:
            state: encoded observations.
            returns_to_go: divided by the domain's scale.

        Errors:
            ArgumentError: the model reads returns-to-go, and there are none.
        """
        tokens = [state]
        if self.returns is not None:
            tokens.append(_number(self.returns, returns_to_go, "returns_to_go"))
        return self._normed(torch.stack(tokens, -2))

    def answered(
        self, action: Int64[Tensor, "*batch dims"] | None, reward: Float[Tensor, "*batch"] | None
    ) -> Float[Tensor, "*batch answered dim"] | None:
        """Tokens of a timestep after the one that the action is read from; `None`: there are none.

        Arguments:
            action: ids.
            reward: divided by the domain's scale.

        Errors:
            ArgumentError: the model reads rewards or actions, and there are none.
        """
        tokens = []
        if self.actions is not None:
            if action is None:
                raise ArgumentError("action", "the past actions, which this model reads", "None")
            tokens.append(self.actions(action))
        if self.rewards is not None:
            tokens.append(_number(self.rewards, reward, "reward").unsqueeze(-2))
        if not tokens:
            return None
        return self._normed(torch.cat(tokens, -2))

    def _normed(self, tokens: Float[Tensor, "*batch tokens dim"]) -> Float[Tensor, "*batch tokens dim"]:
        """In the precision of the weights, which the residual stream then has under mixed precision too."""
        normed: Tensor = self.norm(tokens.to(self.norm.weight.dtype))
        return normed

    def live(
        self,
        decided: Bool[Tensor, "*batch"],
        acted: Bool[Tensor, "*batch"],
        rewarded: Bool[Tensor, "*batch"],
        dims: int,
    ) -> tuple[Bool[Tensor, "*batch decided"], Bool[Tensor, "*batch answered"]]:
        """Which tokens are there, of both parts.

        Arguments:
            decided: whether the first part is.
            acted: whether the action is.
            rewarded: whether the reward is.
            dims: dimensions of an action.
        """
        order = self.order(dims)
        parts = [acted.unsqueeze(-1).expand(*acted.shape, order.actions)]
        if order.rewards:
            parts.append(rewarded.unsqueeze(-1))
        return decided.unsqueeze(-1).expand(*decided.shape, order.decided), torch.cat(parts, -1)


def _number(embed: nn.Linear, value: Tensor | None, name: str) -> Float[Tensor, "*batch dim"]:
    if value is None:
        raise ArgumentError(name, "numbers, which this model reads", "None")
    embedded: Tensor = embed(value.to(embed.weight.dtype).unsqueeze(-1))
    return embedded
