"""What a request may say, and how what it may not say is named."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from holdfast.serving.protocol import Answer, Refusal, StepRequest, finite_number, read_json, read_step

BYTES = base64.b64encode(np.zeros(3, "<f4").tobytes()).decode()


def body(**changes: Any) -> dict[str, Any]:
    return {"step": 0, "observation": [0.0, 1.0, 2.0], "reward": 0.5, "done": False, **changes}


@given(arrays.arrays(np.float32, 3, elements={"allow_nan": False, "allow_infinity": False}), st.booleans())
def test_a_step_arrives_as_it_was_sent(seen: np.ndarray, done: bool) -> None:
    sent = StepRequest(step=4, observation=seen, reward=None if done else 0.25, done=done)
    for document in (sent.document(), body(step=4, observation=seen.tolist(), reward=sent.reward, done=done)):
        got = read_step(read_json(json.dumps(document).encode()), (3,))
        assert got.observation.dtype == np.float32
        assert np.array_equal(got.observation, seen)
        assert (got.step, got.reward, got.done) == (4, sent.reward, done)


def test_a_picture_arrives_as_it_was_sent() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (3, 4, 5), np.uint8)
    for seen in (picture, np.asfortranarray(picture), (picture / 255).astype(np.float32)):
        sent = StepRequest(step=0, observation=seen, reward=None, done=False)
        got = read_step(read_json(json.dumps(sent.document()).encode()), (3, 4, 5))
        assert got.observation.dtype == seen.dtype
        assert np.array_equal(got.observation, seen)


def test_an_answer_arrives_as_it_was_sent() -> None:
    for action in (np.array([0.1, -2.0], np.float32), 3):
        sent = Answer(step=2, action=action, fallback=True)
        got = Answer.of(json.loads(json.dumps(sent.document())), recovered=True)
        assert np.array_equal(got.action, action)
        assert type(got.action) is type(action)
        assert (got.step, got.fallback, got.recovered) == (2, True, True)


@pytest.mark.parametrize(
    ("changes", "field", "message"),
    [
        ({"observation": [0.0, float("nan"), 1.0]}, "observation[1]", "expected a finite number, got nan"),
        ({"observation": [0.0, 1.0, float("-inf")]}, "observation[2]", "expected a finite number, got -inf"),
        ({"observation": [0.0, 1e39, 1.0]}, "observation[1]", "expected a finite number, got inf"),
        ({"observation": [0, 10**400, 1]}, "observation[1]", "expected a finite number"),
        ({"observation": [0.0, None, 1.0]}, "observation[1]", "expected a number, got None"),
        ({"observation": [0.0, "1", 1.0]}, "observation[1]", "expected a number, got '1'"),
        ({"observation": [0.0, [1.0], 1.0]}, "observation[1]", "expected a number, got [1.0]"),
        ({"observation": [0.0, True, 1.0]}, "observation[1]", "expected a number, got True"),
        ({"observation": [0.0, 1.0]}, "observation", "expected numbers of shape (3,), got 2 of them"),
        ({"observation": 1.0}, "observation", "expected numbers of shape (3,), got 1.0"),
        ({"observation": {"dtype": "float64", "base64": BYTES}}, "observation", "expected a dtype of float32 or uint8"),
        ({"observation": {"dtype": "float32"}}, "observation", "expected a dtype of float32 or uint8, and base64"),
        ({"observation": {"dtype": "float32", "base64": "!!"}}, "observation", "expected base64"),
        ({"observation": {"dtype": "uint8", "base64": BYTES}}, "observation", "expected 3 bytes, for uint8 of shape"),
        ({"reward": float("nan")}, "reward", "expected a finite number, got nan"),
        ({"reward": 1e39}, "reward", "expected a finite number, got 1e+39"),
        ({"reward": 10**400}, "reward", "expected a finite number, got inf"),
        ({"reward": "much"}, "reward", "expected a number, got 'much'"),
        ({"reward": False}, "reward", "expected a number, got False"),
        ({"done": 1}, "done", "expected true or false, got 1"),
        ({"done": None}, "done", "expected true or false, got None"),
        ({"step": -1}, "step", "expected a whole number of at least 0, got -1"),
        ({"step": True}, "step", "expected a whole number of at least 0, got True"),
        ({"step": 1.0}, "step", "expected a whole number of at least 0, got 1.0"),
        ({"rewards": 1.0}, "rewards", "expected one of the fields step, observation, reward, done"),
    ],
)
def test_what_cannot_be_is_refused_by_name(changes: dict[str, Any], field: str, message: str) -> None:
    with pytest.raises(Refusal) as refused:
        read_step(body(**changes), (3,))
    assert (refused.value.status, refused.value.details) == (422, {"field": field})
    assert str(refused.value).startswith(f"{field}: {message}")


@pytest.mark.parametrize("missing", ["step", "observation"])
def test_what_is_missing_is_named(missing: str) -> None:
    document = body()
    del document[missing]
    with pytest.raises(Refusal, match=rf"^{missing}: .*, got nothing"):
        read_step(document, (3,))


def test_a_reward_that_is_missing_is_not_known() -> None:
    document = body()
    del document["reward"], document["done"]
    assert read_step(document, (3,)).reward is None
    assert read_step(body(reward=None), (3,)).reward is None
    assert read_step(body(reward=0), (3,)).reward == 0.0


def test_pictures_come_as_bytes() -> None:
    with pytest.raises(Refusal, match="expected the bytes of a picture of shape"):
        read_step(body(observation=[[[0, 1]]]), (1, 1, 2))


@pytest.mark.parametrize("text", [b"", b"{", b"\xff", b"[" * 100_000, b"[1]", b"3", b'{"a": ' + b"9" * 5000 + b"}"])
def test_what_is_no_object_is_refused(text: bytes) -> None:
    with pytest.raises(Refusal) as refused:
        read_json(text)
    assert refused.value.status == 400


def test_the_largest_number_of_float32_is_one() -> None:
    largest = float(np.finfo(np.float32).max)
    assert finite_number("reward", largest) == largest
    with pytest.raises(Refusal):
        finite_number("reward", largest * 1.01)
