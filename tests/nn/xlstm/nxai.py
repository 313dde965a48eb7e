"""A stack of NX-AI's package, with weights that anyone can draw again, and what it computes.

Where the package is installed, `python -m tests.nn.xlstm.nxai` writes `tests/golden/xlstm.json`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy
import torch

FILE = Path(__file__).parents[2] / "golden" / "xlstm.json"
SHAPE = {"dim": 8, "layers": 3, "heads": 2, "slstm_at": [1]}
TIME = 12


def drawn(shapes: dict[str, list[int]]) -> dict[str, torch.Tensor]:
    """Weights in float64 that float32 holds, the same for ever: NumPy keeps the numbers of `RandomState`."""
    random = numpy.random.RandomState(0)
    return {name: rounded(random.uniform(-0.5, 0.5, shape)) for name, shape in sorted(shapes.items())}


def rounded(values: numpy.ndarray) -> torch.Tensor:
    """The nearest numbers of float32, in float64."""
    return torch.from_numpy(values).float().double()


def inputs() -> torch.Tensor:
    """What the stack reads, in float64."""
    return rounded(numpy.random.RandomState(1).uniform(-2, 2, (2, TIME, SHAPE["dim"])))


def stack(xlstm: Any, **shape: Any) -> Any:
    """The package's stack of that shape."""
    heads = shape["heads"]
    return xlstm.xLSTMBlockStack(
        xlstm.xLSTMBlockStackConfig(
            mlstm_block=xlstm.mLSTMBlockConfig(mlstm=xlstm.mLSTMLayerConfig(num_heads=heads)),
            slstm_block=xlstm.sLSTMBlockConfig(slstm=xlstm.sLSTMLayerConfig(backend="vanilla", num_heads=heads)),
            context_length=64,
            num_blocks=shape["layers"],
            embedding_dim=shape["dim"],
            slstm_at=shape["slstm_at"],
        )
    )


def stepped(module: Any, x: torch.Tensor) -> torch.Tensor:
    """The output of a stack token by token.

    Its parallel form does without the first stabiliser, 0, and so adds another 1e-6 to the mLSTM's denominators.
    """
    outputs, state = [], None
    with torch.no_grad():
        for token in x.split(1, 1):
            output, state = module.step(token, state)
            outputs.append(output)
    return torch.cat(outputs, 1)


def computed(xlstm: Any) -> dict[str, Any]:
    """What the file holds."""
    module = stack(xlstm, **SHAPE).double()
    shapes = {name: list(tensor.shape) for name, tensor in module.state_dict().items()}
    module.load_state_dict(drawn(shapes))
    output = stepped(module, inputs())
    return {
        "source": "xLSTMBlockStack.step of the package xlstm (Apache-2.0), backend vanilla, in float64",
        "versions": {"xlstm": xlstm.__version__, "torch": torch.__version__},
        "shape": SHAPE,
        "weights": shapes,
        "output": output.tolist(),
    }


if __name__ == "__main__":
    import xlstm

    FILE.write_text(json.dumps(computed(xlstm)) + "\n")
