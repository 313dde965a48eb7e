"""A trained action model as a policy for environments side by side, one step at a time.

What a slot reads before it decides is the end of its last timestep, then the beginning of the next one:

    s_1 R_1 | r_1 s_2 R_2 | r_2 s_3 R_3 | ...         R_{t+1} = R_t - r_t
         a_1          a_2          a_3

so a reward reaches the decision after it is known, and no decision before. These are the tokens of training, in the
order of training: acting step by step gives the logits of the whole trajectory.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64, Num
from torch import Tensor

from holdfast.errors import ArgumentError, HoldfastError, count_of
from holdfast.models.action.checkpoint import fingerprint
from holdfast.models.action.decision import Decision
from holdfast.models.action.domain import Continuous
from holdfast.models.action.model import ActionModel
from holdfast.models.action.state_tensors import state_from, state_tensors
from holdfast.models.action.tensor_file import CheckpointError, read_tensors, write_tensors
from holdfast.rl.episodes import Episodes
from holdfast.rl.memory import Memory

KIND = "Holdfast policy state"
VERSION = 1
"""Of the layout of the file."""

SCALE = "query"
"""What is scaled in the products of an mLSTM: where keys are, its states are smaller by the root of its width."""

AUTORESET = {"nextstep": "next_step", "samestep": "same_step", "disabled": "same_step"}
"""Of Gymnasium's modes, without underscores. Whoever resets by hand shows a new observation with the end of the old."""


class InvalidInput(HoldfastError, ValueError):
    """An observation or reward that is no finite number.

    Arguments:
        slot: where.
        field: observation or reward.
        value: what came.
    """

    def __init__(self, slot: int, field: str, value: float) -> None:
        self.slot, self.field, self.value = slot, field, value
        super().__init__(f"{field} of slot {slot}: expected finite numbers, got {value}")

    def __reduce__(self) -> tuple[type[InvalidInput], tuple[int, str, float]]:
        """Rebuild from the parts: an error must survive the way back from a worker process."""
        return type(self), (self.slot, self.field, self.value)


@dataclass(frozen=True, kw_only=True)
class PolicyConfig:
    """How a policy acts.

    Arguments:
        domain: name of the model's domain that all slots are of.
        slots: environments side by side.
        autoreset: when a new episode begins. `next_step`, Gymnasium's default: with the observation after the one that
            came with `done`; `same_step`: with the observation that came with `done`, as where environments are reset
            by hand. Gymnasium's own `AutoresetMode` is understood too.
        target_return: to reach in an episode, in the environment's units; `None`: the domain's.
        temperature: 0: the most likely action; otherwise actions are drawn.
        seed: of the draws.
        invalid: what to do about an observation or reward that is not finite: raise an error, or hold the slot's last
            action, and leave the timestep out of the context.
    """

    domain: str
    slots: int
    autoreset: Any
    target_return: float | None = None
    temperature: float = 0.0
    seed: int = 0
    invalid: Literal["raise", "hold"] = "raise"

    def __post_init__(self) -> None:
        count_of("slots", self.slots, least=1)
        count_of("seed", self.seed)
        mode = str(getattr(self.autoreset, "value", self.autoreset)).replace("_", "").lower()
        if mode not in AUTORESET:
            raise ArgumentError("autoreset", "next_step or same_step", repr(self.autoreset))
        object.__setattr__(self, "autoreset", AUTORESET[mode])
        if self.invalid not in ("raise", "hold"):
            raise ArgumentError("invalid", "raise or hold", repr(self.invalid))
        if not 0 <= self.temperature < float("inf"):
            raise ArgumentError("temperature", "0, or a positive number", self.temperature)


class Policy:
    """Acts in several environments of one domain, each in a slot of its own.

    Arguments:
        model: a trained model; it is put into evaluation mode.
        config: how to act.

    Errors:
        ArgumentError: the model has no such domain, or reads returns-to-go and no target is known.
    """

    def __init__(self, model: ActionModel, config: PolicyConfig) -> None:
        self.model, self.config = model.eval(), config
        self.domain = model.config.domain(config.domain)
        target = self.domain.target_return if config.target_return is None else config.target_return
        if model.config.returns and (target is None or not np.isfinite(target)):
            raise ArgumentError("target_return", f"a number, since domain {config.domain} has none", repr(target))
        self._target = np.full(config.slots, 0.0 if target is None else target)
        self._device = next(model.parameters()).device
        self._generator = torch.Generator(self._device)
        self.held = 0
        """Decisions that were held, because what came was not finite."""
        self.reset()

    def reset(self, slots: Any = None) -> None:
        """Forget the episodes of some slots: the next observation begins one.

        Arguments:
            slots: numbers or mask; `None`: all, and draws begin anew too.
        """
        if slots is None:
            self._initial = self.model.init_state(self.config.slots)
            self._state = self._initial
            self._episodes = Episodes.before_the_first(self.config.slots, self.domain.action.dims)
            self._generator.manual_seed(self.config.seed)
            self.logits: Tensor | None = None
            """Of the last decisions, of shape (slots, dims, choices); without meaning in slots that did not decide."""
            return
        over = self._episodes.over.copy()
        over[slots] = True
        self._episodes = replace(self._episodes, over=over)

    def act(
        self,
        observation: Any,
        reward: Any = None,
        done: Any = None,
        *,
        known: Any = None,
        taken: Any = None,
    ) -> Num[np.ndarray, "slots ..."]:
        """The action of each slot. What is given are arrays whose first dimension is the slot.

        Arguments:
            observation: of each slot.
            reward: in answer to its last action; `None`: it is not known of any. That of a slot whose episode begins
                is not read: at a first step there is no reward, which is another thing than a reward of 0.
            done: where the episode has ended with that answer, by termination or truncation (`terminated | truncated`);
                `None`: nowhere. What is answered there is ignored by environments that begin anew with the next step.
            known: where the reward is known; `None`: everywhere. One that is not known is no token, and the
                return-to-go stays; one that comes later can be added to the next.
            taken: the last actions that were really carried out; `None`: those that were answered. Only models that
                read past actions need it.

        Returns:
            In the environment's units, as float32 of shape (slots, dims), or ids of shape (slots,).

        Errors:
            InvalidInput: a number that is not finite, where `config.invalid` is `raise` or no action can be held. The
                policy is as it was, and may be asked again.
            ArgumentError: shapes that do not fit; likewise.
        """
        before = self._episodes if taken is None else self._carried_out(taken)
        seen, answer = self._observation(observation), self._reward(reward)
        ended = self._flags("done", done, default=False)
        given = self._flags("known", known, default=True) & (reward is not None)
        begins = before.over if self.config.autoreset == "next_step" else before.over | ended
        idle = ended & ~begins
        given = given & ~begins & ~idle
        invalid = self._invalid(seen, answer, ~idle, given)
        for slot in np.flatnonzero(invalid & (begins if self.config.invalid == "hold" else True)):
            raise self._complaint(seen, answer, int(slot))
        after = before.answered(begins, self._target, answer, given & np.isfinite(answer))
        decides = ~idle & ~invalid
        state, ids, logits = self._decided(seen, after, begins, decides)
        order = self.model.tokens.order(self.domain.action.dims)
        tokens = order.decided + order.actions * after.acted + order.rewards * after.rewarded
        actions = self.model.config.ids.actions(torch.from_numpy(ids), self.domain.action, self.model.config.decode)
        self._episodes = after.decided(decides, idle, ids, actions.double().numpy(), tokens)
        self._state, self.logits = state, logits
        self.held += int(invalid.sum())
        return self._in_units(self._episodes.action)

    @property
    def memory(self) -> Memory:
        """What the policy remembers, which later steps do not change. To set it is to go on from there."""
        return Memory(state=self._state, episodes=self._episodes, target=self._target)

    @memory.setter
    def memory(self, memory: Memory) -> None:
        if memory.slots != self.config.slots:
            raise ArgumentError("memory", f"that of {self.config.slots} slots", memory.slots)
        self._state, self._episodes, self._target = memory.state, memory.episodes, memory.target

    def save_state(self, path: Path) -> None:
        """Write what the policy remembers, so that its episodes can go on in another process.

        Errors:
            CheckpointError: it cannot be written.
        """
        tensors, numbers = state_tensors(self._state)
        named = {f"network.{name}": tensor for name, tensor in tensors.items()}
        named |= {f"episodes.{name}": torch.from_numpy(array) for name, array in self._episodes.arrays().items()}
        named["generator"] = self._generator.get_state()
        write_tensors(
            path, {**self._header(), "numbers": numbers, "held": self.held}, named, kind=KIND, version=VERSION
        )

    def load_state(self, path: Path) -> None:
        """Go on from what a policy remembered.

        Errors:
            CheckpointError: the file is damaged, or of another model, domain, number of slots or convention; the policy
                is as it was.
        """
        header, tensors = read_tensors(path, kind=KIND, version=VERSION)
        for name, ours in self._header().items():
            if header.get(name) != ours:
                raise CheckpointError(f"{path}: a state of {name} {header.get(name)}, expected {ours}")
        network = {name.removeprefix("network."): tensor for name, tensor in tensors.items()}
        try:
            state = state_from(self.model.init_state(self.config.slots), network, header["numbers"])
            arrays = {name: tensors[f"episodes.{name}"].numpy() for name in self._episodes.arrays()}
            episodes, held = Episodes.of(arrays), int(header["held"])
            self._generator.set_state(tensors["generator"])
        except (ArgumentError, KeyError, TypeError, RuntimeError) as error:
            raise CheckpointError(f"{path}: no state of this policy ({error})") from error
        self._state, self._episodes, self.held = state, episodes, held

    def _header(self) -> dict[str, Any]:
        """What a state has to agree with."""
        return {
            "model": fingerprint(self.model),
            "scale": SCALE,
            "slots": self.config.slots,
            "domain": self.domain.name,
            "autoreset": self.config.autoreset,
        }

    def _decided(
        self,
        seen: Num[np.ndarray, "slots ..."],
        after: Episodes,
        begins: Bool[np.ndarray, " slots"],
        decides: Bool[np.ndarray, " slots"],
    ) -> tuple[Any, Int64[np.ndarray, "slots dims"], Tensor | None]:
        """State, ids and logits after the decisions.

        Arguments:
            seen: observations.
            after: the episodes, as they are known now.
            begins: where one begins.
            decides: where a decision is to be made.
        """
        state, config = self._state, self.model.config
        if begins.all():
            state = self._initial
        elif begins.any():
            state = state.restarted(self._tensor(begins), self._initial, int(after.tokens.max()))
        if not decides.any():
            return state, np.full_like(after.ids, config.ids.first(self.domain.action)), self.logits
        live = self._tensor(decides)
        decision = Decision(
            domain=self.domain,
            observation=self._tensor(seen),
            live=live,
            returns_to_go=self._tensor(after.returns_to_go) if config.returns else None,
            reward=self._tensor(after.reward) if config.rewards else None,
            rewarded=self._tensor(after.rewarded),
            action=self._tensor(after.ids) if config.past_actions else None,
            acted=self._tensor(after.acted),
        )
        with torch.no_grad():
            logits, state = self.model.decide(decision, state)
            if not bool(torch.isfinite(logits[live]).all()):
                raise HoldfastError("the model's logits are no finite numbers: its weights or its inputs are too large")
            chosen = self.model.head.choose(
                logits.masked_fill(~live[:, None, None], 0.0),
                self.domain.action,
                temperature=self.config.temperature,
                generator=self._generator,
            )
        return state, chosen.cpu().numpy(), logits

    def _carried_out(self, taken: Any) -> Episodes:
        """The episodes with other last actions than those that were answered.

        Errors:
            ArgumentError: they are none of the domain.
        """
        before, space = self._episodes, self.domain.action
        actions = np.asarray(taken).reshape(len(before.over), -1) if np.size(taken) == before.ids.size else None
        if actions is None:
            raise ArgumentError("taken", f"{before.ids.shape[0]} actions of {space.dims}", f"shape {np.shape(taken)}")
        actions = np.where(before.acted[:, None], actions, before.action)
        ids = self.model.config.ids.ids(torch.from_numpy(actions), space).numpy()
        return replace(before, ids=ids, action=actions.astype(np.float64))

    def _observation(self, observation: Any) -> Num[np.ndarray, "slots ..."]:
        """Bytes as they are, all else in float32.

        Errors:
            ArgumentError: another shape, or no numbers.
        """
        seen, wanted = np.asarray(observation), (self.config.slots, *self.domain.observation.shape)
        if seen.shape != wanted or seen.dtype.kind not in "fiub":
            raise ArgumentError("observation", f"numbers of shape {wanted}", f"{seen.dtype} of shape {seen.shape}")
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused as such
            return seen if seen.dtype == np.uint8 else seen.astype(np.float32)

    def _reward(self, reward: Any) -> Float64[np.ndarray, " slots"]:
        if reward is None:
            return np.zeros(self.config.slots)
        answer = np.asarray(reward)
        if answer.shape != (self.config.slots,) or answer.dtype.kind not in "fiub":
            got = f"{answer.dtype} of shape {answer.shape}"
            raise ArgumentError("reward", f"numbers of shape ({self.config.slots},)", got)
        with np.errstate(over="ignore"):
            return answer.astype(np.float32).astype(np.float64)

    def _flags(self, name: str, flags: Any, *, default: bool) -> Bool[np.ndarray, " slots"]:
        if flags is None:
            return np.full(self.config.slots, default)
        answer = np.asarray(flags)
        if answer.shape != (self.config.slots,) or answer.dtype != bool:
            raise ArgumentError(name, f"a mask of shape ({self.config.slots},)", f"{answer.dtype} of {answer.shape}")
        return answer

    def _invalid(
        self,
        seen: Num[np.ndarray, "slots ..."],
        answer: Float64[np.ndarray, " slots"],
        live: Bool[np.ndarray, " slots"],
        given: Bool[np.ndarray, " slots"],
    ) -> Bool[np.ndarray, " slots"]:
        """Where something that is read is not finite."""
        finite: Bool[np.ndarray, " slots"] = np.isfinite(seen.reshape(len(seen), -1)).all(1)
        invalid: Bool[np.ndarray, " slots"] = (live & ~finite) | (given & ~np.isfinite(answer))
        return invalid

    def _complaint(self, seen: Any, answer: Any, slot: int) -> InvalidInput:
        """What is wrong in a slot."""
        wrong = seen[slot][~np.isfinite(seen[slot])]
        if wrong.size:
            return InvalidInput(slot, "observation", float(wrong.flat[0]))
        return InvalidInput(slot, "reward", float(answer[slot]))

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self._device)

    def _in_units(self, action: Float64[np.ndarray, "slots dims"]) -> Num[np.ndarray, "slots ..."]:
        if isinstance(self.domain.action, Continuous):
            return action.astype(np.float32)
        return action[:, 0].astype(np.int64)
