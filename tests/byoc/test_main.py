"""The command line: help without loading commands, one place for errors."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from byoc import errors, main
from byoc.commands.local import _lines

BYOC = Path(sys.executable).with_name("byoc")


def byoc(*arguments: str, cwd: Path | None = None, **variables: str):
    return subprocess.run(
        [BYOC, *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=os.environ | variables,
        timeout=60,
        check=False,
    )


def test_help_lists_every_command_with_its_line() -> None:
    done = byoc("--help")
    assert done.returncode == 0
    for name, line in main.COMMANDS.items():
        assert name in done.stdout
        assert line.split()[0] in done.stdout


def test_help_loads_no_command_and_nothing_heavy() -> None:
    program = """
import sys
from byoc.main import group
try:
    group()(["--help"], prog_name="byoc")
except SystemExit:
    pass
heavy = {"boto3", "botocore", "docker", "numpy", "rich", "torch", "byoc.images"}
print(sorted(heavy & sys.modules.keys()), file=sys.stderr)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stderr == "[]\n"


@pytest.mark.parametrize("name", main.COMMANDS)
def test_each_command_explains_itself(name: str) -> None:
    done = byoc(name, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith(f"Usage: byoc {name}")
    assert "\b" not in done.stdout
    assert "\\b" not in done.stdout


@pytest.mark.parametrize(
    ("words", "number", "offered"),
    [
        ("byoc tr", 1, "train"),
        ("byoc train --inst", 2, "--instance-type"),
        ("byoc list ", 2, "endpoints"),
        ("byoc train -t ml.g5", 3, "ml.g5.12xlarge"),
    ],
)
def test_the_shell_completes_commands_options_and_choices(words, number, offered):
    done = byoc(_BYOC_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=str(number))
    assert f"plain,{offered}" in done.stdout.splitlines()


def test_unknown_command_is_a_usage_error() -> None:
    done = byoc("bild")
    assert done.returncode == 2
    assert "No such command 'bild'" in done.stderr


def test_version_is_the_distribution_s() -> None:
    assert byoc("--version").stdout.startswith("byoc, version 0.")


def test_error_is_one_line_with_the_exit_code_of_its_class() -> None:
    done = byoc("build", BYOC_DOCKER="/nowhere/docker")
    assert done.returncode == errors.EngineError.exit_code
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("byoc: no Docker engine answers (/nowhere/docker")


def test_exit_codes_of_the_tree_are_distinct() -> None:
    classes = errors.ByocError.__subclasses__()
    codes = [kind.exit_code for kind in classes]
    assert len(set(codes)) == len(codes)
    assert 0 not in codes
    assert 2 not in codes  # click's own, for wrong usage
    for kind in classes:
        assert f"{kind.__name__} " in (errors.__doc__ or "")


@pytest.mark.parametrize(
    "words",
    [
        ("--help",),
        ("describe", "m", "--kind", "model", "--dry-run"),
        ("train", "--dry-run", "--role", "r", "--bucket", "b"),
    ],
)
def test_an_output_that_cannot_be_written_is_one_line(words: tuple[str, ...]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [BYOC, *words], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False
        )
    assert done.returncode == errors.ByocError.exit_code
    assert done.stderr == "byoc: the output cannot be written: No space left on device\n"


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_what_is_written_only_at_the_end_is_told_as_well(unbuffered: str) -> None:
    program = """
import click, sys
from byoc import main
@click.command()
def command():
    print("a line")
main.group = lambda: command
sys.argv = ["byoc"]
main.main()
"""
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", program],
            stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False,
            env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
        )  # fmt: skip
    assert done.returncode == errors.ByocError.exit_code
    assert done.stderr == "byoc: the output cannot be written: No space left on device\n"


def test_the_tree_of_errors_names_the_other_exit_codes() -> None:
    for code in (2, errors.FAULT, errors.INTERRUPTED):
        assert f" {code}, " in (errors.__doc__ or "")


def test_a_region_of_the_local_endpoint_is_looked_at_before_it_starts(tmp_path: Path) -> None:
    done = byoc("local", "up", "--region", "x; rm", BYOC_HOME=str(tmp_path / "home"))
    assert done.returncode == errors.SettingsError.exit_code
    assert "is no region" in done.stderr
    assert not (tmp_path / "home").exists()


def test_what_a_shell_must_export_is_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "a.example;b $(c)")
    lines = _lines("http://127.0.0.1:1", "us-east-1")
    done = subprocess.run(
        ["sh", "-c", f'{lines}\nprintf %s "$NO_PROXY"'], capture_output=True, text=True, check=True
    )
    assert done.stdout == "a.example;b $(c),127.0.0.1,localhost"
    assert lines.startswith("export AWS_ENDPOINT_URL=http://127.0.0.1:1\n")
