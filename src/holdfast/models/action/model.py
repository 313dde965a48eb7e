"""The action model: encoders, the token stream, a backbone that reads it, and the action head."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float, Int64, Num
from torch import Tensor, nn

from holdfast.errors import ArgumentError
from holdfast.models.action.batch import Batch
from holdfast.models.action.config import ActionConfig, BackboneShape
from holdfast.models.action.decision import Decision
from holdfast.models.action.domain import Domain, Vector
from holdfast.models.action.encoders import ImageEncoder, VectorEncoder
from holdfast.models.action.head import ActionHead, Loss, action_loss
from holdfast.models.action.mamba import Mamba, MambaConfig
from holdfast.models.action.tokens import Tokens
from holdfast.nn import XLSTM, Backbone, BackboneConfig, Layout, XLSTMConfig


def build_backbone(shape: BackboneShape) -> nn.Module:
    """What reads the token stream."""
    match shape:
        case BackboneConfig():
            return Backbone(shape)
        case XLSTMConfig():
            return XLSTM(shape)
        case MambaConfig():
            return Mamba(shape)


class ActionModel(nn.Module):
    """A policy for many domains, as a sequence model.

    All it is given is in the environment's units. Whole trajectories (`forward`, `loss`) and single steps (`decide`)
    go through the same tokens, in the same order, so that what is trained is what acts.

    Arguments:
        config: the shape.

    Errors:
        ArgumentError: domains that do not fit it.

    Source: arXiv 2410.22391.
    """

    def __init__(self, config: ActionConfig) -> None:
        super().__init__()
        self.config = config
        dim, ids = config.backbone.dim, config.ids
        self.vectors = None if config.width is None else VectorEncoder(config.width, dim)
        self.images = None if config.picture is None else ImageEncoder(config.picture, dim, config.image_channels)
        for domain in config.domains:
            encoder = self._encoder(domain)
            encoder.check(domain)
        self.tokens = Tokens(
            dim,
            vocabulary=ids.size if config.past_actions else 0,
            returns=config.returns,
            rewards=config.rewards,
        )
        self.backbone = build_backbone(config.backbone)
        self.head = ActionHead(dim, ids)

    def init_state(self, batch: int, *, limit: int | None = None) -> Any:
        """The backbone's state before the first token; see `RAT.init_state`."""
        backbone: Any = self.backbone
        return backbone.init_state(batch, limit=limit)

    def forward(self, batch: Batch, state: Any = None) -> tuple[Float[Tensor, "batch time dims choices"], Any]:
        """Logits of the actions of whole windows.

        Arguments:
            batch: windows of one domain.
            state: of the backbone, which the windows continue; `None`: they begin.

        Returns:
            For each dimension of an action, logits of its ids, from the first that the domain has; those of timesteps
            that are not valid mean nothing. And the state after the last token.

        Errors:
            ArgumentError: a domain that the model does not have, numbers that it reads and the batch lacks, or a state
                of another model or batch.
        """
        domain, valid = self._known(batch.domain), batch.valid
        taken = batch.action if batch.taken is None else batch.taken
        ids = self._ids(taken, batch) if self.config.past_actions else None
        known = valid if batch.reward_known is None else valid & batch.reward_known
        parts = [
            self.tokens.decided(
                self._encoded(batch.observation, domain, valid), _scaled(batch.returns_to_go, valid, domain)
            )
        ]
        live, answered = self.tokens.live(valid, valid, known, domain.action.dims)
        tail = self.tokens.answered(ids, _scaled(batch.reward, known, domain))
        if tail is not None:
            parts.append(tail)
        stream, mask = torch.cat(parts, 2), torch.cat([live, answered], 2)
        hidden, state = self._read(stream.flatten(1, 2), mask.flatten(1, 2), state)
        order = self.tokens.order(domain.action.dims)
        return self.head(hidden[:, order.read :: order.length], domain.action), state

    def loss(self, batch: Batch) -> Loss:
        """Mean cross-entropy of the actions of a batch, over valid timesteps and the domain's dimensions.

        Errors:
            ArgumentError: as `forward`, or an action that is no number or no id of the domain.
        """
        logits, _ = self(batch)
        return action_loss(
            logits, self._ids(batch.action, batch), batch.valid, self.config.ids.first(batch.domain.action)
        )

    def decide(self, decision: Decision, state: Any) -> tuple[Float[Tensor, "batch dims choices"], Any]:
        """Logits of the next action of each row.

        Arguments:
            decision: what is known by now.
            state: of the backbone, after what each row has read.

        Returns:
            Logits as of `forward`, without meaning for rows that are not live; and the state, in which the token that
            the action was read from is the last one.

        Errors:
            ArgumentError: as `forward`.
        """
        domain, live = self._known(decision.domain), decision.live
        rewarded, acted = decision.rewarded & live, decision.acted & live
        begun, answered = self.tokens.live(live, acted, rewarded, domain.action.dims)
        parts = [
            self.tokens.decided(
                self._encoded(decision.observation, domain, live), _scaled(decision.returns_to_go, live, domain)
            )
        ]
        masks = [begun]
        if bool(answered.any()):  # at the first step of all rows there is nothing to read before the observation
            ids = None if decision.action is None else torch.where(acted[:, None], decision.action, 0)
            tail = self.tokens.answered(ids, _scaled(decision.reward, rewarded, domain))
            assert tail is not None
            parts.insert(0, tail)
            masks.insert(0, answered)
        hidden, state = self._read(torch.cat(parts, 1), torch.cat(masks, 1), state)
        return self.head(hidden[:, -1], domain.action), state

    def _read(self, stream: Tensor, mask: Tensor, state: Any) -> tuple[Float[Tensor, "batch time dim"], Any]:
        backbone: Any = self.backbone
        hidden, after = backbone(stream, state, Layout.of_mask(mask))
        return hidden, after

    def _known(self, domain: Domain) -> Domain:
        """The model's own domain of that name.

        Errors:
            ArgumentError: there is none, or its observations, actions or scale are others.
        """
        ours = self.config.domain(domain.name)
        for name in ("observation", "action", "reward_scale"):
            if getattr(ours, name) != getattr(domain, name):
                expected = f"{getattr(ours, name)}, as the model was made for"
                raise ArgumentError(f"{name} of domain {domain.name}", expected, repr(getattr(domain, name)))
        return ours

    def _encoder(self, domain: Domain) -> VectorEncoder | ImageEncoder:
        encoder = self.vectors if isinstance(domain.observation, Vector) else self.images
        assert encoder is not None
        return encoder

    def _encoded(
        self, observation: Num[Tensor, "*batch"], domain: Domain, live: Bool[Tensor, "*steps"]
    ) -> Float[Tensor, "*steps dim"]:
        """Observations as tokens. Padding may hold NaN, which would get through by a product with zero."""
        clean = observation.masked_fill(~live.reshape(*live.shape, *(1 for _ in domain.observation.shape)), 0)
        if isinstance(domain.observation, Vector):
            assert self.vectors is not None
            encoded: Tensor = self.vectors(clean, domain.observation)
        else:
            assert self.images is not None
            encoded = self.images(clean)
        return encoded

    def _ids(self, action: Num[Tensor, "batch time dims"], batch: Batch) -> Int64[Tensor, "batch time dims"]:
        """Ids of actions of a batch, any where it is not valid."""
        return self.config.ids.ids(action.masked_fill(~batch.valid[..., None], 0), batch.domain.action)


def _scaled(value: Tensor | None, live: Tensor, domain: Domain) -> Float[Tensor, "*shape"] | None:
    """Rewards or returns as the model reads them."""
    return None if value is None else value.masked_fill(~live, 0.0) / domain.reward_scale
