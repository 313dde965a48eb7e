"""What is told of the cost of projection and monitor."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from holdfast.benches.plasticity import step
from holdfast.benches.plasticity.resnet import resnet18
from holdfast.errors import ArgumentError
from holdfast.optim import Projector

TIMES = {
    "adam-foreach": [10.0, 20.0],
    "adam-fused": [5.0, 5.0],
    "project": [2.0, 6.0],
    "monitor": [50.0, 50.0],
    "pass": [90.0, 180.0],
}


def test_the_network_is_resnet18():
    with torch.device("meta"):
        model = resnet18(64)
    assert sum(parameter.numel() for parameter in model.parameters()) == 11_173_962  # that of torchvision, other stem
    small = resnet18(4)
    projector = Projector(small, torch.optim.SGD(small.parameters(), lr=0.1))
    assert len(projector.targets) == 20  # of 17 convolutions in a row and 3 across
    assert len(projector._followers) == 20


def test_every_arm_does_its_work():
    arms, wrong = step.subject(replace(step.TOY, device="cpu"))
    assert wrong == []
    assert list(arms) == list(TIMES)
    for arm in arms.values():
        arm.call()


def test_shares_are_taken_within_a_round():
    rows = step.rows_of(TIMES, 50)
    assert rows["training"]["ms"] == 150
    assert rows["project"]["to_adam-foreach"] == pytest.approx(0.25)
    assert (rows["project"]["low"], rows["project"]["high"]) == pytest.approx((0.225, 0.275))
    assert rows["project"]["to_adam-fused"] == pytest.approx(0.8)
    assert rows["monitor / 50"]["to_training"] == pytest.approx((0.01 + 0.005) / 2)
    words, number = step.summary(list(rows.values()), 50, aims=True)
    assert number == pytest.approx(0.25)
    assert "25% of foreach Adam's step (aim 30%), 80% of fused Adam's" in words
    assert "every 50th step 0.75% of it (aim 2%)" in words
    slow = step.rows_of({**TIMES, "project": [4.0, 8.0], "monitor": [500.0, 500.0]}, 50)
    words, _ = step.summary(list(slow.values()), 50, aims=True)
    assert words.count("missed") == 2
    assert "aim" not in step.summary(list(slow.values()), 50, aims=False)[0]
    assert step.summary([], 50, aims=True) == ("no time was measured", None)


def test_settings_that_do_not_fit_are_refused():
    for name in ("width", "batch", "every", "rounds"):
        with pytest.raises(ArgumentError, match=f"{name}: expected a whole number of at least 1"):
            step.run(replace(step.TOY, device="cpu", **{name: 0}), lambda row: None)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="counts copies from a GPU")
def test_what_is_attached_copies_nothing_to_the_host():
    rows = step._copies(replace(step.TOY, device="cuda"))
    assert [row["host_copies"] for row in rows[1::2]] == [row["host_copies"] for row in rows[::2]]
    assert step.copies_of(lambda: torch.ones(1, device="cuda").item()) == 1
