"""Can one recurrent policy act in many domains as well as a transformer, at a cost that does not grow with the episode?

Re-tests "A Large Recurrent Action Model: xLSTM enables Fast Inference for Robotics Tasks", arXiv 2410.22391. Each part
stands in the file of its name, with its claims.
A trial carries the settings of its part alone, so that a worker loads that part and not this file.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from holdfast.lab import Config, Study
from holdfast.studies.action import conditioning, control, copycat, dark_room, latency, manipulation, parity
from holdfast.studies.action.arms import ARMS
from holdfast.studies.action.cloning import Cloning
from holdfast.studies.action.conditioning import ConditioningConfig
from holdfast.studies.action.control import ControlConfig
from holdfast.studies.action.copycat import CopycatConfig
from holdfast.studies.action.dark_room import DarkRoomConfig
from holdfast.studies.action.demonstrations import Demonstrations
from holdfast.studies.action.latency import LatencyConfig
from holdfast.studies.action.manipulation import ManipulationConfig
from holdfast.studies.action.paper import PAPER
from holdfast.studies.action.parity import ParityConfig
from holdfast.studies.action.training import Recipe


@dataclass(frozen=True, kw_only=True)
class ActionStudyConfig(Config):
    """Settings of the study.

    Arguments:
        latency: how long a step of control takes.
        control: policies for classic control.
        conditioning: policies without returns-to-go and rewards.
        copycat: policies with and without past actions.
        manipulation: the same on Meta-World.
        parity: layers that keep track of a state.
        dark_room: policies that learn within their context.
        policy_seeds: how many seeds, from the first on, train policies in the parts control, conditioning,
            copycat and manipulation.
        long_seeds: how many seeds the parts parity and dark_room take, whose trials are long.
    """

    latency: LatencyConfig = field(default_factory=LatencyConfig)
    control: ControlConfig = field(default_factory=ControlConfig)
    conditioning: ConditioningConfig = field(default_factory=ConditioningConfig)
    copycat: CopycatConfig = field(default_factory=CopycatConfig)
    manipulation: ManipulationConfig = field(default_factory=ManipulationConfig)
    parity: ParityConfig = field(default_factory=ParityConfig)
    dark_room: DarkRoomConfig = field(default_factory=DarkRoomConfig)
    policy_seeds: int = 5
    long_seeds: int = 3

    @property
    def policy_range(self) -> range:
        """The seeds that train policies for given tasks."""
        return self.seed_range[: self.policy_seeds]

    @property
    def long_range(self) -> range:
        """The seeds of parts with long trials."""
        return self.seed_range[: self.long_seeds]


FEW = Recipe(steps=6, batch=4, warmup=2, curve_every=3)
QUICK = Cloning(
    size="tiny",
    context=4,
    demonstrations=Demonstrations(tasks=("pendulum", "cart-pole"), episodes=4, disturbed=0.5),
    rollouts=1,
    recipe=FEW,
)
"""Policies that have learned nothing: everything runs, and no claim about them is judged."""

GPU = Recipe(device="cuda", steps=5_000, batch=128, learning_rate=3e-4, warmup=250, curve_every=100)
GPU_CLONING = Cloning(size="16M", context=50, bins=256, rollouts=50, recipe=GPU)
CLEAN = Demonstrations(tasks=("pendulum", "mountain-car"), disturbed=0.0, episodes=100)

TEN_TASKS = (
    "reach-v3",
    "push-v3",
    "pick-place-v3",
    "door-open-v3",
    "drawer-open-v3",
    "drawer-close-v3",
    "button-press-v3",
    "peg-insert-side-v3",
    "window-open-v3",
    "window-close-v3",
)

PUBLISHED = Recipe(
    device="cuda", steps=200_000, batch=128, learning_rate=1e-4, warmup=4_000, curve_every=500, checkpoint_every=5_000
)
"""The published number of updates and windows of 50 timesteps, on a fraction of the published data."""

ON_GPU = ActionStudyConfig(
    seeds=3,
    first_seed=200,
    latency=LatencyConfig(
        device="cuda",
        dim=1280,
        layers=10,
        contexts=(10, 50, 200, 800, 1600, 3200, 6400, 12800, 25600),
        batches=(1, 16, 64, 128),
        memory=60 << 30,
        rounds=15,
    ),
    control=ControlConfig(masked_arms=tuple(ARMS), contexts=(1, 10, 50), cloning=GPU_CLONING),
    conditioning=ConditioningConfig(cloning=GPU_CLONING),
    copycat=CopycatConfig(
        contexts=(10, 50), cloning=Cloning(size="16M", demonstrations=CLEAN, bins=256, rollouts=50, recipe=GPU)
    ),
    manipulation=ManipulationConfig(
        tasks=TEN_TASKS,
        required=True,
        arms=("xlstm10", "xlstm11", "transformer"),
        size="16M",
        episodes=50,
        context=50,
        bins=256,
        recipe=GPU,
    ),
    dark_room=DarkRoomConfig(
        size="16M",
        room=10,
        steps=100,
        episodes=4,
        histories=40,
        recipe=Recipe(device="cuda", steps=5_000, batch=64, learning_rate=3e-4, warmup=250, curve_every=100),
    ),
)

# Settings were chosen on seeds 0 to 9; verdicts come from seeds that nobody has looked at.
SCALES = {
    "quick": ActionStudyConfig(
        seeds=3,
        first_seed=200,
        latency=LatencyConfig(dim=32, contexts=(10, 50, 800), rounds=2),
        control=ControlConfig(cloning=QUICK, contexts=(1, 4), masked_arms=("xlstm10",)),
        conditioning=ConditioningConfig(cloning=QUICK),
        copycat=CopycatConfig(
            contexts=(2, 4),
            cloning=Cloning(
                size="tiny",
                demonstrations=Demonstrations(tasks=("pendulum",), disturbed=0.0, episodes=4),
                rollouts=1,
                recipe=FEW,
            ),
        ),
        manipulation=ManipulationConfig(tasks=()),
        parity=ParityConfig(steps=6, batch=8, dim=16, lengths=(4, 32, 64, 256), tests=32, warmup=2, curve_every=3),
        dark_room=DarkRoomConfig(size="tiny", room=3, steps=6, episodes=2, histories=2, rollouts=2, recipe=FEW),
        policy_seeds=1,
        long_seeds=1,
    ),
    "laptop": ActionStudyConfig(seeds=5, first_seed=200),
    "gpu": ON_GPU,
    "paper": replace(
        ON_GPU,
        manipulation=ManipulationConfig(
            tasks=("all",),
            required=True,
            arms=("xlstm10", "xlstm11", "transformer"),
            size="206M",
            episodes=2_000,
            context=50,
            bins=256,
            rollouts=20,
            recipe=PUBLISHED,
        ),
        dark_room=DarkRoomConfig(
            size="16M",
            room=10,
            steps=100,
            episodes=20,
            histories=40,
            recipe=Recipe(device="cuda", steps=50_000, batch=64, learning_rate=3e-4, warmup=2_500, curve_every=500),
        ),
    ),
}

study = Study(
    name="action",
    question="Can one recurrent policy act in many domains as well as a transformer, at a cost that does not grow with "
    "the episode?",
    scales=SCALES,
    parts=[
        latency.part,
        control.part,
        conditioning.part,
        copycat.part,
        manipulation.part,
        parity.part,
        dark_room.part,
    ],
    paper=PAPER,
    cost={
        "quick": "under 1 minute on 2 CPU cores",
        "laptop": "under 20 minutes on 2 CPU cores",
        "gpu": "one GPU, under 2 hours (estimated), and Meta-World",
        "paper": "several GPUs for days (estimated); of the six domains of the paper Meta-World alone",
    },
)
