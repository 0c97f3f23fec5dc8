"""`--workers auto`: the cores that affinity and control groups leave to this process."""

from math import inf
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.worker import cores
from consumer.worker.cores import AUTO, MOST, quota, usable, workers_of

V2 = "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
V1 = "32 31 0:29 {root} /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"


def machine(root: Path, cgroup: str, mounts: str, **files: str) -> float:
    """The quota on a machine with these files below /sys/fs/cgroup; `__` in a name is a slash, `0` ends nothing."""
    for name, text in {"/proc/self/cgroup": cgroup, "/proc/self/mountinfo": mounts}.items():
        (root / name[1:]).parent.mkdir(parents=True, exist_ok=True)
        (root / name[1:]).write_text(text)
    for place, text in files.items():
        file = root / "sys/fs/cgroup" / place
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return quota(root)


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "", "two", "²", "AUTO", str(MOST + 1)])
def test_other_numbers_are_refused(text: str) -> None:
    """The message says what is valid."""
    with pytest.raises(ValueError, match=f"must be a number from 1 to {MOST}, or auto"):
        workers_of(text)


def test_auto_follows_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A number is that number; `auto` asks for affinity and quota."""
    monkeypatch.setattr(cores, "_affinity", lambda: 6)
    monkeypatch.setattr(cores, "quota", lambda _root: 4.5)
    assert [workers_of("3"), workers_of(AUTO)] == [3, 4]


@given(st.integers(1, 1024), st.floats(0.001, 2000) | st.just(inf))
def test_no_worker_is_throttled_unless_it_is_the_only_one(affinity: int, quota: float) -> None:
    """There is always one; more fit into affinity and quota; one more would not."""
    number = usable(affinity, quota)
    assert number == 1 or number <= min(affinity, quota)
    assert number + 1 > min(affinity, quota)


def test_the_strictest_group_of_all_above_counts(tmp_path: Path) -> None:
    """Version 2: a pod's quota, of two containers with their own, one without."""
    files = {"pods/cpu.max": "300000 100000\n", "pods/a/cpu.max": "max 100000\n", "pods/b/cpu.max": "50000 100000\n"}
    assert machine(tmp_path, "0::/pods/a\n", V2, **files) == 3.0
    assert machine(tmp_path, "0::/pods/b\n", V2, **files) == 0.5


def test_a_container_sees_its_own_group_as_the_root(tmp_path: Path) -> None:
    """Version 2 with a namespace: the file is at the top."""
    assert machine(tmp_path, "0::/\n", V2, **{"cpu.max": "250000 100000\n"}) == 2.5


@pytest.mark.parametrize(("root", "folder"), [("/", "docker/a/"), ("/docker/a", "")])
def test_version_1(tmp_path: Path, root: str, folder: str) -> None:
    """The file is at the group's path; without a namespace, the mount begins there and the path is the host's."""
    files = {
        f"cpu,cpuacct/{folder}cpu.cfs_quota_us": "200000\n",
        f"cpu,cpuacct/{folder}cpu.cfs_period_us": "100000\n",
    }
    groups = "5:memory:/docker/a\n3:cpu,cpuacct:/docker/a\n0::/\n"
    assert (
        machine(tmp_path, groups, V1.format(root=root) + V2.replace("cgroup rw", "cgroup/unified rw"), **files) == 2.0
    )


@pytest.mark.parametrize("text", ["max 100000\n", "", "nonsense"])
def test_without_a_limit_there_is_none(tmp_path: Path, text: str) -> None:
    """Also if the file, or all of /proc, is unreadable."""
    assert machine(tmp_path, "0::/a\n", V2, **{"a/cpu.max": text}) == inf
    files = {"cpu,cpuacct/cpu.cfs_quota_us": "-1\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n"}
    assert machine(tmp_path / "old", "3:cpu,cpuacct:/\n", V1.format(root="/"), **files) == inf
    assert quota(tmp_path / "absent") == inf
