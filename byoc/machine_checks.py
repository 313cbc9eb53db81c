"""What `byoc doctor` asks this machine. Every check only reads."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from byoc import image_facts
from byoc.buildkit import NEED_BYTES
from byoc.findings import NOTE, OK, WRONG, Finding
from byoc.lanes import KINDS

if TYPE_CHECKING:
    from byoc.findings import Patient


def engine(_: Patient) -> list[Finding]:
    """Whether a Docker engine answers, and of which architecture."""
    client = image_facts.engine(3)
    if client is None:
        fix = "systemctl start docker (or apt-get install -y docker.io); byoc local runs without"
        return [Finding("engine", WRONG, "no Docker engine answers", fix)]
    try:
        version = client.version()
    finally:
        client.close()
    words = f"Docker {version.get('Version')}, {version.get('Os')}/{version.get('Arch')}"
    if version.get("Arch") not in ("amd64", "x86_64"):
        fix = "images are built for linux/amd64 all the same, slowly; better on such a machine"
        return [Finding("engine", NOTE, words, fix)]
    return [Finding("engine", OK, words)]


def gpu(__: Patient) -> list[Finding]:
    """The driver, as ``nvidia-smi`` says it."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return [Finding("GPU", NOTE, "none here; SageMaker's instances bring their own")]
    done = subprocess.run(
        [program, "--query-gpu=name,driver_version", "--format=csv,noheader"],
        capture_output=True, text=True, timeout=6, check=False,
    )  # fmt: skip
    lines = done.stdout.strip().splitlines()
    if done.returncode != 0 or not lines:
        said = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
        return [Finding("GPU", WRONG, f"nvidia-smi fails: {said[0]}", "install the driver again")]
    name, _, driver = lines[0].partition(", ")
    branch = int(driver.split(".")[0]) if driver.split(".")[0].isdigit() else 0
    words = f"{len(lines)} x {name}, driver {driver}"
    if branch < 525:
        return [
            Finding("GPU", WRONG, words, "CUDA 12 needs driver 525 or newer, CUDA 13 needs 580")
        ]
    return [Finding("GPU", OK, words)]


def disk(_: Patient) -> list[Finding]:
    """Whether a build has room."""
    folder = next(
        path for path in (Path("/var/lib/docker"), Path.home(), Path("/")) if path.is_dir()
    )
    free, needed = shutil.disk_usage(folder).free, max(NEED_BYTES.values())
    words = f"{free / 1e9:.0f} GB free in {folder}"
    if free < needed:
        fix = f"a build may need {needed / 1e9:.0f} GB: docker image prune, docker builder prune"
        return [Finding("disk", WRONG, words, fix)]
    return [Finding("disk", OK, words)]


def images(_: Patient) -> list[Finding]:
    """The two images of this machine."""
    found = []
    for kind in KINDS:
        name = f"sagemaker-byoc-{kind}:latest"
        facts = image_facts.here(name)
        if facts.source != "engine":
            found.append(Finding(f"image {kind}", NOTE, f"{name} is not here", "make build"))
        elif facts.architecture != "amd64":
            words = (
                f"{name} is for linux/{facts.architecture}: it would end with 'exec format error'"
            )
            found.append(Finding(f"image {kind}", WRONG, words, "make build"))
        elif facts.cuda is None:
            words = f"{name} says nothing about its CUDA"
            found.append(Finding(f"image {kind}", WRONG, words, "build it with make build"))
        else:
            cuda = facts.cuda
            words = (
                f"{name}: linux/amd64, CUDA {cuda.version}, driver {cuda.minimum_driver} or newer"
            )
            found.append(Finding(f"image {kind}", OK, words))
    return found
