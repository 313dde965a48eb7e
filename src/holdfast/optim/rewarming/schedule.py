"""A learning rate that rises again: at fixed intervals, when told, or when the training loss says that data changed.

Algorithm 1 of arXiv 2507.20057 (section 3.2): a network whose learning rate has decayed learns new data slowly, however
its weights are scaled; starting the schedule anew brings its speed back.
"""

from __future__ import annotations

import math
import statistics
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, astuple, dataclass
from typing import Any, Literal

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from holdfast.errors import ArgumentError, count_of
from holdfast.optim.rewarming.agreement import agree
from holdfast.optim.rewarming.cusum import Cusum
from holdfast.optim.rewarming.cycle import Cycle
from holdfast.optim.rewarming.groups import LayerMode, multipliers
from holdfast.optim.rewarming.hooks import StepPart, real_optimizer, skipped

SETTLING = 50
"""Losses after a warm-up in which a detector learns the new level: with it, the least refractory time."""
WINDOW, LEAST = 101, 10
"""Losses of the running median, and how many there must be before a loss is compared with it."""
KEPT_EVENTS = 1000
PATIENCE = 25
"""Calls without any step of the optimiser after which a warning says that the schedule stands still."""


class RewarmWarning(UserWarning):
    """A schedule meets something that its user should know: a loss that is no number, too few steps, a divergence."""


@dataclass(frozen=True)
class RewarmOptions:
    """What a re-warming schedule may do, beside the course of the rate.

    Arguments:
        waiting: begin at the final rate and wait for the first re-warming: for a network that is trained already.
        refractory: steps after the beginning of a cycle in which a detector's alarms are passed over, since a rising
            rate raises the loss by itself; at least 50 and the warm-up, which is what `None` means.
        max_rewarm_per_1k: re-warmings by the detector in any 1,000 steps; `None` for as many as `refractory` allows.
        divergence: the rate falls to `final` for the rest of the cycle when the loss is not finite, or is above so many
            times the median of the cycle's last 101 losses, if that is positive. Off by default: a change of the data
            can raise the loss as far as a rate that is too high does.
        total_steps: of the training, to warn of a cycle that will not end.
        reset_moments: clear the optimiser's state at each re-warming, for comparison: the paper does not.
        distributed: where processes train together, the loss and the detector of the first decide for all, which all
            must then call `step` with a loss. `False` for one that schedules alone.

    Errors:
        ArgumentError: a number outside its range.
    """

    waiting: bool = False
    refractory: int | None = None
    max_rewarm_per_1k: int | None = None
    divergence: float | None = None
    total_steps: int | None = None
    reset_moments: bool = False
    distributed: bool = True

    def __post_init__(self) -> None:
        for name in ("refractory", "max_rewarm_per_1k", "total_steps"):
            if getattr(self, name) is not None:
                count_of(name, getattr(self, name), 1)
        if self.divergence is not None and not self.divergence > 1:
            raise ArgumentError("divergence", "a factor above 1", self.divergence)


@dataclass(frozen=True)
class RewarmEvent:
    """Something that a schedule did.

    Arguments:
        step: of the optimiser, after which it happened.
        kind: `rewarmed`; `passed over`, of an alarm that changed nothing; `diverged`, upon which the rate fell.
        reason: in words.
    """

    step: int
    kind: Literal["rewarmed", "passed over", "diverged"]
    reason: str


class Rewarm(LRScheduler):
    """Learning-rate schedule that begins anew (arXiv 2507.20057, section 3.2).

    Call `step` after each step of the optimiser, with the loss if there is a trigger. What counts is the optimiser's
    steps: a call before which the optimiser made none (a `GradScaler` left it out, gradients are still being summed up)
    changes nothing, so a plain simulation without an optimiser's steps stands still; `course.rate` gives the course.

    The rate is a function of the number of steps since the cycle began, never of the rate before, so a schedule that is
    saved and loaded goes on bit for bit. With several groups of parameters, `peak` and `final` are rates of those with
    the largest `initial_lr`; others keep their proportion to it, groups that are added later too.

    Only the rate begins anew; moments stay as they are (but see `RewarmOptions.reset_moments`).

    Arguments:
        optimizer: of torch, or a wrapper of one; its `lr` gives the proportions of groups and nothing else. They are
            those of the moment at which a group is first seen. A state that the optimiser loads later leaves them, and
            its rates last until the next `step` or `apply`.
        peak: highest rate of the first cycle.
        final: rate at the end of a cycle, held until the next begins.
        warmup: steps of the linear warm-up; 0 begins at the peak.
        period: steps of a cycle, warm-up included.
        low: rate at the beginning of a warm-up; `final` if `None`.
        trigger: a `Cusum`, or a function of the loss that says whether to re-warm. `step` then wants the loss: of the
            training, or any signal that rises with a change (in RL the TD error over the size of the values, since the
            plain one rises when returns do). It costs one transfer from the device a step.
        cyclic: begin anew after each `period`, too.
        peaks: of the cycles after the first: a list, whose last holds for all that follow, or a factor from each to the
            next.
        max_cycles: hold the final rate for good after so many cycles, the first included, whatever triggers say.
        layers: which groups of parameters are slower; see `layer_groups`, which makes the groups for all but
            `constant`. `even_ratio` looks at the weights when a cycle begins.
        options: everything else.

    Errors:
        ArgumentError: an argument is outside its range; a group has no learning rate; all have one of 0.
    """

    def __init__(
        self,
        optimizer: object,
        *,
        peak: float,
        final: float,
        warmup: int = 0,
        period: int,
        low: float | None = None,
        trigger: Cusum | Callable[[float], bool] | None = None,
        cyclic: bool = False,
        peaks: Sequence[float] | float | None = None,
        max_cycles: int | None = None,
        layers: LayerMode = "constant",
        options: RewarmOptions = RewarmOptions(),
    ) -> None:
        self.course = Cycle(peak, final, warmup, period, low, peaks, max_cycles)
        if trigger is not None and not (isinstance(trigger, Cusum) or callable(trigger)):
            raise ArgumentError("trigger", "a Cusum or a function of the loss", trigger)
        self.detector, self.cyclic, self.layers, self.options = trigger, cyclic, layers, options
        self.refractory = warmup + SETTLING if options.refractory is None else options.refractory
        if self.refractory < warmup + SETTLING:
            raise ArgumentError(
                "refractory", f"at least {warmup + SETTLING}, the warm-up and {SETTLING}", self.refractory
            )
        inner = real_optimizer(optimizer)
        self.reference = max(_initial_rate(group) for group in inner.param_groups)
        if not self.reference > 0:
            raise ArgumentError("optimizer", "a group with a learning rate above 0", "rates of 0")
        self.events: deque[RewarmEvent] = deque(maxlen=KEPT_EVENTS)
        """What happened, the last 1,000; of alarms that are passed over in a row the first."""
        self.ignored = 0
        """Losses that were not finite."""
        self._start: int | None = None if options.waiting else 0
        self._first = 0  # number of the cycle that began at `_start`
        self._held: int | None = None  # number of the cycle that is cut short
        self._heard = True  # whether this step's loss was taken
        self._quiet_since: int | None = self._start
        self._alarms: list[int] = []  # steps of the detector's re-warmings
        self._losses: deque[float] = deque(maxlen=WINDOW)
        self._idle = 0
        self._multipliers, self._scale = multipliers(inner.param_groups, layers)
        self._steps = _Steps(inner)
        self._shares: list[float] = []  # of the rate, one a group
        super().__init__(inner)
        if not options.waiting:
            self._warn_of_the_end()

    # -- the course of the rate ----------------------------------------------------------------------------------------

    @property
    def position(self) -> int | None:
        """Steps since the cycle began; `None` while waiting for the first."""
        if self._start is None:
            return None
        gone = self.last_epoch - self._start
        return gone % self.course.period if self.cyclic else gone

    @property
    def cycle(self) -> int:
        """Number of the cycle, from 0; −1 while waiting for the first."""
        if self._start is None:
            return -1
        return self._first + ((self.last_epoch - self._start) // self.course.period if self.cyclic else 0)

    @property
    def wants_loss(self) -> bool:
        """Whether `step` does anything with a loss."""
        return self.detector is not None or self.options.divergence is not None

    @property
    def rate(self) -> float:
        """Learning rate of a group whose `initial_lr` is the largest, before the modes of layers."""
        position, number = self.position, self.cycle
        if position is None or number == self._held:
            return self.course.final
        return self.course.rate(position, number)

    def get_lr(self) -> list[float | Tensor]:
        """Learning rates for the next step of the optimiser, one a group."""
        self._adopt()
        rate = self.rate
        return [rate * share * factor for share, factor in zip(self._shares, self._multipliers, strict=True)]

    def apply(self) -> None:
        """Write the rates of the next step into the optimiser, in case something else has changed them."""
        rates = self.get_lr()
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)  # the one that a captured graph reads
            else:
                group["lr"] = rate
        self._last_lr = [
            group["lr"].clone() if isinstance(group["lr"], Tensor) else group["lr"]
            for group in self.optimizer.param_groups
        ]

    # -- steps ---------------------------------------------------------------------------------------------------------

    def step(self, loss: float | Tensor | None = None) -> None:
        """Go on by one, if the optimiser made a step since the last call.

        Arguments:
            loss: of that step; without one nothing is detected. It may also come in a second call for the same step.
        """
        self._advance()
        if loss is not None and not self._heard:
            self._heard = True
            if self.wants_loss:
                self._listen(loss)

    def _initial_step(self) -> None:
        """Called when it is made, and again by `SequentialLR`, which has set `last_epoch` back."""
        self.last_epoch = 0
        self.apply()

    def trigger(self) -> bool:
        """Begin a cycle now: the next step of the optimiser is its first. For a change that is known to come.

        Where processes train together, all of them call it.

        Returns:
            Whether a cycle began; not where `max_cycles` are over.
        """
        self._advance()
        return self._restart("told to")

    def _advance(self) -> None:
        if not self._steps.take():
            self._idle += self.last_epoch == 0
            if self._idle == PATIENCE:
                text = f"the optimiser made no step before {PATIENCE} calls of Rewarm.step, so the rate stands still"
                warnings.warn(text, RewarmWarning, stacklevel=3)
            return
        number = self.cycle
        self.last_epoch += 1
        self._heard = False
        if self.cycle != number and not self._over(self.cycle):
            self._begin()
        self.apply()

    def _restart(self, reason: str) -> bool:
        number = self.cycle + 1
        if self._over(number):
            self._note("passed over", f"{reason}, but all of {self.course.count} cycles are over")
            return False
        self._start, self._first = self.last_epoch, number
        self._begin()
        self._note("rewarmed", reason)
        self.apply()
        return True

    def _over(self, number: int) -> bool:
        return self.course.count is not None and number >= self.course.count

    def _begin(self) -> None:
        """What is due at the beginning of each cycle but the first."""
        self._held, self._quiet_since = None, self.last_epoch
        self._losses.clear()
        self._adopt()
        self._multipliers, self._scale = multipliers(self.optimizer.param_groups, self.layers)
        if self.options.reset_moments:
            from holdfast.optim.baselines.moments import reset_moments  # its package imports this one

            reset_moments(self.optimizer)
        self._warn_of_the_end()

    def _warn_of_the_end(self) -> None:
        total = self.options.total_steps
        if total is not None and total - self.last_epoch < self.course.period:
            text = (
                f"a cycle of {self.course.period} steps begins at step {self.last_epoch} of {total}: the rate will not "
                f"reach {self.course.final}, and what the network learns in it will not settle"
            )
            warnings.warn(text, RewarmWarning, stacklevel=4)

    def _note(self, kind: Literal["rewarmed", "passed over", "diverged"], reason: str) -> None:
        if kind == "passed over" and self.events and self.events[-1].kind == kind:
            return  # of alarms in a row the first, or they would push out all else
        self.events.append(RewarmEvent(self.last_epoch, kind, reason))

    # -- what the loss says --------------------------------------------------------------------------------------------

    def _listen(self, loss: float | Tensor) -> None:
        if isinstance(loss, Tensor) and loss.numel() != 1:
            raise ArgumentError("loss", "one number", f"a tensor of shape {tuple(loss.shape)}")
        value = float(loss.detach() if isinstance(loss, Tensor) else loss)
        detect = self.detector.update if isinstance(self.detector, Cusum) else self.detector
        ask: Callable[[float], bool] | None = None
        if detect is not None:
            ask = lambda seen: math.isfinite(seen) and bool(detect(seen))  # noqa: E731
        if self.options.distributed:
            device = next(parameter.device for group in self.optimizer.param_groups for parameter in group["params"])
            value, alarm = agree(value, ask, device, everywhere=isinstance(self.detector, Cusum))
        else:
            alarm = ask is not None and ask(value)
        if not math.isfinite(value):
            self.ignored += 1
            if self.ignored == 1:
                text = (
                    f"the loss is {value} at step {self.last_epoch}; such losses are left out, and counted as `ignored`"
                )
                warnings.warn(text, RewarmWarning, stacklevel=3)
        if not (alarm and self._act_on_alarm()):
            self._guard(value)

    def _act_on_alarm(self) -> bool:
        since = self._quiet_since
        if since is not None and self.last_epoch - since < self.refractory:
            self._note(
                "passed over", f"the detector's alarm, {self.last_epoch - since} steps after the last cycle began"
            )
            return False
        most = self.options.max_rewarm_per_1k
        self._alarms = [step for step in self._alarms if step > self.last_epoch - 1000]
        if most is not None and len(self._alarms) >= most:
            self._note("passed over", f"the detector's alarm, after {most} in 1,000 steps")
            return False
        if not self._restart("the detector's alarm"):
            return False
        self._alarms.append(self.last_epoch)
        return True

    def _guard(self, value: float) -> None:
        """Let the rate fall where the loss has left all bounds."""
        factor = self.options.divergence
        if factor is None:
            return
        if self.rate > self.course.final:
            usual = statistics.median(self._losses) if len(self._losses) >= LEAST else math.inf
            if not math.isfinite(value) or (usual > 0 and value > factor * usual):
                self._held = self.cycle
                self._quiet_since = self.last_epoch
                reason = f"a loss of {value:.6g}" + (f", of usually {usual:.6g}" if math.isfinite(usual) else "")
                self._note("diverged", reason)
                text = f"{reason} at step {self.last_epoch}: the rate falls to {self.course.final} until the next cycle"
                warnings.warn(text, RewarmWarning, stacklevel=4)
                self.apply()
        if math.isfinite(value):
            self._losses.append(value)

    # -- groups --------------------------------------------------------------------------------------------------------

    def _adopt(self) -> None:
        """Take in groups that were added since."""
        groups = self.optimizer.param_groups
        # Not asked again of groups that are known: the optimiser may load those of a run with other rates.
        self._shares += [_initial_rate(group) / self.reference for group in groups[len(self._shares) :]]
        if len(self._multipliers) < len(groups):
            late = multipliers(groups, self.layers, self._scale)[0][len(self._multipliers) :]
            self._multipliers = [*self._multipliers, *late]
        self.base_lrs = [share * self.reference for share in self._shares]

    # -- state ---------------------------------------------------------------------------------------------------------

    def _settings(self) -> dict[str, Any]:
        peaks = self.course.peaks
        peaks = list(peaks) if isinstance(peaks, Sequence) else peaks
        return {**asdict(self.course), "peaks": peaks, "cyclic": self.cyclic, "layers": self.layers}

    def state_dict(self) -> dict[str, Any]:
        """Where it stands, the detector included: plain numbers, strings, lists and dictionaries."""
        return {
            "last_epoch": self.last_epoch,
            "start": self._start,
            "first": self._first,
            "held": self._held,
            "heard": self._heard,
            "pending": self._steps.pending(),
            "quiet_since": self._quiet_since,
            "alarms": list(self._alarms),
            "losses": list(self._losses),
            "ignored": self.ignored,
            "reference": self.reference,
            "shares": list(self._shares),
            "multipliers": list(self._multipliers),
            "scale": self._scale,
            "events": [list(astuple(event)) for event in self.events],
            "trigger": None
            if self.detector is None or not hasattr(self.detector, "state_dict")
            else self.detector.state_dict(),
            "settings": self._settings(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from `state_dict`, with the settings of this schedule; a warning names those that were others then.

        The rates are written into the optimiser at once.

        Errors:
            ArgumentError: entries are missing or unknown, or of another number of groups.
        """
        expected, got = set(self.state_dict()), set(state_dict)
        if expected != got:
            missing, unknown = sorted(expected - got), sorted(got - expected)
            raise ArgumentError("state_dict", "that of a Rewarm", f"missing {missing}, unknown {unknown}")
        groups = len(self.optimizer.param_groups)
        if len(state_dict["multipliers"]) > groups:
            raise ArgumentError("state_dict", f"one of at most {groups} groups", f"{len(state_dict['multipliers'])}")
        stateful = hasattr(self.detector, "load_state_dict")
        if stateful and state_dict["trigger"] is not None:
            self.detector.load_state_dict(state_dict["trigger"])  # type: ignore[union-attr]
        elif stateful or state_dict["trigger"] is not None:
            warnings.warn(
                "the detector was saved or is there, but not both: it begins anew", RewarmWarning, stacklevel=2
            )
        now, then = self._settings(), state_dict["settings"]
        other = [f"{name} {then.get(name)!r} → {now[name]!r}" for name in now if then.get(name) != now[name]]
        if other:
            text = f"the schedule goes on with other settings than it was saved with: {', '.join(other)}"
            warnings.warn(text, RewarmWarning, stacklevel=2)
        self.last_epoch = state_dict["last_epoch"]
        self._start, self._first, self._held = (state_dict[name] for name in ("start", "first", "held"))
        self._heard, self._quiet_since = state_dict["heard"], state_dict["quiet_since"]
        self._steps.restore(state_dict["pending"])
        self._alarms = list(state_dict["alarms"])
        self._losses = deque(state_dict["losses"], maxlen=WINDOW)
        self.ignored, self.reference = state_dict["ignored"], state_dict["reference"]
        self._shares = list(state_dict["shares"])
        self._multipliers, self._scale = list(state_dict["multipliers"]), state_dict["scale"]
        self.events = deque((RewarmEvent(*event) for event in state_dict["events"]), maxlen=KEPT_EVENTS)
        self.apply()


class _Steps(StepPart):
    """Whether the optimiser has changed the weights since it was last asked."""

    def __init__(self, optimizer: Optimizer) -> None:
        self._applied = False
        self._unsure: list[Tensor] = []
        super().__init__(optimizer)

    def after_step(self) -> None:
        inf = skipped(self.optimizer)
        if inf is None:
            self._applied = True
        elif not self._applied:
            self._unsure.append(inf.detach().clone())  # read later: reading waits for the device

    def pending(self) -> bool:
        """Whether a step was made."""
        if self._unsure and not self._applied:
            self._applied = any(float(inf) == 0 for inf in self._unsure)
        self._unsure.clear()
        return self._applied

    def take(self) -> bool:
        """Whether a step was made, and none from now on."""
        applied = self.pending()
        self._applied = False
        return applied

    def restore(self, applied: bool) -> None:
        """Go on from `pending`."""
        self._applied = applied
        self._unsure.clear()


def _initial_rate(group: dict[str, Any]) -> float:
    """The rate with which a group began, kept in it as torch's schedulers do, as a number of Python."""
    rate = group.setdefault("initial_lr", group.get("lr"))
    if isinstance(rate, Tensor):
        rate = float(rate)
    if not isinstance(rate, float | int) or not (math.isfinite(rate) and rate >= 0):
        raise ArgumentError("optimizer", "groups with a learning rate of at least 0", f"lr={rate!r}")
    group["initial_lr"] = rate
    return float(rate)
