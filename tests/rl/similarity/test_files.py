"""A similarity in a file is whole, and of the actions that it is used for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from holdfast.errors import ArgumentError
from holdfast.rl import Macros, SimilarityMatrix, load_similarity, read_similarity, save_similarity

MACROS = Macros(2, ((0, 0), (1, 1), (0, 1)), ("UP", "DOWN"))


@pytest.fixture
def learned() -> SimilarityMatrix:
    generator = torch.Generator().manual_seed(100)
    start = torch.rand(5, 5, generator=generator)
    return SimilarityMatrix(MACROS, start=start + start.T)


def test_it_comes_back_as_it_was(tmp_path, learned):
    save_similarity(tmp_path / "runs" / "sigma.npz", learned, eta=0.5, env_id="Grid-v0")
    stored = read_similarity(tmp_path / "runs" / "sigma.npz")
    assert (stored.parametrisation, stored.eta, stored.env_id) == ("sinkhorn", 0.5, "Grid-v0")
    assert stored.actions == MACROS
    loaded = load_similarity(tmp_path / "runs" / "sigma.npz", Macros(2, MACROS.sequences))
    assert loaded.kind == "frozen"
    assert not list(loaded.parameters())
    torch.testing.assert_close(loaded.matrix(), learned.matrix().detach(), rtol=0, atol=1e-6)
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["sigma.npz"]
    with np.load(tmp_path / "runs" / "sigma.npz") as file:
        assert set(file.files) == {
            *("sigma", "actions", "names", "meanings", "parametrisation", "eta", "env_id", "sha256"),
        }
        assert file["sigma"].dtype == np.float32


def test_other_actions_are_refused(tmp_path, learned):
    path = tmp_path / "sigma.npz"
    save_similarity(path, learned)
    for actions, message in [
        (Macros(2, ((1, 1), (0, 0), (0, 1))), r"got action 2 = \(0, 0\), here \(1, 1\)"),
        (Macros(2, ((0, 0), (1, 1))), "got 5 actions, here 4"),
        (Macros(2, MACROS.sequences, ("DOWN", "UP")), "got action 0 called UP, here DOWN"),
        (5, r"got action 2 = \(0, 0\), here \(2,\)"),
    ]:
        with pytest.raises(ArgumentError, match=f"actions: .* the same order, or an action_map, {message}"):
            load_similarity(path, actions)


def test_an_explicit_map_reorders_or_takes_a_part(tmp_path, learned):
    path, sigma = tmp_path / "sigma.npz", learned.matrix().detach()
    save_similarity(path, learned)
    order = [1, 0, 3, 2, 4]
    moved = load_similarity(path, 5, action_map=order).matrix()
    torch.testing.assert_close(moved, sigma[order][:, order], rtol=0, atol=1e-6)
    part = load_similarity(path, 3, action_map=[4, 0, 2]).matrix()
    torch.testing.assert_close(part.sum(1), torch.ones(3))
    torch.testing.assert_close(part, part.T)
    # Balanced by scaling rows and columns: cross ratios are those of the part.
    block = sigma[[4, 0, 2]][:, [4, 0, 2]]
    torch.testing.assert_close(
        part[0, 1] * part[1, 2] / (part[0, 2] * part[1, 1]), block[0, 1] * block[1, 2] / (block[0, 2] * block[1, 1])
    )
    for wrong in ([0, 1, 2, 3], [0, 1, 2, 3, 3], [0, 1, 2, 3, 5], [0, 1, 2, 3, -1]):
        with pytest.raises(ArgumentError, match="action_map: expected for each of 5 actions another one of 5"):
            load_similarity(path, 5, action_map=wrong)


def test_a_part_of_a_raw_matrix_is_as_it_is_and_one_without_its_similar_actions_is_refused(tmp_path):
    raw = SimilarityMatrix(4, kind="raw", seed=3)
    save_similarity(tmp_path / "raw.npz", raw)
    torch.testing.assert_close(
        load_similarity(tmp_path / "raw.npz", 2, action_map=[3, 1]).matrix(), raw.matrix().detach()[[3, 1]][:, [3, 1]]
    )
    swap = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    save_similarity(tmp_path / "swap.npz", SimilarityMatrix(3, kind="frozen", start=swap))
    with pytest.raises(ArgumentError, match="action_map: expected actions that are similar to others among them"):
        load_similarity(tmp_path / "swap.npz", 2, action_map=[0, 2])


def test_damaged_and_foreign_files_are_refused(tmp_path, learned):
    path = tmp_path / "sigma.npz"
    save_similarity(path, learned)
    with np.load(path) as file:
        content = {name: file[name] for name in file.files}

    def changed(**entries: object) -> None:
        np.savez(path, **{name: value for name, value in (content | entries).items() if value is not None})

    for entries, message in [
        ({"sha256": "0" * 64}, "path: expected actions with the hash 0+"),
        ({"actions": "[[0], [1], [1, 1], [0, 0], [0, 1]]"}, "path: expected actions with the hash"),
        ({"actions": "[[0], [0, 0], [1], [1, 1], [0, 1]]"}, "path: expected a file of a similarity"),
        ({"actions": "[[1], [0], [0, 0], [1, 1], [0, 1]]"}, "path: expected actions with the hash"),
        ({"actions": "[[0], [1]"}, "path: expected a file of a similarity"),
        ({"eta": None}, "path: expected a file of a similarity"),
        ({"sigma": content["sigma"][:4, :4]}, r"sigma: expected shape \(5, 5\), of 5 actions"),
        ({"sigma": -content["sigma"]}, "sigma: expected entries that are not negative"),
        ({"sigma": content["sigma"] * np.nan}, "sigma: expected finite entries"),
        ({"sigma": np.array([object()])}, "path: expected a file of a similarity that can be read"),
    ]:
        changed(**entries)
        with pytest.raises(ArgumentError, match=message):
            read_similarity(path)
    whole = path.read_bytes()
    for bad in (whole[:100], b"", b"text"):
        path.write_bytes(bad)
        with pytest.raises(ArgumentError, match="path: expected a file of a similarity that can be read"):
            read_similarity(path)
    np.save(tmp_path / "array.npy", np.eye(5))
    for other in ("array.npy", "none.npz"):
        with pytest.raises(ArgumentError, match="path: expected a file of a similarity that can be read"):
            read_similarity(tmp_path / other)
    (tmp_path / "file").write_text("")
    with pytest.raises(ArgumentError, match="path: expected a file that can be written"):
        save_similarity(tmp_path / "file" / "sigma.npz", learned)
