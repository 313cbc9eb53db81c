from __future__ import annotations

import base64
import hashlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

TRAINING = Path(__file__).parents[2] / "training"


@pytest.fixture(scope="module")
def own_python(tmp_path_factory) -> str:
    """An environment with pip whose packages these tests may change."""
    folder = tmp_path_factory.mktemp("venv")
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, capture_output=True)
    site = next(folder.glob("lib/python*/site-packages"))
    (site / "byoc.pth").write_text(f"{TRAINING}\n")
    return str(folder / "bin" / "python")


@pytest.fixture(scope="module")
def building_python(own_python: str) -> str:
    """The same with a build backend, so that building a package needs no network."""
    site = next(Path(own_python).parents[1].glob("lib/python*/site-packages"))
    development = Path(pytest.__file__).parents[1]
    for name in ("hatchling", "packaging", "pathspec", "pluggy", "trove_classifiers"):
        for found in (development / name, *development.glob(f"{name}-*.dist-info")):
            (site / found.name).symlink_to(found)
    return own_python


def make_wheel(folder: Path, name: str, version: str) -> None:
    """A wheel with one module."""
    files = {
        f"{name}.py": f"VERSION = {version!r}\n",
        f"{name}-{version}.dist-info/METADATA": (
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        ),
        f"{name}-{version}.dist-info/WHEEL": (
            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        ),
    }
    record = f"{name}-{version}.dist-info/RECORD"
    lines = [
        f"{path},sha256="
        + base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        + f",{len(text)}"
        for path, text in files.items()
    ]
    files[record] = "\n".join([*lines, f"{record},,"]) + "\n"
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        for path, text in files.items():
            wheel.writestr(path, text)


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    folder = tmp_path / "wheels"
    make_wheel(folder, "byoc_sample", "1.5")
    return folder


def offline(folder: Path) -> dict[str, str]:
    return {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder), "PIP_CONFIG_FILE": os.devnull}


@pytest.mark.slow
@pytest.mark.contract(45)
def test_requirements_are_installed_with_the_interpreter_that_runs_the_program(
    job, own_python, wheels
):
    job.python = own_python
    job.program("import byoc_sample, sys; print(byoc_sample.VERSION, sys.prefix == sys.argv[2])")
    job.hyperparameters(prefix=str(Path(own_python).parents[1]))
    (job.root / "code/requirements.txt").write_text("# a comment\nbyoc-sample>=1.4  # why\n")
    first = job.run("train", **offline(wheels))
    assert first.stdout.splitlines()[-1] == "1.5 True", first.stderr
    # Met already: no pip, so that neither a network nor wheels are needed.
    second = job.run("train", **offline(Path("/nowhere")))
    assert second.stdout == "1.5 True\n"
    assert "everything is installed already" in second.stderr


@pytest.mark.contract(45)
@pytest.mark.parametrize(
    "text", ["byoc-no-such-package==1.0\n", "numpy\nbyoc-no-such-package\n", "-r missing.txt\n"]
)
def test_what_cannot_be_installed_is_in_the_failure_file(job, wheels, text):
    job.program("print('never')")
    (job.root / "code/requirements.txt").write_text(text)
    result = job.run("train", **offline(wheels))
    assert result.code == 69
    assert "never" not in result.stdout
    assert result.failure.startswith("pip could not install requirements.txt (exit code 1): ")
    assert "byoc-no-such-package" in result.failure or "missing.txt" in result.failure
    assert result.stderr.splitlines()[-1].startswith("train: error: pip could not install")


@pytest.mark.contract(45)
def test_index_that_cannot_be_reached_fails_within_seconds(job):
    job.program("print('never')")
    (job.root / "code/requirements.txt").write_text("byoc-no-such-package\n")
    result = job.run(
        "train", PIP_INDEX_URL="http://127.0.0.1:9/simple", PIP_CONFIG_FILE=os.devnull,
        NO_PROXY="127.0.0.1", no_proxy="127.0.0.1",
    )  # fmt: skip
    assert result.code == 69
    assert result.seconds < 30


@pytest.mark.parametrize(
    "text",
    ["", "# nothing\n", "pytest>=1\n", "pytest \\\n  >= 1\n", "x; python_version < '3'\n",
     "PyTest ~= 9.0\r\n"],
)  # fmt: skip
def test_met_requirements_do_not_start_pip(job, text):
    job.program("print('ran')")
    (job.root / "code/requirements.txt").write_bytes(text.encode())
    result = job.run("train", PIP_INDEX_URL="http://127.0.0.1:9/simple")
    assert result.stdout == "ran\n", result.stderr
    assert "installing" not in result.stderr


@pytest.mark.slow
def test_source_with_setup_py_is_installed_and_run_as_a_module(job, building_python):
    site = next(Path(building_python).parents[1].glob("lib/python*/site-packages"))
    job.python = building_python
    job.program(
        "import other_of_mine; print(other_of_mine.__file__, __spec__.name)", "main_of_mine.py"
    )
    code = job.root / "code"
    (code / "other_of_mine.py").write_text("")
    (code / "setup.py").write_text("")
    (code / "pyproject.toml").write_text(
        "[build-system]\nrequires = ['hatchling']\nbuild-backend = 'hatchling.build'\n"
        "[project]\nname = 'of-mine'\nversion = '1'\n"
        "[tool.hatch.build.targets.wheel]\ninclude = ['*_of_mine.py']\n"
    )
    result = job.run("train", PIP_NO_BUILD_ISOLATION="0", PIP_NO_INDEX="1")
    assert result.stdout.splitlines()[-1].endswith("other_of_mine.py main_of_mine"), result.stderr
    assert (site / "other_of_mine.py").is_file()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("build", "words"),
    [
        ("requires = 7\n", "requires"),
        ("requires = ['hatchling']\nbuild-backend = 'hatchling.build'\n", "ValueError: Unable to"),
    ],
)
def test_failing_build_is_reported_with_its_own_error(job, building_python, build, words):
    job.python = building_python
    job.program("print('never')")
    (job.root / "code/setup.py").write_text("")
    (job.root / "code/pyproject.toml").write_text(
        f"[build-system]\n{build}[project]\nname = 'nothing-to-ship'\nversion = '1'\n"
    )
    result = job.run("train", PIP_NO_BUILD_ISOLATION="0", PIP_NO_INDEX="1")
    assert result.code == 69
    assert "pip could not install the package" in result.failure
    assert words in result.failure


@pytest.mark.slow
def test_package_with_a_main_module_may_be_the_program(job, building_python):
    job.python = building_python
    job.program("print('main module')", "pkg_of_mine/__main__.py")
    job.environ["SAGEMAKER_PROGRAM"] = "pkg_of_mine"
    code = job.root / "code"
    (code / "setup.py").write_text("")
    (code / "pyproject.toml").write_text(
        "[build-system]\nrequires = ['hatchling']\nbuild-backend = 'hatchling.build'\n"
        "[project]\nname = 'pkg-of-mine'\nversion = '1'\n"
        "[tool.hatch.build.targets.wheel]\npackages = ['pkg_of_mine']\n"
    )
    result = job.run("train", PIP_NO_BUILD_ISOLATION="0", PIP_NO_INDEX="1")
    assert result.stdout.splitlines()[-1] == "main module", result.stderr


@pytest.mark.contract(45)
@pytest.mark.parametrize("marker", ["python_version ~= 'a'", "os_name ~= 'posix'"])
def test_marker_that_means_nothing_is_reported_and_no_bug_of_ours(job, marker):
    job.program("print('never')")
    (job.root / "code/requirements.txt").write_text(f"pytest; {marker}\n")
    result = job.run("train", PIP_NO_INDEX="1", PIP_CONFIG_FILE=os.devnull)
    assert "internal error" not in result.stderr
    assert result.code in (0, 69)  # newer versions of pip compare them as text
    if result.code:
        assert "UndefinedComparison" in result.failure
