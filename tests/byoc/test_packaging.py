from __future__ import annotations

import io
import os
import socket
import stat
import subprocess
import tarfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byoc.errors import PackagingError
from byoc.packaging import pack, unpack

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "code").mkdir(parents=True)
    (folder / "model.pth").write_bytes(os.urandom(1000))
    (folder / "code" / "inference.py").write_text("def model_fn(model_dir): ...\n")
    return folder


def make_archive(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for info, content in members:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def entry(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def test_what_is_packed_is_unpacked_again(model, tmp_path):
    size = pack(model, tmp_path / "model.tar.gz")
    assert size == (tmp_path / "model.tar.gz").stat().st_size
    names = unpack(tmp_path / "model.tar.gz", tmp_path / "out")
    assert names == ["code/inference.py", "model.pth"]
    assert (tmp_path / "out/model.pth").read_bytes() == (model / "model.pth").read_bytes()


def test_the_archive_has_no_top_directory_for_other_tools(model, tmp_path):
    pack(model, tmp_path / "model.tar.gz")
    listed = subprocess.run(
        ["tar", "tzf", str(tmp_path / "model.tar.gz")], capture_output=True, text=True, check=True
    )
    assert listed.stdout.split() == ["code/", "code/inference.py", "model.pth"]


def test_the_same_files_give_the_same_bytes(model, tmp_path):
    pack(model, tmp_path / "a.tar.gz")
    os.utime(model / "model.pth", (1, 1))
    pack(model, tmp_path / "b.tar.gz")
    assert (tmp_path / "a.tar.gz").read_bytes() == (tmp_path / "b.tar.gz").read_bytes()


def test_read_only_takes_every_write_permission(model, tmp_path):
    pack(model, tmp_path / "model.tar.gz")
    unpack(tmp_path / "model.tar.gz", tmp_path / "out", read_only=True)
    for path in [tmp_path / "out", *(tmp_path / "out").rglob("*")]:
        assert not stat.S_IMODE(path.stat().st_mode) & 0o222
    for path in [tmp_path / "out", tmp_path / "out/code"]:
        path.chmod(0o755)  # so that pytest can remove it


@pytest.mark.contract(80)
def test_a_link_is_refused_and_named(model, tmp_path):
    (model / "latest.pth").symlink_to("model.pth")
    with pytest.raises(PackagingError, match=r"latest.pth is a symbolic link to model.pth"):
        pack(model, tmp_path / "model.tar.gz")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model"]


def test_a_socket_is_refused(model, tmp_path, monkeypatch):
    monkeypatch.chdir(model)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("sock")
        with pytest.raises(PackagingError, match="neither a file nor a folder"):
            pack(model, tmp_path / "model.tar.gz")


@pytest.mark.parametrize(
    ("prepare", "message"),
    [(lambda folder: None, "is no folder"), (lambda folder: folder.mkdir(), "holds no file")],
)
def test_nothing_to_pack_is_an_error(tmp_path, prepare, message):
    prepare(tmp_path / "empty")
    with pytest.raises(PackagingError, match=message):
        pack(tmp_path / "empty", tmp_path / "model.tar.gz")
    assert not (tmp_path / "model.tar.gz").exists()


@pytest.mark.contract(80)
@pytest.mark.parametrize(
    "bad",
    [
        entry("link", tarfile.SYMTYPE, "/etc/passwd"),
        entry("link", tarfile.LNKTYPE, "good"),
        entry("/absolute"),
        entry("a/../../outside"),
        entry("fifo", tarfile.FIFOTYPE),
        entry("device", tarfile.CHRTYPE),
    ],
    ids=["symlink", "hardlink", "absolute", "dotdot", "fifo", "device"],
)
def test_an_archive_that_hosting_would_refuse_is_not_unpacked(tmp_path, bad):
    archive = make_archive(tmp_path / "bad.tar.gz", (entry("good"), b"1"), (bad, b""))
    with pytest.raises(PackagingError, match=r"bad.tar.gz: the entry"):
        unpack(archive, tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.tar.gz"]


@pytest.mark.parametrize("kept", [0, 10, 100, -9])
def test_a_truncated_archive_is_one_clear_error(model, tmp_path, kept):
    pack(model, tmp_path / "model.tar.gz")
    data = (tmp_path / "model.tar.gz").read_bytes()
    (tmp_path / "cut.tar.gz").write_bytes(data[:kept])
    with pytest.raises(PackagingError, match=r"cut.tar.gz is no complete .tar.gz archive"):
        unpack(tmp_path / "cut.tar.gz", tmp_path / "out")


def test_special_permission_bits_are_dropped(tmp_path):
    info = entry("tool")
    info.mode = 0o6777
    unpack(make_archive(tmp_path / "a.tar.gz", (info, b"x")), tmp_path / "out")
    assert stat.S_IMODE((tmp_path / "out/tool").stat().st_mode) == 0o755


@given(st.binary(max_size=300))
def test_any_bytes_are_an_archive_or_a_clear_error(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("any")
    (folder / "a.tar.gz").write_bytes(content)
    with pytest.raises(PackagingError):
        unpack(folder / "a.tar.gz", folder / "out")


def test_a_full_disk_leaves_no_archive(model, tmp_path):
    (tmp_path / "small").mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(tmp_path / "small")],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip(f"cannot mount a small tmpfs: {mounted.stderr.strip()}")
    try:
        (model / "model.pth").write_bytes(os.urandom(200_000))
        with pytest.raises(PackagingError, match="No space left on device"):
            pack(model, tmp_path / "small/model.tar.gz")
        assert list((tmp_path / "small").iterdir()) == []
    finally:
        subprocess.run(["umount", str(tmp_path / "small")], check=True)
