"""The one model file of all servers, test images, and what the model answers to them.

Runs as a program of its own, so that the benchmark itself never has torch in memory, which would
change how the shared pages of the servers are counted.
"""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.serving import catalog

ROOT = Path(__file__).resolve().parents[2]
NET = ROOT / "benchmarks" / "serving" / "peers" / "shared" / "model.py"
IMAGES = 32
#: Joined passes, frozen graphs and other memory layouts round differently; bf16 keeps 8 bits.
TOLERANCE = 1e-3
TOLERANCE_BF16 = 0.1

HANDLER = '''"""Loads the network; the rest is the server's own."""

from pathlib import Path

import torch
from model import Net


def model_fn(model_dir: str) -> torch.nn.Module:
    """The network with the shared weights."""
    model = Net()
    model.load_state_dict(torch.load(Path(model_dir) / "model.pth", weights_only=True))
    return model
'''


@dataclass(frozen=True)
class Sample:
    """The model's folder, images ``[1][1][28][28]`` and the answers ``[10]`` to them."""

    folder: Path
    images: list[Any]
    answers: list[list[float]]

    def body(
        self, peer: catalog.Peer, kind: str, number: int, images: int = 1
    ) -> tuple[bytes, dict[str, str]]:
        """A request's body and headers: so many images, beginning with one by its number."""
        batch = [self.images[(number + i) % IMAGES][0] for i in range(images)]
        if kind == catalog.NPY:
            return _npy(peer, batch)
        content: Any = batch
        if peer.protocol == "bento":
            content = {"images": batch}
        elif peer.protocol in {"v2", "triton"}:
            tensor = {"name": "images", "shape": [images, 1, 28, 28], "datatype": "FP32"}
            flat = [value for image in batch for row in image[0] for value in row]
            content = {"inputs": [{**tensor, "data": flat}]}
        return json.dumps(content).encode(), {"Content-Type": "application/json"}

    def right(self, peer: catalog.Peer, body: bytes, number: int, images: int = 1) -> bool:
        """Whether the answers to so many images, beginning with ``number``, are the model's own."""
        try:
            rows = catalog.answer(peer, body)
        except ValueError:
            return False
        tolerance = TOLERANCE_BF16 if peer.name.endswith("bf16") else TOLERANCE
        wanted = [self.answers[(number + i) % IMAGES] for i in range(images)]
        return list(map(len, rows)) == list(map(len, wanted)) and all(
            abs(seen - value) <= tolerance
            for row, right in zip(rows, wanted, strict=True)
            for seen, value in zip(row, right, strict=True)
        )


def _npy(peer: catalog.Peer, images: Any) -> tuple[bytes, dict[str, str]]:
    import numpy as np  # noqa: PLC0415 - only for these bodies

    array = np.asarray(images, dtype=np.float32)
    if peer.protocol == "triton":
        # Triton's binary extension: a JSON header, then the tensor.
        tensor = {"name": "images", "shape": list(array.shape), "datatype": "FP32"}
        size = {"parameters": {"binary_data_size": array.nbytes}}
        header = json.dumps({"inputs": [{**tensor, **size}]}).encode()
        headers = {
            "Content-Type": "application/octet-stream",
            "Inference-Header-Content-Length": str(len(header)),
        }
        return header + array.tobytes(), headers
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue(), {"Content-Type": "application/x-npy"}


def prepare(folder: Path) -> Sample:
    """Make the model and the sample, or take those that are there."""
    sample = folder / "sample.json"
    if not sample.exists():
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "benchmarks.serving.model", str(folder)]
        subprocess.run(command, check=True, cwd=ROOT)
    content = json.loads(sample.read_text())
    return Sample(folder, content["images"], content["answers"])


def install(sample: Sample, root: Path) -> None:
    """Lay out ``/opt/ml`` for our own server."""
    code = root / "model" / "code"
    code.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(sample.folder / "model.pth", root / "model" / "model.pth")
    shutil.copyfile(NET, code / "model.py")
    (code / "inference.py").write_text(HANDLER)


def _make(folder: Path) -> None:
    import torch  # noqa: PLC0415 - in this program alone

    sys.path.insert(0, str(NET.parent))
    from model import Net  # type: ignore[import-not-found] # noqa: PLC0415 - the example's

    torch.manual_seed(7)
    model = Net().eval()
    torch.save(model.state_dict(), folder / "model.pth")
    images = torch.randn(IMAGES, 1, 1, 28, 28)
    with torch.inference_mode():
        answers = [model(image)[0].tolist() for image in images]
    content = {"images": images.tolist(), "answers": answers}
    part = folder / "sample.json.part"
    part.write_text(json.dumps(content))
    part.rename(folder / "sample.json")


if __name__ == "__main__":
    _make(Path(sys.argv[1]))
