"""CUDA forward compatibility: used when the driver is older, in the process that runs."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from types import ModuleType

    from tests.images.conftest import Docker

DOCKER = Path(__file__).parents[2] / "docker"
#: /proc/driver/nvidia/version of the proprietary and of the open kernel module.
PROPRIETARY = """NVRM version: NVIDIA UNIX x86_64 Kernel Module  {}  Sun Feb 18 00:37:32 UTC 2026
GCC version:  gcc version 11.4.0 (Ubuntu 11.4.0-1ubuntu1~22.04)
"""
OPEN = """NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {}  Release Build  (dvs-builder)
GCC version:  gcc version 12.3.0
"""
REPORT = """
import json, os, sys
print(json.dumps({
    "path": os.environ.get("LD_LIBRARY_PATH"), "pid": os.getpid(), "argv": sys.argv,
    "flags": [sys.flags.utf8_mode, sys.flags.dont_write_bytecode], "stdin": sys.stdin.read(),
}))
"""


@pytest.fixture(scope="module")
def module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("compat", DOCKER / "byoc_cuda_compat.py")
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python whose environment has the start-up file, as in the images."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True, with_pip=False)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for name in ("byoc_cuda_compat.py", "byoc_cuda_compat.pth"):
        shutil.copy(DOCKER / name, folder / "lib" / version / "site-packages")
    return folder / "bin" / "python"


@pytest.fixture
def host(tmp_path: Path) -> Any:
    """Makes the variables of a host with a driver and an image with compat libraries."""

    def make(driver: str | None, compat: str | None = "570.124.06", text: str = PROPRIETARY) -> Any:
        folder = tmp_path / "compat"
        folder.mkdir(exist_ok=True)
        if compat is not None:
            (folder / f"libcuda.so.{compat}").write_bytes(b"")
            (folder / "libcuda.so.1").symlink_to(f"libcuda.so.{compat}")
        file = tmp_path / "version"
        if driver is not None:
            file.write_text(text.format(driver))
        return {"BYOC_CUDA_COMPAT_DIR": str(folder), "BYOC_NVIDIA_DRIVER_FILE": str(file)}

    return make


def report(python: Path, variables: dict[str, str], *arguments: str, stdin: str = "") -> Any:
    environment = {k: v for k, v in os.environ.items() if k != "LD_LIBRARY_PATH"} | variables
    with subprocess.Popen(
        [python, *arguments, "-c", REPORT, "--flag", "a b"],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        output, _ = process.communicate(stdin, timeout=60)
    return json.loads(output) | {"started_pid": process.pid}


@pytest.mark.contract(96)
@pytest.mark.parametrize("text", [PROPRIETARY, OPEN])
@pytest.mark.parametrize("driver", ["535.183.01", "470.256.02", "570.86.15", "570.124"])
def test_older_driver_puts_the_compat_directory_first(python, host, driver, text) -> None:
    variables = host(driver, text=text)
    seen = report(python, variables)
    assert seen["path"] == variables["BYOC_CUDA_COMPAT_DIR"]


@pytest.mark.contract(96)
def test_directories_of_the_caller_come_after(python, host) -> None:
    variables = host("535.183.01")
    seen = report(python, variables | {"LD_LIBRARY_PATH": "/opt/a:/opt/b"})
    assert seen["path"] == f"{variables['BYOC_CUDA_COMPAT_DIR']}:/opt/a:/opt/b"


@pytest.mark.contract(96)
@pytest.mark.parametrize(
    ("driver", "compat"),
    [
        ("580.95.05", "570.124.06"),  # newer
        ("570.124.06", "570.124.06"),  # the same
        (None, "570.124.06"),  # no GPU
        ("535.183.01", None),  # no compat libraries in the image
        ("garbage", "570.124.06"),
    ],
)
def test_compat_directory_is_absent_where_it_would_not_help(python, host, driver, compat) -> None:
    assert report(python, host(driver, compat))["path"] is None


def test_it_can_be_switched_off(python, host) -> None:
    off = {"SAGEMAKER_CUDA_COMPAT_DISABLED": "True"}
    assert report(python, host("535.183.01") | off)["path"] is None


def test_process_keeps_its_id_arguments_flags_and_input(python, host) -> None:
    seen = report(python, host("535.183.01"), "-X", "utf8", "-B", stdin="bytes that wait")
    assert seen["pid"] == seen["started_pid"]
    assert seen["argv"] == ["-c", "--flag", "a b"]
    assert seen["flags"] == [1, 1]
    assert seen["stdin"] == "bytes that wait"


def test_script_with_a_shebang_is_executed_again(python, host, tmp_path) -> None:
    script = tmp_path / "tool"
    script.write_text(
        f"#!{python}\nimport os, sys\nprint(os.environ['LD_LIBRARY_PATH'], sys.argv[1:])\n"
    )
    script.chmod(0o755)
    variables = host("535.183.01")
    done = subprocess.run(
        [script, "x"], env=os.environ | variables, capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{variables['BYOC_CUDA_COMPAT_DIR']} ['x']\n"


@pytest.mark.parametrize(("answer", "used"), [(0, True), (804, False), (803, False), (100, True)])
def test_cuda_itself_may_refuse_the_libraries(python, host, tmp_path, answer, used) -> None:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler to make a library that refuses")
    variables = host("535.183.01")
    library = Path(variables["BYOC_CUDA_COMPAT_DIR"]) / "libcuda.so.570.124.06"
    source = tmp_path / "cuda.c"
    source.write_text(f"int cuInit(unsigned flags) {{ return {answer}; }}\n")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True)
    expected = variables["BYOC_CUDA_COMPAT_DIR"] if used else None
    assert report(python, variables)["path"] == expected


def test_start_of_python_costs_less_than_two_milliseconds(python, host) -> None:
    # The work itself, timed inside: processes start too unevenly to compare them.
    program = (
        "import time, byoc_cuda_compat as c; t = time.perf_counter()\n"
        "for _ in range(100): c.activate()\n"
        "print((time.perf_counter() - t) / 100)"
    )
    done = subprocess.run(
        [python, "-c", program],
        env=os.environ | host("580.95.05"),
        capture_output=True,
        text=True,
        check=True,
    )
    assert float(done.stdout) < 0.002


def test_versions_compare_as_numbers(module) -> None:
    assert module.version("570.9") < module.version("570.124.06")
    assert module.version("1000.1") > module.version("999.9")


@pytest.mark.contract(2, 96)
@pytest.mark.parametrize("word", ["train", "serve"])
def test_compat_is_active_in_the_process_of_the_image(
    docker: Docker, request: pytest.FixtureRequest, host, word, tmp_path
) -> None:
    kind = {"train": "training", "serve": "inference"}[word]
    image = request.getfixturevalue(f"{kind}_image")
    host("535.183.01")
    # The program named by the platform, asked for its own environment; and with the entry point
    # replaced, as a client does.
    tmp_path.chmod(0o755)
    options = (
        "--volume", f"{tmp_path}:/host:ro",
        "--env", "BYOC_CUDA_COMPAT_DIR=/host/compat",
        "--env", "BYOC_NVIDIA_DRIVER_FILE=/host/version",
    )  # fmt: skip
    name = docker.name()
    done = docker(
        "run", "--rm", "--name", name, *options, "--entrypoint", "/bin/bash", image,
        "-c", "python3 -c 'import os; print(os.environ[\"LD_LIBRARY_PATH\"])'; exec python3 - <<< "
        "'import os; print(os.getpid(), os.environ[\"LD_LIBRARY_PATH\"])'",
    )  # fmt: skip
    assert done.stdout.split("\n")[:2] == ["/host/compat", "1 /host/compat"], done.stderr
