"""A similarity in a file, with the list of actions that it is of: to carry it to the next task.

An .npz without pickles: `sigma`, `actions`, `names` and `meanings` (JSON), `parametrisation`, `eta`, `env_id`, and
`sha256`, the hash of the actions in their order.
"""

from __future__ import annotations

import json
import math
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from holdfast.errors import ArgumentError
from holdfast.rl.macros import Macros
from holdfast.rl.similarity.matrix import SATURATED, SimilarityMatrix, checked_similarity, sinkhorn

ROUNDS = 200
"""Of balancing a part of a matrix."""
BALANCED = 1e-3
"""By which the sums of a doubly stochastic matrix may differ from 1."""


@dataclass(frozen=True, kw_only=True)
class StoredSimilarity:
    """A similarity as it was saved.

    Arguments:
        sigma: the matrix.
        actions: that it is of.
        parametrisation: the kind of `SimilarityMatrix` that it was; only rows of `sinkhorn` and `cluster` sum to 1, and
            only these can be told to be similarities.
        eta: strength of the penalty that it was learned with; NaN: unknown.
        env_id: where it was learned; empty: unknown.
    """

    sigma: Float[Tensor, "n n"]
    actions: Macros
    parametrisation: str
    eta: float
    env_id: str

    def for_actions(self, actions: int | Macros, *, action_map: Sequence[int] | None = None) -> SimilarityMatrix:
        """The matrix, frozen, for an agent.

        Arguments:
            actions: the agent's.
            action_map: for each of them, the number of that action here; `None`: they are the same. A doubly stochastic
                matrix of which a part is taken is balanced again.

        Errors:
            ArgumentError: other actions, or in another order; a map that leaves an action out, names one twice or one
                that there is not, or one whose similar actions are all left out.
        """
        ours = actions if isinstance(actions, Macros) else Macros(actions)
        if action_map is None:
            difference = ours.difference(self.actions)
            if difference:
                words = "a similarity of the same actions in the same order, or an action_map"
                raise ArgumentError("actions", words, difference)
            return SimilarityMatrix(ours, kind="frozen", start=self.sigma)
        chosen = list(action_map)
        known = set(range(len(self.actions)))
        if len(chosen) != len(ours) or len(set(chosen)) != len(chosen) or not known.issuperset(chosen):
            words = f"for each of {len(ours)} actions another one of {len(self.actions)}"
            raise ArgumentError("action_map", words, repr(chosen))
        part = self.sigma[chosen][:, chosen]
        if len(chosen) < len(self.actions) and bool(((self.sigma.sum(1) - 1).abs() < BALANCED).all()):
            lost = (part.sum(1) == 0).nonzero().flatten().tolist()
            if lost:
                raise ArgumentError("action_map", "actions that are similar to others among them", f"action {lost[0]}")
            part = sinkhorn(part.double().clamp(min=math.exp(-SATURATED)).log(), ROUNDS).float()
        return SimilarityMatrix(ours, kind="frozen", start=part)


def save_similarity(path: Path, similarity: SimilarityMatrix, *, eta: float = math.nan, env_id: str = "") -> None:
    """Write a similarity, all of it or nothing.

    Arguments:
        path: of the file, which should end in .npz.
        similarity: of any kind.
        eta: strength of the penalty that it was learned with.
        env_id: where it was learned.

    Errors:
        ArgumentError: it cannot be written.
    """
    actions = similarity.actions
    content: dict[str, Any] = {
        "sigma": similarity.matrix().detach().cpu().float().numpy(),
        "actions": json.dumps([list(action) for action in actions]),
        "names": json.dumps(actions.names),
        "meanings": json.dumps(actions.meanings),
        "parametrisation": similarity.kind,
        "eta": np.float64(eta),
        "env_id": env_id,
        "sha256": actions.sha256,
    }
    temporary = path.with_name(f"{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            np.savez(file, **content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise ArgumentError("path", "a file that can be written", f"{path} ({error.strerror})") from error


def read_similarity(path: Path) -> StoredSimilarity:
    """Read what `save_similarity` wrote, and make sure that it is whole.

    Errors:
        ArgumentError: it cannot be read, or is no such file; its hash is not that of its actions; its matrix is no
            similarity of them.
    """
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            content = {name: file[name] for name in file.files}
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise ArgumentError("path", "a file of a similarity that can be read", f"{path} ({error})") from error
    try:
        listed = [tuple(action) for action in json.loads(str(content["actions"]))]
        names = json.loads(str(content["names"]))
        primitives = sum(len(action) == 1 for action in listed)
        actions = Macros(primitives, tuple(listed[primitives:]), None if names is None else tuple(names))
        sha256, sigma = str(content["sha256"]), torch.from_numpy(content["sigma"])
        parametrisation, env_id = str(content["parametrisation"]), str(content["env_id"])
        eta = float(content["eta"])
    except (KeyError, TypeError, ValueError) as error:
        raise ArgumentError("path", "a file of a similarity", f"{path} ({error})") from error
    if sha256 != actions.sha256 or list(actions) != listed:
        raise ArgumentError("path", f"actions with the hash {sha256}", f"{path}, whose actions have another")
    matrix = checked_similarity(sigma, len(actions), name="sigma")
    return StoredSimilarity(sigma=matrix, actions=actions, parametrisation=parametrisation, eta=eta, env_id=env_id)


def load_similarity(path: Path, actions: int | Macros, *, action_map: Sequence[int] | None = None) -> SimilarityMatrix:
    """A similarity from a file, frozen, for an agent with the same actions or with a map of them.

    Arguments:
        path: of the file.
        actions: the agent's.
        action_map: as in `StoredSimilarity.for_actions`.

    Errors:
        ArgumentError: as for `read_similarity` and `StoredSimilarity.for_actions`.
    """
    return read_similarity(path).for_actions(actions, action_map=action_map)
