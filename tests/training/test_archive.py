from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tarfile

import pytest

from byoc_training import archive
from byoc_training.errors import SourceError, StorageError


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o644):
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, link, mode
    return info


@pytest.fixture
def target(tmp_path):
    folder = tmp_path / "target"
    folder.mkdir()
    return folder


@pytest.mark.parametrize(
    "bad",
    [
        [member("../evil")],
        [member("a/../../evil")],
        [member("/tmp/evil")],
        [member("link", tarfile.SYMTYPE, "/etc/passwd")],
        [member("link", tarfile.SYMTYPE, "../outside")],
        [member("a/link", tarfile.SYMTYPE, "../../outside")],
        [member("here", tarfile.SYMTYPE, "."), member("up", tarfile.SYMTYPE, "here/../..")],
        [member("hard", tarfile.LNKTYPE, "../outside")],
        [member("hard", tarfile.LNKTYPE, "/etc/passwd")],
        [member("fifo", tarfile.FIFOTYPE)],
        [member("null", tarfile.CHRTYPE)],
        [member("disk", tarfile.BLKTYPE)],
    ],
    ids=lambda members: members[-1].name + members[-1].linkname,
)
@pytest.mark.contract(40)
def test_archive_that_leaves_its_directory_is_refused(make_tar, target, bad):
    with pytest.raises(SourceError):
        archive.unpack(make_tar({"train.py": ""}, *bad), target)
    assert not (target.parent / "evil").exists()
    assert not (target.parent / "outside").exists()


def test_write_through_a_link_made_before_is_refused(target, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (target / "door").symlink_to(outside)
    path = tmp_path / "s.tar"
    with tarfile.open(path, "w") as tar:
        tar.addfile(member("door/file"))
    with pytest.raises(SourceError, match="through a link"):
        archive.unpack(path, target)
    assert list(outside.iterdir()) == []


def test_links_inside_are_kept_and_modes_are_harmless(make_tar, target):
    archive.unpack(
        make_tar(
            {"a/real.py": "x = 1\n"},
            member("a/alias.py", tarfile.SYMTYPE, "real.py"),
            member("copy.py", tarfile.LNKTYPE, "a/real.py"),
            member("setuid", mode=0o6777),
            member("dir", tarfile.DIRTYPE, mode=0o000),
        ),
        target,
    )
    assert (target / "a/alias.py").read_text() == (target / "copy.py").read_text() == "x = 1\n"
    assert (target / "a/alias.py").is_symlink()
    assert (target / "setuid").stat().st_mode & 0o7777 == 0o755
    assert os.access(target / "dir", os.W_OK)


@pytest.mark.parametrize("size", [0, 10, 60])
def test_cut_off_archive_is_refused(make_tar, target, size):
    path = make_tar({"train.py": os.urandom(300).hex()})
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(SourceError):
        archive.unpack(path, target)


def test_flipped_byte_is_found(make_tar, target):
    path = make_tar({"train.py": os.urandom(3000).hex()})
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(bytes(data))
    with pytest.raises(SourceError, match="sourcedir"):
        archive.unpack(path, target)


def test_what_is_no_archive_is_refused(tmp_path, target):
    path = tmp_path / "source.tar.gz"
    path.write_text("hello")
    with pytest.raises(SourceError, match="not a complete tar archive"):
        archive.unpack(path, target)


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_every_common_compression_is_read(tmp_path, target, mode):
    path = tmp_path / "source"
    with tarfile.open(path, mode) as tar:
        info = tarfile.TarInfo("train.py")
        info.size = 3
        tar.addfile(info, io.BytesIO(b"abc"))
    archive.unpack(path, target)
    assert (target / "train.py").read_text() == "abc"


def test_archive_larger_than_the_disk_is_refused_before_it_fills_it(make_tar, target, monkeypatch):
    free = archive.RESERVE_BYTES + 1000
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": free})())
    with pytest.raises(StorageError, match="does not fit"):
        archive.unpack(make_tar({"small": "x" * 900, "large": "x" * 101}), target)


def test_full_disk_leaves_no_source_behind(job, make_tar, tmp_path):
    """A real small file system, in a mount namespace of the job's own."""
    if subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode:
        pytest.skip("no right to mount here")
    source = make_tar({"a.py": "print(1)\n", "big.bin": "x" * 3_000_000})
    job.hyperparameters(sagemaker_program='"a.py"', sagemaker_submit_directory=f'"{source}"')
    config = (job.root / "input/config/hyperparameters.json").read_text()
    script = (
        'mount -t tmpfs -o size=2m none "$BYOC_ROOT" && mkdir -p "$BYOC_ROOT/input/config" && '
        'printf %s "$CONFIG" > "$BYOC_ROOT/input/config/hyperparameters.json" && '
        '"$PYTHON" -m byoc_training.main; code=$?; ls -A "$BYOC_ROOT"; exit $code'
    )
    done = subprocess.run(
        ["unshare", "-m", "/bin/sh", "-c", script],
        env=job.variables(PYTHON=sys.executable, CONFIG=config),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 74, done.stderr
    assert "does not fit on the disk" in done.stderr
    assert "Traceback" not in done.stderr
    assert "code" not in done.stdout


def pax(path, **headers: str):
    """An archive with one file whose extended header says anything."""
    with tarfile.open(path, "w:gz", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("train.py")
        info.size = 1
        info.pax_headers = headers
        tar.addfile(info, io.BytesIO(b"x"))
    return path


@pytest.mark.parametrize("mtime", ["inf", "nan", "1e30", "-5"])
def test_time_that_the_disk_cannot_hold_is_dropped(tmp_path, target, mtime):
    archive.unpack(pax(tmp_path / "a.tar.gz", mtime=mtime), target)
    assert (target / "train.py").read_bytes() == b"x"


def test_links_in_a_circle_are_refused(make_tar, target):
    members = []
    for name, link in (("a", "b"), ("b", "a"), ("a/x", None)):
        info = tarfile.TarInfo(name)
        if link:
            info.type, info.linkname = tarfile.SYMTYPE, link
        members.append(info)
    with pytest.raises(SourceError, match=r"sourcedir\.tar\.gz"):
        archive.unpack(make_tar({}, *members), target)


def test_endless_chain_of_headers_is_refused(tmp_path, target):
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 512
    path = tmp_path / "a.tar"
    path.write_bytes((header.tobuf() + b"12 comment=a".ljust(512, b"\0")) * 3000)
    with pytest.raises(SourceError, match="damaged"):
        archive.unpack(path, target)


@pytest.mark.parametrize("names", [("a", "a/b"), ("a" * 300,)])
def test_names_that_cannot_be_are_the_archives_fault(make_tar, target, names):
    with pytest.raises(SourceError, match="member that cannot be"):
        archive.unpack(make_tar(dict.fromkeys(names, "x")), target)


def test_what_is_no_archive_is_said_on_one_line(tmp_path, target):
    (tmp_path / "a.tar.gz").write_bytes(b"PK\x03\x04" * 200)
    with pytest.raises(SourceError) as caught:
        archive.unpack(tmp_path / "a.tar.gz", target)
    assert "\n" not in str(caught.value)
