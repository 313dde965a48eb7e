from __future__ import annotations

import pickle
import sys

import pytest

from holdfast.errors import ArgumentError, HoldfastError, MissingExtraError, count_of, install_line, lacking, require


def test_an_argument_error_says_which_what_and_what_instead():
    assert str(ArgumentError("--seeds", "at least 1", 0)) == "--seeds: expected at least 1, got 0"
    assert str(ArgumentError("name", "letters", "a b")) == "name: expected letters, got a b"
    assert str(ArgumentError("x", "a number", None)) == "x: expected a number, got None"


def test_errors_are_caught_as_their_builtin_kind():
    assert issubclass(ArgumentError, HoldfastError)
    assert issubclass(ArgumentError, ValueError)
    assert issubclass(MissingExtraError, HoldfastError)
    assert issubclass(MissingExtraError, ImportError)


@pytest.mark.parametrize(
    "error", [ArgumentError("x", "a number", [1]), MissingExtraError("no ray"), HoldfastError("no")]
)
def test_errors_come_back_whole_from_another_process(error):
    found = pickle.loads(pickle.dumps(error))
    assert type(found) is type(error)
    assert str(found) == str(error)


@pytest.mark.parametrize(
    ("wanted", "line"),
    [
        (["holdfast[rl]", "holdfast[hf]", "holdfast[rl]"], "pip install 'holdfast[hf,rl]'"),
        (["wings>=2", "scikit-learn"], "pip install scikit-learn 'wings>=2'"),
        (["b[x,y]", "b[z]", "b[x]>=1"], "pip install 'b[x,y,z]' 'b[x]>=1'"),
    ],
)
def test_what_is_to_be_installed_is_one_command_for_a_shell(wanted, line):
    assert install_line(wanted) == line


def test_what_is_missing_is_known_without_loading_it():
    assert lacking({"json": "a", "no_such_package_here": "b"}) == {"no_such_package_here": "b"}


def test_require_gives_the_module():
    assert require("json", "rl") is sys.modules["json"]
    assert require("importlib.metadata", "rl").__name__ == "importlib.metadata"


@pytest.mark.parametrize("module", ["no_such_package_here", "no_such_package_here.sub.module"])
def test_require_names_the_extra(module):
    with pytest.raises(
        MissingExtraError, match=r"^no_such_package_here is not installed: .*pip install 'holdfast\[rl\]'$"
    ):
        require(module, "rl")


def test_an_import_that_fails_inside_the_package_is_not_blamed_on_the_extra(tmp_path, monkeypatch):
    (tmp_path / "half_installed.py").write_text("import no_such_package_here\n")
    (tmp_path / "broken_inside.py").write_text("raise ImportError('wrong version')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_package_here") as caught:
        require("half_installed", "rl")
    assert not isinstance(caught.value, MissingExtraError)
    with pytest.raises(ImportError, match="wrong version") as caught:
        require("broken_inside", "rl")
    assert not isinstance(caught.value, MissingExtraError)


def test_a_name_that_only_begins_alike_is_another_module(tmp_path, monkeypatch):
    (tmp_path / "some_package_more.py").write_text("import some_package\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError) as caught:
        require("some_package_more", "rl")
    assert not isinstance(caught.value, MissingExtraError)


@pytest.mark.parametrize("number", [-1, 2.0, "3", None, True])
def test_a_count_is_a_whole_number(number):
    with pytest.raises(ArgumentError, match=f"^copies: expected a whole number of at least 0, got {number!r}$"):
        count_of("copies", number)
    assert count_of("copies", 0) == 0
