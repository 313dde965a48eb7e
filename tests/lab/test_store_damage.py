"""Whatever is damaged in a store is said, and changes no result in silence."""

from __future__ import annotations

import random
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from holdfast.lab.identity import identity
from holdfast.lab.store import Store, StoreError, StoreWarning
from holdfast.lab.trial import Config, Outcome, Trial

DAMAGES = 160
TRIALS = [Trial(seed, Config()) for seed in range(5)]
IDENTITIES = [identity("toy", trial, "v1") for trial in TRIALS]
FAILED = [identity("toy", Trial(seed, Config()), "v1") for seed in (5, 6)]


def fill(root: Path) -> None:
    store = Store(root)
    store.check_writable()
    for i, document in enumerate(IDENTITIES):
        curves = {"loss": [{"step": step, "loss": i + 1 / (1 + step)} for step in range(5)]} if i % 2 else {}
        store.save("toy", document, Outcome([{"score": i / 7}], curves), {"python": "3"})
    for i, document in enumerate(FAILED):
        store.save_failure("toy", document, f"ValueError: {i}", f"log {i}")
    store.remember("toy", "quick", {"seeds": 7}, "toy.py")


def contents(root: Path) -> list[Any]:
    """All that a report could rest on; `None` for what is not there any more."""
    store = Store(root)
    everything: list[Any] = []
    for document in IDENTITIES:
        stored = store.load("toy", document)
        everything.append(stored and (stored.outcome.records, dict(stored.outcome.curves), stored.environment))
    everything += [store.load_failure("toy", document) for document in FAILED]
    try:
        everything.append(store.runs())
    except StoreError:
        everything.append(None)
    return everything


def damages(root: Path, rng: random.Random) -> Iterator[tuple[str, Path]]:
    """Damage a store in some way, again and again; the caller brings it back in between."""
    paths = sorted(path for path in root.rglob("*") if path.is_file())
    folders = sorted((root / "toy").iterdir())
    for i in range(DAMAGES):
        path = rng.choice(paths)
        content = path.read_bytes()
        kind = ("flip", "truncate", "delete", "swap files", "swap folders", "append")[i % 6]
        if kind == "flip":
            place = rng.randrange(len(content))
            path.write_bytes(content[:place] + bytes([content[place] ^ (1 << rng.randrange(8))]) + content[place + 1 :])
        elif kind == "truncate":
            path.write_bytes(content[: rng.randrange(len(content))])
        elif kind == "delete":
            path.unlink()
        elif kind == "append":
            path.write_bytes(content + rng.choice([b" ", b"\n", b"\0", b"{}"]))
        elif kind == "swap files":
            # Files of one name in different folders are the likeliest to pass for each other.
            same = [other for other in paths if other.name == path.name and other.read_bytes() != content]
            other = rng.choice(same or [other for other in paths if other != path])
            path.write_bytes(other.read_bytes())
            other.write_bytes(content)
        else:
            path, other = rng.sample(folders, 2)
            path.rename(root / "moved")
            other.rename(path)
            (root / "moved").rename(other)
        yield kind, path


def test_every_damage_is_said_and_none_changes_a_result(tmp_path: Path) -> None:
    sound, root = tmp_path / "sound", tmp_path / "damaged"
    fill(sound)
    expected = contents(sound)
    assert None not in expected
    shutil.copytree(sound, root)
    for kind, path in damages(root, random.Random(1)):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            actual = contents(root)
        what = f"{kind} {path.relative_to(root)}"
        assert all(value in (None, right) for value, right in zip(actual, expected, strict=True)), what
        assert None in actual, f"{what} was not noticed"
        assert kind == "delete" or any(item.category is StoreWarning for item in caught), f"{what} was not said"
        shutil.rmtree(root)
        shutil.copytree(sound, root)
