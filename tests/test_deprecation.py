from __future__ import annotations

import inspect
import pickle
import sys
import warnings
from types import ModuleType

import pytest

from holdfast.deprecation import HoldfastDeprecationWarning, deprecated, renamed_arguments, warn_deprecated
from holdfast.errors import ArgumentError


@deprecated(since="1.2", removal="2.0", instead="`new`")
def old(number: int) -> int:
    """What it does."""
    return number + 1


@deprecated(since="1.2", removal="2.0")
class Old:
    def __init__(self, number: int) -> None:
        self.number = number

    @deprecated(since="1.3", removal="2.0", instead="`number`")
    def value(self) -> int:
        return self.number


class Heir(Old):
    def __init__(self) -> None:
        super().__init__(7)


@renamed_arguments(since="1.2", removal="2.0", dim="axis", n="count")
def spread(values: str, axis: int = -1, *, count: int = 1) -> tuple[str, int, int]:
    return values, axis, count


def line() -> int:
    """The line that calls this."""
    frame = inspect.currentframe()
    assert frame is not None
    assert frame.f_back is not None
    return frame.f_back.f_lineno


def test_a_deprecated_function_works_and_warns_on_the_callers_line():
    with pytest.warns(HoldfastDeprecationWarning) as caught:
        found, here = old(1), line()
    assert found == 2
    assert len(caught) == 1
    assert (caught[0].filename, caught[0].lineno) == (__file__, here)
    expected = f"{__name__}.old is deprecated since Holdfast 1.2 and goes with 2.0: use `new`"
    assert str(caught[0].message) == expected
    assert old.__doc__ == "What it does."
    assert list(inspect.signature(old).parameters) == ["number"]


def test_everybody_sees_it_and_one_filter_silences_it():
    assert issubclass(HoldfastDeprecationWarning, FutureWarning)
    with warnings.catch_warnings(record=True) as caught:
        warnings.resetwarnings()
        warnings.simplefilter("default")
        warnings.simplefilter("ignore", HoldfastDeprecationWarning)
        old(1)
    assert caught == []


def test_a_deprecated_class_stays_itself_and_each_instance_warns():
    with pytest.warns(
        HoldfastDeprecationWarning, match="Old is deprecated since Holdfast 1.2 and goes with 2.0$"
    ) as caught:
        made, here = Old(3), line()
    assert isinstance(made, Old)
    assert (caught[0].filename, caught[0].lineno) == (__file__, here)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pickle.loads(pickle.dumps(made)).number == 3
    with pytest.warns(HoldfastDeprecationWarning, match="since Holdfast 1.3"):
        assert made.value() == 3
    with pytest.warns(HoldfastDeprecationWarning):
        assert Heir().number == 7


def test_an_old_argument_reaches_the_new_one():
    with pytest.warns(HoldfastDeprecationWarning) as caught:
        found, here = spread("x", dim=2), line()
    assert found == ("x", 2, 1)
    assert len(caught) == 1
    assert (caught[0].filename, caught[0].lineno) == (__file__, here)
    expected = f"the argument 'dim' of {__name__}.spread is deprecated since Holdfast 1.2 and goes with 2.0: use 'axis'"
    assert str(caught[0].message) == expected
    with pytest.warns(HoldfastDeprecationWarning) as caught:
        assert spread("x", dim=2, n=3) == ("x", 2, 3)
    assert len(caught) == 2


def test_new_arguments_do_not_warn_and_others_are_still_refused():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert spread("x", 2, count=3) == ("x", 2, 3)
        with pytest.raises(TypeError, match="width"):
            spread("x", width=3)


@pytest.mark.parametrize(("args", "new"), [(("x",), {"axis": 1}), (("x", 1), {})])
def test_both_names_at_once_are_refused(args, new):
    with pytest.raises(ArgumentError, match="dim: expected it or 'axis', its new name, got both"):
        spread(*args, dim=1, **new)


def test_a_moved_name_warns_on_the_line_that_uses_it(monkeypatch):
    module = ModuleType("holdfast_moved")

    def moved(name: str) -> int:
        if name == "old_name":
            warn_deprecated("holdfast_moved.old_name", since="1.2", removal="2.0", instead="new_name")
            return 5
        raise AttributeError(name)

    module.__getattr__ = moved
    monkeypatch.setitem(sys.modules, "holdfast_moved", module)
    with pytest.warns(HoldfastDeprecationWarning, match=r"^holdfast_moved\.old_name .* use new_name$") as caught:
        value, here = module.old_name, line()
    assert value == 5
    assert (caught[0].filename, caught[0].lineno) == (__file__, here)
    with pytest.warns(HoldfastDeprecationWarning) as caught:
        from holdfast_moved import old_name
    here = line() - 1
    assert old_name == 5
    # `from … import` asks once whether the name is a module's and once for the name.
    assert {(entry.filename, entry.lineno) for entry in caught} == {(__file__, here)}


@pytest.mark.parametrize(
    ("since", "removal", "argument"),
    [
        ("1.2", "1.2", "removal"),
        ("1.10", "1.9", "removal"),
        ("2.0", "1.9", "removal"),
        ("1.2.3", "2.0", "since"),
        ("1.2", "soon", "removal"),
    ],
)
def test_versions_are_checked_where_the_mark_stands(since, removal, argument):
    with pytest.raises(ArgumentError) as caught:
        deprecated(since=since, removal=removal)(lambda: None)
    assert caught.value.argument == argument
    with pytest.raises(ArgumentError):
        renamed_arguments(since=since, removal=removal, dim="axis")(lambda axis: axis)
    with pytest.raises(ArgumentError):
        warn_deprecated("x", since=since, removal=removal)


def test_a_later_minor_version_is_later_by_number():
    assert deprecated(since="1.9", removal="1.10")(len)


@pytest.mark.parametrize("names", [{"dim": "axes"}, {"axis": "count"}])
def test_names_are_checked_against_the_function(names):
    def function(axis: int, count: int) -> None: ...

    with pytest.raises(ArgumentError):
        renamed_arguments(since="1.2", removal="2.0", **names)(function)
