"""How a worker loads the code of its trials, and records all that it loads and reads.

A worker compiles the project's files itself: it reads the bytes once, and what is recorded is what runs, never a `.pyc`
of another day. What it cannot see: variables of the environment, listings of folders, what processes started by a
trial load, what libraries read without Python, the network. `depends_on` declares files among these.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import importlib.util
import os
import stat
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from importlib.machinery import ExtensionFileLoader, ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, FrameType, ModuleType
from typing import TYPE_CHECKING, Any

from holdfast.lab import pruning
from holdfast.lab.depfile import (
    ABSENT,
    CHANGED,
    ELSEWHERE,
    RUN,
    Depfile,
    Place,
    digest_of_file,
    find_spec,
    parse,
    state_of_module,
)
from holdfast.lab.locate import FunctionRef, LocateError

if TYPE_CHECKING:
    from holdfast.lab.process import Slate

_MAIN = "__mp_main__"
"""What `__main__` of the driver is called in a worker, so that it does not start another run."""

_recorder: Recorder | None = None


def depends_on(path: str | os.PathLike[str]) -> None:
    """Say from inside `run` that the result depends on a file, or on all files of a folder.

    Needed for what the lab cannot see: a file far from the study, or one that a library reads by itself. Outside a
    worker it does nothing.

    Arguments:
        path: the file or folder; it need not be there.
    """
    if _recorder is not None:
        _recorder.declare(os.fspath(path))


def recorder_of(part: str, run: FunctionRef, whole: Sequence[str] = ()) -> Recorder:
    """The recorder of this process, made when first asked for.

    Arguments:
        part: the study and part whose trials this process computes.
        run: the function that this process computes trials with.
        whole: modules that declare a study, claims or figures and are to be executed whole all the same.

    Errors:
        LocateError: this process has loaded another function's code.
    """
    global _recorder
    if _recorder is None:
        _recorder = Recorder(part, Place.of(run), tuple(whole))
        _recorder.install()
    if (_recorder.part, _recorder.place.run, _recorder.asked) != (part, run, tuple(whole)):
        raise LocateError(f"{run.module}: one process computes the trials of one part, got a second one")
    return _recorder


class Recorder:
    """Finds the project's modules, and notes what this process uses.

    Arguments:
        part: the study and part whose trials this process computes.
        place: where the function stands that it computes them with.
        whole: modules to execute whole.
    """

    records = True

    def __init__(self, part: str, place: Place, whole: tuple[str, ...] = ()) -> None:
        self.part = part
        self.place = place
        self.asked = whole
        self.whole = whole
        self._function: Callable[..., Any] | None = None
        self._foreign: set[str] = set()
        self._search = {os.path.realpath(entry) for entry in sys.path}
        self._modules: dict[str, str] = {}
        self._files: dict[str, str] = {}
        self._as_files: set[str] = set()  # modules found by a path that only this process searches
        self._imported: set[str] = set()
        self._left_out: dict[str, frozenset[str]] = {}
        self._missed: set[str] = set()
        self._written: set[str] = set()
        self._stamps: dict[str, tuple[int, ...]] = {}
        self._strangers: set[str] = set()
        self._executed: set[str] = set()
        self._own = threading.local()
        self._here = os.getcwd()
        self.slate: Slate | None = None

    def install(self) -> None:
        """Record from now on. Modules of the project that are loaded already are loaded anew when they are needed."""
        loaded = {
            name: os.path.realpath(file)
            for name, module in list(sys.modules.items())
            if (file := getattr(module, "__file__", None)) and name not in ("__main__", _MAIN)
        }
        stale = {name for name, path in loaded.items() if self.place.counts(name, path)}
        for name in stale:
            del sys.modules[name]
        sys.meta_path.insert(0, self)
        sys.addaudithook(_hook)
        for name in ("sitecustomize", "usercustomize", *sorted(stale)):
            if not name.startswith("holdfast"):  # loaded before anything could be recorded, perhaps with an effect
                self._note(self._modules, name, state_of_module(name, self.place, self.whole))
        for name in list(sys.modules):
            parent, _, child = name.rpartition(".")
            if parent in stale:
                setattr(importlib.import_module(parent), child, sys.modules[name])

    def load(self) -> Callable[..., Any]:
        """The function that computes trials.

        Errors:
            LocateError: it is not there.
        """
        if self._function is not None:
            return self._function
        run = self.place.run
        # Imported only now, so that it is recorded: results depend on it.
        self.slate = importlib.import_module("holdfast.lab.process").Slate()
        self.slate.seed(())
        if run.module == "__main__" and run.file is not None:
            spec = importlib.util.spec_from_loader(_MAIN, _Loader(_MAIN, run.file, self))
            assert spec is not None
            module = importlib.util.module_from_spec(spec)
            sys.modules[_MAIN] = sys.modules["__main__"] = module
            spec.loader.exec_module(module)  # type: ignore[union-attr]
        elif run.file is not None:
            importlib.import_module(run.module)
        self._function = run.load()
        self.slate.settle()
        return self._function

    def depfile(self) -> Depfile:
        """What this process has used until now."""
        modules = dict(self._modules)
        for name in self._imported - modules.keys():
            if name in sys.modules and state_of_module(name, self.place, self.whole) == ELSEWHERE:
                modules[name] = ELSEWHERE
        return Depfile(dict(sorted(modules.items())), dict(sorted(self._files.items())), self.whole)

    def missed(self, error: BaseException | None = None) -> tuple[str, ...]:
        """Modules that must be executed whole: a name was asked for that had been left out.

        Arguments:
            error: what the trial raised.
        """
        missed = set(self._missed)
        seen: set[int] = set()
        while error is not None and id(error) not in seen:
            seen.add(id(error))
            names = {getattr(error, "name", None), *(word for word in error.args if isinstance(word, str))}
            missed |= {module for module, left in self._left_out.items() if names & left}
            error = error.__cause__ or error.__context__
        return tuple(sorted(missed | set(self.whole))) if missed else ()

    def declare(self, path: str) -> None:
        """Note a file or folder that something depends on."""
        with self.unheard():
            where = f"./{os.path.normpath(path)}" if self._from_here(path) else self._from_root(path)
            self._note(self._files, where, digest_of_file(path))

    def adopt(self, depfile: Depfile, path: str | os.PathLike[str]) -> None:
        """Note what a checkpoint depends on, instead of the checkpoint itself.

        Arguments:
            depfile: of the process that kept it.
            path: the file or folder that will be read.
        """
        for name, state in depfile.modules.items():
            self._note(self._modules, name, state)
        for name, state in depfile.files.items():
            self._note(self._files, name, state)
        self._strangers |= {os.path.realpath(item) for item in (path, *Path(path).rglob("*"))}

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """As a finder of modules, before all others."""
        if name == self.place.run.module and self.place.run.file is not None:
            return importlib.util.spec_from_file_location(
                name, self.place.run.file, loader=_Loader(name, self.place.run.file, self)
            )
        with self.unheard():
            spec = find_spec(name, path, target)
            if spec is None:
                if self._is_ours(sys._getframe(1)):
                    self._note(self._modules, name, ABSENT)
                return None
            top = name.partition(".")[0]
            if top in self._foreign and path is not None:
                self._watch(spec.loader)  # a library may load its modules only once they are used
                return spec
            origin = spec.origin if spec.has_location else None
            where = os.path.realpath(origin) if origin else ""
            if not where or not self.place.counts(name, where):
                self._strangers.add(where)
                if path is None:
                    self._foreign.add(name)
                    self._watch(spec.loader)
            elif type(spec.loader) is SourceFileLoader:
                spec.loader = _Loader(name, str(origin), self)
                self._find_anew(name, where)
            else:  # an extension, an archive, or a loader that somebody has made
                if where.endswith(".py"):
                    self.whole = tuple(sorted({*self.whole, name}))
                self._note(self._modules, name, state_of_module(name, self.place, self.whole))
            if spec.loader is None and spec.submodule_search_locations is not None and self._is_ours(sys._getframe(1)):
                self._note(self._modules, name, state_of_module(name, self.place, self.whole))
            return spec

    def _watch(self, loader: Any) -> None:
        """Let a library's import leave the random states alone, and what it sets count as its own."""
        if (
            self.slate is not None
            and not self.slate.in_library
            and type(loader) in (SourceFileLoader, ExtensionFileLoader)
        ):
            execute, slate = loader.exec_module, self.slate

            def watched(module: ModuleType) -> None:
                with slate.importing_library():
                    execute(module)

            loader.exec_module = watched

    def compile(self, name: str, path: str, data: bytes) -> tuple[CodeType, frozenset[str]]:
        """Compile a file of the project, and note what of it will run.

        Arguments:
            name: of the module.
            path: of the file.
            data: the file.

        Returns:
            The code, and the names that are left out of it.
        """
        key = RUN if name in (self.place.run.module, _MAIN) else name
        tree, left_out = parse(data, key, self.place.run, self.whole)
        if name in self._as_files:
            self._note(self._files, self._from_root(path), digest_of_file(path))
        else:
            self._note(self._modules, key, pruning.digest(tree))
        self._executed |= {path, os.path.realpath(path)}
        self._left_out[key] = left_out
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                self._imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                self._imported.add(node.module.partition(".")[0])
        return compile(tree, path, "exec", dont_inherit=True), left_out

    def miss(self, name: str) -> None:
        """Note that a name was asked for that had been left out of a module."""
        self._missed.add(RUN if name in (self.place.run.module, _MAIN) else name)

    def opened(self, path: Any, mode: str | None, flags: int) -> None:
        """Note that a file is about to be opened.

        Errors:
            FileNotFoundError: it is compiled code of the project, which nobody shall run.
        """
        if isinstance(path, int) or getattr(self._own, "busy", False):
            return
        with self.unheard():
            text = os.fsdecode(path)
            full, where = os.path.realpath(text), self._where(text)
            if where is None:
                return
            reads, writes = _use(mode, flags, os.path.exists(full))
            if full.endswith(".pyc") and "__pycache__" in full:
                source = importlib.util.source_from_cache(full)
                if reads and source not in self._strangers and os.path.exists(source):
                    raise FileNotFoundError(2, "compiled code is not used", full)
                return
            if full in self._strangers or (full.endswith(".py") and _shown_only(sys._getframe(2))):
                return
            if writes and self._files.get(where, ABSENT) == ABSENT:  # what a trial makes itself is no dependency
                self._files.pop(where, None)
                self._written.add(full)
            elif reads and full not in self._written:
                self._read(full, where)

    def renamed(self, old: Any, new: Any) -> None:
        """Note that a file is about to be renamed."""
        before, after = (os.fsdecode(path) for path in (old, new))
        where = self._where(after)
        if where is not None and (self._where(before) is None or os.path.realpath(before) in self._written):
            self._files.pop(where, None)
            self._written.add(os.path.realpath(after))

    def _where(self, path: str) -> str | None:
        """How another process finds a file again: links are followed anew; `None` where it lies far from the study."""
        where = self.place.below_root(os.path.abspath(path)) or self.place.below_root(os.path.realpath(path))
        return f"./{os.path.normpath(path)}" if where is not None and self._from_here(path) else where

    def _from_here(self, path: str) -> bool:
        """Whether a path begins in the working folder that the process has started in."""
        try:
            return not os.path.isabs(path) and os.getcwd() == self._here
        except OSError:
            return False

    def _read(self, full: str, where: str) -> None:
        try:
            status = os.stat(full)
        except FileNotFoundError:
            self._note(self._files, where, ABSENT)
            return
        stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
        if stat.S_ISREG(status.st_mode) and self._stamps.get(where) != stamp:
            self._stamps[where] = stamp
            self._note(self._files, where, digest_of_file(full))

    def _note(self, kind: dict[str, str], name: str, state: str) -> None:
        kind[name] = state if kind.get(name, state) == state else CHANGED

    def _find_anew(self, name: str, path: str) -> None:
        """Whether another process will find a module by its name; otherwise it is noted as a file."""
        parent = name.rpartition(".")[0]
        base = os.path.dirname(os.path.dirname(path) if os.path.basename(path) == "__init__.py" else path)
        elsewhere = base not in self._search and base in {os.path.realpath(entry) for entry in sys.path}
        if parent in self._as_files or (not parent and elsewhere):
            self._as_files.add(name)

    def _from_root(self, path: str) -> str:
        return Path(os.path.relpath(os.path.realpath(path), self.place.root)).as_posix()

    def _is_ours(self, frame: FrameType | None) -> bool:
        """Whether an import comes from code of the project."""
        while frame is not None and frame.f_globals.get("__name__", "").startswith(("importlib", "_frozen_importlib")):
            frame = frame.f_back
        return frame is not None and frame.f_code.co_filename in self._executed

    @contextlib.contextmanager
    def unheard(self) -> Iterator[None]:
        """What this thread opens meanwhile is no part of a trial."""
        before, self._own.busy = getattr(self._own, "busy", False), True
        try:
            yield
        finally:
            self._own.busy = before


class _Loader(SourceFileLoader):
    """Executes what a trial needs of a file, as it is now."""

    def __init__(self, name: str, path: str, recorder: Recorder) -> None:
        super().__init__(name, path)
        self._recorder = recorder

    def get_code(self, fullname: str) -> CodeType:
        return self._compile(fullname)[0]

    def exec_module(self, module: ModuleType) -> None:
        code, left_out = self._compile(module.__name__)

        def missing(name: str) -> Any:
            if name in left_out:
                self._recorder.miss(module.__name__)
            raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}", name=name, obj=module)

        def names() -> list[str]:
            self._recorder.miss(module.__name__)  # whoever lists the names may use any
            return sorted(module.__dict__)

        if left_out:
            module.__dict__.update(__getattr__=missing, __dir__=names)
        slate = self._recorder.slate
        with slate.importing_project(module.__name__) if slate is not None else contextlib.nullcontext():
            exec(code, module.__dict__)

    def _compile(self, name: str) -> tuple[CodeType, frozenset[str]]:
        with self._recorder.unheard():
            data = Path(self.path).read_bytes()
            return self._recorder.compile(name, self.path, data)


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _recorder is None:
        return
    if event == "open":
        _recorder.opened(*arguments)
    elif event in ("sqlite3.connect", "ctypes.dlopen") and arguments[0] is not None:
        _recorder.opened(arguments[0], "a+", 0)
    elif event == "os.rename":
        _recorder.renamed(*arguments[:2])


def _use(mode: str | None, flags: int, exists: bool) -> tuple[bool, bool]:
    """Whether opening a file reads what is in it, and whether it makes it anew."""
    if mode is not None:
        anew = "w" in mode or "x" in mode or ("a" in mode and not exists)
        return not anew and ("r" in mode or "+" in mode), anew
    anew = bool(flags & (os.O_TRUNC | os.O_EXCL)) or (bool(flags & os.O_CREAT) and not exists)
    return not anew and not flags & os.O_WRONLY, anew


def _shown_only(frame: FrameType | None) -> bool:
    """Whether a source file is read for its lines to be shown in a warning or a traceback."""
    names = set()
    while frame is not None:
        names.add(frame.f_globals.get("__name__"))
        frame = frame.f_back
    return "linecache" in names and bool(names & {"traceback", "warnings"}) and "inspect" not in names
