"""Containers by podman, also on machines where it asks for more than root may: see `enter`."""

import os
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

HYBRID = Path("/sys/fs/cgroup/unified")  # control groups of both versions at once, which crun refuses


class ContainerError(Exception):
    """A container did other than its service says; the text names it and ends with its log."""


def enter() -> None:
    """Takes the groups of version 2 out of this process's mounts. It has to have mounts of its own (`unshare -m`)."""
    if Path("/proc/self/ns/mnt").readlink() == Path(f"/proc/{os.getppid()}/ns/mnt").readlink():
        sys.exit("these are the mounts of the whole machine: start with `make compose-check`, as root")
    if HYBRID.is_mount():
        subprocess.run(["umount", str(HYBRID)], check=True)  # noqa: S607 (the user's)


def mount_memory(folder: Path) -> None:
    """A file system in memory, which ends with this process's mounts."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(folder)], check=True)  # noqa: S607 (the user's)


def podman(*words: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
    """Raises ContainerError if podman fails."""
    done = subprocess.run(["podman", *words], capture_output=True, text=True, check=False)  # noqa: S607 (the user's)
    if check and done.returncode:
        raise ContainerError(f"podman {' '.join(words[:2])} failed: {done.stderr.strip()}")
    return done


def remove_networks(prefix: str, gateway: str) -> None:
    """Removes networks, and the bridge with this address that stays where podman itself was killed."""
    for name in podman("network", "ls", "--quiet", "--filter", f"name={prefix}").stdout.split():
        podman("network", "rm", "--force", name)
    addresses = subprocess.run(["ip", "-4", "-oneline", "address"], capture_output=True, text=True, check=True).stdout  # noqa: S607 (the user's)
    for line in addresses.splitlines():
        if f" {gateway}/" in line:
            subprocess.run(["ip", "link", "delete", line.split()[1]], check=True)  # noqa: S607 (named above)


def run(name: str, image: Sequence[str], command: Sequence[str], *options: str) -> None:
    """Starts a container in the background. `image`: an image, or --rootfs and a directory."""
    # By default podman raises both, for which root may lack the right.
    limits = (
        f"--ulimit=nofile={':'.join(map(str, resource.getrlimit(resource.RLIMIT_NOFILE)))}",
        "--ulimit=nproc=4096:4096",
    )
    podman("run", "--detach", "--name", name, "--cgroups=disabled", *limits, *options, *image, *command)


def is_healthy(name: str, test: Sequence[str] = ()) -> bool:
    """Whether a health check of Compose passes now; by default, that of the image."""
    kind, *command = test or ("CMD",)
    if kind != "CMD":
        raise ContainerError(f"{name} has a health check of the kind {kind}, and only CMD is known here")
    words = ("exec", name, *command) if test else ("healthcheck", "run", name)
    return podman(*words, check=False).returncode == 0


def is_running(name: str) -> bool:
    """Whether the container's process runs."""
    return podman("inspect", "--format", "{{.State.Running}}", name).stdout.strip() == "true"


def has_succeeded(name: str) -> bool:
    """Whether the container has ended with 0. One that failed may be started again."""
    return not is_running(name) and exit_code(name) == 0


def exit_code(name: str) -> int:
    """The exit status of a container that has ended."""
    return int(podman("inspect", "--format", "{{.State.ExitCode}}", name).stdout)


def logs(name: str) -> str:
    """All that the container has printed."""
    done = podman("logs", name)
    return done.stdout + done.stderr
