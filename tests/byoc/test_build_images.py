"""``byoc build`` with a client that records what it is asked: names, arguments, refusals."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from byoc import buildkit, checkout
from byoc.buildkit import BuildOptions
from byoc.errors import BudgetError, BuildError
from byoc.images import BuiltImage, build
from byoc.lanes import LANES, tags
from byoc.layers import Layer

BYOC = Path(sys.executable).with_name("byoc")
ROOT = Path(__file__).parents[2]

CLIENT = """#!/bin/sh
here={folder}
case "$1" in
version) echo "20.10.24 20.10.24" ;;
buildx) exit 1 ;;
info) echo "$here/root" ;;
pull) echo "Error: no route to the registry" >&2; exit {pull} ;;
image) case "$*" in
    *"{{{{.Size}}}}"*) echo 1000 ;;
    *"{{{{.Id}}}}"*) echo sha256:abc ;;
    *absent*|*nvidia*) exit 1 ;;
    esac ;;
history) echo '{{"CreatedBy": "RUN /bin/sh -c : \\"PyTorch and CUDA\\"; x", "Size": "{size}"}}'
         echo '{{"CreatedBy": "", "Size": "1000"}}' ;;
build) echo "$DOCKER_BUILDKIT" "$@" >> "$here/builds"; {failure} ;;
esac
"""


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Makes the only Docker client; returns what it was asked to build."""

    def make(size: int = 5000, failure: str = "true", pull: int = 1) -> Any:
        (tmp_path / "root").mkdir()
        program = tmp_path / "docker"
        program.write_text(CLIENT.format(folder=tmp_path, size=size, failure=failure, pull=pull))
        program.chmod(0o755)
        monkeypatch.setenv("BYOC_DOCKER", str(program))
        monkeypatch.delenv("BYOC_BASE_IMAGE", raising=False)
        # The disk of the machine that tests is its own affair.
        monkeypatch.setattr(buildkit, "NEED_AGAIN_BYTES", 1)
        monkeypatch.setattr(buildkit, "NEED_BYTES", {"training": 1, "inference": 1})
        return lambda: [line.split() for line in (tmp_path / "builds").read_text().splitlines()]

    return make


def arguments_of(command: list[str]) -> dict[str, str]:
    at = [index for index, word in enumerate(command) if word == "--build-arg"]
    named = [command[index + 1].partition("=") for index in at]
    return {name: value for name, _, value in named}


def test_both_images_are_built_with_the_facts_of_the_lane(client) -> None:
    builds = client()
    images = build(BuildOptions(base_image="here", lane="cu130", progress="quiet"))
    assert [image.kind for image in images] == ["training", "inference"]
    for command, kind in zip(builds(), ("training", "inference"), strict=True):
        assert command[:2] == ["1", "build"]
        assert command[command.index("--file") + 1] == str(ROOT / f"docker/{kind}.Dockerfile")
        assert command[command.index("--platform") + 1] == "linux/amd64"
        named = arguments_of(command)
        assert named["BASE_IMAGE"] == "here"
        assert named["CUDA_LANE"] == "cu130"
        assert named["CUDA_VERSION"] == "13.0"
        lock = (ROOT / f"locks/{kind}-cu130.txt").read_text()
        assert f"torch=={named['TORCH_VERSION']} " in lock
        assert command[-1] == str(ROOT)


def test_image_is_measured_on_top_of_its_base(client) -> None:
    client(size=5000)
    (image,) = build(BuildOptions(kinds=("inference",), base_image="here", progress="quiet"))
    assert image.size_bytes == 6000
    assert image.added_bytes == 5000
    assert [layer.instruction for layer in image.layers] == ["base image", "PyTorch and CUDA"]


def test_secrets_and_network_reach_the_build(client, tmp_path: Path) -> None:
    builds = client()
    (tmp_path / "ca.pem").write_text("certificate")
    (tmp_path / "pip.conf").write_text("[global]")
    build(
        BuildOptions(
            kinds=("training",),
            base_image="here",
            ca_bundle=tmp_path / "ca.pem",
            pip_config=tmp_path / "pip.conf",
            network="host",
            no_cache=True,
            tag="mine",
            progress="quiet",
        )
    )
    (command,) = builds()
    text = " ".join(command)
    assert f"--secret id=ca,src={tmp_path}/ca.pem" in text
    assert f"--secret id=pip_conf,src={tmp_path}/pip.conf" in text
    assert "--network host" in text
    assert "--no-cache" in command
    assert "--tag sagemaker-byoc-training:mine --tag sagemaker-byoc-training:latest" in text


def test_missing_ca_bundle_is_refused(client) -> None:
    client()
    with pytest.raises(BuildError, match=r"/nowhere is no file"):
        build(BuildOptions(base_image="here", ca_bundle=Path("/nowhere")))


def test_base_image_that_cannot_be_pulled_names_the_offline_base(client, capsys) -> None:
    client()
    with pytest.raises(BuildError, match=r"no route to the registry.*docker/offline-base"):
        build(BuildOptions(base_image="absent"))
    assert "pulling the base image absent" in capsys.readouterr().out


def test_default_base_is_the_lane_s(client) -> None:
    client()
    with pytest.raises(BuildError, match="nvidia/cuda:13"):
        build(BuildOptions(lane="cu130"))


def test_full_disk_is_noticed_before_the_build(client, monkeypatch: pytest.MonkeyPatch) -> None:
    client()
    monkeypatch.setattr(buildkit, "NEED_AGAIN_BYTES", 10**18)
    with pytest.raises(BuildError, match=r"GB are free in .*root, the build may need .*prune"):
        build(BuildOptions(base_image="here"))


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        ("echo '#7 1.2 ERROR: no such package'; exit 3", r"code 3: ERROR: no such package"),
        ("echo 'write /x: no space left on device' >&2; exit 1", "the disk is full.*prune"),
        ("exit 9", "exit code 9"),
    ],
)
def test_failed_build_is_one_line_with_its_cause(client, failure: str, message: str) -> None:
    client(failure=failure)
    with pytest.raises(BuildError, match=message) as raised:
        build(BuildOptions(base_image="here", progress="quiet"))
    assert "\n" not in str(raised.value)


def test_image_above_its_budget_fails_the_command_with_the_excess(client) -> None:
    client(size=9_000_000_000)
    done = subprocess.run(
        [BYOC, "build", "--base-image", "here", "--progress", "quiet"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == BudgetError.exit_code, done.stderr
    assert "9,000,000,000  PyTorch and CUDA" in done.stdout
    # Both images are told about, not only the first.
    line = done.stderr.splitlines()[-1]
    assert line.count("more than the budget") == 2


def image(added: int, budget: int | None) -> BuiltImage:
    parts = (Layer("base image", 100), Layer("x", added))
    return BuiltImage("training", ("n:t", "n:latest"), "sha256:0", parts, 100, budget, 1.0)


def test_budget_counts_what_lies_on_top_of_the_base() -> None:
    image(500, 500).check_budget()
    image(500, None).check_budget()
    with pytest.raises(BudgetError, match=r"adds 501 bytes .* 1 more than the budget of 500"):
        image(501, 500).check_budget()


def test_budget_file_has_a_number_for_every_image() -> None:
    for lane in LANES:
        for kind in ("training", "inference"):
            value = checkout.budget_bytes(ROOT, lane, kind)
            assert value is not None
            assert value > 10**9


def test_second_lane_has_names_of_its_own() -> None:
    assert tags("training", "cu128", "abc") == (
        "sagemaker-byoc-training:abc", "sagemaker-byoc-training:latest",
    )  # fmt: skip
    assert tags("inference", "cu130", "abc") == (
        "sagemaker-byoc-inference:abc-cu130", "sagemaker-byoc-inference:latest-cu130",
    )  # fmt: skip


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A small git repository with the files that a revision depends on."""
    root = tmp_path / "clone"
    (root / "docker").mkdir(parents=True)
    (root / "pyproject.toml").write_text('[project]\nversion = "1.2.3"\n')
    shutil.copy(ROOT / "docker/budget.json", root / "docker")
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "-c", "user.name=n", "-c", "user.email=e@x", "commit", "-qm", "first")
    return root


def git(root: Path, *arguments: str) -> str:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    return subprocess.run(
        ["git", "-C", root, *arguments],
        capture_output=True, text=True, check=True, env=environment,
    ).stdout.strip()  # fmt: skip


def test_revision_is_the_short_commit_and_its_time(clone: Path) -> None:
    found = checkout.revision(clone)
    assert found.commit == git(clone, "rev-parse", "HEAD")
    assert found.commit.startswith(found.name)
    assert len(found.name) == 12
    assert found.created == git(clone, "show", "-s", "--format=%cI")


@pytest.mark.parametrize("name", ["pyproject.toml", "docker/new"])
def test_change_of_what_the_image_is_made_of_is_dirty(clone: Path, name: str) -> None:
    (clone / name).write_text("changed")
    assert checkout.revision(clone).name.endswith("-dirty")


def test_other_changes_are_not_dirty(clone: Path) -> None:
    (clone / "notes.txt").write_text("changed")
    assert not checkout.revision(clone).name.endswith("-dirty")


@pytest.mark.parametrize(
    ("remote", "source"),
    [
        ("https://name:token@example.org/a/b.git", "https://example.org/a/b.git"),
        ("/some/folder", ""),
        ("git@example.org:a/b.git", ""),
    ],
)
def test_source_label_never_carries_credentials(clone: Path, remote: str, source: str) -> None:
    git(clone, "remote", "add", "origin", remote)
    assert checkout.revision(clone).source == source


def test_folder_without_git_is_named_by_its_version(clone: Path) -> None:
    shutil.rmtree(clone / ".git")
    assert checkout.revision(clone) == checkout.Revision("1.2.3")


def test_budget_file_is_valid_json_with_its_explanation() -> None:
    assert json.loads((ROOT / "docker/budget.json").read_text())["about"]
