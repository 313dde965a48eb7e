"""The store keeps whole results only, recognises what is not its own, and says clearly when it cannot write."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from holdfast.errors import ArgumentError
from holdfast.lab.identity import identity, key_of
from holdfast.lab.store import FILES, Store, StoreError, StoreWarning
from holdfast.lab.trial import Config, Outcome, Trial


@dataclass(frozen=True)
class Settings(Config):
    rate: float = 0.1
    sizes: tuple[int, ...] = (1, 2)


TRIAL = Trial(3, Settings(), {"arm": "plain"})
OUTCOME = Outcome(
    ({"score": 0.1 + 0.2, "bad": math.nan, "huge": math.inf, "n": 3, "word": "x", "none": None},),
    {"loss": ({"step": 0, "loss": 1.5}, {"step": 1, "loss": -math.inf}), "other": ({"x": "text"},)},
)


def saved(root: Path, trial: Trial[Settings] = TRIAL) -> tuple[Store, dict[str, object], Path]:
    store = Store(root)
    store.check_writable()
    document = identity("toy", trial)
    store.save("toy", document, OUTCOME, {"python": "3"})
    return store, document, root / "toy" / key_of(document)


def test_round_trip_is_exact(tmp_path: Path) -> None:
    store, document, folder = saved(tmp_path)
    stored = store.load("toy", document)
    assert stored is not None
    [record] = stored.outcome.records
    assert record["score"] == 0.1 + 0.2
    assert math.isnan(record["bad"])
    assert record["huge"] == math.inf
    assert (record["n"], record["word"], record["none"]) == (3, "x", None)
    assert stored.outcome.curves["loss"] == [{"step": 0, "loss": 1.5}, {"step": 1, "loss": -math.inf}]
    assert stored.outcome.curves["other"] == [{"x": "text"}]
    assert set(stored.outcome.curves) == {"loss", "other"}
    assert stored.environment == {"python": "3"}
    assert {path.name for path in folder.iterdir()} == {*FILES, "SHA256SUMS"}


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="sha256sum is not installed")
def test_checksums_are_those_of_the_standard_tool(tmp_path: Path) -> None:
    _, _, folder = saved(tmp_path)
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=folder, check=True, capture_output=True)


def test_identity_has_all_that_a_result_depends_on() -> None:
    keys = {
        key_of(identity(study, trial))
        for study in ("toy", "other")
        for trial in (
            TRIAL,
            replace(TRIAL, seed=4),
            replace(TRIAL, seed=(3,)),
            replace(TRIAL, labels={"arm": "new"}),
            replace(TRIAL, config=Settings(rate=0.2)),
            replace(TRIAL, config=Settings(sizes=(2, 1))),
        )
    }
    assert len(keys) == 2 * 6


@dataclass(frozen=True)
class Model:
    width: int = 3


@dataclass(frozen=True)
class Gated(Model):
    gates: int = 2


@dataclass(frozen=True)
class Network:
    model: Model


@pytest.mark.parametrize("wrap", [lambda model: model, Network, lambda model: (Network(model),)])
def test_identity_has_the_settings_of_a_subclass_in_the_place_of_its_base(wrap: Any) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Whole(Config):
        held: Any

    two, three = (identity("toy", Trial(0, Whole(held=wrap(Gated(gates=gates))))) for gates in (2, 3))
    assert key_of(two) != key_of(three)


def test_identity_ignores_how_many_seeds_the_study_has_and_what_a_trial_costs() -> None:
    more = replace(TRIAL, config=Settings(seeds=50, first_seed=7), cost=9.0, gpu=0.5)
    assert identity("toy", more) == identity("toy", TRIAL)


def test_settings_that_are_no_data_are_refused() -> None:
    @dataclass(frozen=True)
    class Odd(Config):
        function: object = print

    with pytest.raises(ArgumentError, match=r"config\.function"):
        identity("toy", Trial(0, Odd()))


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["truncate", "flip", "remove"])
def test_a_damaged_folder_is_set_aside_and_kept(tmp_path: Path, name: str, damage: str) -> None:
    store, document, folder = saved(tmp_path)
    path = folder / name
    content = path.read_bytes()
    if damage == "truncate":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "flip":
        path.write_bytes(content[:-3] + bytes([content[-3] ^ 1]) + content[-2:])
    else:
        path.unlink()
    with pytest.warns(StoreWarning, match="not trusted"):
        assert store.load("toy", document) is None
    assert not folder.exists()
    [aside] = (tmp_path / "set-aside").iterdir()
    assert len(list(aside.iterdir())) == (4 if damage == "remove" else 5)
    store.save("toy", document, OUTCOME, {})
    assert store.load("toy", document) is not None


def test_a_foreign_folder_at_a_trials_place_is_set_aside(tmp_path: Path) -> None:
    store, document, folder = saved(tmp_path)
    other = identity("toy", replace(TRIAL, seed=9))
    shutil.copytree(folder, tmp_path / "toy" / key_of(other))
    with pytest.warns(StoreWarning, match="describes another trial"):
        assert store.load("toy", other) is None
    assert store.load("toy", document) is not None


def test_a_file_at_a_trials_place_is_set_aside(tmp_path: Path) -> None:
    store, document, folder = saved(tmp_path)
    shutil.rmtree(folder)
    folder.write_text("not a folder", encoding="utf-8")
    with pytest.warns(StoreWarning, match="not trusted"):
        assert store.load("toy", document) is None


def test_what_a_killed_run_left_half_written_is_no_result(tmp_path: Path) -> None:
    store, document, folder = saved(tmp_path)
    folder.rename(tmp_path / ".writing" / folder.name)
    (tmp_path / ".writing" / folder.name / "SHA256SUMS").unlink()
    assert store.load("toy", document) is None
    store.save("toy", document, OUTCOME, {})
    assert store.load("toy", document) is not None
    assert not list((tmp_path / ".writing").iterdir())


def test_a_lock_is_exclusive_and_falls_free(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.check_writable()
    lock = store.try_lock("k")
    assert lock is not None
    assert Store(tmp_path).try_lock("k") is None
    lock.release()
    again = Store(tmp_path).try_lock("k")
    assert again is not None
    again.release()


def test_failures_are_kept_until_the_trial_succeeds(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.check_writable()
    document = identity("toy", TRIAL)
    store.save_failure("toy", document, "it broke", "a log")
    assert store.load_failure("toy", document) == ("it broke", "a log")
    store.save("toy", document, OUTCOME, {})
    assert store.load_failure("toy", document) is None


def test_runs_are_remembered(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.check_writable()
    with pytest.raises(StoreError, match="no runs in"):
        store.runs()
    store.remember("toy", "quick", {"sizes": (1, 2)})
    store.remember("toy", "laptop", {"rate": 0.5}, "toy.py")
    store.remember("other", "quick", {})
    runs = Store(tmp_path).runs()
    assert (runs["toy"].scale, runs["toy"].overrides, runs["toy"].source) == ("laptop", {"rate": 0.5}, "toy.py")
    (tmp_path / "runs.json").write_text("{", encoding="utf-8")
    with pytest.raises(StoreError, match="damaged"):
        store.runs()


def test_a_path_that_is_a_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    with pytest.raises(StoreError, match="expected a folder"):
        Store(path)
    with pytest.raises(StoreError, match="cannot write to"):
        Store(path / "below").check_writable()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_a_clear_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StoreError, match="cannot write to"):
        Store(tmp_path).check_writable()


def test_a_full_disk_is_a_clear_error_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, document, _ = saved(tmp_path)
    other = identity("toy", replace(TRIAL, seed=9))

    def full(path: Path, *_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(StoreError, match="No space left on device"):
        store.save("toy", other, OUTCOME, {})
    monkeypatch.undo()
    assert store.load("toy", other) is None
    assert store.load("toy", document) is not None


def test_documents_are_readable_json(tmp_path: Path) -> None:
    _, document, folder = saved(tmp_path)

    def refuse(word: str) -> float:
        raise AssertionError(f"{word} is not JSON")

    for name in FILES:
        if name.endswith(".json"):
            json.loads((folder / name).read_text(encoding="utf-8"), parse_constant=refuse)
    assert json.loads((folder / "trial.json").read_text(encoding="utf-8")) == document
