"""The store keeps whole results only, recognises what is not its own, and says clearly when it cannot write."""

from __future__ import annotations

import gzip
import json
import math
import os
import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast.errors import ArgumentError
from holdfast.lab import files
from holdfast.lab.identity import identity, key_of
from holdfast.lab.store import CURVES, FILES, RunRecord, Store, StoreError, StoreWarning
from holdfast.lab.trial import Config, Outcome, Trial, as_outcome


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


def kept(root: Path, outcome: Outcome) -> Outcome:
    """What a store gives back, as a later command would read it."""
    store = Store(root)
    store.check_writable()
    document = identity("toy", TRIAL, "v1")
    at_once = store.save("toy", document, as_outcome(outcome), {}).outcome
    later = Store(root).load("toy", document)
    assert later is not None
    assert exactly(at_once) == exactly(later.outcome)
    return later.outcome


def exactly(outcome: Outcome) -> object:
    """An outcome with the types of its values, in which NaN equals NaN and 0.0 differs from -0.0."""
    tables = {"": outcome.records, **{f"curve {name}": rows for name, rows in outcome.curves.items()}}
    return {
        name: [[(column, type(value), repr(value)) for column, value in row.items()] for row in rows]
        for name, rows in tables.items()
    }


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=-(2**13_999), max_value=2**13_999),
    st.floats(),
    st.text(st.characters(exclude_categories=("Cs",))),
    st.sampled_from(["inf", "-inf", "nan", "NaN", "null", "true", "1", "1e5", '{"float": "inf"}', "\x00", "\u2028"]),
)
COLUMNS = st.one_of(
    st.text(st.characters(exclude_categories=("Cs",))), st.sampled_from(["curve", "float", "seeds", ".", "__index__"])
).filter(lambda name: name not in ("part", "seed", "arm"))
TABLES = st.lists(st.dictionaries(COLUMNS, VALUES, min_size=1, max_size=3), max_size=3)


@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
@given(records=TABLES.filter(bool), curves=st.dictionaries(COLUMNS, TABLES, max_size=3))
def test_every_value_comes_back_as_it_went_in(
    tmp_path_factory: pytest.TempPathFactory, records: Any, curves: Any
) -> None:
    outcome = Outcome(records, curves)
    assert exactly(kept(tmp_path_factory.mktemp("store"), outcome)) == exactly(outcome)


def test_text_that_looks_like_a_number_stays_text(tmp_path: Path) -> None:
    outcome = Outcome([{"answer": "inf", "value": math.inf, "ratio": math.nan, "word": "nan"}])
    assert exactly(kept(tmp_path, outcome)) == exactly(outcome)


def test_a_column_of_a_curve_may_have_any_name_and_mixed_types(tmp_path: Path) -> None:
    curves = {
        "train": [{"curve": "roc", "x": 1}, {"x": 2.5}, {"x": "text"}, {"x": None, "": True}],
        "large": [{"x": 2**70}],
        "empty": [],
    }
    outcome = Outcome([{"score": 1.0}], curves)
    assert exactly(kept(tmp_path, outcome)) == exactly(outcome)


def test_a_trial_without_curves_takes_three_small_files(tmp_path: Path) -> None:
    kept(tmp_path, Outcome([{"score": 1.0, "loss": 0.5}]))
    everything = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert sorted(path.name for path in everything) == ["SHA256SUMS", "metrics.json", "trial.json"]
    assert sum(path.stat().st_size for path in everything) < 3_000


def test_curves_that_change_after_they_were_checked_are_not_read(tmp_path: Path) -> None:
    store, document, folder = saved(tmp_path)
    stored = store.load("toy", document)
    assert stored is not None
    (folder / CURVES).write_bytes(gzip.compress(b'{"loss": []}'))
    with pytest.raises(StoreError, match="has changed since it was checked"):
        stored.outcome.curves["loss"]


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
    assert len(list(aside.iterdir())) == (3 if damage == "remove" else 4)
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
    assert not list((tmp_path / ".locks").iterdir())


def test_what_killed_runs_left_is_cleared_and_what_living_ones_use_is_not(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.check_writable()
    lock = store.try_lock("used")
    assert lock is not None
    for name in ("used", "left"):
        (tmp_path / ".writing" / name).mkdir()
        (tmp_path / ".writing" / name / "trial.json").touch()
    (tmp_path / ".locks" / "left.lock").touch()
    (tmp_path / ".writing" / "probe-1").touch()
    Store(tmp_path).check_writable()
    assert [path.name for path in (tmp_path / ".writing").iterdir()] == ["used"]
    assert [path.name for path in (tmp_path / ".locks").iterdir()] == ["used.lock"]
    lock.release()


def test_failures_are_kept_until_the_trial_succeeds(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.check_writable()
    document = identity("toy", TRIAL)
    store.save_failure("toy", document, "it broke", "a log")
    assert store.load_failure("toy", document) == ("it broke", "a log")
    assert (store.failed_folder("toy", key_of(document)) / "log.txt").read_text(encoding="utf-8") == "a log"
    store.save_failure("toy", document, "a half \ud800", "and another \udcff")  # from a file name, for instance
    assert store.load_failure("toy", document) == ("a half \ud800", "and another \\udcff")
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
    store.remember("toy", "quick", {}, tmp_path / "elsewhere" / "toy.py")
    assert str(tmp_path) not in (tmp_path / "runs.json").read_text(encoding="utf-8")
    assert sorted(path.name for path in tmp_path.rglob("*")) == [".locks", ".writing", "runs.json"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"[" * 100_000,
        b"\xff\xfe",
        b'{"runs": {}}',
        files.seal({"runs": {"../toy": {"scale": "quick", "overrides": {}}}}),
        files.seal({"runs": {"toy": {"scale": "quick", "overrides": {}, "source": "../toy.py"}}}),
        files.seal({"runs": {"toy": {"scale": "quick", "overrides": {}, "source": "\x1b[2Jtoy.py"}}}),
        files.seal({"runs": {"toy": {"scale": "quick", "overrides": []}}}),
        files.seal({"other": 1}),
    ],
)
def test_a_damaged_list_of_runs_is_set_aside(tmp_path: Path, content: bytes) -> None:
    store = Store(tmp_path)
    store.check_writable()
    (tmp_path / "runs.json").write_bytes(content)
    with pytest.warns(StoreWarning, match="runs.json is not trusted"), pytest.raises(StoreError, match="no runs in"):
        store.runs()
    assert (tmp_path / "set-aside" / "runs.json-1").read_bytes() == content
    store.remember("toy", "quick", {})
    assert list(store.runs()) == ["toy"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(tmp_path: Path) -> None:
    store, document, folder = saved(tmp_path)
    (folder / "metrics.json").unlink()
    os.mkfifo(folder / "metrics.json")
    os.mkfifo(tmp_path / "runs.json")
    with pytest.warns(StoreWarning, match="no plain file"):
        assert store.load("toy", document) is None
    with pytest.warns(StoreWarning, match="no plain file"), pytest.raises(StoreError, match="no runs in"):
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

    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "write", full)
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
    assert json.loads((folder / "trial.json").read_text(encoding="utf-8"))["identity"] == document
    curves = json.loads(gzip.decompress((folder / CURVES).read_bytes()))
    assert curves["loss"] == [{"step": 0, "loss": 1.5}, {"step": 1, "loss": {"float": "-inf"}}]


def test_the_parts_that_were_run_are_remembered(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.check_writable()
    store.remember("toy", "quick", {"seeds": 3}, "/somewhere/toy.py", ("growth",))
    store.remember("other", "quick", {})
    assert store.runs()["toy"] == RunRecord("quick", {"seeds": 3}, "toy.py", ("growth",))
    assert store.runs()["other"].only is None


def test_a_result_that_was_to_be_replaced_survives_a_kill_in_between(tmp_path: Path, monkeypatch: Any) -> None:
    """Between the renames of the old folder and of the new one there is neither under its name."""
    store, document, folder = saved(tmp_path)
    rename = Path.rename

    def killed(self: Path, target: Path) -> Path:
        if target == folder:
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        store.save("toy", document, Outcome([{"score": 2.0}]), {})
    monkeypatch.undo()
    assert not folder.exists()
    store.check_writable()
    stored = store.load("toy", document)
    assert stored is not None
    assert stored.outcome.records[0]["word"] == "x"
    assert not list((tmp_path / ".writing").iterdir())
    store.save("toy", document, Outcome([{"score": 2.0}]), {})
    store.check_writable()
    assert [row["score"] for row in store.load("toy", document).outcome.records] == [2.0]  # type: ignore[union-attr]


def test_a_checkpoint_goes_with_the_result(tmp_path: Path) -> None:
    store, document, _ = saved(tmp_path)
    folder = store.checkpoint_folder(key_of(document))
    assert not folder.exists()
    folder.mkdir(parents=True)
    (folder / "half").write_text("way", encoding="utf-8")
    store.save_failure("toy", document, "killed", "")
    store.check_writable()
    assert (folder / "half").exists()
    store.save("toy", document, OUTCOME, {})
    assert not folder.exists()
