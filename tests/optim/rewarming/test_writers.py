"""What is written of measurements."""

from __future__ import annotations

import json
import math
import pickle

import pytest

from holdfast.errors import MissingExtraError
from holdfast.optim.rewarming import writers
from holdfast.optim.rewarming.writers import JsonLines, TensorBoard


def test_lines_are_appended_and_hold_json_alone(tmp_path):
    path = tmp_path / "runs" / "elr.jsonl"
    JsonLines(path)({"elr/a": 0.1, "elr/spread": math.nan}, 50)
    pickle.loads(pickle.dumps(JsonLines(path)))({"elr/a": math.inf}, 100)
    strict = {"parse_constant": lambda name: pytest.fail(name)}
    assert [json.loads(line, **strict) for line in path.read_text().splitlines()] == [
        {"step": 50, "elr/a": 0.1, "elr/spread": None},
        {"step": 100, "elr/a": None},
    ]


def test_scalars_of_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    writer = TensorBoard(tmp_path)
    writer({"elr/a": 0.5}, 50)
    writer({"elr/a": 0.25}, 100)
    writer.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("elr/a")] == [(50, 0.5), (100, 0.25)]
    assert pickle.loads(pickle.dumps(writer)).log_dir == str(tmp_path)


def test_a_missing_tensorboard_is_said_before_training(tmp_path, monkeypatch):
    def missing(module, extra):
        raise MissingExtraError(f"{module} {extra}")

    monkeypatch.setattr(writers, "require", missing)
    with pytest.raises(MissingExtraError, match="tensorboard plasticity"):
        TensorBoard(tmp_path)
