"""Cards of networks and of checkpoints: what they say, and what two of them differ in."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import holdfast.probes.plasticity.demonstration as demonstration
from holdfast.card import Card, CheckSettings, Outcome, check, compare
from holdfast.card.checks import plasticity, solutions
from holdfast.card.target import Kind, Target, recognise
from holdfast.errors import ArgumentError
from holdfast.lab.report.svg import PALETTE
from holdfast.optim import ProjectionWarning, apply_masks_, magnitude_masks, normalize_

PROBES = ("plasticity", "solutions")
GENEROUS = 600.0
"""Seconds: a slow machine changes nothing of what is measured."""


def make() -> nn.Sequential:
    return nn.Sequential(nn.Linear(16, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, 4))


def examples(seed: int, number: int = 300) -> tuple[torch.Tensor, torch.Tensor]:
    """Four clouds, some of which reach into each other."""
    generator = torch.Generator().manual_seed(7)
    centres = torch.randn(4, 16, generator=generator)
    generator.manual_seed(seed)
    labels = torch.randint(4, (number,), generator=generator)
    return centres[labels] + 0.8 * torch.randn(number, 16, generator=generator), labels


def train(model: nn.Module, steps: int) -> nn.Module:
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    inputs, labels = examples(0)
    for _ in range(steps):
        optimizer.zero_grad()
        places = torch.randint(len(labels), (50,))
        cross_entropy(model(inputs[places]), labels[places]).backward()
        optimizer.step()
    return model


def card(model: nn.Module, factory=make, data=lambda: examples(1), seed: int = 100, probes=PROBES) -> Card:
    settings = CheckSettings(seed=seed, data=data, peak=1e-2, budget_s=GENEROUS)
    return check(model, factory=factory, probes=probes, settings=settings)


@pytest.fixture(scope="module", autouse=True)
def short():
    """Half as many steps as there is time for, and half as many tasks that wear a network out."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plasticity, "STEPS", (120,))
        patch.setattr(demonstration, "TASKS", 15)
        yield


@pytest.fixture(scope="module")
def worn():
    model, data, _ = demonstration.worn_network(100, progress=False)
    return model, data


@pytest.fixture(scope="module")
def dense() -> nn.Module:
    torch.manual_seed(100)
    return train(make(), 200)


@pytest.fixture(scope="module")
def worn_card(worn) -> Card:
    return card(worn[0], demonstration.fresh_network, lambda: worn[1])


@pytest.fixture(scope="module")
def dense_card(dense) -> Card:
    return card(dense)


def test_fresh_and_worn_differ_in_plasticity_alone(worn, worn_card):
    torch.manual_seed(1100)
    fresh = demonstration.fresh_network()
    before = {name: value.clone() for name, value in fresh.state_dict().items()}
    state = torch.get_rng_state()
    other = card(fresh, demonstration.fresh_network, lambda: worn[1])
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], value) for name, value in fresh.state_dict().items())
    assert other.finding("plasticity").outcome is Outcome.HOLDS
    lost = worn_card.finding("plasticity")
    assert lost.outcome is Outcome.FAILS
    assert lost.sentence.startswith("It has lost the ability to learn")
    named = compare(other, worn_card).beyond_noise
    assert {difference.probe for difference in named} == {"plasticity"}
    assert named[0].better == "here"
    here, there = (one.finding("plasticity").measures[0] for one in (other, worn_card))
    assert here.units == there.units, "beside the same fresh networks"
    assert len(here.values) == len(there.values) == plasticity.DRAWS
    assert here.spread == there.spread > 0
    assert here.spread_degrees == plasticity.TWINS - 1
    # Neither is right more often than chance, so that nothing is said of what pruning costs.
    for one in (other, worn_card):
        finding = one.finding("solutions")
        assert finding.outcome is Outcome.NOT_TOLD
        assert [measure.name for measure in finding.measures] == ["zero weights"]


def test_the_remedy_of_a_worn_network_runs_as_it_stands(worn, worn_card):
    model = demonstration.fresh_network()
    model.load_state_dict(worn[0].state_dict())
    names = {"model": model, "torch": torch, "make_network": demonstration.fresh_network}
    remedy = worn_card.finding("plasticity").remedy
    assert remedy is not None
    exec(remedy.code, names)
    inputs, labels = worn[1]
    held = float(model[0].weight.detach().norm())
    cross_entropy(model(inputs), labels).backward()
    names["optimizer"].step()
    assert float(model[0].weight.detach().norm()) == pytest.approx(held, rel=1e-5)


def test_the_remedy_that_puts_norms_back_runs_as_it_stands():
    torch.manual_seed(0)
    model = normalize_(make())
    with torch.no_grad():
        model[0].weight *= 10
    names = {"model": model, "torch": torch, "make_network": lambda: normalize_(make())}
    names["optimizer"] = torch.optim.Adam(model.parameters())
    with pytest.warns(ProjectionWarning, match="change now"):
        exec(plasticity.REMEDIES["project"].code.format(optimizer="Adam", peak=1e-3), names)
    fresh = make()
    assert float(model[0].weight.detach().norm()) == pytest.approx(float(fresh[0].weight.detach().norm()), rel=0.2)


def test_dense_and_pruned_differ_in_their_zeros_alone(dense, dense_card):
    pruned = make()
    pruned.load_state_dict(dense.state_dict())
    apply_masks_(pruned, magnitude_masks(pruned, 0.5))
    other = card(pruned)
    named = compare(dense_card, other).beyond_noise
    # Half of the weights and fewer are the same ones in both, though the second loses less by it.
    assert [difference.measure for difference in named] == ["zero weights"]
    assert other.finding("solutions").outcome is Outcome.HOLDS
    assert "of its weights are zero" in other.finding("solutions").sentence


def test_an_output_that_hides_what_features_know_is_a_failure_with_its_remedy(dense):
    torch.manual_seed(0)
    model = make()
    model.load_state_dict(dense.state_dict())
    with torch.no_grad():
        model[4].bias[2:] -= 100  # two classes are never named
    finding = card(model, probes=("solutions",)).finding("solutions")
    assert finding.outcome is Outcome.FAILS
    assert finding.sentence.startswith("It knows more than it says")
    assert finding.remedy is not None
    exec(finding.remedy.code, {"model": model})
    assert [name for name, parameter in model.named_parameters() if parameter.requires_grad] == ["4.weight", "4.bias"]


def test_a_fresh_network_that_is_right_by_luck_has_learnt_nothing():
    """It answers alike to all of a class, so that a binomial test of its examples takes luck for knowledge."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(10, (1000,), generator=generator)
    inputs = 3 * torch.randn(10, 16, generator=generator)[labels] + torch.randn(1000, 16, generator=generator)
    share, margin = solutions._by_chance(labels)
    lucky, known = 0, 0
    for seed in range(100, 160):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(16, 48), nn.ReLU(), nn.Linear(48, 10))
        right = float((model(inputs).argmax(1) == labels).double().mean()) > share + margin
        lucky += right
        known += right and solutions._has_learnt(Target(Kind.NETWORK, "", model, ""), model, (inputs, labels), seed)
    assert lucky >= 10
    assert known <= 7  # of 60 at a level of .05: more in less than one of a hundred sets of seeds
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(100):
        optimizer.zero_grad()
        cross_entropy(model(inputs), labels).backward()
        optimizer.step()
    assert solutions._has_learnt(Target(Kind.NETWORK, "", model, ""), model, (inputs, labels), 0)


def test_a_network_that_its_function_draws_anew_is_not_judged(dense):
    inputs, labels = examples(1)
    untrained = recognise(make)
    assert not solutions._has_learnt(untrained, untrained.subject, (inputs, labels), 0)
    known = recognise(lambda: dense)
    assert solutions._has_learnt(known, dense, (inputs, labels), 0)
    assert solutions._has_learnt(recognise(dense, factory=make), dense, (inputs, labels), 0)


def test_few_examples_decide_nothing(dense):
    finding = card(dense, data=lambda: examples(1, 60), probes=("solutions",)).finding("solutions")
    assert finding.outcome is Outcome.NOT_TOLD
    assert "60 examples" in finding.sentence


def write_run(folder: Path, models: list[nn.Module], rates: list[float]) -> Path:
    """Checkpoints as the Trainer of Hugging Face leaves them."""
    safetensors = pytest.importorskip("safetensors.torch")
    for number, model in enumerate(models, 1):
        place = folder / f"checkpoint-{number * 50}"
        place.mkdir(parents=True)
        safetensors.save_file(model.state_dict(), place / "model.safetensors")
        history = [{"step": 50 * step, "learning_rate": rate} for step, rate in enumerate(rates[:number], 1)]
        (place / "trainer_state.json").write_text(json.dumps({"log_history": [*history, {"eval_loss": 1.0}]}))
    return folder


def scaled(model: nn.Module, factor: float) -> nn.Module:
    other = make()
    other.load_state_dict({name: value * factor for name, value in model.state_dict().items()})
    return other


def test_checkpoints_alone_tell_norms_and_ranks_and_no_more(tmp_path, dense):
    run = write_run(tmp_path / "run", [dense, scaled(dense, 2), scaled(dense, 4)], [1e-2, 1e-2, 5e-3])
    found = check(run, probes=PROBES, settings=CheckSettings(budget_s=GENEROUS))
    norms, ranks = (found.finding(name) for name in PROBES)
    assert norms.outcome is ranks.outcome is Outcome.NOT_TOLD
    assert norms.report["growth"] == pytest.approx(4, rel=1e-6)
    # Half of the rate, at four times the norm.
    assert norms.report["effective_rate"] == pytest.approx(1 / 8, rel=1e-6)
    assert norms.sentence.startswith("Not told by weights alone. From checkpoint-50 to checkpoint-150")
    assert ranks.report["rank_change"] == pytest.approx(1, rel=1e-6)
    assert norms.measures[0].value == pytest.approx(math.log(4), rel=1e-6)
    assert not compare(found, found).beyond_noise


def test_a_run_with_its_function_tells_the_first_checkpoint_beside_the_last(tmp_path, worn):
    torch.manual_seed(1)
    run = write_run(tmp_path / "run", [demonstration.fresh_network(), worn[0]], [1e-2, 1e-2])
    settings = CheckSettings(seed=100, data=lambda: worn[1], budget_s=GENEROUS)  # the rate is noted in the run
    found = check(run, factory=demonstration.fresh_network, probes=("plasticity",), settings=settings)
    finding = found.finding("plasticity")
    assert finding.outcome is Outcome.FAILS
    assert "(at checkpoint-50 it was " in finding.sentence
    assert finding.report["first"]["peak"]["ratio"] > 0.8 > finding.report["last"]["peak"]["ratio"]


def test_weights_in_several_files_are_read_and_damage_is_one_line(tmp_path, dense):
    safetensors = pytest.importorskip("safetensors.torch")
    run = write_run(tmp_path / "run", [dense, dense], [1e-2, 1e-2])
    last, state = run / "checkpoint-100", dense.state_dict()
    (last / "model.safetensors").unlink()
    names = {name: f"model-{number}.safetensors" for number, name in enumerate(state)}
    for name, part in names.items():
        safetensors.save_file({name: state[name]}, last / part)
    index = last / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": names}))
    whole = check(run, probes=("plasticity",)).finding("plasticity")
    assert whole.report["growth"] == pytest.approx(1)
    for damage in ({"weight_map": {"a": "../elsewhere.safetensors"}}, {"weight_map": 3}, []):
        index.write_text(json.dumps(damage))
        broken = check(run, probes=("plasticity",)).finding("plasticity")
        assert broken.outcome is Outcome.NOT_RUN
        assert "an index with the names of files beside it" in broken.sentence
    index.unlink()
    assert "which has neither" in check(run, probes=("plasticity",)).finding("plasticity").sentence
    (last / "model.safetensors").write_bytes(b"\0" * 40)
    assert "a whole file of safetensors" in check(run, probes=("plasticity",)).finding("plasticity").sentence


def test_what_is_missing_is_named(dense):
    network = recognise(dense)
    assert "function that makes a fresh network" in plasticity.unfit(network, CheckSettings())
    assert "--data" in solutions.unfit(network, CheckSettings())
    made = recognise(dense, factory=make)
    assert "--data" in plasticity.unfit(made, CheckSettings())
    with_data = CheckSettings(data=lambda: examples(1))
    assert "--peak" in plasticity.unfit(made, with_data)
    assert solutions.unfit(network, with_data) == ""
    function = recognise("builtins:sorted")
    assert function.kind is Kind.FUNCTION
    assert plasticity.unfit(function, with_data)
    assert solutions.unfit(function, with_data)
    with pytest.raises(ArgumentError, match="factory"):
        recognise("builtins:sorted", factory=make)


def test_a_rate_that_an_optimizer_has_no_use_for_is_not_run(dense):
    settings = CheckSettings(data=lambda: examples(1), peak=1e-2, optimizer="lion")
    finding = check(dense, factory=make, probes=("plasticity",), settings=settings).finding("plasticity")
    assert finding.outcome is Outcome.NOT_RUN
    assert "one of adam, adamw, sgd, rmsprop" in finding.sentence


def test_lines_of_a_picture_that_coincide_are_all_seen(worn_card):
    """A worn network learns as little with its norms put back as without: both losses lie on one line."""
    drawn = worn_card.finding("plasticity").picture
    blue, green = PALETTE[0], PALETTE[2]
    lines = re.findall(r'<path d="M[^"]*"[^>]*style="fill: none; (stroke[^"]*)"', drawn)
    assert any(blue in line and "dasharray" not in line for line in lines)
    broken = [line for line in lines if green in line]
    assert len(broken) == 2, "the line and its sample in the legend"
    assert len(set(broken)) == 1
    assert "dasharray" in broken[0]
