"""Action: the policy that comes with the package swings up four pendulums side by side, step by step.

Needs Gymnasium: pip install 'holdfast[rl]'.
"""

import gymnasium
import numpy as np

from holdfast.models.action.checkpoint import SHIPPED, load_model
from holdfast.rl.stepping import Policy, PolicyConfig

SLOTS = 4

if __name__ == "__main__":
    environments = gymnasium.make_vec("Pendulum-v1", num_envs=SLOTS)
    mode = environments.metadata["autoreset_mode"]
    policy = Policy(load_model(SHIPPED), PolicyConfig(domain="pendulum", slots=SLOTS, autoreset=mode))
    chance = np.random.default_rng(0)
    for name in ("policy", "chance"):
        observation, _ = environments.reset(seed=0)
        reward = done = None
        total = np.zeros(SLOTS)
        for _ in range(200):
            action = policy.act(observation, reward, done) if name == "policy" else chance.uniform(-2, 2, (SLOTS, 1))
            observation, reward, terminated, truncated, _ = environments.step(action.astype(np.float32))
            done, total = terminated | truncated, total + reward
        print(f"mean return of {name}: {total.mean():.0f}")
    environments.close()
