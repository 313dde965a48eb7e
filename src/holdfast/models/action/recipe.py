"""What training an action model is made of. The command line takes it, a run keeps it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Literal

from holdfast.errors import ArgumentError, count_of
from holdfast.models.action.config import ActionConfig, BackboneShape
from holdfast.models.action.discretise import Vocabulary
from holdfast.models.action.domain import Continuous, Discrete, Domain
from holdfast.models.action.mamba import MambaConfig
from holdfast.models.training.recipe import OptimisationRecipe, Recipe, flag, schedule
from holdfast.nn import BackboneConfig, XLSTMConfig


@dataclass(frozen=True, kw_only=True)
class ActionModelRecipe:
    """The model: what reads the tokens, and which tokens there are."""

    backbone: Literal["xlstm", "mamba", "schedule"] = "xlstm"
    """xlstm: blocks as published; mamba: those of transformers; schedule: blocks with the mixers of --mixers."""
    mixers: str = "attention"
    """Schedule of rat, attention, window, rnn, mlstm and slstm for --backbone schedule: rat,window*3 is one rat and
    three window layers. It is repeated until there are --layers of them."""
    slstm_at: tuple[int, ...] = ()
    """Which blocks of --backbone xlstm, from 0, are sLSTM blocks."""
    layers: int = 4
    """Number of blocks."""
    dim: int = 128
    """Width."""
    heads: int = 4
    """Heads of all mixers that have some."""
    chunk_size: int = 16
    """Tokens a chunk of RAT."""
    window: int = 150
    """Tokens that a token sees in a window layer, itself included."""
    bins: int = 256
    """Bins of each dimension of a continuous action."""
    state_width: int | None = None
    """Width of the vector that all observations are put into, unless given, as wide as needed."""
    returns: bool = True
    """Read returns-to-go."""
    rewards: bool = True
    """Read rewards."""
    past_actions: bool = False
    """Read the actions that were taken: a policy then tends to copy its last one."""

    def __post_init__(self) -> None:
        for name in ("layers", "dim", "heads", "chunk_size", "window"):
            count_of(flag(name), getattr(self, name), least=1)
        count_of("--bins", self.bins, least=2)
        if self.state_width is not None:
            count_of("--state-width", self.state_width, least=1)
        if self.slstm_at and self.backbone != "xlstm":
            raise ArgumentError("--slstm-at", "no block, unless --backbone is xlstm", repr(self.slstm_at))

    def shape(self, context: int) -> BackboneShape:
        """Shape of the backbone.

        Arguments:
            context: timesteps that are read at once in training; a gated recurrence remembers as long at first.
        """
        with told_as_flags():
            if self.backbone == "xlstm":
                return XLSTMConfig(dim=self.dim, layers=self.layers, heads=self.heads, slstm_at=self.slstm_at)
            if self.backbone == "mamba":
                return MambaConfig(dim=self.dim, layers=self.layers)
            return BackboneConfig(
                mixers=schedule(self.mixers, self.layers),
                dim=self.dim,
                heads=self.heads,
                chunk_size=self.chunk_size,
                qk_groups=2 if self.heads % 2 == 0 else 1,
                window=self.window,
                memory=3 * context,
            )

    def config(self, domains: tuple[Domain, ...], context: int) -> ActionConfig:
        """Shape of the model.

        Arguments:
            domains: that it is to act in.
            context: timesteps that are read at once in training.

        Errors:
            ArgumentError: one that does not fit, by its name.
        """
        discrete = max((domain.action.n for domain in domains if isinstance(domain.action, Discrete)), default=0)
        dims = max((domain.action.dims for domain in domains if isinstance(domain.action, Continuous)), default=0)
        return ActionConfig(
            backbone=self.shape(context),
            domains=domains,
            vocabulary=Vocabulary(discrete, self.bins, dims),
            state_width=self.state_width,
            returns=self.returns,
            rewards=self.rewards,
            past_actions=self.past_actions,
        )


@contextlib.contextmanager
def told_as_flags() -> Iterator[None]:
    """Errors about a part of the model name the option on the command line that it is set by."""
    try:
        yield
    except ArgumentError as error:
        options = {field.name for field in fields(ActionModelRecipe)}
        argument = flag(error.argument) if error.argument in options else error.argument
        raise ArgumentError(argument, error.expected, error.got) from None


@dataclass(frozen=True, kw_only=True)
class ActionDataRecipe:
    """What is learnt from."""

    data: tuple[str, ...] = ()
    """Trajectories, a domain each: folders of .npz or .hdf5 files, folders of LeRobot datasets, or minari:ID."""
    control: tuple[str, ...] = ()
    """Tasks of classic control whose experts are to be imitated: pendulum, mountain-car, cart-pole, acrobot; with
    -masked behind the name a policy sees no velocities."""
    episodes: int = 60
    """Episodes of each of these experts; half of them are disturbed by bursts of random actions."""
    target_quantile: float = 0.25
    """Where data name no target return: this quantile of the returns of undisturbed trajectories."""
    context: int = 50
    """Timesteps that the model reads at once in training."""
    held_out: float = 0.025
    """Share of the trajectories of each domain that is not learnt from, but for validation."""
    validation_windows: int | None = 200
    """Most windows of a domain that a look at the validation data takes, spread evenly over it."""

    def __post_init__(self) -> None:
        count_of("--context", self.context, least=1)
        count_of("--episodes", self.episodes, least=2)
        if self.validation_windows is not None:
            count_of("--validation-windows", self.validation_windows, least=1)
        if not 0 < self.held_out < 1:
            raise ArgumentError("--held-out", "a share above 0 and below 1", self.held_out)
        if not 0 <= self.target_quantile <= 1:
            raise ArgumentError("--target-quantile", "a number from 0 to 1", self.target_quantile)


@dataclass(frozen=True, kw_only=True)
class ActionOptimisationRecipe(OptimisationRecipe):
    """AdamW with betas 0.9 and 0.95, a linear warm-up and a cosine to zero."""

    batch: int = 32
    """Windows of a domain in a part of a step."""
    accumulate: int = 1
    """Parts of a step, of all processes together; each is of the next domain in turn, so that a multiple of the number
    of domains gives every step all of them."""
    lr: float = 1e-3
    """Largest learning rate."""
    weight_decay: float = 0.01
    """Of matrices; vectors and embeddings have none."""
    clip: float = 0.25
    """Largest norm of a gradient."""


@dataclass(frozen=True, kw_only=True)
class ActionIntervalRecipe:
    """How often what is done, in steps."""

    log_every: int = 10
    """Steps between two points of the training curve."""
    eval_every: int = 200
    """Steps between two looks at the validation data."""
    save_every: int = 200
    """Steps between two checkpoints; the last two are kept until the run is done."""

    def __post_init__(self) -> None:
        for name in ("log_every", "eval_every", "save_every"):
            count_of(flag(name), getattr(self, name), least=1)


@dataclass(frozen=True, kw_only=True)
class ActionRecipe(Recipe):
    """All that decides what comes out of training an action model."""

    kind = "action"

    data: ActionDataRecipe = field(default_factory=ActionDataRecipe)
    model: ActionModelRecipe = field(default_factory=ActionModelRecipe)
    optimisation: ActionOptimisationRecipe = field(default_factory=ActionOptimisationRecipe)
    intervals: ActionIntervalRecipe = field(default_factory=ActionIntervalRecipe)
