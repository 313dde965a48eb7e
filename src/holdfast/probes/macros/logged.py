"""Q values that an agent gave to all actions in logged states: from arrays, a CSV file, an .npz file, or a function."""

from __future__ import annotations

import csv
import math
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import nn

from holdfast.errors import ArgumentError
from holdfast.probes.report import evaluating, random_state_kept

BATCH = 256
"""States that a function is asked for at once."""

COLUMNS = ("action", "episode")
"""Of a file, beside the values."""


@dataclass(frozen=True, eq=False)
class LoggedValues:
    """Values of all actions in some states, checked; see `logged_values`.

    Arguments:
        q: in float64; what illegal actions have is 0.
        legal: which actions are.
        action: that was taken in each state; `None`: not logged.
        episode: number of each state's, from 0 on; `None`: not logged.
        precision: of one value, relative to the largest.
        unused: what else the file had.
    """

    q: Float[np.ndarray, "states n"]
    legal: Bool[np.ndarray, "states n"]
    action: Int[np.ndarray, " states"] | None
    episode: Int[np.ndarray, " states"] | None
    precision: float
    unused: tuple[str, ...] = ()


def logged_values(
    q: Any, *, mask: Any = None, action: Any = None, episode: Any = None, unused: tuple[str, ...] = ()
) -> LoggedValues:
    """Check values that somebody has logged.

    Arguments:
        q: values, expectations and not logits, of shape (states, n); an array or tensor. -inf: the action is illegal.
        mask: legal actions, of the same shape; what q holds elsewhere is not read. `None`: those that are not -inf.
        action: that was taken in each state.
        episode: of each state, as numbers or words.
        unused: names of what else there was.

    Errors:
        ArgumentError: shapes; a value that is NaN or infinite; a state without legal action; an action that is none,
            or is illegal.
    """
    given = _array("q", q)
    if given.ndim != 2 or given.shape[1] < 2 or given.dtype.kind not in "fiu":
        raise ArgumentError("q", "numbers of shape (states, actions), of at least two actions", _described(given))
    values = given.astype(np.float64)
    legal = values != -np.inf
    if mask is not None:
        legal = _array("mask", mask)
        if legal.shape != values.shape or legal.dtype != np.bool_:
            raise ArgumentError("mask", f"booleans of shape {values.shape}", _described(legal))
    for row, column in np.argwhere(legal & ~np.isfinite(values))[:1].tolist():
        found = f"{values[row, column]}" + (" where the mask says legal" if mask is not None else "")
        raise ArgumentError(f"q[{row}, {column}]", "a finite number, or -inf for an illegal action", found)
    for row in np.flatnonzero(~legal.any(1))[:1].tolist():
        raise ArgumentError(f"q[{row}]", "at least one legal action", "none")
    precision = np.finfo(given.dtype).eps if given.dtype.kind == "f" else np.finfo(np.float64).eps
    return LoggedValues(
        q=np.where(legal, values, 0.0),
        legal=legal,
        action=None if action is None else _taken(_array("action", action), legal),
        episode=None if episode is None else _numbered(_array("episode", episode), len(values)),
        precision=float(precision),
        unused=unused,
    )


def read_csv(path: Path) -> LoggedValues:
    """Values from a CSV file with a header: columns q0, q1, …, and perhaps `action` and `episode`, a line a state.

    An illegal action has -inf. Other columns are not used.

    Errors:
        ArgumentError: the file cannot be read; a column is missing; a line has something that `logged_values` refuses,
            which the error names by its number.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            header = [name.strip() for name in next(reader, [])]
            lines = [(reader.line_num, row) for row in reader if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ArgumentError("path", "a CSV file that can be read", f"{path} ({error})") from error
    twice = {name for name in header if header.count(name) > 1}
    n = sum(name.startswith("q") and name[1:].isdecimal() for name in header)
    wanted = [f"q{number}" for number in range(n)]
    if n < 2 or twice or not set(wanted) <= set(header):
        words = "a header with columns q0, q1, … without a gap, each once, and perhaps action and episode"
        raise ArgumentError("path", words, f"{path}, line 1: {','.join(header)[:80]}")
    places = {name: header.index(name) for name in (*wanted, *COLUMNS) if name in header}
    values, actions, episodes = np.empty((len(lines), n)), [], []
    for row, (number, cells) in enumerate(lines):
        where = f"{path.name}, line {number}"
        if len(cells) != len(header):
            raise ArgumentError(where, f"{len(header)} cells, as the header has", f"{len(cells)}")
        values[row] = [_value(where, name, cells[places[name]]) for name in wanted]
        if not np.isfinite(values[row]).any():
            raise ArgumentError(where, "at least one legal action", "-inf everywhere")
        if "action" in places:
            taken = cells[places["action"]].strip()
            if not taken.isdecimal() or int(taken) >= n or values[row, int(taken)] == -np.inf:
                raise ArgumentError(where, f"a legal action from 0 to {n - 1}", repr(taken))
            actions.append(int(taken))
        if "episode" in places:
            episodes.append(cells[places["episode"]].strip())
    return logged_values(
        values,
        action=actions if "action" in places else None,
        episode=episodes if "episode" in places else None,
        unused=tuple(name for name in header if name not in places),
    )


def read_npz(path: Path) -> LoggedValues:
    """Values from an .npz file with the array `q`, and perhaps `mask`, `action` and `episode`, as `logged_values` has.

    Errors:
        ArgumentError: the file cannot be read, or has no q; or as for `logged_values`.
    """
    arrays = _loaded(path)
    if "q" not in arrays:
        raise ArgumentError("path", "an .npz file with an array q", f"{path}, which has: {', '.join(arrays) or 'none'}")
    return _beside(arrays.pop("q"), arrays)


def ask_function(function: Callable[..., Any], path: Path) -> LoggedValues:
    """Values of a function or network, which is left as it was, in states from a file.

    Arguments:
        function: from a batch of states, a tensor, to their Q values of shape (batch, n). A network gets them on its
            device, and floating ones in its own precision.
        path: an .npy file of the states, with one in each row; or an .npz file with these as `states`, and perhaps
            `mask`, `action` and `episode`.

    Errors:
        ArgumentError: the file cannot be read; the function fails or returns something else; or as for
            `logged_values`.
    """
    arrays = _loaded(path)
    if "states" not in arrays or arrays["states"].ndim < 1 or not len(arrays["states"]):
        words = f"{path}, which has: {', '.join(arrays) or 'none'}"
        raise ArgumentError("states", "an .npy file of states, or an .npz file with an array states", words)
    states = arrays.pop("states")
    if states.dtype.kind not in "fiub":
        raise ArgumentError("states", "an array of numbers", _described(states))
    module = function if isinstance(function, nn.Module) else nn.Module()
    like = next(module.parameters(), None)
    answers: list[np.ndarray] = []
    with random_state_kept(), evaluating(module), torch.no_grad():
        for start in range(0, len(states), BATCH):
            batch = torch.from_numpy(states[start : start + BATCH])
            if like is not None:
                batch = batch.to(like.device, like.dtype if batch.is_floating_point() else batch.dtype)
            try:
                answer = function(batch)
            except Exception as error:
                first = (str(error).strip().splitlines() or [""])[0]
                words = "one that returns the Q values of a batch of states"
                raise ArgumentError("function", words, f"{type(error).__name__}: {first}") from error
            answer = _array("function", answer)
            wanted = answers[0].shape[1:] if answers else answer.shape[1:]
            if answer.ndim != 2 or answer.shape[0] != len(batch) or answer.shape[1:] != wanted:
                words = f"one that returns Q values of shape ({len(batch)}, {wanted[0] if wanted else 'n'})"
                raise ArgumentError("function", words, _described(answer))
            answers.append(answer)
    return _beside(np.concatenate(answers), arrays)


def _beside(q: np.ndarray, arrays: dict[str, np.ndarray]) -> LoggedValues:
    """With what else a file has."""
    known = {name: arrays.pop(name, None) for name in ("mask", *COLUMNS)}
    return logged_values(q, **known, unused=tuple(arrays))


def _loaded(path: Path) -> dict[str, np.ndarray]:
    """Arrays of a file by name; nothing in it is executed."""
    try:
        with path.open("rb") as opened:
            file = np.load(opened, allow_pickle=False)
            return {"states": file} if isinstance(file, np.ndarray) else {name: file[name] for name in file.files}
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise ArgumentError("path", "a file of numpy that can be read", f"{path} ({error})") from error


def _value(where: str, name: str, cell: str) -> float:
    """One cell."""
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if math.isnan(value) or value == math.inf:
        raise ArgumentError(where, f"a finite number for {name}, or -inf for an illegal action", repr(cell.strip()))
    return value


def _array(name: str, given: Any) -> np.ndarray:
    if isinstance(given, torch.Tensor):
        tensor = given.detach().cpu()
        return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    try:
        return np.asarray(given)
    except ValueError as error:
        raise ArgumentError(name, "an array", str(error)) from error


def _taken(action: np.ndarray, legal: Bool[np.ndarray, "states n"]) -> Int[np.ndarray, " states"]:
    states, n = legal.shape
    if action.shape != (states,) or action.dtype.kind not in "iu":
        raise ArgumentError("action", f"whole numbers of shape ({states},)", _described(action))
    for row in np.flatnonzero((action < 0) | (action >= n))[:1].tolist():
        raise ArgumentError(f"action[{row}]", f"an action from 0 to {n - 1}", f"{action[row]}")
    for row in np.flatnonzero(~legal[np.arange(states), action])[:1].tolist():
        raise ArgumentError(f"action[{row}]", "a legal action", f"{action[row]}, which is illegal there")
    return action.astype(np.int64)


def _numbered(episode: np.ndarray, states: int) -> Int[np.ndarray, " states"]:
    if episode.shape != (states,) or episode.dtype.kind not in "iubSU":
        raise ArgumentError("episode", f"numbers or words of shape ({states},)", _described(episode))
    return np.unique(episode, return_inverse=True)[1].astype(np.int64)


def _described(array: np.ndarray | Sequence[Any]) -> str:
    shaped = np.asarray(array)
    return f"{shaped.dtype} of shape {shaped.shape}"
