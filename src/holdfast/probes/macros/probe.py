"""Whether macro-actions overload a learner: how many different actions its values know, from what it has logged."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from holdfast.bar import Bar
from holdfast.errors import ArgumentError, count_of
from holdfast.probes.macros.groups import Values, agreement, centred, choose_groups, correlations, differences
from holdfast.probes.macros.logged import LoggedValues, logged_values
from holdfast.probes.macros.report import ActionGroup, Coverage, MacrosReport, Rule
from holdfast.rl.macros import Macros
from holdfast.rl.similarity import SimilarityMatrix, effective_actions, spectral_actions

STATES = 40
"""The fewest that anything is said of."""
EPISODES = 5
"""Likewise, where they are named."""
AGREEMENT = 0.1
"""The least cosine of two agents' values that one can be judged by the other with."""
DIGITS = 10.0
"""Differences of actions must be this many times larger than the last digit of the values."""


@dataclass(frozen=True)
class MacrosSettings:
    """How values are looked at.

    Arguments:
        tolerance: what groups may lose: of the differences between actions, and of the best one's lead.
        strength: c of the effective number of actions, 2 η / w with the weight w of each action's data.
        resamples: of episodes, or of states, for what is held out and for intervals.
        states: at most so many are looked at, drawn at random.
        seed: of all draws.
        progress: show a bar on a terminal.
    """

    tolerance: float = 0.05
    strength: float = 10.0
    resamples: int = 100
    states: int = 5000
    seed: int = 0
    progress: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.tolerance < 0.5:
            raise ArgumentError("tolerance", "a share above 0 and below 0.5", self.tolerance)
        if not 0 < self.strength < math.inf:
            raise ArgumentError("strength", "a positive finite number", self.strength)
        for name, least in (("resamples", 20), ("states", STATES), ("seed", 0)):
            count_of(name, getattr(self, name), least=least)


def probe_macros(
    q: Any,
    *,
    second: Any = None,
    mask: Any = None,
    action: Any = None,
    episode: Any = None,
    macros: Macros | None = None,
    settings: MacrosSettings | None = None,
) -> MacrosReport:
    """Tell from an agent's Q values how many different actions it has, and whether the others overload it.

    Values are taken less their mean in each state. Actions are put into groups; with Σ the average within groups, two
    things may be lost in states held out, `tolerance` of each at most: the residual Σ ‖q - Σq‖² / Σ ‖q - mean‖², and
    of the best action's lead over the mean what is not left in Σq, which is what acting greedily on Σq gives away. The
    fewest such groups are the actions that the values tell apart. They are found in resamples of the episodes, or of
    the states, and judged in those that were not drawn.

    Nothing is trained. What is similar is so in the values that were logged. From one agent's values alone, actions
    that differ cannot be told from actions whose values were not learnt well, as those of an overloaded agent are not,
    so that it can be told that actions overload, but not that they do not. The second agent's values tell, for what is
    noise in one is not in the other: then squares are products of both agents' values, and retention can be above
    1, where means of alike actions choose better than the actions' own values do.

    Arguments:
        q: values of all actions, expectations and not logits, of shape (states, n): an array, a tensor, or
            `LoggedValues`, which has mask, action and episode. -inf: the action is illegal.
        second: values, in the same states, of another agent that was trained alike, with another seed.
        mask: legal actions, of the same shape.
        action: that was taken in each state, for the coverage.
        episode: of each state. Without it states are taken for independent, and intervals are too narrow.
        macros: the list of actions, for names and the rule of thumb.
        settings: how they are looked at.

    Returns:
        The report.

    Errors:
        ArgumentError: an argument does not fit; there are fewer than 40 states in which actions differ, or 5 such
            episodes; an action that is never legal; values that do not differ between actions, or differ alike in all
            states; a second agent whose values are the same, or say nothing of the first's.

    Source: the penalty: arXiv 2506.13690; the audit is ours.
    """
    settings = settings or MacrosSettings()
    logged = q if isinstance(q, LoggedValues) else logged_values(q, mask=mask, action=action, episode=episode)
    for name, given in (("mask", mask), ("action", action), ("episode", episode)):
        if isinstance(q, LoggedValues) and given is not None:
            raise ArgumentError(name, "None, since q has it", "another")
    states, n = logged.q.shape
    actions = macros if macros is not None else Macros(n)
    if len(actions) != n:
        raise ArgumentError("macros", f"a list of {n} actions, since q has {n}", f"{len(actions)}")
    other = None if second is None else _second(second, logged)
    rng = np.random.default_rng(settings.seed)
    notes = [f"not used: {', '.join(logged.unused)}"] if logged.unused else []
    values, units = _usable(logged, other, settings, rng, notes)
    with Bar("resamples", settings.resamples, wanted=settings.progress) as bar:
        choice = choose_groups(
            values, units, tolerance=settings.tolerance, resamples=settings.resamples, rng=rng, bar=bar
        )
    groups = choice.groups
    labels = choice.labels.tolist()
    similarity = SimilarityMatrix(actions, kind="cluster", clusters=labels)
    effective = effective_actions(similarity.matrix(), settings.strength)
    if groups == n:
        notes.append("each action is a group of its own: the fitted matrix is the identity, which shares nothing")
    correlation, difference = correlations(values), differences(values, np.ones(len(values.q)))
    pairs = difference[~np.eye(n, dtype=bool)]
    difference /= np.sqrt(np.nanmean(pairs**2))
    counts = None if logged.action is None else np.bincount(logged.action, minlength=n)
    alike = [first for first in dict.fromkeys(labels) if labels[: actions.primitives].count(first) > 1]
    if actions.sequences and alike:
        notes.append(
            "primitive actions share a group: they have the same values for what this agent was trained to do, and may "
            "not elsewhere"
        )
    members = [[action for action in range(n) if labels[action] == first] for first in dict.fromkeys(labels)]
    return MacrosReport(
        macros=actions,
        listed=macros is not None,
        states=len(values.q),
        units=int(units.max()) + 1,
        episodes=logged.episode is not None,
        groups=tuple(
            _group(indices, actions, (difference, correlation, choice.together), counts) for indices in members
        ),
        interval=choice.interval,
        effective=effective,
        effective_interval=tuple(_smoothed(n, k, settings.strength) for k in choice.interval),
        spectral=spectral_actions(similarity.matrix()),
        residual=float(choice.residual[groups]),
        retention=float(choice.retention[groups]),
        residuals=tuple(choice.residual[1:].tolist()),
        retentions=tuple(choice.retention[1:].tolist()),
        agreement=None if second is None else agreement(values),
        correlation=tuple(map(tuple, correlation.tolist())),
        difference=tuple(map(tuple, difference.tolist())),
        coverage=None if counts is None else _coverage(counts, states),
        rule=_rule(actions, effective) if macros is not None and macros.sequences else None,
        tolerance=settings.tolerance,
        strength=settings.strength,
        notes=tuple(notes),
    )


def _second(second: Any, logged: LoggedValues) -> np.ndarray:
    """Values of the second agent.

    Errors:
        ArgumentError: they are of other states, or the same.
    """
    other = second if isinstance(second, LoggedValues) else logged_values(second, mask=logged.legal)
    if other.q.shape != logged.q.shape:
        raise ArgumentError("second", f"shape {logged.q.shape}, as q has", f"shape {other.q.shape}")
    for row in np.flatnonzero((other.legal != logged.legal).any(1))[:1].tolist():
        raise ArgumentError("second", "the same legal actions as q", f"others in state {row}")
    if np.array_equal(other.q, logged.q):
        raise ArgumentError("second", "another agent's values", "those of q")
    return other.q


def _usable(
    logged: LoggedValues,
    second: np.ndarray | None,
    settings: MacrosSettings,
    rng: np.random.Generator,
    notes: list[str],
) -> tuple[Values, np.ndarray]:
    """States in which actions can differ, with the number of each one's unit.

    Errors:
        ArgumentError: nothing can be told from them.
    """
    for action in np.flatnonzero(~logged.legal.any(0))[:1].tolist():
        raise ArgumentError("q", "actions that are legal in some state each", f"action {action}, which never is")
    values = centred(logged.q, logged.legal, second)
    smallest = DIGITS * logged.precision * float(np.abs(logged.q).max())
    differ = np.abs(values.q).max(1) > smallest
    if not differ.any():
        raise ArgumentError("q", "values that differ between actions", f"differences of at most {smallest:.3g}")
    unit = np.arange(len(differ)) if logged.episode is None else logged.episode
    kind, least = ("states", STATES) if logged.episode is None else ("episodes", EPISODES)
    units = len(np.unique(unit[differ]))
    for name, found, needed in (("states", int(differ.sum()), STATES), (kind, units, least)):
        if found < needed:
            words = f"at least {needed} {name} in which actions differ"
            raise ArgumentError("q", words, f"{found} of {len(differ) if name == 'states' else len(np.unique(unit))}")
    if not differ.all():
        notes.append(f"{int((~differ).sum())} states left out, in which all legal actions have one value")
    kept = np.flatnonzero(differ)
    if len(kept) > settings.states:
        notes.append(f"{settings.states} of {len(kept)} states looked at, drawn at random")
        kept = np.sort(rng.choice(kept, settings.states, replace=False))
    values = values.part(kept)
    highest = np.where(values.legal, values.q, -np.inf).max(0)
    if not (highest - np.where(values.legal, values.q, np.inf).min(0) > smallest).any():
        raise ArgumentError("q", "differences between actions that change from state to state", "the same in all")
    if agreement(values) < AGREEMENT:
        words = f"values that agree with q on how actions differ (a cosine of at least {AGREEMENT:g})"
        raise ArgumentError("second", words, f"{agreement(values):.2f}")
    if logged.episode is None:
        notes.append("states were taken for independent: without their episodes intervals are too narrow")
    return values, np.unique(unit[kept], return_inverse=True)[1]


def _smoothed(n: int, groups: int, strength: float) -> float:
    """The effective number of actions of averages within groups."""
    return groups + (n - groups) / (1 + strength)


def _group(
    indices: list[int], actions: Macros, matrices: tuple[np.ndarray, ...], counts: np.ndarray | None
) -> ActionGroup:
    first, second = np.tril_indices(len(indices), -1)
    pairs = [matrix[np.array(indices)[first], np.array(indices)[second]] for matrix in matrices]
    known = [values[~np.isnan(values)] for values in pairs]
    difference, correlation, together = (float(values.mean()) if len(values) else math.nan for values in known)
    return ActionGroup(
        actions=tuple(indices),
        names=tuple(actions.meanings[index] for index in indices),
        difference=difference,
        correlation=correlation,
        together=together,
        samples=None if counts is None else int(counts[indices].sum()),
    )


def _coverage(counts: np.ndarray, states: int) -> Coverage:
    return Coverage(
        samples=tuple(counts.tolist()),
        mean=states / len(counts),
        median=float(np.median(counts)),
        never=float((counts == 0).mean()),
    )


def _rule(actions: Macros, effective: float) -> Rule:
    length = sum(map(len, actions.sequences)) / len(actions.sequences)
    return Rule(length=length, sequences=float(actions.primitives**length), actions=len(actions), effective=effective)


def similarity_of(report: MacrosReport) -> SimilarityMatrix:
    """The fitted matrix, averages within groups: for `masp_penalty`, or for `save_similarity`."""
    labels = torch.empty(len(report.macros), dtype=torch.long)
    for number, group in enumerate(report.groups):
        labels[list(group.actions)] = number
    return SimilarityMatrix(report.macros, kind="cluster", clusters=labels.tolist())
