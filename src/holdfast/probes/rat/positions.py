"""How well a model predicts the same tokens with more and more text before them, to beyond what it was trained for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jaxtyping import Int
from torch import Tensor, nn

from holdfast.errors import ArgumentError, count_of
from holdfast.probes.context_length import position_limit, trained_length
from holdfast.probes.rat.reading import (
    PREDICTS,
    Progress,
    chance,
    check_tokens,
    left_as_found,
    mean_interval,
    target_losses,
    untold,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TARGETS = 64
"""Last tokens of each text, at most, whose loss is looked at."""

WORSE = 0.05
"""Nats a token from which on a loss counts as worse: five percent of perplexity."""


@dataclass(frozen=True)
class ContextLoss:
    """The loss of the same tokens in contexts of one length.

    Arguments:
        context: tokens that the model is given, the targets included.
        loss: mean, in nats a token.
        change: from the loss in contexts of the length that is compared with.
        low: lower end of the change's 95 % interval over texts; NaN for a single text.
        high: upper end.
    """

    context: int
    loss: float
    change: float
    low: float
    high: float


@dataclass(frozen=True)
class PositionLoss:
    """What `position_loss` found.

    Arguments:
        trained: tokens that the model was trained for; `None` where that is not known.
        limit: tokens that it can read at all, where its positions stand in a table; `None` without one.
        base: length that others are compared with: the longest that is no longer than `trained`.
        targets: last tokens of each text, the same ones in all contexts.
        texts: how many.
        chance: loss of guessing, the logarithm of the vocabulary.
        points: one entry a length, ascending.
        left_out: lengths that the model cannot read.
    """

    trained: int | None
    limit: int | None
    base: int
    targets: int
    texts: int
    chance: float
    points: tuple[ContextLoss, ...]
    left_out: tuple[int, ...]

    @property
    def beyond(self) -> tuple[ContextLoss, ...]:
        """Contexts that are longer than the model was trained for."""
        return tuple(p for p in self.points if self.trained is not None and p.context > self.trained)

    @property
    def informative(self) -> bool:
        """Whether the model predicts these texts better than guessing: else nothing can be lost."""
        return min(point.loss for point in self.points) < self.chance - PREDICTS

    @property
    def finding(self) -> str:
        """What follows, in words that a sentence can end with."""
        if self.limit is not None and self.left_out:
            return f"nothing is read beyond the {self.limit:,} positions of its table"
        if not self.informative:
            return "how it reads longer texts is not told by a text that it does not predict"
        if self.trained is None:
            last = self.points[-1]
            change = f"{round(last.change, 2) + 0.0:+.2f} nats a token"
            return f"the loss changes by {change} from {self.base:,} to {last.context:,} tokens"
        if not self.beyond:
            return f"nothing was read beyond the trained length of {self.trained:,} tokens"
        last = self.beyond[-1]
        where = f"at {last.context / self.trained:g} times the trained length"
        if last.change > WORSE and last.low > 0:
            return f"the loss is {last.change:.2f} nats a token higher {where}"
        if last.change > WORSE:
            return f"the loss is {last.change:.2f} nats a token higher {where}, which these texts are too few to judge"
        return f"the loss holds {where} ({round(last.change, 2) + 0.0:+.2f} nats a token)"

    def plot(self, ax: Axes) -> None:
        """Draw the change of the loss against the length of the context.

        Arguments:
            ax: Matplotlib axes to draw into.
        """
        contexts = [point.context for point in self.points]
        ax.plot(contexts, [point.change for point in self.points], marker="o", markersize=3, color="C0")
        ax.fill_between(contexts, [p.low for p in self.points], [p.high for p in self.points], alpha=0.2, color="C0")
        ax.axhline(0, color="0.6", linewidth=0.8)
        if self.trained is not None and self.trained <= contexts[-1]:
            ax.axvline(self.trained, color="C3", linewidth=0.8, linestyle="--", label="trained length")
            ax.legend()
        ax.set_xscale("log", base=2)
        ax.set_xticks(contexts, [str(context) for context in contexts])
        ax.set_xlabel("tokens of context")
        ax.set_ylabel("nats a token")
        ax.set_title(f"loss against {self.base} tokens")


def position_loss(
    model: nn.Module,
    tokens: Int[Tensor, "texts time"],
    *,
    trained: int | None = None,
    contexts: Sequence[int] | None = None,
    targets: int = TARGETS,
    progress: Progress = untold,
) -> PositionLoss:
    """Measure the loss of the last tokens of each text in contexts of several lengths that end with them.

    The tokens whose loss is taken are the same ones at every length, so that only what comes before them differs.

    Arguments:
        model: a causal language model of transformers.
        tokens: texts, as long as the longest context.
        trained: tokens that the model was trained for; `None`: what its configuration says.
        contexts: lengths; `None`: a quarter, a half, one, two, four ... times the trained length as far as the texts
            reach, or an eighth, a quarter, a half and all of the texts where they do not reach it.
        targets: last tokens whose loss is taken, at most half of the shortest context.
        progress: told of each length.

    Errors:
        ArgumentError: an argument does not fit, or the model can read no two of the lengths.
    """
    check_tokens(model, tokens, 8)
    count_of("targets", targets, least=1)
    trained = trained_length(model) if trained is None else count_of("trained", trained, least=1)
    time, limit = tokens.shape[1], position_limit(model)
    wanted = sorted(set(_contexts(time, trained) if contexts is None else contexts))
    for context in wanted:
        count_of("contexts", context, least=2)
    if not wanted or wanted[-1] > time:
        raise ArgumentError("contexts", f"lengths of at most {time} tokens, as the texts are", tuple(wanted))
    readable = [context for context in wanted if limit is None or context <= limit]
    if len(readable) < 2:
        got = f"{len(readable)} of {', '.join(map(str, wanted))}"
        raise ArgumentError("contexts", "two or more that the model can read", got)
    last = min(targets, readable[0] // 2)
    losses = []
    with left_as_found(model):
        for done, context in enumerate(readable):
            progress("positions", done, len(readable))
            losses.append(target_losses(model, tokens[:, -context:], last).double().mean(1))
    progress("positions", len(readable), len(readable))
    inside = [context for context in readable if trained is None or context <= trained]
    base = (inside[0] if trained is None else inside[-1]) if inside else readable[0]
    before = losses[readable.index(base)]
    points = tuple(
        ContextLoss(context, float(loss.mean()), *mean_interval((loss - before).tolist()))
        for context, loss in zip(readable, losses, strict=True)
    )
    left_out = tuple(context for context in wanted if context not in readable)
    return PositionLoss(trained, limit, base, last, tokens.shape[0], chance(model), points, left_out)


def _contexts(time: int, trained: int | None) -> list[int]:
    """Lengths around the trained one as far as the texts reach, or parts of the texts."""
    if trained is None or time < trained:
        return [length for length in (time // 8, time // 4, time // 2, time) if length >= 2]
    lengths = [length for length in (trained // 4, trained // 2) if length >= 2]
    while trained <= time:
        lengths.append(trained)
        trained *= 2
    return lengths
