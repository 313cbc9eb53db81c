"""The programs that SageMaker and its clients start in the images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.images.conftest import Docker


@pytest.mark.contract(42)
def test_client_drivers_find_their_programs(docker: Docker, image: str) -> None:
    programs = ("/bin/bash", "/bin/sh", "chmod", "cat", "tar", "gzip", "python3", "python", "pip3",
                "pip", "torchrun")  # fmt: skip
    script = 'for p; do command -v "$p" || echo "missing: $p"; done'
    found = docker.run(image, "/bin/bash", "-c", script, "-", *programs).stdout.split("\n")[:-1]
    assert [path for path in found if path.startswith("missing")] == []
    assert found[-5:] == [f"/opt/venv/bin/{name}" for name in programs[-5:]]


@pytest.mark.contract(42)
def test_first_python_on_path_has_torch_and_pip(docker: Docker, image: str) -> None:
    script = "python3 -c 'import torch, torchvision, numpy, PIL' && python3 -m pip --version"
    done = docker("run", "--rm", "--entrypoint", "/bin/bash", image, "-c", script)
    assert done.returncode == 0, done.stderr
    assert "/opt/venv/lib/" in done.stdout


@pytest.mark.contract(42)
def test_gzipped_source_archive_unpacks(docker: Docker, training_image: str) -> None:
    script = (
        "cd /tmp && mkdir a b && echo 'print(42)' > a/x.py && tar -czf c.tar.gz -C a . "
        "&& tar -xzf c.tar.gz -C b && chmod +x b/x.py && python3 b/x.py"
    )
    done = docker.run(training_image, "/bin/bash", "-c", script)
    assert done.stdout == "42\n", done.stderr


@pytest.mark.contract(4)
def test_training_refuses_an_unknown_word_in_one_line(docker: Docker, training_image: str) -> None:
    done = docker.run(training_image, "train", "serve")
    assert done.returncode not in (0, 1)
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "serve" in done.stderr


def test_serve_in_the_training_image_ends_with_one_clear_line(docker: Docker, training_image: str):
    done = docker.run(training_image, "serve")
    assert done.returncode != 0
    assert "Traceback" not in done.stdout + done.stderr
    assert len((done.stdout + done.stderr).strip().splitlines()) == 1


def test_byoc_in_an_image_says_where_it_belongs(docker: Docker, training_image: str) -> None:
    done = docker.run(training_image, "byoc", "--help")
    assert done.returncode == 1
    assert done.stderr.startswith("byoc: the package docker is missing")
    assert len(done.stderr.splitlines()) == 1


def test_train_belongs_to_this_project_and_the_toolkit_is_importable(
    docker: Docker, training_image: str
) -> None:
    program = """
import shutil, pathlib, importlib.metadata
print("byoc_training" in pathlib.Path(shutil.which("train")).read_text())
import sagemaker_training.cli.train, sagemaker_training.trainer, sagemaker_training.mpi
import sagemaker_training.smdataparallel, sagemaker_training.intermediate_output
print(importlib.metadata.version("sagemaker-training"))
"""
    done = docker.python(training_image, program)
    assert done.stdout.split() == ["True", "5.1.4"], done.stderr


@pytest.mark.contract(45)
def test_pip_installs_a_package_for_the_python_that_runs_the_script(
    docker: Docker, image: str
) -> None:
    script = """
mkdir -p /tmp/p && cd /tmp/p
printf '[project]\\nname = "probe-package"\\nversion = "1.2"\\n' > pyproject.toml
printf '[build-system]\\nrequires = []\\nbuild-backend = "backend"\\nbackend-path = ["."]\\n' \
    >> pyproject.toml
cat > backend.py <<'EOF'
import zipfile
def build_wheel(folder, *rest):
    name = "probe_package-1.2-py3-none-any.whl"
    info = "probe_package-1.2.dist-info/"
    with zipfile.ZipFile(f"{folder}/{name}", "w") as wheel:
        wheel.writestr("probe_package.py", "value = 7")
        about = ["Metadata-Version: 2.1", "Name: probe-package", "Version: 1.2"]
        kind = ["Wheel-Version: 1.0", "Root-Is-Purelib: true", "Tag: py3-none-any"]
        wheel.writestr(info + "METADATA", "\\n".join(about))
        wheel.writestr(info + "WHEEL", "\\n".join(kind))
        wheel.writestr(info + "RECORD", "")
    return name
EOF
echo /tmp/p > requirements.txt
python3 -m pip install --quiet -r requirements.txt && cd /
python3 -c 'import probe_package as p; print(p.value)'
"""
    done = docker.run(image, "/bin/bash", "-c", script, options=("--network", "none"))
    assert done.stdout == "7\n", done.stderr
