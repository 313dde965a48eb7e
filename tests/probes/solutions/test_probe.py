"""The fingerprint of a network, and of two side by side."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path

import matplotlib
import pytest
import torch
from matplotlib.figure import Figure
from torch import nn
from torch.nn.functional import cross_entropy

from holdfast.errors import ArgumentError
from holdfast.probes.solutions import (
    ContinualEvaluation,
    Fingerprint,
    SolutionSettings,
    compare_solutions,
    probe_solution,
    pruning_curve,
    read_fingerprints,
)
from holdfast.probes.solutions.pruning import largest

matplotlib.use("agg")

QUICK = SolutionSettings(sharpness=False)


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Dropout(0.5), nn.Linear(12, 3, bias=False))


def batch(number: int = 60) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(4)
    return torch.randn(number, 6, generator=generator), torch.arange(3).repeat(number // 3)


def trained(make=lambda p: torch.optim.SGD(p, lr=0.1), seed: int = 0) -> tuple[nn.Sequential, dict[str, torch.Tensor]]:
    model = network(seed)
    initial = copy.deepcopy(model.state_dict())
    optimizer, (x, y) = make(model.parameters()), batch()
    for _ in range(20):
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()
        optimizer.step()
    return model, initial


def state(model: nn.Module) -> dict[str, object]:
    return {
        "weights": copy.deepcopy(model.state_dict()),
        "gradients": [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        "modes": [module.training for module in model.modules()],
        "hooks": [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()],
        "random": torch.get_rng_state(),
    }


def test_the_model_is_left_as_it_was():
    model, initial = trained()
    model[1].eval()
    before = state(model)
    probe_solution(model, batch(), initial=initial)
    torch.testing.assert_close(state(model), before, rtol=0, atol=0)


def test_what_is_said_of_a_trained_network():
    model, initial = trained()
    found = probe_solution(model, batch(), initial=initial, optimizer=torch.optim.SGD(model.parameters(), lr=0.1))
    model.eval().requires_grad_(False)
    x, y = batch()
    h = model[:4](x)
    assert found.loss == pytest.approx(float(cross_entropy(model(x), y)))
    assert found.accuracy == pytest.approx(float((model(x).argmax(1) == y).double().mean()))
    assert found.kept[0].accuracy == found.accuracy
    assert found.representation.nonpositive == pytest.approx(float((h <= 0).double().mean()))
    assert found.representation.uncentred.participation > 1
    assert (found.classes, found.representation.rows, found.representation.features) == (3, 60, 12)
    assert found.conservation.law == "conserved"
    assert found.localisation is not None
    assert len(found.localisation.participation) == 1
    assert found.retention is None
    assert found.provenance.optimizer == "SGD"
    assert found.provenance.settings[0]["lr"] == 0.1
    assert set(found.layers) == {"0", "4"}
    assert found.weights.size == 6 * 12 + 12 * 3
    adam, initial = trained(lambda p: torch.optim.Adam(p, lr=0.01))
    assert probe_solution(adam, batch(), initial=initial, settings=QUICK).conservation.law == "broken"


def test_sharpness_is_that_of_the_loss_in_all_weights():
    model, _ = trained()
    found = probe_solution(model, batch()).sharpness
    model.eval()
    x, y = batch()
    names, sizes = zip(*((name, p.shape) for name, p in model.named_parameters()), strict=True)
    flat = torch.cat([p.detach().flatten() for p in model.parameters()]).double()
    parts = [math.prod(size) for size in sizes]
    model.double()

    def loss(weights: torch.Tensor) -> torch.Tensor:
        named = {n: w.view(s) for n, w, s in zip(names, weights.split(parts), sizes, strict=True)}
        return cross_entropy(torch.func.functional_call(model, named, x.double()), y)

    hessian = torch.autograd.functional.hessian(loss, flat)
    assert found is not None
    assert found.residual < 1e-3
    assert found.largest_eigenvalue == pytest.approx(float(torch.linalg.eigvalsh(hessian)[-1]), rel=1e-3)


def test_numbers_become_json_and_a_picture():
    model, _ = trained()
    found = probe_solution(model, batch(), settings=QUICK, seed=7)
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert plain["schema"] == 1
    assert plain["provenance"]["seed"] == 7
    assert {"torch", "numpy", "python", "holdfast"} <= set(plain["provenance"]["versions"])
    assert plain["scalars"]["drift of column sums"] is None
    assert str(found).startswith("This solution has an accuracy of")
    figure = Figure()
    found.plot(ax := figure.subplots())
    assert list(ax.lines[0].get_ydata()) == [kept.accuracy for kept in reversed(found.kept)]


def test_pruning_keeps_the_largest_and_the_first_of_equals():
    assert largest(torch.tensor([[1.0, -3.0], [2.0, 0.0]]), 0.5).tolist() == [[0, -3], [2, 0]]
    assert largest(torch.ones(2, 2), 0.5).tolist() == [[1, 1], [0, 0]]
    assert largest(torch.ones(10), 0.01).sum() == 1
    with pytest.raises(ArgumentError, match="fraction"):
        largest(torch.ones(2), 0.0)


def test_the_output_layer_keeps_twice_as_many():
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[4.0, 0.1], [1.0, 0.3]]))
        model[1].weight.copy_(torch.tensor([[0.0, 3.0], [1.0, 2.9]]))
    x, target, weights = torch.tensor([[1.0, 0.0]]), torch.tensor([1]), dict(model.named_parameters())
    # Hidden units (4, 1) either way; the output is (3, 6.9) of all weights of the head, and (3, 2.9) of the larger two.
    assert pruning_curve(model, x, target, weights, "1.weight", (0.5,))[0].accuracy == 1
    assert pruning_curve(model, x, target, weights, "", (0.5,))[0].accuracy == 0


def test_images_and_arguments_with_names():
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(2, 4, 3), nn.Linear(4, 3)

        def forward(self, *, image: torch.Tensor, scale: torch.Tensor) -> dict[str, torch.Tensor]:
            h = torch.relu(self.conv(image)).mean((2, 3))
            return type("Output", (), {"logits": self.head(h * scale[:, None])})()

    torch.manual_seed(0)
    model = Named()
    inputs = {"image": torch.randn(12, 2, 5, 5), "scale": torch.ones(12)}
    found = probe_solution(model, (inputs, torch.arange(3).repeat(4)))
    assert found.layers["conv"].size == 4 * 2 * 9
    assert found.sharpness.residual < 1e-3
    assert found.kept[0].accuracy == found.accuracy


def test_snapshots_and_tests_tell_what_is_forgotten():
    x, y = batch()
    tests = [(x[y == first], y[y == first]) for first in (0, 1)]
    model = network()
    evaluation = ContinualEvaluation(model, tests)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for inputs, targets in tests:
        for _ in range(20):
            optimizer.zero_grad()
            cross_entropy(model(inputs), targets).backward()
            optimizer.step()
        evaluation.after_task()
    found = probe_solution(model, batch(), snapshots=evaluation.snapshots, tests=tests, settings=QUICK)
    assert found.retention == evaluation.retention
    assert found.retention.forgetting > 0.5
    assert "of accuracy on old tasks is forgotten" in found.verdict
    assert found.localisation is not None
    assert len(found.localisation.participation) == 2
    assert -1 <= found.localisation.cosine <= 1
    assert 0 < found.localisation.overlap <= 1
    with pytest.raises(ArgumentError, match="the weights of the model as the last"):
        probe_solution(model, batch(), snapshots=evaluation.snapshots[:-1], settings=QUICK)
    with pytest.raises(ArgumentError, match="tests: expected"):
        probe_solution(model, batch(), tests=tests, settings=QUICK)


def test_sequences_give_a_row_for_each_target_that_counts():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(9, 5), nn.GELU(), nn.Linear(5, 9))
    tokens = torch.randint(9, (4, 6), generator=torch.Generator().manual_seed(0))
    targets = tokens.masked_fill(tokens == 3, -100)
    found = probe_solution(model, (tokens, targets), settings=QUICK)
    assert found.representation.rows == int((targets >= 0).sum())
    assert "3" in next(note for note in found.notes if note.startswith("classes without an example"))
    # GELU goes below zero, where the definition for firing rates has no meaning.
    assert math.isnan(found.representation.lifetime)


def test_dead_features_have_rank_zero_and_a_flag():
    model = network()
    with torch.no_grad():
        model[1].weight.zero_()
        model[1].bias.fill_(-1)
    found = probe_solution(model, batch(), settings=QUICK)
    h = found.representation
    assert (h.centred.effective, h.uncentred.participation, h.uncentred.srank, h.dead) == (0, 0, 0, 1)
    assert math.isnan(h.class_cosine)
    assert any("all zero" in note for note in found.notes)


def test_what_cannot_be_differentiated_twice_is_refused():
    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x: torch.Tensor) -> torch.Tensor:
            return x * x

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, gradient: torch.Tensor) -> torch.Tensor:
            return gradient

    def loss(output: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return Once.apply(output).square().mean()

    with pytest.raises(ArgumentError, match="sharpness=False"):
        probe_solution(network(), batch(), loss=loss)


def test_few_rows_are_said():
    found = probe_solution(network(), (batch()[0][:4], torch.tensor([0, 1, 1, 0])), settings=QUICK)
    assert any("fewer rows (4) than features (12)" in note for note in found.notes)
    assert any("classes without an example: 2" in note for note in found.notes)


def test_a_tied_output_layer_has_no_law():
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Embedding(5, 4), nn.Linear(4, 5, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return self.head(torch.relu(self.embed(tokens)))

    torch.manual_seed(0)
    model, tokens = Tied(), torch.arange(5).repeat(3)
    initial = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        model.head.weight.add_(1)
    found = probe_solution(model, (tokens, tokens), initial=initial, settings=QUICK)
    assert found.conservation.law == "not known"
    assert any("tied" in note for note in found.notes)


@pytest.mark.parametrize(
    ("examples", "options", "message"),
    [
        ((batch()[0], batch()[0][:, 0]), {}, "classes as whole numbers"),
        ((batch()[0], batch()[1][:5]), {}, "as many targets"),
        ((batch()[0], batch()[1] + 1), {}, "classes below 3"),
        ((batch()[0], batch()[1] - 9), {}, "at least one class"),
        (batch(), {"head": "2"}, "head: expected the name of a linear output layer"),
        (batch(), {"head": "0"}, "whose outputs are the logits"),
        (batch(), {"initial": {"0.weight": torch.zeros(2)}}, "initial: expected weights of the model"),
        (batch(), {"snapshots": []}, "snapshots"),
    ],
)
def test_what_does_not_fit_is_refused(examples, options, message: str):
    with pytest.raises(ArgumentError, match=message):
        probe_solution(network(), examples, settings=QUICK, **options)


def runs(make, seeds=tuple(range(8))) -> list[Fingerprint]:
    found = []
    for seed in seeds:
        model, initial = trained(make, seed)
        name = type(make(model.parameters())).__name__
        found.append(probe_solution(model, batch(), initial=initial, optimizer=(name, {}), seed=seed, settings=QUICK))
    return found


def test_two_optimisers_side_by_side(tmp_path: Path):
    sgd, adam = (runs(make) for make in (lambda p: torch.optim.SGD(p, lr=0.1), lambda p: torch.optim.Adam(p, lr=0.01)))
    for run in sgd:
        (tmp_path / f"{run.provenance.seed}.json").write_text(json.dumps(run.to_dict()), encoding="utf-8")
    found = compare_solutions(read_fingerprints(tmp_path), [run.to_dict() for run in reversed(adam)])
    assert (found.first, found.second, found.seeds) == ("SGD", "Adam", tuple(range(8)))
    drift = found.differences["drift of column sums"]
    assert drift.interval[1] < 0
    assert "drift of column sums" in found.apart
    gaps = [one.loss - other.loss for one, other in zip(sgd, adam, strict=True)]
    assert found.differences["loss"].mean == pytest.approx(sum(gaps) / 8)
    assert "λ_max" not in found.differences
    assert str(found).startswith("SGD finds another solution than Adam")
    json.dumps(found.to_dict(), allow_nan=False)
    found.plot(ax := Figure().subplots())
    assert "drift of column sums" in [label.get_text() for label in ax.get_yticklabels()]


def test_comparisons_that_cannot_be_are_refused(tmp_path: Path):
    one, two = (run.to_dict() for run in runs(lambda p: torch.optim.SGD(p, lr=0.1), (1, 2)))
    with pytest.raises(ArgumentError, match=r"runs of the seeds \[1\]"):
        compare_solutions([one], [two])
    with pytest.raises(ArgumentError, match="all different"):
        compare_solutions([one, one], [one, two])
    with pytest.raises(ArgumentError, match="fingerprints on one probe batch"):
        compare_solutions([one], [{**one, "provenance": {**one["provenance"], "data": "another"}}])
    with pytest.raises(ArgumentError, match="of schema 1"):
        compare_solutions([one], [{**one, "schema": 0}])
    alone = compare_solutions([one], [one])
    assert "tells nothing of chance" in alone.verdict
    # Two seeds that agree in everything leave as much to chance as two throws of a coin.
    better = [{**run, "scalars": {**run["scalars"], "loss": run["scalars"]["loss"] + 1}} for run in (one, two)]
    found = compare_solutions([one, two], better)
    assert found.differences["loss"].interval[1] < 0
    assert found.apart == []
    (tmp_path / "a.json").write_text(json.dumps(one)[:-9], encoding="utf-8")
    with pytest.raises(ArgumentError, match=r"a\.json"):
        read_fingerprints(tmp_path)


def test_retention_is_not_compared_where_nothing_was_learnt():
    one = runs(lambda p: torch.optim.SGD(p, lr=0.1), (1,))[0].to_dict()
    learnt = {
        **one,
        "scalars": {**one["scalars"], "learn": 0.95, "old": 0.2, "forgetting": 0.7, "backward transfer": -0.7},
    }
    slow = {**learnt, "scalars": {**learnt["scalars"], "learn": 0.7, "old": 0.6}}
    found = compare_solutions([learnt], [slow])
    assert found.differences["old"].reason.startswith("not learnt, retention is meaningless")
    assert not found.differences["loss"].reason
    assert "no comparison" in str(found)
    assert compare_solutions([learnt], [slow], force=True).differences["old"].mean == pytest.approx(-0.4)
