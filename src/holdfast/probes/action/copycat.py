"""Whether a policy that sees its past actions is led to copy them: how much of its loss the last action explains."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch.nn.functional import pad

from holdfast.bar import Bar
from holdfast.errors import ArgumentError, count_of
from holdfast.models.action.batch import Batch
from holdfast.models.action.discretise import Vocabulary
from holdfast.models.action.domain import Discrete, Domain, Vector
from holdfast.models.action.model import ActionModel
from holdfast.models.action.trajectories import Trajectories, Trajectory, report_on
from holdfast.probes.action.copy_model import LOOKS, Steps, trained
from holdfast.probes.action.copycat_report import CopycatReport, Rollouts
from holdfast.probes.action.repeats import Recorder, repeats
from holdfast.probes.report import evaluating, random_state_kept
from holdfast.rl.evaluate import Acting, evaluate

if TYPE_CHECKING:
    import gymnasium

FOLDS = 3
"""Parts of the trajectories; each is held out once."""

VALIDATION = 0.25
"""Share of the trajectories that are not held out by which training is stopped."""

FEWEST = 6
"""Trajectories: in each fold one to stop by, and some to learn from."""

MOST = 50_000
"""Transitions that the small networks are shown in all; of more, whole trajectories are left out evenly."""

POLICY_BINS = 256
"""Of each number of an action, for shares of repeated actions."""

CONTEXT = 50
"""Timesteps of a window that a user's own models read."""


def probe_copycat(
    trajectories: Trajectories,
    policy: Acting | None = None,
    *,
    environments: gymnasium.vector.VectorEnv[Any, Any, Any] | None = None,
    episodes: int = 20,
    models: tuple[ActionModel, ActionModel] | None = None,
    bins: int = 32,
    history: int = 4,
    seed: int = 0,
    progress: bool = False,
) -> CopycatReport:
    """Measure by how much the last action alone lowers the loss of imitating what is in the data.

        index = (loss without - loss with the last action) / loss without, on held-out trajectories

    Two small networks that are alike are trained, of which one sees the last action: every third of the trajectories
    is held out once. Or two policies of one's own are compared, without and with past actions in their context. An
    index near 0 says that past actions are no news to whoever sees the observations. A high one says that there is
    much to be had by copying; whether control suffers from it, only episodes tell: a policy whose loss is lower and
    which repeats itself more than its expert does is the failure. (On Meta-World an index of .10 went with half of the
    successes.) Where observations hide something, the last action may also be true information.

    Arguments:
        trajectories: of one domain. Labels, where there are any, are what is predicted; the last action is the one that
            was taken.
        policy: acts in the environments, to see how often it repeats itself there; `None`: only the data are looked at.
        environments: a vector of Gymnasium's; needed with a policy.
        episodes: of the policy, in all; a multiple of the number of environments.
        models: without and with past actions in their context, and trained on other trajectories than these; `None`:
            the small networks, which read vectors only.
        bins: that the small networks divide each number of an action in.
        history: observations that they see, the current one included.
        seed: of the folds, the networks and the environments.
        progress: show a bar on a terminal while the small networks are trained.

    Errors:
        ArgumentError: too few trajectories, observations that are pictures, or an argument that does not fit.
        MissingExtraError: gymnasium is needed and not installed.

    Source: arXiv 2410.22391, section 4.3; arXiv 2010.14876 for the failure.
    """
    count_of("bins", bins, least=2)
    count_of("history", history, least=1)
    count_of("seed", seed)
    if (policy is None) != (environments is None):
        raise ArgumentError("environments", "a policy and environments, or none of both", "one of them")
    domain = trajectories.domain
    with random_state_kept():
        if models is None:
            losses = _of_small_networks(trajectories, bins, history, seed, progress)
            chance = math.log(domain.action.n if isinstance(domain.action, Discrete) else bins)
        else:
            losses = _of_models(trajectories, models)
            chance = math.log(models[0].config.ids.choices(domain.action))
        rollouts = None
        if policy is not None and environments is not None:
            rollouts = _rolled_out(trajectories, policy, environments, episodes, seed)
    copies = report_on([trajectories], bins=POLICY_BINS).domains[0]
    return CopycatReport.of(
        losses.without,
        losses.informed,
        losses.steps,
        chance=chance,
        own_models=models is not None,
        same_bin=copies.same_bin,
        same_bin_by_chance=copies.same_bin_by_chance,
        mean_move=copies.mean_move,
        rollouts=rollouts,
    )


@dataclass(frozen=True)
class _Losses:
    """Sums over each trajectory that was held out, in nats, averaged over the numbers of an action.

    Arguments:
        without: of the one that does not see past actions.
        informed: of the one that does.
        steps: decisions of each.
    """

    without: Float[np.ndarray, " trajectories"]
    informed: Float[np.ndarray, " trajectories"]
    steps: Float[np.ndarray, " trajectories"]


def _of_small_networks(data: Trajectories, bins: int, history: int, seed: int, progress: bool) -> _Losses:
    items = _fewer(data.items)
    if len(items) < FEWEST:
        raise ArgumentError("trajectories", f"at least {FEWEST}, for some are held out", f"{len(items)}")
    steps, choices = _steps(items, data.domain, bins, history)
    order = np.random.default_rng(seed).permutation(len(items))
    sums = np.zeros((2, len(items)))
    with Bar("small networks", 2 * FOLDS * LOOKS, wanted=progress) as bar:
        for fold in range(FOLDS):
            held_out, rest = order[fold::FOLDS], np.setdiff1d(order, order[fold::FOLDS])
            rest = np.random.default_rng([seed, fold]).permutation(rest)
            stops = max(1, round(VALIDATION * len(rest)))
            validation, train = (_of(steps, numbers) for numbers in (rest[:stops], rest[stops:]))
            test = _of(steps, held_out)
            for place, reads_action in enumerate((False, True)):
                model = trained(
                    train, validation, choices, reads_action=reads_action, seed=seed + fold, looked=bar.advance
                )
                with torch.no_grad():
                    losses = model.losses(test).double()
                np.add.at(sums[place], test.trajectory.numpy(), losses.numpy())
    return _Losses(sums[0], sums[1], np.array([float(len(item)) for item in items]))


def _fewer(items: Sequence[Trajectory]) -> Sequence[Trajectory]:
    """Of many trajectories an even choice."""
    share = MOST / sum(map(len, items))
    if share >= 1:
        return items
    number = max(FEWEST, int(share * len(items)))
    return [items[place * len(items) // number] for place in range(min(number, len(items)))]


def _steps(items: Sequence[Trajectory], domain: Domain, bins: int, history: int) -> tuple[Steps, int]:
    """All decisions, and among how many choices each number of an action is.

    Errors:
        ArgumentError: observations are pictures.
    """
    if not isinstance(domain.observation, Vector):
        expected = "vectors as observations (or models=, two policies of yours that read pictures)"
        raise ArgumentError("trajectories", expected, f"pictures of shape {domain.observation.shape}")
    ids = _vocabulary(domain, bins)
    first = ids.first(domain.action)
    seen_by_all = [torch.from_numpy(item.observations[: len(item)]).float() for item in items]
    every = torch.cat(seen_by_all)
    mean, spread = every.mean(0), every.std(0).clamp(min=1e-6)
    parts = []
    for number, (item, seen) in enumerate(zip(items, seen_by_all, strict=True)):
        white, time = (seen - mean) / spread, len(item)
        last = [pad(white, (0, 0, back, 0))[:time] for back in range(history)]
        there = [(torch.arange(time) >= back).float()[:, None] for back in range(1, history)]
        action, taken = (
            ids.ids(torch.from_numpy(np.ascontiguousarray(values)).reshape(time, -1), domain.action) - first
            for values in (item.learnt, item.actions)
        )
        parts.append(
            Steps(
                seen=torch.cat([*last, *there], 1),
                action=action,
                previous=pad(taken[:-1], (0, 0, 1, 0)),
                acted=torch.arange(time) > 0,
                trajectory=torch.full((time,), number),
            )
        )
    names = ("seen", "action", "previous", "acted", "trajectory")
    return Steps(*(torch.cat([getattr(part, name) for part in parts]) for name in names)), ids.choices(domain.action)


def _of(steps: Steps, numbers: np.ndarray) -> Steps:
    """The decisions of some trajectories."""
    return steps.at(torch.isin(steps.trajectory, torch.from_numpy(numbers)))


def _vocabulary(domain: Domain, bins: int) -> Vocabulary:
    space = domain.action
    return Vocabulary(space.n, bins, 0) if isinstance(space, Discrete) else Vocabulary(0, bins, space.dims)


def _of_models(data: Trajectories, models: tuple[ActionModel, ActionModel]) -> _Losses:
    """Losses of a user's own policies.

    Errors:
        ArgumentError: they are not one without and one with past actions, or divide actions into other bins.
    """
    reads = tuple(model.config.past_actions for model in models)
    if reads != (False, True):
        raise ArgumentError("models", "one without and one with past actions", f"past_actions = {reads}")
    choices = [model.config.ids.choices(data.domain.action) for model in models]
    if choices[0] != choices[1]:
        raise ArgumentError("models", "as many bins in both", f"{choices[0]} and {choices[1]}")
    sums = np.zeros((2, len(data.items)))
    for place, model in enumerate(models):
        device = next(model.parameters()).device
        with torch.no_grad(), evaluating(model):
            for number, item in enumerate(data.items):
                loss = model.loss(_windows(item, data.domain, returns=model.config.returns).to(device))
                sums[place, number] = float(loss.mean) * len(item)
    return _Losses(sums[0], sums[1], np.array([float(len(item)) for item in data.items]))


def _windows(item: Trajectory, domain: Domain, *, returns: bool) -> Batch:
    """A trajectory in windows, as it was taken: what is predicted is what the context holds.

    Errors:
        ArgumentError: the models read returns-to-go, and those of the trajectory are not known.
    """
    time = len(item)
    rows = -(-time // CONTEXT)

    def cut(values: np.ndarray, dtype: Any) -> Any:
        whole = np.zeros((rows * CONTEXT, *values.shape[1:]), dtype)
        whole[:time] = values
        return torch.from_numpy(whole).unflatten(0, (rows, CONTEXT))

    to_go = item.returns_to_go()
    if returns and not np.isfinite(to_go).all():
        raise ArgumentError("trajectories", "known returns-to-go, which the models read", "some that are not")
    observations = item.observations[:time]
    return Batch(
        domain=domain,
        observation=cut(observations, observations.dtype if observations.dtype == np.uint8 else np.float32),
        action=cut(item.actions.reshape(time, -1), np.int64 if isinstance(domain.action, Discrete) else np.float32),
        valid=cut(np.ones(time, bool), bool),
        returns_to_go=cut(to_go, np.float32) if returns else None,
        reward=None if item.rewards is None else cut(item.rewards, np.float32),
    )


def _rolled_out(
    data: Trajectories,
    policy: Acting,
    environments: gymnasium.vector.VectorEnv[Any, Any, Any],
    episodes: int,
    seed: int,
) -> Rollouts:
    """How often a policy repeats itself in whole episodes, and its expert in the data."""
    ids = _vocabulary(data.domain, POLICY_BINS)
    recorder = Recorder(policy, environments, episodes, data.domain, ids)
    evaluation = evaluate(recorder, environments, episodes, seed=seed)
    clean = [item for item in data.items if item.labels is None] or data.items
    space, of_expert = data.domain.action, []
    for item in clean:
        actions = torch.from_numpy(np.ascontiguousarray(item.actions)).reshape(len(item), -1)
        of_expert.append(repeats(ids.ids(actions, space)))
    returns = np.array([item.total_return for item in clean])
    return Rollouts.of(
        recorder.counted(),
        of_expert,
        policy_return=evaluation.mean_return,
        expert_return=float(returns.mean()),
    )
