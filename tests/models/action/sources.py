"""A source of batches with something to learn: actions that are functions of what is observed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch

from holdfast.models.action.batch import Batch
from holdfast.models.action.domain import Domain
from tests.models.action.tiny import ARM, MAZE, batch

CONTEXT = 6


class MadeUp:
    """Of two domains in turn.

    Arguments:
        data: another number is other data.
        stop_at: number of a batch at which the run is interrupted.
    """

    def __init__(self, data: int = 0, stop_at: int | None = None) -> None:
        self.data, self.stop_at = data, stop_at
        self.asked: list[int] = []

    @property
    def domains(self) -> Mapping[str, Domain]:
        return {domain.name: domain for domain in (MAZE, ARM)}

    @property
    def fingerprint(self) -> str:
        return f"made up {self.data}"

    def batch(self, number: int, size: int) -> Batch:
        if number == self.stop_at:
            raise KeyboardInterrupt
        self.asked.append(number)
        return self._made((MAZE, ARM)[number % 2], size, 1000 * self.data + number)

    def validation(self, size: int) -> Iterator[Batch]:
        for number, (domain, windows) in enumerate(((MAZE, 8), (ARM, 8), (MAZE, 3))):
            whole = self._made(domain, windows, 10**6 + number)
            for first in range(0, windows, size):
                rows = slice(first, first + size)
                yield replace(
                    whole,
                    **{
                        name: getattr(whole, name)[rows]
                        for name in ("observation", "action", "valid", "reward", "returns_to_go")
                    },
                )

    def _made(self, domain: Domain, size: int, seed: int) -> Batch:
        whole = batch(domain, size, CONTEXT, seed)
        if domain is MAZE:
            action = (whole.observation[..., :1] > 0).long()
        else:
            action = torch.stack([0.9 * whole.observation[..., 0].sign(), torch.full((size, CONTEXT), 3.0)], -1)
        valid = whole.valid.clone()
        valid[0, CONTEXT // 2 :] = False
        return replace(whole, action=action, valid=valid)
