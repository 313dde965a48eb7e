"""Answers on disk: one lock for all writers, and a kill at any instant costs at most one line."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from filelock import FileLock

from holdfast.errors import ArgumentError
from holdfast.llm import AnswerFile


@pytest.mark.parametrize(
    "damage",
    [b'{"key": "half', b"\x00\xff\xfe", b"[1]\n", b"null\n", b'{"key": "x"}\n', b'{"key": 5, "answer": {}}\n', b"\n\n"],
)
def test_a_damaged_line_costs_that_line(damage, tmp_path):
    path = tmp_path / "answers.jsonl"
    file = AnswerFile(path)
    file.append({"key": "a", "answer": [1]})
    with path.open("ab") as raw:
        raw.write(damage)
    AnswerFile(path).append({"key": "b", "answer": [2]})
    assert AnswerFile(path).read() == file.read() == {"a": [1], "b": [2]}


@pytest.mark.parametrize(
    "content",
    [
        b"# README\n",
        b'{"id": "q1", "question": "?"}\n',
        b"\x00\xff\xfe",
        b'"key"',
        b'{"key": 5, "answer": {}}\n[1]\n',
        b"{}",
    ],
)
def test_nothing_is_appended_to_a_file_of_something_else(content, tmp_path):
    path = tmp_path / "mine"
    path.write_bytes(content)
    file = AnswerFile(path, "store")
    for write in (file.check, file.prepare, lambda: file.append({"key": "a", "answer": 1}), file.writer().__enter__):
        with pytest.raises(ArgumentError, match=r"store: expected a new file.*mine, which holds something else"):
            write()
    assert path.read_bytes() == content


@pytest.mark.parametrize("content", [b"", b"\n", b"{", b'{"key": "run-1", "ans', b'# lost\n{"key": "half\n{"key": "b'])
def test_what_a_kill_left_of_the_first_line_is_ours(content, tmp_path):
    path = tmp_path / "answers.jsonl"
    path.write_bytes(content)
    AnswerFile(path).check()
    AnswerFile(path).append({"key": "a", "answer": 1})
    assert AnswerFile(path).read() == {"a": 1}


def test_a_check_makes_no_file(tmp_path):
    AnswerFile(tmp_path / "folder" / "answers.jsonl").check()
    with pytest.raises(ArgumentError, match="not a regular file"):
        AnswerFile(tmp_path).check()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["device", "pipe"])
def test_what_has_no_end_is_no_file(kind, tmp_path):
    path = Path("/dev/zero")
    if kind == "pipe":
        path = tmp_path / "pipe"
        os.mkfifo(path)
    with pytest.raises(ArgumentError, match="not a regular file"):
        AnswerFile(path).read()


def test_a_line_that_is_still_being_written_is_read_once_it_is_whole(tmp_path):
    path = tmp_path / "answers.jsonl"
    line = json.dumps({"key": "a", "answer": [1]}).encode()
    file = AnswerFile(path)
    path.write_bytes(line[:9])
    assert file.read() == {}
    path.write_bytes(line + b"\n")
    assert file.read() == {"a": [1]}


def test_a_writer_waits_while_another_program_writes(tmp_path):
    path = tmp_path / "answers.jsonl"
    with ThreadPoolExecutor() as pool:
        with FileLock(f"{path}.lock"):
            writing = pool.submit(AnswerFile(path).append, {"key": "a", "answer": [1]})
            time.sleep(0.2)
            assert not path.exists()
        writing.result(timeout=10)
    assert AnswerFile(path).read() == {"a": [1]}


WRITER = """
import sys
from holdfast.llm.answer_file import AnswerFile
file = AnswerFile(sys.argv[1])
for number in range(int(sys.argv[3])):
    file.append({"key": f"{sys.argv[2]}-{number}", "answer": [number], "items": "x" * 3000})
    print(number, flush=True)
"""


def test_programs_that_write_together_lose_nothing(tmp_path):
    path = tmp_path / "answers.jsonl"
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(name), "60"], stdout=subprocess.DEVNULL)
        for name in range(3)
    ]
    assert [writer.wait(timeout=60) for writer in writers] == [0, 0, 0]
    assert len(path.read_bytes().splitlines()) == 180
    assert len(AnswerFile(path).read()) == 180


def test_a_kill_at_any_instant_loses_nothing_that_was_written(tmp_path):
    path = tmp_path / "answers.jsonl"
    draw = random.Random(11)
    promised = set()
    for name in range(4):
        command = [sys.executable, "-c", WRITER, str(path), str(name), "100000"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            for _ in range(draw.randrange(3, 20)):
                promised.add(f"{name}-{int(writer.stdout.readline())}")
            time.sleep(draw.random() * 0.02)
            writer.send_signal(signal.SIGKILL)
            promised |= {f"{name}-{int(line)}" for line in writer.stdout if line.endswith("\n")}
    kept = AnswerFile(path).read()
    assert promised <= kept.keys()
    assert all(kept[key] == [int(key.split("-")[1])] for key in kept)


def test_a_file_that_is_kept_open_has_one_writer_and_can_be_read(tmp_path):
    path = tmp_path / "answers.jsonl"
    path.write_bytes(b'{"key": "half')
    file = AnswerFile(path, "store")
    with file.writer() as write:
        write({"key": "a", "answer": [1]})
        assert file.read() == AnswerFile(path).read() == {"a": [1]}
        for other in (file, AnswerFile(path, "store")):
            with (
                pytest.raises(ArgumentError, match=r"store: expected a file that nobody else is writing to"),
                other.writer(),
            ):
                pass
        write({"key": "b", "answer": [2]})
    file.append({"key": "c", "answer": [3]})
    assert AnswerFile(path).read() == {"a": [1], "b": [2], "c": [3]}


def test_an_error_of_the_user_of_a_writer_stays_what_it_is(tmp_path):
    file = AnswerFile(tmp_path / "answers.jsonl")

    def work():
        with file.writer() as write:
            write({"key": "a", "answer": [1]})
            raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        work()
    assert file.read() == {"a": [1]}
    with file.writer() as write:
        write({"key": "b", "answer": [2]})


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_is_said(tmp_path):
    path = tmp_path / "answers.jsonl"
    path.symlink_to("/dev/full")
    with pytest.raises(ArgumentError, match="No space left"), AnswerFile(path).writer() as write:
        write({"key": "a", "answer": [1]})
