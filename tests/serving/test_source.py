from __future__ import annotations

import io
import tarfile
from typing import TYPE_CHECKING, Any

import pytest

from byoc_serving.archives import unpack
from byoc_serving.errors import ArchiveError, HandlerError, ModelError
from byoc_serving.settings import Settings
from byoc_serving.source import locate

if TYPE_CHECKING:
    from pathlib import Path

MODEL_FN = "def model_fn(model_dir): ...\n"


@pytest.fixture
def root(tmp_path) -> Path:
    (tmp_path / "ml/model/code").mkdir(parents=True)
    made: Path = tmp_path / "ml"
    return made


def found(root: Path, tmp_path: Path, **fields: Any) -> str:
    return locate(Settings(root=root, **fields), tmp_path).origin


def test_handlers_are_found_in_the_documented_order(root, tmp_path, torchscript):
    own = tmp_path / "own.py"
    own.write_text(MODEL_FN)
    with pytest.raises(ModelError, match="is empty"):
        found(root, tmp_path)
    assert found(root, tmp_path, handler=own) == str(own)
    (root / "model/model.pt").write_bytes(torchscript.read_bytes())
    assert found(root, tmp_path, handler=own) == "default functions"
    (root / "model/inference.py").write_text(MODEL_FN)
    assert found(root, tmp_path, handler=own) == "inference.py"
    (root / "model/code/any.py").write_text(MODEL_FN)
    (root / "model/code/helper.py").write_text("x = 1\n")
    assert found(root, tmp_path, handler=own) == "code/any.py"
    (root / "model/code/inference.py").write_text(MODEL_FN)
    assert found(root, tmp_path, handler=own) == "code/inference.py"
    assert found(root, tmp_path, program="helper.py") == "code/helper.py"
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/inference.py").write_text(MODEL_FN)
    submitted = found(root, tmp_path, submit_directory=str(tmp_path / "sub"))
    assert submitted == str(tmp_path / "sub/inference.py")


def test_several_candidates_are_refused(root, tmp_path):
    for name in ("a.py", "b.py"):
        (root / "model/code" / name).write_text(MODEL_FN)
    with pytest.raises(HandlerError, match=r"a\.py, b\.py"):
        found(root, tmp_path)


def test_model_in_one_top_directory_is_found(root, tmp_path, torchscript):
    (root / "model/nested").mkdir()
    (root / "model/nested/model.pth").write_bytes(torchscript.read_bytes())
    assert found(root, tmp_path) == "default functions"


def test_submit_directory_that_is_missing_is_refused(root, tmp_path):
    with pytest.raises(HandlerError, match="SAGEMAKER_SUBMIT_DIRECTORY"):
        found(root, tmp_path, submit_directory="/nowhere/at/all")


def member(name: str, kind: bytes = tarfile.REGTYPE) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        info = tarfile.TarInfo(name)
        info.type = kind
        info.linkname = "/etc/passwd"
        tar.addfile(info)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (member("../out.py"), "outside"),
        (member("/abs.py"), "outside"),
        (member("a/../../b.py"), "outside"),
        (member("link.py", tarfile.SYMTYPE), "link"),
        (member("hard.py", tarfile.LNKTYPE), "link"),
        (member("fifo", tarfile.FIFOTYPE), "device"),
        (b"no archive at all", "cannot unpack"),
        (member("fine.py")[:-12], "cannot unpack"),
        (b"", "cannot unpack"),
    ],
)
def test_unsafe_and_broken_archives_are_refused(tmp_path, content, words):
    path = tmp_path / "code.tar.gz"
    path.write_bytes(content)
    with pytest.raises(ArchiveError, match=words):
        unpack(path, tmp_path / "target")
    assert not (tmp_path / "out.py").exists()


def test_broken_submitted_archive_leaves_no_code_directory(root, tmp_path):
    packed = tmp_path / "code.tar.gz"
    packed.write_bytes(member("../out.py"))
    with pytest.raises(ArchiveError, match="outside"):
        found(root, tmp_path, submit_directory=str(packed), program="x.py")
    assert not (tmp_path / "code").exists()
