"""What the images say about themselves: configuration, labels, files and their permissions."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from byoc.images import LANES
from byoc.layers import layers

if TYPE_CHECKING:
    from byoc.engine import Engine
    from byoc.images import BuiltImage
    from tests.images.conftest import Docker

#: Files that hold a private key, by name or by their first line.
KEY_NAMES = r"id_rsa|id_dsa|id_ecdsa|id_ed25519|ssh_host_.*_key|.*\.pem|.*\.key|credentials|\.netrc"


@pytest.mark.contract(5)
def test_image_is_amd64_runs_as_root_and_has_no_entry_point(config: dict[str, Any]) -> None:
    assert config["Architecture"] == "amd64"
    assert config["Os"] == "linux"
    assert config["Config"].get("User", "") in ("", "root", "0")
    # Exec form or none; none, so that the platform's word `train` or `serve` is the command.
    assert not config["Config"].get("Entrypoint")


@pytest.mark.contract(5, 44)
def test_default_command_is_the_program_in_exec_form(
    config: dict[str, Any], built_image: BuiltImage
) -> None:
    word = {"training": "train", "inference": "serve"}[built_image.kind]
    assert config["Config"]["Cmd"] == [word]


@pytest.mark.contract(5)
def test_nothing_of_the_image_lies_below_opt_ml(docker: Docker, image: str) -> None:
    done = docker.run(image, "sh", "-c", "find /opt/ml 2>/dev/null | head")
    assert done.stdout == ""


@pytest.mark.contract(95)
def test_container_runtime_demands_no_newer_driver(config: dict[str, Any]) -> None:
    environment = dict(entry.split("=", 1) for entry in config["Config"]["Env"])
    assert environment["NVIDIA_REQUIRE_CUDA"] == ""
    assert environment["NVIDIA_VISIBLE_DEVICES"] == "all"
    assert environment["NVIDIA_DRIVER_CAPABILITIES"] == "compute,utility"


def test_no_driver_library_is_in_the_image(docker: Docker, image: str) -> None:
    done = docker.run(
        image,
        "sh",
        "-c",
        "find / -xdev \\( -name 'libcuda.so*' -o -name 'libnvidia-ml.so*' \\) ! -path '*/compat/*'",
    )
    assert done.stdout == ""


@pytest.mark.contract(68, 90, 100)
def test_inference_image_claims_the_capabilities_that_it_has(
    config: dict[str, Any], built_image: BuiltImage
) -> None:
    prefix = "com.amazonaws.sagemaker.capabilities."
    claimed = {k: v for k, v in config["Config"]["Labels"].items() if k.startswith(prefix)}
    expected = {
        f"{prefix}accept-bind-to-port": "true",
        f"{prefix}bidirectional-streaming": "true",
        f"{prefix}multi-models": "true",
    }
    assert claimed == (expected if built_image.kind == "inference" else {})


@pytest.mark.contract(100)
def test_labels_name_revision_and_versions(config: dict[str, Any], docker: Docker, image: str):
    labels = config["Config"]["Labels"]
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?", labels["org.opencontainers.image.revision"])
    assert re.match(r"\d{4}-\d\d-\d\dT", labels["org.opencontainers.image.created"])
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert re.fullmatch(r"\d{4}-\d{2}", labels["sagemaker-byoc.contract"])
    lane = LANES[labels["sagemaker-byoc.cuda.lane"]]
    assert labels["sagemaker-byoc.cuda.minimum-driver"] == lane.minimum_driver
    program = """
import importlib.metadata, torch
print(torch.__version__.partition("+")[0], torch.version.cuda)
print(importlib.metadata.version("sagemaker-byoc"))
"""
    done = docker.python(image, program)
    assert done.stdout.split() == [
        labels["sagemaker-byoc.torch.version"],
        labels["sagemaker-byoc.cuda.version"],
        labels["org.opencontainers.image.version"],
    ]


@pytest.mark.contract(99)
def test_image_fits_serverless_and_the_registry(built_image: BuiltImage) -> None:
    # Compressed layers are smaller than these.
    assert max(layer.size_bytes for layer in built_image.layers) < 52_000 * 1024**2
    if built_image.kind == "inference":
        assert built_image.size_bytes < 10_000_000_000


def test_image_is_within_its_budget(built_image: BuiltImage) -> None:
    assert built_image.budget_bytes is not None
    assert built_image.added_bytes <= built_image.budget_bytes


def test_a_change_of_our_code_is_five_megabytes_at_most(built_image: BuiltImage) -> None:
    named = {layer.instruction: layer.size_bytes for layer in built_image.layers}
    assert list(named)[-4:] == [
        "PyTorch and CUDA",
        "all other packages",
        "sagemaker-byoc",
        "the example",
    ]
    # Before compression; a registry gets about a third of it, of an image of gigabytes.
    assert named["sagemaker-byoc"] + named["the example"] < 5_000_000


@pytest.mark.contract(102)
def test_base_image_is_the_only_source_of_set_user_id_programs(
    config: dict[str, Any], docker: Docker, image: str
) -> None:
    find = ("sh", "-c", "find / -xdev -type f -perm /6000 | sort")
    base = config["Config"]["Labels"]["org.opencontainers.image.base.name"]
    assert docker.run(image, *find).stdout == docker.run(base, *find).stdout


@pytest.mark.contract(102)
def test_no_secret_is_left_by_the_build(docker: Docker, image: str) -> None:
    search = (
        f"find / -xdev -regextype posix-extended -type f -regex '.*/({KEY_NAMES})';"
        " grep -rlE -- '-----BEGIN ([A-Z]+ )?PRIVATE KEY-----'"
        " /etc /root /home /opt/byoc /run /srv;"
        " ls -A /root | grep -vxE '\\.(bashrc|profile)'; ls -d /dev/build /run/secrets"
    )
    found = docker.run(image, "sh", "-c", f"({search}) 2>/dev/null").stdout.splitlines()
    # Public certificate bundles are no keys.
    assert [path for path in found if not path.endswith(("cacert.pem", "/roots.pem"))] == []


@pytest.mark.contract(92)
def test_every_file_is_readable_for_other_users(docker: Docker, image: str) -> None:
    unreadable = docker.run(
        image,
        "sh",
        "-c",
        "find /opt ! -type l \\( ! -perm -o=r -o -type d ! -perm -o=x \\);"
        " find /opt/venv/bin -type f ! -name '*.fish' ! -name '*.csh' ! -name '*.nu'"
        " -perm -u=x ! -perm -o=x",
    )
    assert unreadable.stdout == ""


def test_no_package_manager_leftovers_are_in_the_layers(docker: Docker, image: str) -> None:
    done = docker.run(
        image,
        "sh",
        "-c",
        "find /var/lib/apt/lists /var/cache/apt /var/log /tmp /root/.cache -type f 2>/dev/null",
    )
    assert done.stdout == ""


def test_files_that_the_build_installed_have_one_fixed_time(docker: Docker, image: str) -> None:
    done = docker.run(image, "sh", "-c", "find /opt /tmp -printf '%T@\\n' | sort -u")
    assert done.stdout.split() == ["1735689600.0000000000"]


def test_layers_of_the_report_are_those_of_the_engine(
    built_image: BuiltImage, builder: Engine
) -> None:
    again = layers(builder, built_image.tags[1])
    assert [layer.size_bytes for layer in again] == [
        layer.size_bytes for layer in built_image.layers
    ]
