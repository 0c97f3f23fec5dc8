"""How many workers a machine or a container has room for: the cores that this process may use."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

AUTO = "auto"
MOST = 512  # workers of one command; a typing error must not fork ten thousand


def workers_of(text: str) -> int:
    """The number that `--workers` names: N, or `auto` for one for each usable core. ValueError says what is valid."""
    if text == AUTO:
        return min(usable(_affinity(), quota(Path("/"))), MOST)
    if text.isascii() and text.isdigit() and 1 <= int(text) <= MOST:
        return int(text)
    raise ValueError(f"must be a number from 1 to {MOST}, or {AUTO}")


def usable(affinity: int, quota: float) -> int:
    """Whole cores below both limits, at least one: a worker that the kernel throttles is late with all it does."""
    return max(1, int(min(affinity, quota)))


def _affinity() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Mount(NamedTuple):
    root: str  # the control group that is visible at `point`
    point: str
    unified: bool  # version 2


def quota(root: Path) -> float:
    """Cores by the strictest CPU quota of this process's control groups and all above them; infinite without one.

    `root` is where /proc and /sys are found. A file that cannot be read sets no limit.
    """
    limits = [float("inf")]
    with suppress(OSError, ValueError):
        own = dict(_groups((root / "proc/self/cgroup").read_text()))
        for mount in _mounts((root / "proc/self/mountinfo").read_text()):
            group = own.get("" if mount.unified else "cpu", "/")
            top = root / mount.point.lstrip("/")
            # Without a namespace of its own, a container sees the host's path and a mount that begins at its group.
            below = group.removeprefix(mount.root.rstrip("/")) if group.startswith(mount.root) else "/"
            place = top / below.lstrip("/")
            for folder in (place, *place.parents):
                limits += _limit(folder)
                if folder == top:
                    break
    return min(limits)


def _groups(text: str) -> Iterator[tuple[str, str]]:
    """The process's group in the hierarchy of each controller; the unified one has no name."""
    for line in text.splitlines():
        _, controllers, group = line.split(":", 2)
        for controller in controllers.split(","):
            yield controller, group


def _mounts(text: str) -> Iterator[_Mount]:
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        root, point = before.split()[3:5]
        kind, _, options = after.split(maxsplit=2)
        if kind == "cgroup2" or (kind == "cgroup" and "cpu" in options.split(",")):
            yield _Mount(root, point, kind == "cgroup2")


def _limit(folder: Path) -> list[float]:
    found = []
    with suppress(OSError, ValueError):
        limit, period = (folder / "cpu.max").read_text().split()
        found.append(float("inf") if limit == "max" else int(limit) / int(period))
    with suppress(OSError, ValueError):
        limit, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        found.append(float("inf") if int(limit) < 0 else int(limit) / int(period))
    return found
