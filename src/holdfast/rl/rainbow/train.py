"""Trains Rainbow on an environment, with or without macros. Budget and schedules count primitive steps."""

from __future__ import annotations

import dataclasses
import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch

from holdfast.errors import ArgumentError
from holdfast.models.training.beginning import check_beginning, environment
from holdfast.models.training.place import Place
from holdfast.models.training.progress import Progress
from holdfast.models.training.recipe import OptimisationRecipe
from holdfast.models.training.run_folder import RunFolder
from holdfast.rl.macro_actions import Decisions, macro_vector_env
from holdfast.rl.macros import Macros
from holdfast.rl.rainbow import checkpoint
from holdfast.rl.rainbow.agent import Rainbow, Update
from holdfast.rl.rainbow.environments import make_environment
from holdfast.rl.rainbow.recipe import RainbowRecipe
from holdfast.rl.rainbow.replay import Replay
from holdfast.rl.rainbow.slots import Slots
from holdfast.rl.similarity import load_similarity, save_similarity

AGENT = "agent.pt"
"""The agent's file in the folder of a run."""

SIMILARITY = "similarity.npz"
"""And that of the similarity of its actions, where it has one, to be carried to the next task."""

LAST = 100
"""Games whose mean return is the score."""


def train(recipe: RainbowRecipe, out: Path, *, resume: bool = False, quiet: bool = False) -> dict[str, Any]:
    """Train an agent, or go on with it.

    Arguments:
        recipe: what is played, and how it is learned.
        out: folder for the agent; new or empty, unless it holds a run to be resumed.
        resume: go on with the run in `out` from its last checkpoint, or begin it if there is none. On a CPU, with the
            same versions and threads, the curve is that of a run that was never interrupted.
        quiet: show no progress.

    Returns:
        The account that is written to `training.json`, with command, settings, versions, curve and games, and
        `score`, the mean return of the last 100 games, neither clipped nor discounted; `None` where none has ended.

    Errors:
        ArgumentError: settings, environment or folder that cannot be used, or that differ from those of the run to be
            resumed.
        LossError: a loss is no finite number.
    """
    folder = RunFolder(out)
    folder.check(resume=resume)
    place = Place.of(OptimisationRecipe(device=recipe.play.device, precision="float32"))
    now = environment(place, "gymnasium")
    if folder.begun:
        check_beginning(folder.beginning(), now, recipe, place)
        report = folder.report()
        if report is not None:
            return report
    slots, actions = make_slots(recipe)
    try:
        run = Run(recipe, slots, actions, place.device)
        if not folder.begun:
            folder.begin({"recipe": recipe.to_dict(), "environment": now})
        return run.to_the_end(folder, quiet=quiet)
    finally:
        slots.environments.close()


def make_slots(recipe: RainbowRecipe) -> tuple[Slots, Macros]:
    """The environments of a recipe, with macros around each.

    Arguments:
        recipe: what is played.

    Errors:
        ArgumentError: an environment or macros that cannot be made.
        MissingExtraError: a package is not installed.
    """
    play = recipe.play

    def make(slot: int) -> gymnasium.Env[Any, Any]:
        return make_environment(play.env, seed=play.seed, slot=slot, time_limit=play.time_limit)

    first = make(0)
    actions = play.actions(first)
    calls: list[Callable[[], gymnasium.Env[Any, Any]]] = [lambda: first]
    calls += [partial(make, slot) for slot in range(1, play.slots)]
    # Nothing that is hidden in the vector: a checkpoint need not know which slot is about to begin anew.
    mode = gymnasium.vector.AutoresetMode.DISABLED
    return Slots(macro_vector_env(calls, actions, gamma=recipe.settings().discount, autoreset_mode=mode)), actions


def load_agent(folder: Path, *, device: str = "cpu") -> Rainbow:
    """The agent of a run that is done, without noise; `greedy` then acts, and `network.values` tells its Q values.

    Arguments:
        folder: of the run.
        device: where it is to compute.

    Errors:
        ArgumentError: no run was done there.
    """
    report = RunFolder(folder).report()
    if report is None:
        raise ArgumentError("folder", "that of a run that is done", str(folder))
    recipe = RainbowRecipe.from_dict(report["recipe"])
    state = torch.load(folder / AGENT, map_location="cpu", weights_only=True)
    actions = Macros.from_json(state["actions"])
    learning = dataclasses.replace(recipe.learning, eta=0.0, meta=False, similarity="sinkhorn")
    settings = learning.settings(recipe.play.env)
    agent = Rainbow(tuple(report["observation"]), actions, settings, device=device)
    agent.network.load_state_dict(state["network"])
    agent.network.silence()
    return agent


@dataclass
class Account:
    """What a run has come to.

    Arguments:
        step: primitive steps that were made.
        decisions: that were taken in them.
        copies: of the target network.
        curve: means since the point before, by step.
        games: step, return and length of each game that has ended.
        pending: sums since the last point of the curve, and how many updates they are of.
    """

    step: int = 0
    decisions: int = 0
    copies: int = 0
    curve: list[dict[str, Any]] = field(default_factory=list)
    games: list[list[float]] = field(default_factory=list)
    pending: dict[str, float] = field(default_factory=dict)


class Run:
    """An agent on its way through a recipe.

    Arguments:
        recipe: what is played, and how it is learned.
        slots: the environments.
        actions: primitives and macros.
        device: where it computes.
    """

    def __init__(self, recipe: RainbowRecipe, slots: Slots, actions: Macros, device: str) -> None:
        self.recipe, self.slots, self.settings = recipe, slots, recipe.settings()
        self.account, seed, settings = Account(), recipe.play.seed, self.settings
        space: Any = slots.environments.single_observation_space
        file, known = recipe.learning.similarity, ("sinkhorn", "raw")
        similarity = None if file in known else load_similarity(Path(file), actions)
        self.agent = Rainbow(space.shape, actions, settings, seed=seed, device=device, similarity=similarity)
        self.replay = Replay(
            settings.capacity,
            slots.number,
            n_step=settings.n_step,
            discount=settings.discount,
            exponent=settings.priority,
            seed=seed,
        )

    def to_the_end(self, folder: RunFolder, *, quiet: bool) -> dict[str, Any]:
        """Play and learn, and write the agent with its account.

        Arguments:
            folder: of the run.
            quiet: show no progress.
        """
        before, begun = self._go_on(folder), time.monotonic()
        account, budget, intervals = self.account, self.recipe.play.steps, self.recipe.intervals
        with Progress("on average", 1, "steps", wanted=not quiet) as progress:
            progress.begin(account.step)
            while account.step < budget:
                earlier = account.step
                self.play_and_learn()
                if account.step // intervals.log_every > earlier // intervals.log_every or account.step >= budget:
                    progress.tell(**self._log())
                    progress.line(min(account.step, budget), budget)
                progress.move(min(account.step, budget), budget)
                if account.step // intervals.save_every > earlier // intervals.save_every and account.step < budget:
                    seconds, kept = before + time.monotonic() - begun, dataclasses.asdict(account)
                    checkpoint.save(folder, account.step, seconds, (self.agent, self.replay, self.slots), kept)
        return self._conclude(folder, before + time.monotonic() - begun)

    def play_and_learn(self) -> None:
        """One decision in each slot, and the updates that are due by then."""
        account, settings, agent = self.account, self.settings, self.agent
        observations = self.slots.observations
        actions = agent.act(observations, settings.epsilon(account.step))
        decisions = self.slots.step(actions)
        self.replay.add(observations, actions, decisions)
        account.step += int(decisions.executed.sum())
        account.decisions += int(decisions.made.sum())
        self._note_games(decisions)
        while agent.updates < settings.updates_due(account.step) and self.replay.transitions >= settings.batch:
            self._note(agent.update(self.replay, settings.importance_at(account.step, self.recipe.play.steps)))
        if account.step // settings.target_every > account.copies:
            account.copies = account.step // settings.target_every
            agent.copy_target()

    def _note(self, update: Update) -> None:
        """Add what an update saw to the sums."""
        told = {"updates": 1.0, "loss": float(update.loss)}
        if update.penalty is not None:
            told["penalty"] = float(update.penalty)
        for name, value in told.items():
            self.account.pending[name] = self.account.pending.get(name, 0.0) + value

    def _note_games(self, decisions: Decisions) -> None:
        """Note the games that ended in the last step."""
        ended = self.slots.info.get("_episode")
        if ended is None:
            return
        told = self.slots.info["episode"]
        for slot in np.flatnonzero(ended & (decisions.terminated | decisions.truncated)):
            self.account.games.append([self.account.step, float(told["r"][slot]), int(told["l"][slot])])

    def _log(self) -> dict[str, float]:
        """A point of the curve; its means."""
        account, pending = self.account, self.account.pending
        since = account.curve[-1]["games"] if account.curve else 0
        returns = [game[1] for game in account.games[since:]]
        updates = pending.get("updates", 0.0)
        means = {name: value / updates for name, value in pending.items() if name != "updates"}
        if returns:
            means["return"] = math.fsum(returns) / len(returns)
        point: dict[str, Any] = {"step": account.step, "updates": self.agent.updates, "games": len(account.games)}
        if self.agent.similarity is not None:
            point["similarity"] = self.agent.similarity.statistics()
        account.curve.append(point | means)
        account.pending = {}
        return means

    def _go_on(self, folder: RunFolder) -> float:
        """From the last whole checkpoint, if there is one; the seconds that the run had taken by then."""
        for name in folder.discard_incomplete():
            warnings.warn(f"{name} was half-written when the run ended, and is not used", stacklevel=4)
        self.slots.reset()
        last = folder.last_checkpoint()
        if last is None:
            return 0.0
        path, seconds = last
        self.account = Account(**checkpoint.load(path, (self.agent, self.replay, self.slots)))
        return seconds

    def _conclude(self, folder: RunFolder, seconds: float) -> dict[str, Any]:
        """Write the agent and the account of the run."""
        account, agent, recipe = self.account, self.agent, self.recipe
        last = [game[1] for game in account.games[-LAST:]]
        beginning = folder.beginning()
        report = {
            "command": recipe.command,
            "score": math.fsum(last) / len(last) if last else None,
            "steps": account.step,
            "decisions": account.decisions,
            "updates": agent.updates,
            "parameters": sum(parameter.numel() for parameter in agent.network.parameters()),
            "actions": len(agent.actions),
            "observation": list(agent.network.observation),
            "seconds": round(seconds, 1),
            "settings": dataclasses.asdict(self.settings),
            "recipe": beginning["recipe"],
            "environment": beginning["environment"],
            "curve": account.curve,
            "games": account.games,
        }
        torch.save(agent.state_dict(), folder.path / AGENT)
        if agent.similarity is not None:
            path, eta = folder.path / SIMILARITY, self.settings.masp.eta
            save_similarity(path, agent.similarity, eta=eta, env_id=recipe.play.env)
        folder.finish(report)
        return report
