"""Values from files and functions, and which line or array an error names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from holdfast.errors import ArgumentError
from holdfast.probes.macros import ask_function, read_csv, read_npz

Q = np.random.default_rng(0).normal(size=(300, 4))


def test_a_csv_file_is_read_by_its_header(tmp_path: Path):
    path = tmp_path / "q.csv"
    path.write_text("episode,q1,reward,q0,action\na,2,0,1,0\n\nb,-inf,0,-3e-1,0\na,1,9,4,1\n", encoding="utf-8-sig")
    values = read_csv(path)
    assert values.q.tolist() == [[1, 2], [-0.3, 0], [4, 1]]
    assert values.legal.tolist() == [[True, True], [True, False], [True, True]]
    assert values.action is not None
    assert values.action.tolist() == [0, 0, 1]
    assert values.episode is not None
    assert values.episode.tolist() == [0, 1, 0]
    assert values.unused == ("reward",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1"),
        ("a,b\n1,2\n", "q.csv, line 1: a,b"),
        ("q0,q2\n1,2\n", "q.csv, line 1: q0,q2"),
        ("q0,q0,q1\n1,2,3\n", "q.csv, line 1: q0,q0,q1"),
        ("q0,q1\n1,2\n1\n", "q.csv, line 3: expected 2 cells, as the header has, got 1"),
        (
            "q0,q1\n1,2\n\n1,x\n",
            "q.csv, line 4: expected a finite number for q1, or -inf for an illegal action, got 'x'",
        ),
        ("q0,q1\n1,\n", "line 2: expected a finite number for q1"),
        ("q0,q1\nnan,1\n", "line 2: expected a finite number for q0"),
        ("q0,q1\n1,inf\n", "line 2: expected a finite number for q1"),
        ("q0,q1\n-inf,-inf\n", "line 2: expected at least one legal action"),
        ("q0,q1,action\n1,2,2\n", "line 2: expected a legal action from 0 to 1, got '2'"),
        ("q0,q1,action\n1,2,0\n1,-inf,1\n", "line 3: expected a legal action from 0 to 1, got '1'"),
        ("q0,q1,action\n1,2,-1\n", "line 2: expected a legal action"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, text: str, message: str):
    (tmp_path / "q.csv").write_text(text, encoding="utf-8")
    with pytest.raises(ArgumentError) as raised:
        read_csv(tmp_path / "q.csv")
    assert message in str(raised.value)


def test_an_npz_file_has_masks_actions_and_episodes(tmp_path: Path):
    legal = Q < 1.5
    legal[:, 0] = True
    np.savez(tmp_path / "q.npz", q=Q, mask=legal, action=np.zeros(300, dtype=int), episode=np.arange(300) // 9, x=Q)
    values = read_npz(tmp_path / "q.npz")
    assert np.array_equal(values.legal, legal)
    assert np.array_equal(values.q[legal], Q[legal])
    assert values.episode is not None
    assert values.episode.max() == 33
    assert values.unused == ("x",)


def test_files_that_are_none_are_refused(tmp_path: Path):
    path = tmp_path / "q.npz"
    path.write_bytes(b"PK damaged")
    np.savez(tmp_path / "other.npz", values=Q)
    np.savez(tmp_path / "objects.npz", q=np.array([[1, "a"]], dtype=object))
    for name, message in (
        ("q.npz", "a file of numpy that can be read"),
        ("none.npz", "a file of numpy that can be read"),
        ("other.npz", "an array q, got .* which has: values"),
        ("objects.npz", "a file of numpy that can be read"),
    ):
        with pytest.raises(ArgumentError, match=message):
            read_npz(tmp_path / name)


def test_a_network_is_asked_in_batches_and_left_as_it_was(tmp_path: Path):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 8), nn.Dropout(), nn.ReLU(), nn.Linear(8, 4))
    states = np.random.default_rng(0).normal(size=(600, 3))
    np.save(tmp_path / "s.npy", states)
    state = torch.get_rng_state()
    values = ask_function(network, tmp_path / "s.npy")
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training for module in network.modules())
    assert all(parameter.grad is None for parameter in network.parameters())
    with torch.no_grad():
        expected = network.eval()(torch.from_numpy(states).float()).numpy()
    np.testing.assert_allclose(values.q, expected, rtol=1e-5, atol=1e-6)
    assert values.precision == np.finfo(np.float32).eps


def test_a_function_has_what_stands_beside_its_states(tmp_path: Path):
    np.savez(tmp_path / "s.npz", states=Q, action=np.ones(300, dtype=int))
    values = ask_function(lambda states: states[:, :2].bfloat16(), tmp_path / "s.npz")
    assert values.q.shape == (300, 2)
    assert values.action is not None
    assert values.action.sum() == 300


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda states: states[0], r"Q values of shape \(256, n\), got float64 of shape \(4,\)"),
        (lambda states: states[:, : 2 + (len(states) < 256)], r"shape \(44, 2\), got float64 of shape \(44, 3\)"),
        (lambda states: states @ torch.ones(3), "one that returns the Q values of a batch of states, got RuntimeError"),
    ],
)
def test_functions_that_do_not_fit_are_refused(tmp_path: Path, function: object, message: str):
    np.save(tmp_path / "s.npy", Q)
    with pytest.raises(ArgumentError, match=message):
        ask_function(function, tmp_path / "s.npy")


def test_files_of_states_are_checked(tmp_path: Path):
    np.savez(tmp_path / "s.npz", q=Q)
    np.save(tmp_path / "words.npy", np.array(["a", "b"]))
    for name, message in (("s.npz", "states: expected an .npy file of states"), ("words.npy", "an array of numbers")):
        with pytest.raises(ArgumentError, match=message):
            ask_function(lambda states: states, tmp_path / name)
