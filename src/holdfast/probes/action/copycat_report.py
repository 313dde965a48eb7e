"""What the probe of copying found, as one sentence, a table, numbers for JSON and a picture."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from holdfast.probes.report import explained, jsonable, percent, shown, table
from holdfast.probes.rounds import RESAMPLES, interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH = 80
"""Columns of a report."""

SMALL = 0.05
"""An index that is smaller in size says that the last action is no news."""

DECIDED = 0.05
"""Nats of loss without the last action below which there is nothing left to explain, and no index."""


MEANINGS = {
    "copycat index": "share of the held-out loss without the last action that knowing it saves, and its 95 % interval",
    "loss without the last action": "cross-entropy in nats, averaged over the numbers of an action: from what is seen",
    "loss with it": "the same where the last action is seen too",
    "loss of guessing": "the same where each choice is as likely",
    "actions as the one before, in the data": "share in the bin of the one before, of 256, or with the same id",
    "the same in any order": "what that share would be by chance",
    "mean move": "mean distance of an action from the one before it, in standard deviations; none for ids",
    "actions as the one before, the policy's": "that share in the policy's own episodes",
    "excess": "how much more often the policy repeats itself than the expert, and its 95 % interval",
    "mean return": "sum of an episode's rewards",
}
"""What each row of the table means."""


@dataclass(frozen=True)
class Rollouts:
    """Episodes of a policy beside those of its expert. Intervals are of 95 %, from a bootstrap over episodes.

    Arguments:
        policy_repeats: share of the policy's actions in the bin of the one before.
        expert_repeats: the same of the data, where they are the expert's own.
        excess: the former less the latter.
        excess_interval: of that.
        policy_return: mean of the policy's episodes.
        expert_return: mean of the data; NaN: not all are known.
        episodes: of the policy.
    """

    policy_repeats: float
    expert_repeats: float
    excess: float
    excess_interval: tuple[float, float]
    policy_return: float
    expert_return: float
    episodes: int

    @classmethod
    def of(
        cls,
        policy: Sequence[tuple[int, int]],
        expert: Sequence[tuple[int, int]],
        *,
        policy_return: float,
        expert_return: float,
    ) -> Rollouts:
        """From counts of repeated actions, and of how many, in each episode."""
        counts = [np.array(side, float).reshape(-1, 2) for side in (policy, expert)]
        shares = [float(side[:, 0].sum() / side[:, 1].sum()) if side[:, 1].sum() else math.nan for side in counts]
        drawn = [_ratio_drawn(side[:, 0], side[:, 1], seed) for seed, side in enumerate(counts)]
        told = min(map(len, counts)) > 1
        return cls(
            policy_repeats=shares[0],
            expert_repeats=shares[1],
            excess=shares[0] - shares[1],
            excess_interval=interval(drawn[0] - drawn[1]) if told else (math.nan, math.nan),
            policy_return=policy_return,
            expert_return=expert_return,
            episodes=len(policy),
        )


@dataclass(frozen=True)
class CopycatReport:
    """What `probe_copycat` found. Losses are cross-entropies in nats, averaged over the numbers of an action.

    Arguments:
        index: share of the loss without the last action that knowing it saves, on trajectories that were held out;
            NaN: there is no loss to save.
        index_interval: 95 %, from a bootstrap over trajectories.
        loss_without: without the last action.
        loss_with: with it.
        chance: of guessing each choice alike.
        trajectories: that were held out, each once.
        steps: decisions in them.
        own_models: whether the losses are those of a user's policies, and not of two small networks.
        same_bin: share of the actions in the data in the bin of the one before, of 256 (the same id).
        same_bin_by_chance: what it would be in any order.
        mean_move: mean distance of an action from the one before, in standard deviations; NaN for ids.
        rollouts: episodes of a policy; `None`: none.
    """

    index: float
    index_interval: tuple[float, float]
    loss_without: float
    loss_with: float
    chance: float
    trajectories: int
    steps: int
    own_models: bool
    same_bin: float
    same_bin_by_chance: float
    mean_move: float
    rollouts: Rollouts | None

    @classmethod
    def of(
        cls,
        without: Float[np.ndarray, " trajectories"],
        informed: Float[np.ndarray, " trajectories"],
        steps: Float[np.ndarray, " trajectories"],
        **rest: Any,
    ) -> CopycatReport:
        """From sums of losses over each trajectory.

        Arguments:
            without: without the last action.
            informed: with it.
            steps: decisions of each trajectory.
            rest: the other fields.
        """
        loss_without, loss_with = (float(sums.sum() / steps.sum()) for sums in (without, informed))
        told = loss_without >= DECIDED
        drawn = 1 - _ratio_drawn(informed, without, 0) if told else np.full(1, math.nan)
        return cls(
            index=1 - loss_with / loss_without if told else math.nan,
            index_interval=interval(drawn) if len(steps) > 1 else (math.nan, math.nan),
            loss_without=loss_without,
            loss_with=loss_with,
            trajectories=len(steps),
            steps=int(steps.sum()),
            **rest,
        )

    @property
    def shortcut(self) -> bool:
        """Whether the last action is told to save more than a little of the loss."""
        return self.index_interval[0] > SMALL

    @property
    def no_news(self) -> bool:
        """Whether it is told to save next to nothing."""
        return self.index_interval[0] > -SMALL and self.index_interval[1] < SMALL

    @property
    def verdict(self) -> str:
        """One sentence: is there something to copy, how much, and what to do."""
        change = f"from {self.loss_without:.3g} to {self.loss_with:.3g} nats"
        share = f"{percent(self.index)} {_interval(self.index_interval)}"
        if math.isnan(self.index):
            text = f"There is nothing to copy: what is seen decides the action (a loss of {self.loss_without:.2g} nats)"
        elif self.shortcut:
            text = f"Copying is a shortcut here: knowing the last action saves {share} of the held-out loss ({change})"
            text += "; leave past actions out of the policy's context"
        elif self.no_news:
            text = f"The last action is no news here: knowing it saves {share} of the held-out loss ({change})"
            text += "; past actions may stay in the policy's context or not"
        elif self.index_interval[1] <= -SMALL:
            text = (
                f"The last action is of no help here: the held-out loss goes {change} with it; leave past actions out"
            )
        else:
            text = f"Not told by these data: knowing the last action saves {share} of the held-out loss ({change})"
            text += "; leave past actions out, or measure with more trajectories"
        return f"{text}{self._rolled_out()}."

    def _rolled_out(self) -> str:
        rollouts = self.rollouts
        if rollouts is None or math.isnan(rollouts.policy_repeats):
            return ""
        own, expert = percent(rollouts.policy_repeats), percent(rollouts.expert_repeats)
        low, high = rollouts.excess_interval
        word = "more often than" if low > 0 else "less often than" if high < 0 else "about as often as"
        return f"; the policy repeats its last action {word} the expert ({own} and {expert})"

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists, dicts and numbers, ready for JSON: what is not finite becomes `None`."""
        derived = {"shortcut": self.shortcut, "no_news": self.no_news}
        plain: dict[str, Any] = jsonable({"verdict": self.verdict, **asdict(self), "derived": derived})
        return plain

    def plot(self, ax: Axes) -> None:
        """Draw the loss of guessing, without and with the last action.

        Arguments:
            ax: Matplotlib axes to draw into.
        """
        losses = {"any action": self.chance, "without\nthe last action": self.loss_without, "with it": self.loss_with}
        ax.bar(list(losses), list(losses.values()), color=["0.8", "C0", "C1"])
        ax.set_ylabel("held-out loss, nats")
        index = "no index" if math.isnan(self.index) else f"copycat index {self.index:.2f}"
        ax.set_title(f"{index} {_interval(self.index_interval)}")

    def explain(self) -> str:
        """What each row of the table means, a line each."""
        return explained(MEANINGS)

    def __str__(self) -> str:
        """Return the sentence and tables."""
        models = "your models" if self.own_models else "two small networks"
        rows = [
            ("copycat index", f"{shown(self.index, '.3f')} {_interval(self.index_interval)}"),
            ("loss without the last action", f"{self.loss_without:.4f}"),
            ("loss with it", f"{self.loss_with:.4f}"),
            ("loss of guessing", f"{self.chance:.4f}"),
            ("actions as the one before, in the data", percent(self.same_bin)),
            ("the same in any order", percent(self.same_bin_by_chance)),
            ("mean move, in standard deviations", shown(self.mean_move, ".3f")),
        ]
        if self.rollouts is not None:
            rollouts = self.rollouts
            rows += [
                ("actions as the one before, the policy's", percent(rollouts.policy_repeats)),
                ("the same of the expert", percent(rollouts.expert_repeats)),
                ("excess", f"{shown(rollouts.excess, '+.3f')} {_interval(rollouts.excess_interval)}"),
                ("mean return of the policy", f"{rollouts.policy_return:.4g}"),
                ("mean return of the expert", shown(rollouts.expert_return, ".4g")),
            ]
        title = f"losses of {models} on {self.trajectories:,} held-out trajectories, {self.steps:,} steps"
        return "\n".join([*textwrap.wrap(self.verdict, WIDTH), "", *table((title, ""), rows, names=(title,))])


def _ratio_drawn(
    above: Float[np.ndarray, " episodes"], below: Float[np.ndarray, " episodes"], seed: int
) -> Float[np.ndarray, " resamples"]:
    """Ratios of sums over episodes that are drawn anew; NaN where there is nothing to divide by."""
    drawn = np.random.default_rng(seed).integers(len(above), size=(RESAMPLES, len(above)))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(above[drawn].sum(1) / below[drawn].sum(1))


def _interval(ends: tuple[float, float]) -> str:
    low, high = ends
    return "" if math.isnan(low) else f"[{low:.2f}, {high:.2f}]"
