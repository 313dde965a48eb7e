"""Where a result was computed: versions, processor, GPU, threads and commit."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)


def environment() -> dict[str, Any]:
    """What this process runs on, and with which of the installed distributions it has loaded.

    GPU and torch threads are known only once torch is loaded.
    """
    found: dict[str, Any] = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "packages": dict(_packages(len(sys.modules))),
        "threads": {name: os.environ[name] for name in THREAD_VARIABLES if name in os.environ},
        "gpu": [],
    }
    torch = sys.modules.get("torch")
    if torch is not None:
        found["threads"]["torch"] = torch.get_num_threads()
        if torch.cuda.is_available():
            found["gpu"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
            found["cuda"] = torch.version.cuda
    return found


@lru_cache(maxsize=1)
def _packages(loaded: int) -> Mapping[str, str]:
    """Versions of the distributions in use, looked up again once more modules are loaded."""
    return versions_of({name.partition(".")[0] for name in sys.modules} - sys.stdlib_module_names)


def versions_of(modules: Collection[str]) -> Mapping[str, str]:
    """Versions of the distributions that modules come from.

    `importlib.metadata.packages_distributions` opens every file list there is, which takes half a second. Most
    distributions are called like their module, and the folder that describes them bears name and version.
    """
    versions: dict[str, str] = {}
    unknown = set(modules)
    others: list[tuple[str, str, Path]] = []
    beside: set[str] = set()
    for folder in map(Path, dict.fromkeys(sys.path)):
        try:
            names = os.listdir(folder)
        except OSError:
            continue
        described = [match for name in names if (match := _DESCRIPTION.fullmatch(name))]
        for match in described:
            name, version = match[1].lower(), match[2]
            module = name.replace("-", "_").replace(".", "_")
            if module in modules:
                versions.setdefault(name, version)
                unknown.discard(module)
            else:
                others.append((name, version, folder / match[0]))
        if described:
            beside |= {name.partition(".")[0] for name in names}
    unknown &= beside  # a project's own modules lie elsewhere
    for name, version, description in others if unknown else []:
        if name not in versions and _has_one_of(description, unknown):
            versions[name] = version
    return dict(sorted(versions.items()))


_DESCRIPTION = re.compile(r"(.+?)-([^-]+)\.dist-info")


def _has_one_of(description: Path, modules: Iterable[str]) -> bool:
    """Whether a distribution has one of the modules among its files."""
    for name, ends in (("top_level.txt", rb"\s*$"), ("RECORD", rb"[/.]")):
        try:
            content = (description / name).read_bytes()
        except OSError:
            continue
        pattern = rb"^(?:%b)%b" % (b"|".join(re.escape(module).encode() for module in sorted(modules)), ends)
        return re.search(pattern, content, re.MULTILINE) is not None
    return False


def merged(environments: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The environments that differ: those that contradict each other in nothing count as one.

    Workers load different packages for different trials; only where the same package has two versions is something
    mixed.
    """
    distinct: list[dict[str, Any]] = []
    last: Mapping[str, Any] | None = None
    for environment in environments:
        if environment == last:
            continue
        last = environment
        for index, known in enumerate(distinct):
            both = _both(known, environment)
            if both is not None:
                distinct[index] = both
                break
        else:
            distinct.append(dict(environment))
    # Which worker computed which trial is chance, and no reader shall see it.
    return [_in_order(environment) for environment in distinct]


def _in_order(environment: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _in_order(value) if isinstance(value, Mapping) else value for name, value in sorted(environment.items())
    }


def _both(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any] | None:
    """Two mappings in one, or `None` where they contradict each other."""
    both = dict(one)
    for name, value in other.items():
        known = both.get(name)
        if name not in both or (known == [] and isinstance(value, list)):  # before torch is loaded no GPU is seen
            both[name] = value
        elif isinstance(known, Mapping) and isinstance(value, Mapping):
            inner = _both(known, value)
            if inner is None:
                return None
            both[name] = inner
        elif known != value and value != []:
            return None
    return both


@lru_cache(maxsize=1)
def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


@lru_cache(maxsize=64)
def git_commit(folder: Path) -> str | None:
    """Commit of the checkout that a folder lies in, `-dirty` where tracked files differ; `None` outside of one."""
    try:
        answer = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None if answer.returncode == 0 else None
