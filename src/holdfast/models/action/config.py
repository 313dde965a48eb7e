"""The shape of an action model, and its form as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cattrs import Converter
from cattrs.errors import BaseValidationError
from cattrs.strategies import configure_tagged_union

from holdfast.errors import ArgumentError, count_of
from holdfast.models.action.discretise import Vocabulary
from holdfast.models.action.domain import ActionSpace, Continuous, Discrete, Domain, Image, Observation, Vector
from holdfast.models.action.mamba import MambaConfig
from holdfast.nn import BackboneConfig, Normaliser, XLSTMConfig, document_of, normaliser_of

BackboneShape = BackboneConfig | XLSTMConfig | MambaConfig
"""What reads the token stream."""


@dataclass(frozen=True, kw_only=True)
class ActionConfig:
    """Shape of an `ActionModel`.

    Arguments:
        backbone: what reads the token stream; its width is that of the tokens.
        domains: what the model acts in.
        vocabulary: ids of actions; `None`: as many as the domains need, and 256 bins.
        state_width: numbers of the vector that low-dimensional observations are put into; `None`: as many as needed.
        image: shape that pictures have; `None`: that of the domains.
        image_channels: of the blocks of the encoder of pictures.
        returns: whether the model reads returns-to-go.
        rewards: whether the model reads rewards.
        past_actions: whether the model reads the actions that were taken.
        decode: which point of a bin stands for it: centre or left.

    Errors:
        ArgumentError: no domain, two of one name, or one that does not fit.
    """

    backbone: BackboneShape
    domains: tuple[Domain, ...]
    vocabulary: Vocabulary | None = None
    state_width: int | None = None
    image: Image | None = None
    image_channels: tuple[int, ...] = (16, 32, 32)
    returns: bool = True
    rewards: bool = True
    past_actions: bool = False
    decode: str = "centre"

    def __post_init__(self) -> None:
        names = [domain.name for domain in self.domains]
        if not names or len(set(names)) != len(names):
            raise ArgumentError("domains", "domains of different names", repr(names))
        if not self.image_channels:
            raise ArgumentError("image_channels", "at least one block", "none")
        for channels in self.image_channels:
            count_of("image_channels", channels, least=1)
        if self.state_width is not None:
            count_of("state_width", self.state_width, least=1)
        if self.decode not in ("centre", "left"):
            raise ArgumentError("decode", "centre or left", repr(self.decode))
        for domain in self.domains:
            self.ids.check(domain)

    @property
    def ids(self) -> Vocabulary:
        """The vocabulary, as given or as needed."""
        if self.vocabulary is not None:
            return self.vocabulary
        spaces = [domain.action for domain in self.domains]
        discrete = max((space.n for space in spaces if isinstance(space, Discrete)), default=0)
        return Vocabulary(
            discrete, BINS, max((space.dims for space in spaces if isinstance(space, Continuous)), default=0)
        )

    @property
    def width(self) -> int | None:
        """Width of the shared vector; `None`: no domain has vectors, and none was asked for."""
        reaches = [domain.observation.reach for domain in self.domains if isinstance(domain.observation, Vector)]
        return max(reaches, default=None) if self.state_width is None else self.state_width

    @property
    def picture(self) -> Image | None:
        """Shape of pictures; `None`: no domain has them, and none was asked for."""
        if self.image is not None:
            return self.image
        pictures = [domain.observation for domain in self.domains if isinstance(domain.observation, Image)]
        return max(pictures, key=lambda picture: picture.channels, default=None)

    def domain(self, name: str) -> Domain:
        """The domain of that name.

        Errors:
            ArgumentError: there is none.
        """
        for domain in self.domains:
            if domain.name == name:
                return domain
        raise ArgumentError("domain", f"one of {', '.join(domain.name for domain in self.domains)}", repr(name))


BINS = 256
"""Of a continuous dimension, where nothing else is asked for: those of arXiv 2410.22391."""


def published_config(backbone: BackboneShape, domains: tuple[Domain, ...], **changes: Any) -> ActionConfig:
    """A model of the published widths: 18 discrete actions, 8 dimensions of 256 bins, vectors of 204, pictures of 64.

    Arguments:
        backbone: what reads the token stream.
        domains: what the model acts in.
        changes: other fields of the configuration, or other values.

    Source: arXiv 2410.22391.
    """
    widths = {"vocabulary": Vocabulary(discrete=18, bins=BINS, dims=8), "state_width": 204, "image": Image(3, 64, 64)}
    return ActionConfig(backbone=backbone, domains=domains, **{**widths, **changes})


def to_document(config: ActionConfig) -> dict[str, Any]:
    """A configuration as JSON has it."""
    document: dict[str, Any] = _converter().unstructure(config)
    return document


def from_document(document: Mapping[str, Any]) -> ActionConfig:
    """A configuration back from JSON.

    Errors:
        ArgumentError: it is none, or one of another version.
    """
    try:
        return _converter().structure(document, ActionConfig)
    except (BaseValidationError, TypeError, ValueError, KeyError) as error:
        raise ArgumentError("config", "the configuration of an action model", _reason(error)) from error


def _reason(error: BaseException) -> str:
    """The innermost of what a converter has met."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"


def _converter() -> Converter:
    converter = Converter(forbid_extra_keys=True)

    converter.register_unstructure_hook_func(_is_normaliser, document_of)
    converter.register_structure_hook_func(_is_normaliser, lambda document, _: normaliser_of(document))
    for union in (ActionSpace, Observation, BackboneShape):
        configure_tagged_union(union, converter, tag_name="kind", tag_generator=lambda kind: kind.__name__)
    return converter


def _is_normaliser(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Normaliser)
