"""What two processes do together, started by `torchrun`: they train."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from holdfast.models.action.train import train
from tests.models.action.sources import MadeUp
from tests.models.action.test_train import recipe

if __name__ == "__main__":
    train(recipe(), MadeUp(), Path(sys.argv[1]), quiet=True)
    torch.distributed.barrier()  # one that leaves early can abort
    torch.distributed.destroy_process_group()
