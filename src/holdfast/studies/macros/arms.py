"""What the arms of several parts are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from holdfast.studies.macros.lanes import Setup
    from holdfast.studies.macros.worlds import World


@dataclass(frozen=True, kw_only=True)
class Arm:
    """An agent.

    Arguments:
        label: in figures.
        similarity: of its penalty: averages over junk (`oracle`), the same with actions that have changed places
            (`shuffled`), over all actions (`uniform`), or a spread one that knows nothing (`start`).
        eta: strength of the penalty.
        diagonal: of the spread one.
        learned: the parametrisation in which it is learned; `None`: it stays.
        meta_lr: of what is learned.
        primitives: no macros.
        steps_too: primitive steps within macros are learned from, too.
    """

    label: str
    similarity: Literal["none", "oracle", "shuffled", "uniform", "start"] = "none"
    eta: float = 0.5
    diagonal: float = 0.5
    learned: Literal["raw", "sinkhorn"] | None = None
    meta_lr: float = 0.0
    primitives: bool = False
    steps_too: bool = False

    def setup(self, world: World, seeds: Sequence[int]) -> Setup:
        """The same in a world.

        Arguments:
            world: where.
            seeds: of the arm.
        """
        from holdfast.studies.macros.lanes import Setup
        from holdfast.studies.macros.starts import averages, even_start

        if self.similarity == "none":
            return Setup(primitives=self.primitives, steps_too=self.steps_too)
        if self.similarity == "start":
            sigma = even_start(world.n, self.diagonal, seeds)
        else:
            groups = [0] * world.n if self.similarity == "uniform" else world.grid.groups()
            sigma = averages(groups, seeds, shuffled=self.similarity == "shuffled")
        return Setup(eta=self.eta, sigma=sigma, learned=self.learned, meta_lr=self.meta_lr)


PRIMITIVES = Arm(label="primitives only", primitives=True)
NAIVE = Arm(label="macros")
