"""The policy that comes with the package."""

from __future__ import annotations

import json

import pytest

from holdfast.cli.train import action_options
from holdfast.models.action.checkpoint import SHIPPED, load_model
from holdfast.models.action.recipe import ActionRecipe
from holdfast.rl.classic_control import TASKS
from holdfast.rl.stepping import Policy, PolicyConfig


def test_it_is_small_and_has_all_tasks_with_a_target() -> None:
    assert SHIPPED.stat().st_size < 3_000_000
    model = load_model(SHIPPED)
    assert {domain.name for domain in model.config.domains} == set(TASKS)
    for domain in model.config.domains:
        task = TASKS[domain.name]
        assert domain.target_return is not None
        assert domain.target_return > (task.random_return + task.expert_return) / 2


def test_it_does_what_its_scores_say() -> None:
    """Acrobot ends once it is done. Three episodes are not a hundred, so that the bar is lower than the score."""
    scores = json.loads(SHIPPED.with_name("scores.json").read_text())
    assert scores["tasks"]["acrobot"]["score"] > 0.9
    policy = Policy(load_model(SHIPPED), PolicyConfig(domain="acrobot", slots=3, autoreset="next_step"))
    assert TASKS["acrobot"].evaluate(policy, 3, seed=2_000_000, slots=3).score > 0.7


def test_the_command_beside_it_gives_its_settings() -> None:
    import shlex

    from holdfast.cli.parsing import parse

    account = json.loads(SHIPPED.with_name("training.json").read_text())
    words = shlex.split(account["command"])
    assert words[:3] == ["holdfast", "train", "action"]
    asked = parse(action_options(ActionRecipe), "holdfast train action", words[3:])
    assert asked.recipe.to_dict() == account["recipe"]
    assert account["parameters"] == sum(tensor.numel() for tensor in load_model(SHIPPED).parameters())
    assert account["validation_loss"] == pytest.approx(sum(account["domains"].values()) / 4)
