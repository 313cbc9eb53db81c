"""One job for the differential test: its files, its variables, its hardware; and what was seen."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

#: Keys that both keep from the program. Besides them every key that starts with ``sagemaker_``.
RESERVED = frozenset({"_tuning_objective_metric", "default_user_module_name"})
#: What a shell sets for itself.
OF_A_SHELL = frozenset({"_", "PWD", "OLDPWD", "SHLVL"})
PROBE = """
import json, os, sys
print(json.dumps({"argv": sys.argv[1:], "cwd": os.getcwd(), "variables": dict(os.environ)}))
"""
SHELL_PROBE = '#!/bin/sh\nexec "$PROBE_PYTHON" "$PROBE" "$@"\n'
NVIDIA_SMI = """#!/bin/sh
[ "$1" = --list-gpus ] || exit 0
for n in $(seq 0 $(({count} - 1))); do echo "GPU $n: NVIDIA A10G (UUID: GPU-$n)"; done
"""


@dataclass(frozen=True)
class Configuration:
    """A job.

    Attributes:
        label: For messages.
        hyperparameters: As the file has them.
        resources: resourceconfig.json.
        inputs: inputdataconfig.json.
        environ: Variables of the request.
        program: The name of the file that runs.
        arguments: Of the container, after the word ``train``.
        gpus: How many ``nvidia-smi`` lists; without any there is no such program.
        one_cpu: Whether the job may run on the first processor only.
        checkpoints: Whether the platform has made the directory of the checkpoints.
    """

    label: str
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    resources: dict[str, Any] = field(
        default_factory=lambda: {"current_host": "localhost", "hosts": ["localhost"]}
    )
    inputs: dict[str, Any] = field(default_factory=dict)
    environ: dict[str, str] = field(default_factory=dict)
    program: str = "train.py"
    arguments: tuple[str, ...] = ()
    gpus: int = 0
    one_cpu: bool = False
    checkpoints: bool = False

    @property
    def users(self) -> dict[str, Any]:
        """The hyperparameters that the toolkit hands to the program."""
        return {
            name: raw
            for name, raw in self.hyperparameters.items()
            if name not in RESERVED and not name.startswith("sagemaker_")
        }

    def reserved(self, name: str) -> Any:
        """The value of a reserved key, as both read it."""
        return self.value(self.hyperparameters.get(name))

    @staticmethod
    def value(raw: Any) -> Any:
        """What the toolkit makes of a hyperparameter: JSON if it is some, else the text."""
        try:
            return json.loads(raw)
        except (TypeError, ValueError):
            return raw

    @property
    def cpus(self) -> list[int]:
        everything = sorted(os.sched_getaffinity(0))
        return everything[:1] if self.one_cpu else everything

    def write(self, root: Path, python: str) -> dict[str, str]:
        """Fill the job's directory.

        Args:
            root: Stands for ``/opt/ml``.
            python: Runs the probe where the program is a shell script.

        Returns:
            All variables of the container, the same for both commands.
        """
        config, code, tools = root / "input/config", root / "code", root / "tools"
        for folder in (config, code, tools, (code / self.program).parent):
            folder.mkdir(parents=True, exist_ok=True)
        (root / "input/data").mkdir()
        for name, content in (
            ("hyperparameters", self.hyperparameters),
            ("resourceconfig", self.resources),
            ("inputdataconfig", self.inputs),
        ):
            (config / f"{name}.json").write_text(json.dumps(content))
        for name, entry in self.inputs.items():
            if entry.get("TrainingInputMode") != "Pipe":
                (root / "input/data" / name).mkdir()
        if self.checkpoints:
            (root / "checkpoints").mkdir()
        shell = not self.program.endswith(".py")
        (code / self.program).write_text(SHELL_PROBE if shell else PROBE)
        (tools / "probe.py").write_text(PROBE)
        if shell:
            (code / self.program).chmod(0o755)
        if self.gpus:
            (tools / "nvidia-smi").write_text(NVIDIA_SMI.format(count=self.gpus))
            (tools / "nvidia-smi").chmod(0o755)
        return {
            "PATH": os.pathsep.join((str(tools), "/usr/local/bin", "/usr/bin", "/bin")),
            "HOME": str(root),
            "LANG": "C.UTF-8",
            "PROBE": str(tools / "probe.py"),
            "PROBE_PYTHON": python,
            # Where each of the two is told its root; and that names need not resolve.
            "BYOC_ROOT": str(root),
            "SAGEMAKER_BASE_DIR": str(root),
            "SM_STUDIO_LOCAL_MODE": "true",
            **self.environ,
        }


@dataclass
class View:
    """What the program has seen."""

    argv: list[str]
    cwd: str
    variables: dict[str, str]

    @classmethod
    def read(cls, output: str) -> View:
        """The line of the probe among those of the toolkit."""
        line = next(one for one in output.splitlines() if one.startswith('{"argv"'))
        found = cls(**json.loads(line))
        for name in OF_A_SHELL:
            found.variables.pop(name, None)
        return found

    def loaded(self, name: str) -> Any:
        """The object in a variable."""
        return json.loads(self.variables[name])

    def dump(self, name: str, value: object) -> None:
        """Put an object into a variable, in the form that all of them have."""
        self.variables[name] = json.dumps(value, sort_keys=True, separators=(",", ":"))
