"""Finding a Docker client that can build, among those that a machine may have."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from byoc import engine as engines
from byoc.errors import EngineError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Makes a program `docker` that answers like the client of a version; the last comes first."""

    def make(
        version: str = "28.2.2",
        server: str | None = "28.2.2",
        *,
        buildx: bool = True,
        flags: str = "--provenance --sbom",
    ) -> str:
        folder = tmp_path / f"bin{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        program = folder / "docker"
        answer = f"echo '{version} {server}'" if server else "echo 'no daemon' >&2; exit 1"
        program.write_text(
            "#!/bin/sh\n"
            'case "$1 $2" in\n'
            f'"version --format") {answer} ;;\n'
            f'"buildx version") exit {0 if buildx else 1} ;;\n'
            f"\"buildx build\") echo '{flags}' ;;\n"
            '"context show") echo remote ;;\n'
            "*) exit 64 ;;\nesac\n"
        )
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
        return str(program)

    monkeypatch.setenv("PATH", "/bin")
    every = engines.candidates
    # The machine's own clients stay out.
    monkeypatch.setattr(
        engines, "candidates", lambda: [path for path in every() if path.startswith(str(tmp_path))]
    )
    return make


def test_first_client_on_path_that_can_build_is_used(client) -> None:
    second = client()
    client("28.2.2", buildx=False)
    found = engines.find()
    assert found.cli == second
    assert found.buildx


def test_old_client_builds_without_the_plug_in(client) -> None:
    client("20.10.24+dfsg1", "20.10.24+dfsg1", buildx=False)
    found = engines.find()
    assert not found.buildx
    assert found.build_options == ()


def test_new_client_without_the_plug_in_is_refused_with_the_package_to_install(client) -> None:
    client("28.2.2", buildx=False)
    with pytest.raises(EngineError, match=r"no buildx plug-in.*apt-get install"):
        engines.find()


def test_buildx_writes_one_plain_image_into_the_engine_of_the_context(client) -> None:
    client()
    assert engines.find().build_options == (
        "--load", "--builder", "remote", "--provenance=false", "--sbom=false",
    )  # fmt: skip


def test_buildx_without_attestations_is_not_told_to_leave_them_out(client) -> None:
    client(flags="--load")
    assert engines.find().build_options == ("--load", "--builder", "remote")


def test_engine_that_does_not_answer_is_said_with_its_reason(client) -> None:
    client(server=None)
    with pytest.raises(EngineError, match=r"no Docker engine answers \(no daemon\)"):
        engines.find()


def test_engine_without_buildkit_is_too_old(client) -> None:
    client("19.3.1", "19.3.1")
    with pytest.raises(EngineError, match=r"19\.3\.1 is too old"):
        engines.find()


def test_reason_of_each_client_is_said_when_they_differ(client) -> None:
    first, second = client(server=None), client("28.2.2", buildx=False)
    with pytest.raises(EngineError) as raised:
        engines.find()
    assert f"{second}: Docker client 28.2.2 has no buildx" in str(raised.value)
    assert f"{first}: no Docker engine" in str(raised.value)


def test_named_client_is_the_only_candidate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BYOC_DOCKER", "/nowhere/docker")
    assert engines.candidates() == ["/nowhere/docker"]
    with pytest.raises(EngineError, match="/nowhere/docker"):
        engines.find()


def test_machine_without_docker_is_told_how_to_get_it(client) -> None:
    with pytest.raises(EngineError, match=r"no docker command.*apt-get install -y docker\.io"):
        engines.find()
