"""The schedule writes what its course says, begins anew when it should, and goes on bit for bit."""

from __future__ import annotations

import copy
import io
import math
import pickle
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer

from holdfast.errors import ArgumentError
from holdfast.optim.rewarming.cusum import Cusum
from holdfast.optim.rewarming.schedule import Rewarm, RewarmOptions, RewarmWarning

PEAK, FINAL, PERIOD = 1e-2, 1e-4, 100


def optimizer_of(*rates: float, kind: type[Optimizer] = SGD) -> Optimizer:
    """An optimiser with one small group for each rate."""
    return kind([{"params": [nn.Parameter(torch.ones(2, 2))], "lr": rate} for rate in rates or (0.1,)])


def schedule(optimizer: Optimizer | None = None, **settings: Any) -> Rewarm:
    """The schedule of the table."""
    return Rewarm(optimizer or optimizer_of(), **{"peak": PEAK, "final": FINAL, "period": PERIOD, **settings})


def advance(rewarm: Rewarm, steps: int, loss: float | Tensor | None = None) -> list[float]:
    """Rates with which the optimiser makes its next steps."""
    rates = []
    for _ in range(steps):
        rates.append(float(rewarm.optimizer.param_groups[0]["lr"]))
        rewarm.optimizer.step()
        rewarm.step(loss)
    return rates


def expected(position: int, rewarm: Rewarm, number: int = 0) -> float:
    return rewarm.course.rate(position, number)


def test_the_table() -> None:
    rates = advance(schedule(), 130)
    assert rates[0] == 0.01
    assert rates[50] == pytest.approx(0.00505, rel=1e-14)
    assert rates[100:] == [0.0001] * 30


def test_it_is_a_scheduler_of_torch() -> None:
    rewarm = schedule()
    assert isinstance(rewarm, torch.optim.lr_scheduler.LRScheduler)
    assert rewarm.get_last_lr() == [PEAK]
    advance(rewarm, 30)
    assert rewarm.last_epoch == 30
    assert rewarm.get_last_lr() == [expected(30, rewarm)] == rewarm.get_lr()


def test_cycles_follow_each_other_and_end() -> None:
    rewarm = schedule(cyclic=True, period=40, warmup=4, peaks=[0.02, 0.005], max_cycles=3)
    rates = advance(rewarm, 200)
    assert rates[:120] == [expected(step % 40, rewarm, step // 40) for step in range(120)]
    assert rates[120:] == [FINAL] * 80
    assert max(rates[40:80]) == 0.02
    assert not rewarm.trigger()
    assert rewarm.events[-1].kind == "passed over"


def test_a_trigger_begins_a_cycle_with_the_next_step() -> None:
    rewarm = schedule(peaks=0.5)
    advance(rewarm, 91)
    assert rewarm.trigger()
    assert advance(rewarm, 130) == [expected(step, rewarm, 1) for step in range(130)]
    assert rewarm.rate == FINAL
    assert [(event.step, event.kind) for event in rewarm.events] == [(91, "rewarmed")]


def test_a_trigger_between_the_steps_of_optimiser_and_schedule_loses_no_step() -> None:
    rewarm = schedule()
    advance(rewarm, 20)
    rewarm.optimizer.step()
    rewarm.trigger()
    rewarm.step()
    assert rewarm.last_epoch == 21
    assert advance(rewarm, 3) == [expected(step, rewarm, 1) for step in range(3)]


def test_a_trigger_within_cycles_moves_all_that_follow() -> None:
    rewarm = schedule(cyclic=True, peaks=0.5)
    advance(rewarm, 250)
    rewarm.trigger()
    assert rewarm.cycle == 3
    assert advance(rewarm, 150) == [expected(step % 100, rewarm, 3 + step // 100) for step in range(150)]


def test_a_trained_network_waits_at_the_final_rate() -> None:
    rewarm = schedule(options=RewarmOptions(waiting=True), max_cycles=1)
    assert advance(rewarm, 300) == [FINAL] * 300
    assert (rewarm.position, rewarm.cycle) == (None, -1)
    assert rewarm.trigger()
    assert advance(rewarm, 100) == [expected(step, rewarm) for step in range(100)]
    assert not rewarm.trigger()


def stream(changes: list[int], total: int, seed: int = 0) -> list[float]:
    """Losses that decay to 1 ± 0.1, and jump to 3 at each change."""
    noise = np.random.default_rng(seed).normal(0, 0.1, total)
    since = np.arange(total)
    for change in changes:
        since[change:] = np.arange(total - change)
    return (1 + 2 * np.exp(-since / 20.0) + noise).tolist()


def feed(rewarm: Rewarm, losses: list[float]) -> None:
    for loss in losses:
        rewarm.optimizer.step()
        rewarm.step(loss)


def test_the_detector_starts_cycles() -> None:
    rewarm = schedule(trigger=Cusum(), warmup=10)
    feed(rewarm, stream([300, 600, 900], 1200))
    found = [event.step for event in rewarm.events if event.kind == "rewarmed"]
    assert len(found) == rewarm.cycle == 3
    for change, step in zip([300, 600, 900], found, strict=True):
        assert change < step <= change + 25


def test_a_function_of_the_loss_is_a_trigger() -> None:
    seen: list[float] = []

    def above(loss: float) -> bool:
        seen.append(loss)
        return loss > 5

    rewarm = schedule(trigger=above)
    feed(rewarm, [1.0] * 80 + [6.0])
    assert rewarm.position == 0
    assert len(seen) == 81


def test_alarms_are_passed_over_while_the_rate_rises() -> None:
    always = schedule(trigger=lambda loss: True, warmup=30)
    feed(always, [1.0] * 400)
    assert [event.step for event in always.events if event.kind == "rewarmed"] == [80, 160, 240, 320, 400]
    assert {event.kind for event in always.events} == {"rewarmed", "passed over"}
    later = schedule(trigger=lambda loss: True, warmup=30, options=RewarmOptions(refractory=150))
    feed(later, [1.0] * 400)
    assert [event.step for event in later.events if event.kind == "rewarmed"] == [150, 300]


def test_the_refractory_time_counts_from_cycles_too() -> None:
    rewarm = schedule(trigger=lambda loss: True, cyclic=True, period=60)
    feed(rewarm, [1.0] * 70)
    assert [event.step for event in rewarm.events if event.kind == "rewarmed"] == [50]
    rewarm = schedule(trigger=lambda loss: rewarm.last_epoch >= 100, cyclic=True, period=90)
    feed(rewarm, [1.0] * 150)
    assert [event.step for event in rewarm.events if event.kind == "rewarmed"] == [140]


def test_the_detector_has_a_ration() -> None:
    rewarm = schedule(trigger=lambda loss: True, options=RewarmOptions(max_rewarm_per_1k=2))
    feed(rewarm, [1.0] * 1200)
    assert [event.step for event in rewarm.events if event.kind == "rewarmed"] == [50, 100, 1050, 1100]
    assert rewarm.trigger()  # the user's word is not rationed


def test_a_waiting_schedule_hears_the_first_alarm() -> None:
    rewarm = schedule(trigger=lambda loss: loss > 5, options=RewarmOptions(waiting=True))
    feed(rewarm, [1.0, 6.0])
    assert (rewarm.position, rewarm.cycle) == (0, 0)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_no_number_is_left_out_with_a_warning(bad: float) -> None:
    losses = stream([300], 400)
    clean, dirty = schedule(trigger=Cusum()), schedule(trigger=Cusum())
    feed(clean, losses)
    feed(dirty, losses[:120])
    with pytest.warns(RewarmWarning, match="left out"):
        feed(dirty, [bad])
    feed(dirty, [bad])  # once is enough
    feed(dirty, losses[120:])
    assert dirty.ignored == 2
    assert [event.step for event in dirty.events] == [event.step + 2 for event in clean.events] != []
    assert not any(math.isnan(rate) for rate in dirty.get_last_lr())


def test_a_rate_that_is_too_high_falls() -> None:
    guarded = RewarmOptions(divergence=10.0)
    rewarm = schedule(options=guarded)
    feed(rewarm, [1.0] * 30 + [9.0])
    assert rewarm.rate == expected(31, rewarm)
    with pytest.warns(RewarmWarning, match="falls to 0.0001"):
        feed(rewarm, [11.0])
    assert rewarm.get_last_lr() == [FINAL]
    assert [(event.step, event.kind) for event in rewarm.events] == [(32, "diverged")]
    feed(rewarm, [100.0] * 5)  # it can fall no further
    assert len(rewarm.events) == 1
    assert rewarm.trigger()
    assert rewarm.get_last_lr() == [PEAK]
    for losses in ([1.0] * 9 + [100.0], [-1.0] * 20 + [5.0]):  # too few to know; no scale to compare with
        other = schedule(options=guarded)
        feed(other, losses)
        assert not other.events
    with pytest.warns(RewarmWarning):
        feed(other, [math.nan])
    assert other.events[-1].kind == "diverged"
    assert other.rate == FINAL


def test_a_cycle_that_diverged_is_followed_by_the_next() -> None:
    rewarm = schedule(options=RewarmOptions(divergence=10.0), cyclic=True)
    feed(rewarm, [1.0] * 30)
    with pytest.warns(RewarmWarning, match="falls"):
        feed(rewarm, [50.0])
    feed(rewarm, [1.0] * 68)
    assert rewarm.rate == FINAL
    feed(rewarm, [1.0])
    assert rewarm.rate == PEAK


def test_too_few_steps_are_said() -> None:
    with pytest.warns(RewarmWarning, match="at step 0 of 90"):
        schedule(options=RewarmOptions(total_steps=90))
    rewarm = schedule(options=RewarmOptions(total_steps=250))
    feed(rewarm, [1.0] * 150)
    rewarm.trigger()
    feed(rewarm, [1.0])
    with pytest.warns(RewarmWarning, match="at step 151 of 250"):
        rewarm.trigger()
    cyclic = schedule(cyclic=True, options=RewarmOptions(total_steps=250))
    feed(cyclic, [1.0] * 199)
    with pytest.warns(RewarmWarning, match="at step 200 of 250"):
        feed(cyclic, [1.0])


def test_groups_keep_their_proportions() -> None:
    rewarm = schedule(optimizer_of(0.01, 0.1, 0.0))
    assert rewarm.get_last_lr() == pytest.approx([PEAK / 10, PEAK, 0.0], rel=1e-15)
    advance(rewarm, 50)
    assert rewarm.get_last_lr() == pytest.approx([0.000505, 0.00505, 0.0], rel=1e-14)


def test_a_group_that_is_added_follows() -> None:
    optimizer = optimizer_of(0.1)
    rewarm = schedule(optimizer)
    advance(rewarm, 50)
    optimizer.add_param_group({"params": [nn.Parameter(torch.ones(3))], "lr": 0.2})
    optimizer.step()
    rewarm.step()
    assert rewarm.get_last_lr() == [expected(51, rewarm), expected(51, rewarm) * 2]
    assert rewarm.trigger()
    assert rewarm.get_last_lr() == [PEAK, 2 * PEAK]


def test_a_rate_in_a_tensor_is_filled() -> None:
    parameter = nn.Parameter(torch.ones(2, 2))
    optimizer = Adam([parameter], lr=torch.tensor(0.1), capturable=False)
    rate = optimizer.param_groups[0]["lr"]
    rewarm = schedule(optimizer)
    advance(rewarm, 50)
    assert optimizer.param_groups[0]["lr"] is rate
    assert rate.item() == pytest.approx(0.00505, rel=1e-6)
    last = rewarm.get_last_lr()[0]
    assert isinstance(last, Tensor)
    assert last is not rate


def test_steps_that_a_scaler_leaves_out_do_not_count() -> None:
    for fused in (False, True):
        parameter = nn.Parameter(torch.ones(2, 2))
        optimizer = Adam([parameter], fused=fused)
        seen: list[float] = []
        rewarm = schedule(optimizer, trigger=lambda loss, seen=seen: bool(seen.append(loss)))
        scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
        for gradient, count in ((1.0, 1), (math.inf, 1), (math.nan, 1), (1.0, 2)):
            optimizer.zero_grad()
            scaler.scale((parameter * gradient).sum()).backward()
            scaler.step(optimizer)
            scaler.update()
            rewarm.step(1.0)
            assert rewarm.last_epoch == count, f"fused={fused}"
        assert seen == [1.0, 1.0]  # nor do their losses


def test_gradients_that_are_summed_up_count_once() -> None:
    seen: list[float] = []
    rewarm = schedule(trigger=lambda loss: bool(seen.append(loss)))
    for batch in range(12):
        if batch % 4 == 3:
            rewarm.optimizer.step()
        rewarm.step(float(batch))
    assert rewarm.last_epoch == 3
    assert seen == [3.0, 7.0, 11.0]


def test_the_loss_may_come_later() -> None:
    rewarm = schedule(trigger=lambda loss: loss > 5, options=RewarmOptions(waiting=True))
    rewarm.optimizer.step()
    rewarm.step()
    rewarm.step(6.0)
    assert rewarm.cycle == 0
    assert rewarm.last_epoch == 1


def test_a_schedule_without_steps_of_the_optimiser_says_so() -> None:
    rewarm = schedule()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(24):
            rewarm.step()
    with pytest.warns(RewarmWarning, match="made no step"):
        rewarm.step()
    assert rewarm.get_last_lr() == [PEAK]


def test_a_loss_on_the_device_is_taken_and_a_batch_of_losses_is_not() -> None:
    rewarm = schedule(trigger=Cusum())
    advance(rewarm, 3, torch.tensor([1.5], requires_grad=True))
    assert rewarm.detector.mean == 1.5
    with pytest.raises(ArgumentError, match=r"loss: .*\(3,\)"):
        advance(rewarm, 1, torch.ones(3))


def test_moments_stay_unless_told() -> None:
    for reset in (False, True):
        optimizer = optimizer_of(kind=Adam)
        parameter = optimizer.param_groups[0]["params"][0]
        rewarm = schedule(optimizer, options=RewarmOptions(reset_moments=reset))
        for _ in range(3):
            parameter.grad = torch.ones_like(parameter)
            optimizer.step()
            rewarm.step()
        rewarm.trigger()
        optimizer.step()
        assert optimizer.state[parameter]["step"].item() == (1 if reset else 4)


def test_it_is_copied_and_pickled_with_its_optimiser() -> None:
    optimizer = optimizer_of()
    rewarm = schedule(optimizer, trigger=Cusum())
    advance(rewarm, 60, 1.0)
    for twin_optimizer, twin in (
        copy.deepcopy((optimizer, rewarm)),
        pickle.loads(pickle.dumps((optimizer, rewarm))),
    ):
        assert twin.optimizer is twin_optimizer is not optimizer
        assert twin.detector is not rewarm.detector
        twin.trigger()
        assert advance(twin, 5) == [expected(step, twin, 1) for step in range(5)]
    assert rewarm.last_epoch == 60


def test_something_else_may_write_the_rate() -> None:
    rewarm = schedule()
    advance(rewarm, 10)
    rewarm.optimizer.param_groups[0]["lr"] = 7.0
    rewarm.apply()
    assert rewarm.optimizer.param_groups[0]["lr"] == expected(10, rewarm)


TOGETHER = """
import os, sys, torch
from torch import distributed, nn
from holdfast.optim.rewarming.cusum import Cusum
from holdfast.optim.rewarming.schedule import Rewarm, RewarmOptions

folder, rank = sys.argv[1], int(os.fork() == 0)
distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
losses = torch.load(f"{folder}/losses", weights_only=True)[rank]
asked, after = [], []
for trigger in (Cusum(), lambda loss: bool(asked.append(loss)) or loss > 2.5):
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(2))], lr=0.1)
    rewarm = Rewarm(optimizer, peak=0.1, final=0.01, period=100, trigger=trigger)
    for loss in losses:
        optimizer.step()
        rewarm.step(loss)
    after.append(rewarm.state_dict())
torch.save((after, asked), f"{folder}/{rank}")
distributed.barrier()
distributed.destroy_process_group()
if rank == 0:
    os.wait()
"""


def test_processes_that_train_together_follow_the_first(tmp_path: Path) -> None:
    """The second process sees a jump that the first does not see, and none of the first's."""
    losses = [stream([200], 400, seed=1), stream([300], 400, seed=2)]
    torch.save(losses, tmp_path / "losses")
    (tmp_path / "together.py").write_text(TOGETHER)
    command = [sys.executable, str(tmp_path / "together.py"), str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stderr
    (first, asked), (second, not_asked) = (torch.load(tmp_path / str(rank), weights_only=True) for rank in range(2))
    assert first == second
    assert asked == losses[0]
    assert not_asked == []
    alone = schedule(peak=0.1, final=0.01, trigger=Cusum())
    feed(alone, losses[0])
    assert first[0] == alone.state_dict()
    assert [event.kind for event in alone.events] == ["rewarmed"]
    assert 200 < alone.events[0].step < 225


# -- saved and loaded --------------------------------------------------------------------------------------------------


SCRIPT = """
import sys, torch
from torch import nn
from holdfast.optim.rewarming.cusum import Cusum
from holdfast.optim.rewarming.schedule import Rewarm, RewarmOptions

state = torch.load(sys.argv[1], weights_only=True)
after = []
for order in (1, -1):  # the optimiser is loaded first, or last
    parameters = [nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 2))]
    optimizer = torch.optim.Adam([{"params": [parameters[0]]}, {"params": [parameters[1]], "lr": 3e-4}], lr=1e-3)
    rewarm = Rewarm(optimizer, **{**state["settings"], "trigger": Cusum(), "options": RewarmOptions(divergence=50.0)})
    for part in (optimizer, rewarm)[::order]:
        part.load_state_dict(state["optimizer" if part is optimizer else "rewarm"])
    rates = []
    for step, loss in enumerate(state["losses"], 73):
        if step == 91:
            rewarm.trigger()
        rates.append([group["lr"].hex() for group in optimizer.param_groups])
        optimizer.step()
        rewarm.step(loss)
    after.append({"rates": rates, "rewarm": rewarm.state_dict()})
torch.save(after, sys.argv[1] + ".after")
"""


def two_groups() -> Adam:
    parameters = [nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 2))]
    return Adam([{"params": [parameters[0]]}, {"params": [parameters[1]], "lr": 3e-4}], lr=1e-3)


def test_a_fresh_process_goes_on_bit_for_bit(tmp_path: Path) -> None:
    """Saved at step 73, triggered at 91, and by the detector after a jump of the loss at 200."""
    settings = {"peak": PEAK, "final": FINAL, "period": PERIOD, "warmup": 7, "peaks": [0.03, 0.005]}
    losses = stream([200], 273)
    rewarm = Rewarm(two_groups(), **settings, trigger=Cusum(), options=RewarmOptions(divergence=50.0))
    feed(rewarm, losses[:73])
    file = tmp_path / "state"
    optimizer = rewarm.optimizer
    saved = {"optimizer": optimizer.state_dict(), "rewarm": rewarm.state_dict()}
    torch.save({**saved, "settings": settings, "losses": losses[73:]}, file)
    rates = []
    for step, loss in enumerate(losses[73:], 73):
        if step == 91:
            rewarm.trigger()
        rates.append([group["lr"].hex() for group in optimizer.param_groups])
        optimizer.step()
        rewarm.step(loss)
    assert rewarm.events[0].step == 91
    assert rewarm.cycle == 2  # the detector's too
    (tmp_path / "go_on.py").write_text(SCRIPT)
    command = [sys.executable, str(tmp_path / "go_on.py"), str(file)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stderr
    after = torch.load(f"{file}.after", weights_only=True)
    assert len(rates) == 200
    assert after == [{"rates": rates, "rewarm": rewarm.state_dict()}] * 2


def test_a_step_that_was_not_taken_yet_is_saved() -> None:
    """Between the optimiser's step and the schedule's, where some trainers write their checkpoints."""
    rewarm = schedule()
    advance(rewarm, 10)
    rewarm.optimizer.step()
    late = schedule()
    late.load_state_dict(rewarm.state_dict())
    late.step()
    assert late.last_epoch == 11


def test_settings_that_have_changed_are_said() -> None:
    rewarm = schedule()
    advance(rewarm, 10)
    longer = schedule(period=200)
    with pytest.warns(RewarmWarning, match="period 100 → 200"):
        longer.load_state_dict(rewarm.state_dict())
    assert longer.get_last_lr() == [expected(10, longer)]
    detecting = schedule(trigger=Cusum())
    with pytest.warns(RewarmWarning, match="the detector"):
        detecting.load_state_dict(rewarm.state_dict())


def test_a_state_that_does_not_fit_is_refused() -> None:
    state = schedule(optimizer_of(0.1, 0.1)).state_dict()
    with pytest.raises(ArgumentError, match="at most 1 groups"):
        schedule().load_state_dict(state)
    with pytest.raises(ArgumentError, match=r"unknown \['extra'\]"):
        schedule().load_state_dict({**schedule().state_dict(), "extra": 1})
    damaged = schedule().state_dict()
    del damaged["losses"]
    with pytest.raises(ArgumentError, match=r"missing \['losses'\]"):
        schedule().load_state_dict(damaged)
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    assert torch.load(buffer, weights_only=True) == state


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"warmup": 20, "options": {"refractory": 69}}, "refractory"),
        ({"options": {"divergence": 1.0}}, "divergence"),
        ({"options": {"max_rewarm_per_1k": 0}}, "max_rewarm_per_1k"),
        ({"layers": "fast_features"}, "layers"),
        ({"peak": -1.0}, "peak"),
    ],
)
def test_settings_outside_their_range_are_refused(settings: dict[str, Any], name: str) -> None:
    with pytest.raises(ArgumentError, match=f"^{name}: "):
        schedule(**{**settings, "options": RewarmOptions(**settings.get("options", {}))})


def test_an_optimiser_without_a_rate_is_refused() -> None:
    with pytest.raises(ArgumentError, match="optimizer: "):
        schedule(optimizer_of(0.0))
    optimizer = optimizer_of()
    optimizer.param_groups[0]["lr"] = None
    with pytest.raises(ArgumentError, match="lr=None"):
        schedule(optimizer)


def test_a_state_of_the_optimiser_from_a_run_without_it_changes_no_rate() -> None:
    optimizer = optimizer_of(0.1, 0.01)
    rewarm = schedule(optimizer)
    optimizer.load_state_dict(optimizer_of(1e-5, 1e-5).state_dict())
    advance(rewarm, 3)
    assert rewarm.get_last_lr() == pytest.approx([expected(3, rewarm), expected(3, rewarm) / 10], rel=1e-15)


def test_a_state_goes_on_whatever_the_rate_with_which_the_optimiser_was_made() -> None:
    rewarm = schedule(optimizer_of(0.1, 0.05))
    advance(rewarm, 3)
    later = schedule(optimizer_of(1.0, 2.0))
    later.load_state_dict(rewarm.state_dict())
    assert later.get_last_lr() == rewarm.get_last_lr()


def test_in_a_sequence_of_schedulers_it_begins_at_its_peak() -> None:
    optimizer = optimizer_of()
    rewarm = schedule(optimizer)
    constant = torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)
    sequence = torch.optim.lr_scheduler.SequentialLR(optimizer, [rewarm, constant], [50])
    for step in range(3):
        assert optimizer.param_groups[0]["lr"] == expected(step, rewarm)
        optimizer.step()
        sequence.step()
