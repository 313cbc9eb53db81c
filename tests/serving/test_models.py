"""Models that load without a handler, and what a handler may have installed."""

from __future__ import annotations

import io
import warnings
import zipfile
from typing import TYPE_CHECKING

import pytest
import torch

if TYPE_CHECKING:
    from pathlib import Path


def exported() -> bytes:
    """Three times its input plus one, for any number of rows."""

    class Affine(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 3 * x + 1

    file = io.BytesIO()
    rows = torch.export.Dim("rows", min=1, max=1024)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(Affine(), (torch.zeros(2, 4),), dynamic_shapes=({0: rows},))
        torch.export.save(program, file)
    return file.getvalue()


@pytest.mark.contract(75)
def test_exported_program_is_served_without_a_handler(start, model_root):
    server = start(model_root(None, model__pt2=exported())).wait_ready()
    assert server.invoke("[[1, 2, 3, 4]]").json == [[4, 7, 10, 13]]
    assert server.invoke("[[0, 0, 0, 0], [1, 1, 1, 1]]").json == [[1] * 4, [4] * 4]
    refused = server.invoke("[[1, 2, 3]]")
    assert refused.status == 422
    assert server.invoke("[[1, 2, 3, 4]]").status == 200


def wheel(folder: Path, name: str, code: str) -> None:
    """The smallest wheel that pip installs."""
    information = f"{name}-1.0.dist-info"
    folder.mkdir()
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{name}.py", code)
        archive.writestr(
            f"{information}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
        )
        archive.writestr(
            f"{information}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{information}/RECORD", "")


@pytest.mark.contract(77)
def test_missing_requirement_is_installed_once_outside_of_the_model_directory(
    start, model_root, tmp_path
):
    wheel(tmp_path / "wheels", "tinyaddend", "ADDEND = 41.0\n")
    root = model_root("""
        import torch
        import tinyaddend
        def model_fn(model_dir): return torch.nn.Identity()
        def predict_fn(data, model): return data + tinyaddend.ADDEND
    """)
    requirements = root / "model" / "code" / "requirements.txt"
    requirements.write_text(f"--no-index\n--find-links {tmp_path / 'wheels'}\ntinyaddend==1.0\n")
    before = sorted(path for path in (root / "model").rglob("*"))
    server = start(root, SAGEMAKER_MODEL_SERVER_WORKERS="2").wait_ready()
    assert server.invoke("[[1]]").json == [[42]]
    assert sorted(path for path in (root / "model").rglob("*")) == before
