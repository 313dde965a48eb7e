"""Where measurements go: a writer is any function of numbers by name and the number of the step."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from holdfast.errors import require


class JsonLines:
    """Appends one JSON object a call to a file: `step`, then the numbers, `null` for those that are not finite.

    Arguments:
        path: of the file; it and its folder are made when the first line is written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def __call__(self, values: dict[str, float], step: int) -> None:
        """Write a line, which is in the file when this returns."""
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **finite}) + "\n")


class TensorBoard:
    """Writes scalars for TensorBoard, in the extra `plasticity`.

    Arguments:
        log_dir: folder of the run.

    Errors:
        MissingExtraError: TensorBoard is not installed.
    """

    def __init__(self, log_dir: str | Path) -> None:
        require("tensorboard", "plasticity")
        self.log_dir = str(log_dir)
        self._writer: Any = None

    def __call__(self, values: dict[str, float], step: int) -> None:
        """Write one scalar for each number."""
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(self.log_dir)
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Have all of it in the file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def __getstate__(self) -> dict[str, Any]:
        """Without the open file: a copy begins one of its own in the same folder."""
        return {**self.__dict__, "_writer": None}
