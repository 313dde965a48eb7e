"""What client and server say to each other, as JSON.

    POST   /v1/sessions              {"domain": NAME, "target_return": NUMBER}, both optional
                                     -> {"session": ID, "domain": NAME, "expected": 0, "deadline_ms": NUMBER or null}
    POST   /v1/sessions/ID/steps     {"step": 0, 1, ..., "observation": ..., "reward": NUMBER, "done": false}
                                     -> {"step": N, "action": [...] or ID, "fallback": false}
    GET    /v1/sessions/ID           -> {"session": ID, "expected": N + 1, "last": the answer to step N or null}
    DELETE /v1/sessions/ID

An observation is a list of numbers, or its bytes: {"dtype": "float32" or "uint8", "base64": ...}, little-endian, row by
row. A reward is what answered the last action; where it is missing or null it is not known, which is another thing than
0. `done` says that the last action ended its episode: this observation begins the next one.

What is refused changes nothing. Its answer is {"error": in words, "reason": one of `REASONS`, ...}.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from holdfast.errors import HoldfastError

STATUS = {
    "malformed": 400,
    "unauthorized": 401,
    "unknown session": 404,
    "out of order": 409,
    "too large": 413,
    "not json": 415,
    "invalid": 422,
    "failed": 500,
    "full": 503,
    "behind": 503,
}
"""Of HTTP, by the reason of a refusal."""

REASONS = tuple(STATUS)

LARGEST = float(np.finfo(np.float32).max)

DTYPES = {"float32": "<f4", "uint8": "|u1"}
"""That observations may have as bytes."""


class Refusal(HoldfastError):
    """A request that is not carried out, and why.

    Arguments:
        reason: one of `REASONS`.
        message: for people.
        details: for programs, such as the step that is expected.
    """

    def __init__(self, reason: str, message: str, **details: Any) -> None:
        self.reason, self.details = reason, details
        super().__init__(message)

    @property
    def status(self) -> int:
        """Of HTTP."""
        return STATUS[self.reason]

    def document(self) -> dict[str, Any]:
        """As the client is told."""
        return {"error": str(self), "reason": self.reason, **self.details}


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a step was answered with.

    Arguments:
        step: its number.
        action: in the environment's units: float32 of shape (dims,), or the id of a discrete action.
        fallback: whether it is the fallback action, since the model's came too late.
        recovered: whether the connection was lost over it, and the answer was asked for afterwards.
    """

    step: int
    action: np.ndarray | int
    fallback: bool = False
    recovered: bool = False

    def document(self) -> dict[str, Any]:
        """As JSON has it."""
        action = self.action.tolist() if isinstance(self.action, np.ndarray) else int(self.action)
        return {"step": self.step, "action": action, "fallback": self.fallback}

    @classmethod
    def of(cls, document: Mapping[str, Any], *, recovered: bool = False) -> Answer:
        """Back from JSON."""
        action = document["action"]
        return cls(
            step=int(document["step"]),
            action=np.asarray(action, np.float32) if isinstance(action, list) else int(action),
            fallback=bool(document["fallback"]),
            recovered=recovered,
        )


@dataclass(frozen=True, kw_only=True)
class StepRequest:
    """One step of a control loop.

    Arguments:
        step: its number, from 0 on.
        observation: of the shape of the domain's.
        reward: that answered the last action; `None`: it is not known.
        done: whether the last action ended its episode.
    """

    step: int
    observation: np.ndarray
    reward: float | None
    done: bool

    def document(self) -> dict[str, Any]:
        """As JSON has it."""
        seen = self.observation
        dtype = "uint8" if seen.dtype == np.uint8 else "float32"
        content = base64.b64encode(np.ascontiguousarray(seen, DTYPES[dtype]).tobytes()).decode("ascii")
        observation = {"dtype": dtype, "base64": content}
        return {"step": self.step, "observation": observation, "reward": self.reward, "done": self.done}


def read_json(body: bytes) -> dict[str, Any]:
    """An object of JSON.

    Errors:
        Refusal: it is none.
    """
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refusal("malformed", f"body: expected JSON ({error})") from None
    if not isinstance(document, dict):
        raise Refusal("malformed", f"body: expected an object of JSON, got {type(document).__name__}")
    return document


def check_fields(document: Mapping[str, Any], known: tuple[str, ...]) -> None:
    """Refuse fields that would be ignored: one that is misspelt is one that is missing.

    Errors:
        Refusal: there is such a field.
    """
    for name in document:
        if name not in known:
            raise invalid(name, f"one of the fields {', '.join(known)}", "a field of that name")


def read_step(document: Mapping[str, Any], shape: tuple[int, ...]) -> StepRequest:
    """A step from JSON.

    Arguments:
        document: what came.
        shape: of the domain's observations.

    Errors:
        Refusal: a field is missing or cannot be what it should be, or a number is not finite.
    """
    check_fields(document, ("step", "observation", "reward", "done"))
    step, reward, done = document.get("step"), document.get("reward"), document.get("done", False)
    if not isinstance(step, int) or isinstance(step, bool) or step < 0:
        raise invalid("step", "a whole number of at least 0", _shown(document, "step"))
    if not isinstance(done, bool):
        raise invalid("done", "true or false", _shown(document, "done"))
    if reward is not None:
        reward = finite_number("reward", reward)
    return StepRequest(step=step, observation=_observation(document, shape), reward=reward, done=done)


def finite_number(field: str, value: Any) -> float:
    """A number that float32 can hold.

    Errors:
        Refusal: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise invalid(field, "a number", repr(value)[:80])
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not abs(number) <= LARGEST:
        raise invalid(field, "a finite number", str(number))
    return number


def invalid(field: str, expected: str, got: str) -> Refusal:
    """The refusal of a field's value."""
    return Refusal("invalid", f"{field}: expected {expected}, got {got}", field=field)


def _observation(document: Mapping[str, Any], shape: tuple[int, ...]) -> np.ndarray:
    given = document.get("observation")
    if isinstance(given, dict):
        seen = _from_bytes(given, shape)
    elif isinstance(given, list) and len(shape) > 1:
        # Numbers from 0 to 1 and bytes from 0 to 255 could not be told apart.
        raise invalid("observation", f"the bytes of a picture of shape {shape}, with their dtype", "a list")
    elif isinstance(given, list):
        seen = _from_list(given, shape)
    else:
        raise invalid("observation", f"numbers of shape {shape}", _shown(document, "observation"))
    wrong = ~np.isfinite(seen)
    if wrong.any():
        place = np.argwhere(wrong)[0]
        field = "observation" + "".join(f"[{number}]" for number in place)
        raise invalid(field, "a finite number", str(seen[tuple(place)]))
    return seen


def _from_list(given: list[Any], shape: tuple[int, ...]) -> np.ndarray:
    if len(given) != shape[0]:
        raise invalid("observation", f"numbers of shape {shape}", f"{len(given)} of them")
    for place, value in enumerate(given):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise invalid(f"observation[{place}]", "a number", repr(value)[:80])
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused as such
        try:
            return np.asarray(given, np.float64).astype(np.float32)
        except OverflowError:
            place = next(place for place, value in enumerate(given) if abs(value) > LARGEST)
            raise invalid(f"observation[{place}]", "a finite number", "a whole number that is too large") from None


def _from_bytes(given: Mapping[str, Any], shape: tuple[int, ...]) -> np.ndarray:
    dtype, content = given.get("dtype"), given.get("base64")
    if set(given) != {"dtype", "base64"} or dtype not in DTYPES or not isinstance(content, str):
        raise invalid("observation", f"a dtype of {' or '.join(DTYPES)}, and base64", f"{', '.join(map(str, given))}")
    try:
        raw = base64.b64decode(content, validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid("observation", "base64", str(error)) from None
    kind = np.dtype(DTYPES[dtype])
    wanted = kind.itemsize * math.prod(shape)
    if len(raw) != wanted:
        raise invalid("observation", f"{wanted} bytes, for {dtype} of shape {shape}", f"{len(raw)}")
    return np.frombuffer(raw, kind).reshape(shape)


def _shown(document: Mapping[str, Any], field: str) -> str:
    return repr(document[field])[:80] if field in document else "nothing"
