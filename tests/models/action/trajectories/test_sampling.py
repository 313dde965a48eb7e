from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np
import pytest
import torch

from holdfast.errors import ArgumentError
from holdfast.models.action.batch import BatchSource
from holdfast.models.action.config import ActionConfig
from holdfast.models.action.domain import Discrete, Domain, Vector
from holdfast.models.action.model import ActionModel
from holdfast.models.action.trajectories import Sampling, Trajectories, Trajectory, TrajectorySource
from holdfast.nn import BackboneConfig
from tests.models.action.trajectories.episodes import ARM, GAME, GRID, episode

DRAWN = 5000
"""Windows that frequencies are counted in."""

PLACES = Domain(name="places", observation=Vector(2), action=Discrete(2))


def numbered(number: int, steps: int, **fields) -> Trajectory:
    """A trajectory whose observations say which it is and at what step."""
    places = np.stack([np.full(steps + 1, number), np.arange(steps + 1)], axis=1).astype(np.float32)
    given = {"rewards": np.arange(steps, dtype=np.float32), "terminated": True, **fields}
    return Trajectory(observations=places, actions=np.arange(steps) % 2, **given)


def source_of(*lengths: int, **sampling) -> TrajectorySource:
    data = Trajectories.of(PLACES, [numbered(index, steps) for index, steps in enumerate(lengths)])
    return TrajectorySource([data], Sampling(**{"held_out": 0.0, **sampling}))


def several() -> list[Trajectories]:
    return [
        Trajectories.of(domain, [episode(domain, 5 + 3 * seed, seed) for seed in range(6)])
        for domain in (ARM, GRID, GAME)
    ]


def assert_equal_batches(one, other):
    for field in dataclasses.fields(one):
        mine, theirs = getattr(one, field.name), getattr(other, field.name)
        assert torch.equal(mine, theirs) if isinstance(mine, torch.Tensor) else mine == theirs, field.name


def test_a_batch_is_a_function_of_seed_and_number():
    one, other = (TrajectorySource(several(), Sampling(context=4, seed=3)) for _ in range(2))
    drawn = {number: one.batch(number, 8) for number in (5, 0, 17)}
    for number in (0, 17, 5):
        assert_equal_batches(drawn[number], other.batch(number, 8))
    assert one.fingerprint == other.fingerprint
    assert not torch.equal(one.batch(0, 8).action, one.batch(3, 8).action)
    changed = TrajectorySource(several(), Sampling(context=4, seed=4))
    assert not torch.equal(one.batch(0, 8).action, changed.batch(0, 8).action)


def test_the_fingerprint_sees_each_number_and_setting():
    known = {TrajectorySource(several(), Sampling(context=4)).fingerprint}
    known.add(TrajectorySource(several(), Sampling(context=5)).fingerprint)
    known.add(TrajectorySource(several()[::-1], Sampling(context=4)).fingerprint)
    for change in ("actions", "observations", "rewards"):
        data = several()
        getattr(data[0].items[2], change)[1] += 1 / 4
        known.add(TrajectorySource(data, Sampling(context=4)).fingerprint)
    data = several()
    items = (dataclasses.replace(data[1].items[0], labels=data[1].items[0].actions), *data[1].items[1:])
    known.add(TrajectorySource([data[0], Trajectories.of(GRID, items), data[2]], Sampling(context=4)).fingerprint)
    assert len(known) == 7


def test_domains_take_turns():
    source = TrajectorySource(several(), Sampling(context=4))
    assert [source.batch(number, 2).domain.name for number in range(7)] == ["arm", "grid", "game"] * 2 + ["arm"]
    assert list(source.domains) == ["arm", "grid", "game"]


@pytest.mark.parametrize("context", [1, 7, 40])
def test_every_transition_is_as_likely_as_one_in_the_middle(context):
    steps = 40
    batch = source_of(steps, context=context).batch(0, DRAWN)
    seen = np.bincount(batch.observation[batch.valid][:, 1].int().numpy(), minlength=steps)
    expected = DRAWN * context / (steps + context - 1)  # of a transition in the middle
    spread = 6 * np.sqrt(expected)
    assert seen[[0, -1]].min() > expected - spread
    assert seen.min() > expected - spread
    assert len(seen) == steps  # s_T is no transition


def test_trajectories_are_drawn_by_their_length():
    batch = source_of(10, 30, 60, context=5).batch(0, DRAWN)
    drawn = Counter(batch.observation[:, 0, 0].int().tolist())
    for index, share in enumerate((0.1, 0.3, 0.6)):
        assert abs(drawn[index] / DRAWN - share) < 6 * np.sqrt(share * (1 - share) / DRAWN)


def test_windows_run_on_and_are_padded_on_the_right_only():
    source = source_of(3, 9, context=5)
    batch = source.batch(0, 200)
    assert set(batch.valid.sum(1).tolist()) == {3, 5}
    for row in range(200):
        live = int(batch.valid[row].sum())
        assert batch.valid[row, :live].all()
        number, first = batch.observation[row, 0].int().tolist()
        steps = torch.arange(first, first + live)
        assert torch.equal(batch.observation[row, :live, 1], steps.float())
        assert torch.equal(batch.action[row, :live, 0], steps % 2)
        assert batch.reward is not None
        assert batch.returns_to_go is not None
        assert torch.equal(batch.reward[row, :live], steps.float())
        length = (3, 9)[number]
        to_go = torch.tensor([float(sum(range(int(step), length))) for step in steps])
        assert torch.equal(batch.returns_to_go[row, :live], to_go)
        assert not batch.observation[row, live:].any()
        assert not batch.returns_to_go[row, live:].any()


def test_actions_are_moved_to_the_bounds_and_padding_is_zero():
    item = episode(ARM, 3)
    item.actions[:] = [[3.0, 0.5], [-3.0, 0.5], [0.0, 2.0]]
    with pytest.warns(UserWarning, match="arm"):
        data = Trajectories.of(ARM, [item])
    action = TrajectorySource([data], Sampling(context=4)).batch(0, 1).action[0]
    assert action.tolist() == [[2.0, 0.5], [-2.0, 0.5], [0.0, 1.0], [0.0, 0.0]]


def test_labels_are_learnt_and_what_was_done_is_told():
    labelled = dataclasses.replace(numbered(0, 6), labels=np.full(6, 1))
    source = TrajectorySource([Trajectories.of(PLACES, [labelled, numbered(1, 6)])], Sampling(context=6, held_out=0.0))
    batch = source.batch(0, 20)
    assert batch.taken is not None
    for row in range(20):
        clean = bool(batch.observation[row, 0, 0])
        assert batch.taken[row, :, 0].tolist() == [0, 1] * 3
        assert batch.action[row, :, 0].tolist() == ([0, 1] * 3 if clean else [1] * 6)
    assert source_of(6, context=6).batch(0, 2).taken is None


def test_pictures_stay_bytes():
    source = TrajectorySource(several()[2:], Sampling(context=4))
    assert source.batch(0, 2).observation.dtype == torch.uint8
    assert source.batch(0, 2).observation.shape == (2, 4, 1, 8, 6)


@pytest.mark.parametrize(("trajectories", "share", "held"), [(1, 0.5, 0), (2, 0.01, 1), (40, 0.1, 4), (40, 0.0, 0)])
def test_what_is_held_out_is_not_learnt_from(trajectories, share, held):
    source = source_of(*[4] * trajectories, context=4, held_out=share)
    learnt = {int(n) for n in source.batch(0, 4000).observation[:, 0, 0]}
    kept = [int(n) for batch in source.validation(3) for n in batch.observation[:, 0, 0]]
    assert len(kept) == len(set(kept)) == held
    assert learnt.isdisjoint(kept)
    assert len(learnt) == trajectories - held


def test_validation_has_each_transition_once():
    source = source_of(*[11] * 6, context=4, held_out=0.5)
    batches = list(source.validation(4))
    assert [len(batch.valid) for batch in batches] == [4, 4, 1]
    rows = torch.cat([batch.observation[batch.valid] for batch in batches]).int().tolist()
    held = sorted({row[0] for row in rows})
    assert sorted(rows) == [[number, step] for number in held for step in range(11)]
    assert len(held) == 3


def test_a_look_at_the_validation_data_may_take_fewer_windows():
    source = source_of(*[12] * 6, context=4, held_out=0.5, validation_windows=4)
    rows = [tuple(row) for batch in source.validation(10) for row in batch.observation[:, 0].int().tolist()]
    assert len(rows) == len(set(rows)) == 4
    assert len({number for number, _ in rows}) > 1


@pytest.mark.parametrize("fields", [{"terminated": False}, {"rewards": None}])
def test_returns_that_are_not_known_are_refused_or_left_out(fields):
    items = [numbered(index, 5, **fields) for index in range(4)]
    data = [Trajectories.of(PLACES, items)]
    with pytest.raises(ArgumentError, match=r"returns of domain places: .* returns=False.* got 4 of 4"):
        TrajectorySource(data)
    batch = TrajectorySource(data, Sampling(context=4, returns=False)).batch(0, 2)
    assert batch.returns_to_go is None
    assert (batch.reward is None) == ("rewards" in fields)


@pytest.mark.parametrize(
    ("data", "message"),
    [(list, "data: expected trajectories"), (lambda: several() + several()[:1], "got two of arm")],
)
def test_domains_have_to_be_there_and_different(data, message):
    with pytest.raises(ArgumentError, match=message):
        TrajectorySource(data())


@pytest.mark.parametrize("changes", [{"context": 0}, {"held_out": 1.0}, {"validation_windows": 0}])
def test_settings_out_of_range_are_named(changes):
    with pytest.raises(ArgumentError, match=f"^{next(iter(changes))}: expected"):
        Sampling(**changes)


def test_an_action_model_learns_from_the_batches_of_every_domain():
    data = several()
    labelled = tuple(dataclasses.replace(item, labels=item.actions[::-1].copy()) for item in data[0].items)
    source = TrajectorySource([Trajectories.of(ARM, labelled), *data[1:]], Sampling(context=4, held_out=0.3))
    assert isinstance(source, BatchSource)
    backbone = BackboneConfig(mixers=("rat",), dim=16, heads=2)
    config = ActionConfig(backbone=backbone, domains=tuple(source.domains.values()), past_actions=True)
    model = ActionModel(config)
    for batch in (*(source.batch(number, 2) for number in range(3)), *source.validation(4)):
        loss = model.loss(batch)
        assert torch.isfinite(loss.mean)
        assert loss.elements == batch.valid.sum() * batch.domain.action.dims
