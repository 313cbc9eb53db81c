"""PyTorch in the images: complete, and working on a machine without a GPU."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from byoc.images import BuiltImage
    from tests.images.conftest import Docker

#: Each library of the environment, loaded the way PyTorch loads it, with what it cannot find.
CLOSURE = """
import json, os, subprocess, sys, sysconfig
import torch, torchvision
root = sysconfig.get_path("purelib")
# Python modules find the libraries of torch in the process that imported it.
loaded = {os.path.basename(line.split()[-1]) for line in open("/proc/self/maps") if ".so" in line}
missing = {}
for folder, _, names in os.walk(root):
    for name in names:
        path = os.path.join(folder, name)
        if ".so" not in name or name.endswith((".py", ".pyc", ".pyi")) or os.path.islink(path):
            continue
        lines = subprocess.run(["ldd", path], capture_output=True, text=True).stdout.splitlines()
        lost = {line.split()[0] for line in lines if "not found" in line} - loaded
        if lost:
            missing[os.path.relpath(path, root)] = sorted(lost)
print(json.dumps(missing))
"""

SMOKE = """
import torch, warnings
torch.manual_seed(0)
x = torch.randn(4, 3, 32, 32)
assert not torch.cuda.is_available() and torch.cuda.device_count() == 0
conv = torch.nn.Conv2d(3, 8, 3); assert conv(x).shape == (4, 8, 30, 30)
a = torch.randn(64, 64, dtype=torch.float64); b = a @ a.T + 64 * torch.eye(64)
torch.testing.assert_close(torch.linalg.solve(b, b), torch.eye(64, dtype=torch.float64))
torch.testing.assert_close(torch.linalg.inv(b) @ b, torch.eye(64, dtype=torch.float64))
u, s, v = torch.linalg.svd(a); torch.testing.assert_close(u @ torch.diag(s) @ v, a)
torch.testing.assert_close(torch.fft.irfft(torch.fft.rfft(x), n=32), x)
lstm = torch.nn.LSTM(8, 8); assert lstm(torch.randn(5, 2, 8))[0].shape == (5, 2, 8)
attention = torch.nn.functional.scaled_dot_product_attention
assert attention(*[torch.randn(2, 4, 16, 8)] * 3).shape == (2, 4, 16, 8)
ones = torch.ones(8, 1)
torch.testing.assert_close(torch.eye(8).to_sparse() @ ones, ones)
x.requires_grad_(True); conv(x).square().sum().backward(); assert x.grad is not None
model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU())
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    scripted = torch.jit.script(model)
torch.testing.assert_close(scripted(torch.ones(1, 4)), model(torch.ones(1, 4)))
exported = torch.export.export(model, (torch.ones(1, 4),))
torch.export.save(exported, "/tmp/m.pt2")
loaded = torch.export.load("/tmp/m.pt2").module()
torch.testing.assert_close(loaded(torch.ones(1, 4)), model(torch.ones(1, 4)))
quantized = torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8).dequantize()
torch.testing.assert_close(quantized, torch.ones(3))
import torchvision
from torchvision.ops import nms
boxes = torch.tensor([[0., 0, 1, 1], [0, 0, 1, 1]])
assert nms(boxes, torch.tensor([1., 0.5]), 0.5).tolist() == [0]
assert torchvision.models.resnet18()(torch.zeros(1, 3, 64, 64)).shape == (1, 1000)
import torch.distributed as dist
dist.init_process_group("gloo", init_method="file:///tmp/store", rank=0, world_size=1)
t = torch.ones(2); dist.all_reduce(t); dist.destroy_process_group()
print("fine")
"""


def test_every_library_finds_what_it_is_linked_with(
    docker: Docker, image: str, built_image: BuiltImage
) -> None:
    done = docker.python(image, CLOSURE)
    assert done.returncode == 0, done.stderr
    missing = json.loads(done.stdout)
    # The driver's own library, which the container runtime brings on GPU hosts.
    missing = {
        path: rest
        for path, names in missing.items()
        if (rest := [name for name in names if name != "libcuda.so.1"])
    }
    if built_image.kind == "training":
        # Plug-ins for fabrics that NVSHMEM and cuFile try and do without.
        plugin = re.compile(r".*/(nvshmem_(bootstrap|transport)_|libcufile_rdma)[^/]*")
        missing = {path: names for path, names in missing.items() if not plugin.fullmatch(path)}
    assert missing == {}


@pytest.mark.contract(97)
def test_torch_computes_on_a_machine_without_a_gpu(docker: Docker, image: str) -> None:
    done = docker.python(image, SMOKE, options=("--network", "none"))
    assert done.stdout.endswith("fine\n"), done.stderr
    assert "Traceback" not in done.stderr


def test_bytecode_of_every_installed_module_is_in_the_image(docker: Docker, image: str) -> None:
    program = """
import importlib.util, os, sysconfig
root = sysconfig.get_path("purelib")
stale = []
for name in ("torch", "numpy", "torchvision", "PIL", "byoc_serving", "byoc_training", "sympy"):
    for folder, _, files in os.walk(os.path.join(root, name)):
        for file in files:
            if not file.endswith(".py"):
                continue
            source = os.path.join(folder, file)
            try:
                with open(importlib.util.cache_from_source(source), "rb") as f:
                    header = f.read(16)
            except FileNotFoundError:
                try:
                    compile(open(source, encoding="utf-8").read(), source, "exec")
                except (SyntaxError, ValueError):
                    continue  # written for another Python
                stale.append(source)
                continue
            if int.from_bytes(header[8:12], "little") != int(os.stat(source).st_mtime):
                stale.append(source)
print(stale)
"""
    assert docker.python(image, program).stdout == "[]\n"


@pytest.mark.slow
def test_torch_compile_works_in_the_training_image(docker: Docker, training_image: str) -> None:
    program = """
import torch
f = torch.compile(lambda x: (x.sin() + x.cos()).sum())
x = torch.arange(1000.)
torch.testing.assert_close(f(x), (x.sin() + x.cos()).sum())
print("compiled")
"""
    done = docker.python(training_image, program, options=("--network", "none"))
    assert done.stdout == "compiled\n", done.stderr[-2000:]
