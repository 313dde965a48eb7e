from __future__ import annotations

import sys

import pytest

from holdfast.errors import MissingExtraError
from holdfast.models.action.trajectories import (
    Trajectories,
    read_lerobot,
    read_minari,
    write_episode_files,
    write_lerobot,
    write_minari,
)
from tests.models.action.trajectories.episodes import GRID, episode


@pytest.mark.parametrize(
    ("package", "call"),
    [
        ("minari", lambda data, folder: read_minari("a/b-v0")),
        ("minari", lambda data, folder: write_minari(data, "a/b-v0")),
        ("h5py", lambda data, folder: write_minari(data, "a/b-v0")),
        ("h5py", lambda data, folder: write_episode_files(data, folder)),
        ("pyarrow", lambda data, folder: read_lerobot(folder)),
        ("pyarrow", lambda data, folder: write_lerobot(data, folder, fps=1)),
    ],
)
def test_a_missing_package_is_said_before_anything_begins(tmp_path, monkeypatch, package, call):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    for name in [name for name in sys.modules if name == package or name.startswith(f"{package}.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    folder = tmp_path / "data"
    with pytest.raises(MissingExtraError, match=r"pip install 'holdfast\[action\]'$"):
        call(Trajectories.of(GRID, [episode(GRID, 3)]), folder)
    assert not folder.exists()
