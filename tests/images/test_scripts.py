"""The scripts that run while an image is built: splitting the lock, slimming, sealing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
EPOCH_SECONDS = 1735689600


def script(name: str, *arguments: str | Path, **variables: str) -> str:
    done = subprocess.run(
        [sys.executable, DOCKER / name, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | variables,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def packages(text: str) -> list[str]:
    return re.findall(r"(?m)^([A-Za-z0-9._-]+)==", text)


@pytest.mark.parametrize("kind", ["training", "inference"])
@pytest.mark.parametrize("lane", ["cu128", "cu130"])
def test_every_locked_package_is_in_exactly_one_layer(tmp_path: Path, kind: str, lane: str) -> None:
    lock = ROOT / "locks" / f"{kind}-{lane}.txt"
    script("split_lock.py", lock, DOCKER / "tools.txt", tmp_path)
    parts = {path.stem: path.read_text() for path in tmp_path.iterdir()}
    split = [name for text in parts.values() for name in packages(text)]
    assert set(split) == set(packages(lock.read_text())) | {"pip", "setuptools"}
    assert split.count("pip") == split.count("setuptools") == 1
    assert {"torch", "torchvision", "triton"} <= set(packages(parts["torch"]))
    sources = ["inotify-simple", "sagemaker-training"] if kind == "training" else []
    assert packages(parts["sources"]) == sources
    # Each requirement keeps its hashes.
    blocks = re.split(r"\n(?=\S)", "".join(parts.values()).strip())
    assert all("--hash=sha256:" in block for block in blocks)


def test_change_of_another_package_leaves_the_torch_part_alone(tmp_path: Path) -> None:
    lock = (ROOT / "locks/inference-cu128.txt").read_text()
    (tmp_path / "lock.txt").write_text(re.sub(r"(?m)^flask==\S+", "flask==9.9.9", lock))
    script("split_lock.py", ROOT / "locks/inference-cu128.txt", DOCKER / "tools.txt",
           tmp_path / "a")  # fmt: skip
    script("split_lock.py", tmp_path / "lock.txt", DOCKER / "tools.txt", tmp_path / "b")
    assert (tmp_path / "a/torch.txt").read_text() == (tmp_path / "b/torch.txt").read_text()
    assert (tmp_path / "a/packages.txt").read_text() != (tmp_path / "b/packages.txt").read_text()


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """A few files as the wheels of PyTorch and CUDA install them."""
    for name in (
        "triton/__init__.py",
        "triton-3.6.0.dist-info/METADATA",
        "torch/include/ATen.h",
        "torch/lib/libtorch_cpu.so",
        "torch/lib/libthing.a",
        "torch/bin/torch_shm_manager",
        "torch/bin/protoc-3.13",
        "nvidia/cusolver/lib/libcusolver.so.11",
        "nvidia/cusolver/lib/libcusolverMg.so.11",
        "nvidia/nvshmem/lib/libnvshmem_host.so.3",
        "nvidia/nvshmem/lib/nvshmem_transport_ucx.so.3",
        "nvidia/cu13/lib/libnvrtc.so.13",
        "nvidia/cu13/lib/libnvrtc.alt.so.13",
    ):
        path = tmp_path / "site" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 1_000_000)
    return tmp_path / "site"


KEPT = {
    "torch/lib/libtorch_cpu.so",
    "torch/bin/torch_shm_manager",
    "nvidia/cusolver/lib/libcusolver.so.11",
    "nvidia/nvshmem/lib/libnvshmem_host.so.3",
    "nvidia/cu13/lib/libnvrtc.so.13",
}


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_slimming_removes_what_the_table_names_and_says_how_much(environment: Path) -> None:
    output = script("slim.py", environment)
    assert files(environment) == KEPT
    assert re.search(r"slim: +8\.0 MB  in all", output)


def test_triton_stays_when_asked(environment: Path) -> None:
    script("slim.py", environment, KEEP_TRITON="1")
    assert files(environment) == KEPT | {
        "triton/__init__.py",
        "triton-3.6.0.dist-info/METADATA",
    }


def seal(folder: Path, function: str) -> None:
    """Call a function of seal.py in a process of its own, as the build does."""
    program = (
        "import pathlib, sys; sys.path.insert(0, sys.argv[1]); import seal;"
        f"seal.{function}(pathlib.Path(sys.argv[2]), {EPOCH_SECONDS})"
    )
    subprocess.run([sys.executable, "-c", program, DOCKER, folder], check=True, timeout=60)


def test_sealing_compiles_fixes_times_and_opens_permissions(tmp_path: Path) -> None:
    folder = tmp_path / "opt"
    (folder / "package").mkdir(parents=True, mode=0o700)
    module = folder / "package/module.py"
    module.write_text("x = 1\n")
    module.chmod(0o600)
    tool = folder / "tool"
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o700)
    (folder / "link").symlink_to("nowhere")
    (folder / "broken.py").write_text("this is no Python")
    seal(folder, "finish")
    compiled = list((folder / "package/__pycache__").glob("module.*.pyc"))
    assert len(compiled) == 1
    header = compiled[0].read_bytes()[:12]
    assert int.from_bytes(header[8:12], "little") == EPOCH_SECONDS
    assert module.stat().st_mode & 0o777 == 0o644
    assert tool.stat().st_mode & 0o777 == 0o755
    assert module.parent.stat().st_mode & 0o777 == 0o755
    assert {int(path.lstat().st_mtime) for path in (folder, *folder.rglob("*"))} == {EPOCH_SECONDS}


def test_sealing_twice_gives_the_same_bytes_and_leaves_earlier_files_alone(tmp_path: Path) -> None:
    folder = tmp_path / "opt"
    folder.mkdir()
    for name in ("a", "b"):
        (folder / f"{name}.py").write_text(f"{name} = 1\n")
    seal(folder, "seal")
    changed = {path: path.stat().st_ctime_ns for path in folder.iterdir()}
    (folder / "c.py").write_text("c = 1\n")
    seal(folder, "seal")
    assert {path: path.stat().st_ctime_ns for path in changed} == changed
    assert int((folder / "c.py").stat().st_mtime) == EPOCH_SECONDS


def with_index(tmp_path: Path, pip_conf: str | None, *, ca: bool = False) -> dict[str, str]:
    """The variables that a command sees; /dev/build is moved to a folder of the test."""
    secrets = tmp_path / "build"
    secrets.mkdir()
    if pip_conf is not None:
        (secrets / "pip_conf").write_text(pip_conf)
    if ca:
        (secrets / "ca").write_text("certificate")
    text = (DOCKER / "with-index").read_text().replace("/dev/build", str(secrets))
    program = tmp_path / "with-index"
    program.write_text(text)
    program.chmod(0o755)
    done = subprocess.run(
        [program, "env"],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": os.environ["PATH"]},
    )
    return dict(line.split("=", 1) for line in done.stdout.splitlines())


def test_build_without_secrets_uses_the_default_index(tmp_path: Path) -> None:
    seen = with_index(tmp_path, None)
    assert not [name for name in seen if name.startswith(("UV_", "PIP_", "SSL_"))]


def test_index_and_certificates_of_the_caller_reach_pip_and_uv(tmp_path: Path) -> None:
    conf = "[global]\nindex-url = https://a.example/simple\nextra-index-url =\n  https://b\n  https://c\n"
    seen = with_index(tmp_path, conf, ca=True)
    assert seen["PIP_CONFIG_FILE"].endswith("pip_conf")
    assert seen["UV_DEFAULT_INDEX"] == "https://a.example/simple"
    assert seen["UV_INDEX"] == "https://b https://c"
    assert seen["SSL_CERT_FILE"] == seen["PIP_CERT"]
    assert "UV_FIND_LINKS" not in seen


@pytest.mark.parametrize("name", ["apt-install", "with-index", "offline-base"])
def test_shell_scripts_are_executable_and_parse(name: str) -> None:
    path = DOCKER / name
    assert os.access(path, os.X_OK)
    shell = "bash" if "bash" in path.read_text().splitlines()[0] else "sh"
    subprocess.run([shell, "-n", path], check=True)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", path], check=True)


def test_offline_base_explains_itself() -> None:
    done = subprocess.run(
        [DOCKER / "offline-base"], capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == 2
    assert "docker/offline-base TAG [SUITE]" in done.stdout


def test_both_dockerfiles_have_the_same_first_stages() -> None:
    """One cache, one truth: what both images share is written alike."""
    texts = [(DOCKER / f"{kind}.Dockerfile").read_text() for kind in ("training", "inference")]
    tools = [text[text.index("FROM ${BASE_IMAGE} AS tools") :].split("\n# ")[0] for text in texts]
    project = [text[text.index("FROM tools AS project") :].split("# ---")[0] for text in texts]
    assert tools[0] == tools[1]
    assert project[0] == project[1]
