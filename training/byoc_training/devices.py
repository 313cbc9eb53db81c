"""What this host has: GPUs, processors, network interfaces."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

#: nvidia-smi answers within a second; on a host with a broken driver it can hang.
NVIDIA_SMI_SECONDS = 10.0
#: EFA's devices appear by themselves; instance lists in old toolkits miss every newer type.
EFA_DEVICES = Path("/dev/infiniband")
_DRIVER = Path("/proc/driver/nvidia/version")
_NETWORK = Path("/sys/class/net")
_ROUTES = Path("/proc/net/route")


@dataclass(frozen=True)
class Devices:
    """The hardware that a container sees.

    Attributes:
        cpus: Processors that this process may run on.
        gpus: One line for each GPU, as nvidia-smi lists it.
        interfaces: Names of the network interfaces.
        default_interface: The one that a cluster's traffic takes; ``lo`` when there is no other.
        efa: How many EFA devices there are.
        driver: The version of NVIDIA's kernel driver; empty without one.
    """

    cpus: int
    gpus: tuple[str, ...]
    interfaces: tuple[str, ...]
    default_interface: str
    efa: int = 0
    driver: str = ""


def detect() -> Devices:
    """Look at this host."""
    interfaces = _interfaces()
    return Devices(
        cpus=len(os.sched_getaffinity(0)),
        gpus=_gpus(),
        interfaces=interfaces,
        default_interface=_default_interface(interfaces),
        efa=len(list(EFA_DEVICES.glob("uverbs*"))),
        driver=_driver(),
    )


def _driver() -> str:
    """As the driver's module says; its open variant words it differently."""
    try:
        text = _DRIVER.read_text()
    except OSError:
        return ""
    found = re.search(r"Kernel Module.*?\s(\d+\.\d+(?:\.\d+)?)\s", text)
    return found[1] if found else ""


def _gpus() -> tuple[str, ...]:
    command = shutil.which("nvidia-smi")
    if command is not None:
        import subprocess  # noqa: PLC0415 - only where there is a driver

        try:
            done = subprocess.run(
                [command, "--list-gpus"],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=NVIDIA_SMI_SECONDS,
                check=True,
            )
        except (OSError, subprocess.SubprocessError):
            pass
        else:
            lines = done.stdout.decode("utf-8", "replace").splitlines()
            return tuple(line.strip() for line in lines if line.startswith("GPU "))
    return tuple(
        f"/dev/{name}"
        for name in sorted(entry.name for entry in os.scandir("/dev"))
        if re.fullmatch(r"nvidia\d+", name)
    )


def _interfaces() -> tuple[str, ...]:
    try:
        return tuple(sorted(entry.name for entry in _NETWORK.iterdir()))
    except OSError:
        return ()


def _default_interface(interfaces: tuple[str, ...]) -> str:
    """The interface of the default route, else the first that is not the loopback."""
    try:
        lines = _ROUTES.read_text().splitlines()[1:]
    except OSError:
        lines = []
    for line in lines:
        name, destination = line.split()[:2]
        if destination == "00000000" and name in interfaces:
            return name
    others = [name for name in interfaces if name != "lo"]
    return others[0] if others else "lo"
