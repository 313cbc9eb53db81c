"""Differential test against sagemaker-training: one probe program under both, the same view.

Runs when BYOC_ORACLE_PYTHON names an interpreter with sagemaker-training. What differs on
purpose is in DIFFERENCES, each with its reason; nothing else may differ.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

#: Variables whose difference is on purpose for every job.
DIFFERENCES = {
    "SM_HOSTS": "ours are sorted, so that the index is the rank even if the file is not sorted",
    "SM_NETWORK_INTERFACE_NAME": "ours exists on this host; the toolkit repeats the file or eth0",
    "SM_CURRENT_INSTANCE_GROUP_HOSTS": "ours are sorted; the file's order is arbitrary",
    "SM_TRAINING_ENV": "compared by field, with the reasons of the fields",
    "PYTHONPATH": "ours adds the source only; the toolkit freezes its own sys.path, which would "
    "shadow the packages of any other interpreter that the program starts",
    "SAGEMAKER_JOB_NAME": "ours falls back to TRAINING_JOB_NAME; the toolkit's is empty then",
    "SAGEMAKER_REGION": "ours falls back to AWS_REGION and the ARN; the toolkit asks boto3",
    "SAGEMAKER_BASE_DIR": "how the toolkit is told its root here; ours is BYOC_ROOT",
    "BYOC_ROOT": "how ours is told its root",
    "SM_NUM_CPUS": "ours counts what this process may use; the toolkit the machine's",
}
#: Variables that only we set: those of SDK v3's driver, and defaults.
ADDED = {
    "SM_INPUT_DATA_DIR", "SM_OUTPUT_FAILURE", "SM_SOURCE_DIR", "SM_ENTRY_SCRIPT", "SM_HOST_COUNT",
    "SM_CURRENT_HOST_RANK", "SM_MASTER_ADDR", "SM_MASTER_PORT", "PYTHONUNBUFFERED",
    "AWS_DEFAULT_REGION",
}  # fmt: skip
#: Fields of SM_TRAINING_ENV with a reason above, or the machine's.
FIELDS = {
    "hosts", "network_interface_name", "current_instance_group_hosts", "distribution_hosts",
    "master_hostname", "num_cpus",
}  # fmt: skip

#: Hyperparameters as clients send them, and what differs for each. Keys of the second part:
#: `argv`, `hps` (SM_HPS), `hp` (SM_HP_*); values: ours and the toolkit's.
TEXTS: dict[str, tuple[str, dict[str, tuple[Any, Any]]]] = {
    "integer": ("3", {}),
    "negative": ("-3", {}),
    "decimal": ("0.5", {}),
    "raw text": ("adam", {}),
    "quoted text": ('"adam"', {}),
    "leading zeros": ("007", {}),
    "empty": ("", {}),
    "spaces": ("a b  c", {}),
    "quotes": ("it's \"x\" $HOME `id`", {}),
    "newlines": ("a\nb\tc", {}),
    "unicode": ("größe 数字", {}),
    "quoted unicode": ('"gr\\u00f6\\u00dfe"', {}),
    "JSON true": ("true", {}),
    "JSON false": ("false", {}),
    "list": ("[1, 2]", {}),
    "compact list": ('["a","b"]', {}),
    "nested list": ('[[1, 2], {"a": null}]', {}),
    "object": ('{"b": 2, "a": "x"}', {}),
    "empty object": ("{}", {}),
    "long": ("x" * 2500, {}),
    "path": ("s3://bucket/a b/c", {}),
    "dashes": ("--not-an-option", {}),
    # Text that a program declares as text stays as it was typed.
    "exponent": ("1e5", {"argv": ("1e5", "100000.0"), "hp": ("1e5", "100000.0")}),
    "trailing zero": ("0.10", {"argv": ("0.10", "0.1"), "hp": ("0.10", "0.1")}),
    "padded": (" 5 ", {"argv": (" 5 ", "5"), "hp": (" 5 ", "5")}),
    "null": ("null", {"argv": ("null", ""), "hp": ("null", "")}),
    # Python's words are accepted as JSON's are: str() of a value is what some clients send.
    "Python True": ("True", {"hps": (True, "True"), "hp": ("true", "True")}),
    "Python None": ("None", {"hps": (None, "None")}),
    "Python list": (
        "['a', 'b']",
        {"hps": (["a", "b"], "['a', 'b']"), "hp": ('["a","b"]', "['a', 'b']")},
    ),
    # Some clients quote everything.
    "quoted true": (
        '"true"', {"argv": ("True", "true"), "hps": (True, "true"), "hp": ("true", "true")},
    ),
    # SM_HPS must be JSON, which has no NaN.
    "not a number": ("NaN", {"argv": ("NaN", "nan"), "hps": ("NaN", "nan")}),
}  # fmt: skip

JOBS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "one host": {"resourceconfig": {"current_host": "algo-1", "hosts": ["algo-1"]}},
    "modern": {
        "resourceconfig": {
            "current_host": "algo-1",
            "hosts": ["algo-1"],
            "network_interface_name": "eth0",
            "current_instance_type": "ml.g5.2xlarge",
            "current_group_name": "homogeneousCluster",
            "instance_groups": [
                {
                    "instance_group_name": "homogeneousCluster",
                    "instance_type": "ml.g5.2xlarge",
                    "hosts": ["algo-1"],
                }
            ],
        }
    },
    "topology": {
        "resourceconfig": {
            "current_host": "algo-1",
            "hosts": ["algo-1"],
            "topology": [{"hostName": "algo-1", "capacityUnitId": "c"}],
        }
    },
    "channels": {
        "inputdataconfig": {
            "training": {"TrainingInputMode": "File", "RecordWrapperType": "None"},
            "my-data.v2": {"TrainingInputMode": "Pipe"},
        }
    },
    "one-letter and dashed names": {
        "hyperparameters": {"b": "1", "batch-size": "2", "learning_rate": "0.1", "Upper": "x"}
    },
    "reserved names": {
        "hyperparameters": {
            "sagemaker_region": '"eu-west-1"',
            "sagemaker_job_name": '"job"',
            "sagemaker_container_log_level": "30",
            "sagemaker_instance_type": '"ml.m5.large"',
            "sagemaker_enable_cloudwatch_metrics": "false",
            "_tuning_objective_metric": "loss",
            "epochs": "1",
        }
    },
    "types in the file": {"hyperparameters": {"a": 1, "b": True, "c": None, "d": [1], "e": 0.5}},
}

#: For jobs whose single fields differ: variable -> (ours, the toolkit's).
JOB_DIFFERENCES: dict[str, dict[str, tuple[str, str]]] = {
    # As for text: null stays the word null.
    "types in the file": {"SM_HP_C": ("null", "")},
}


@pytest.fixture(scope="module")
def oracle() -> str:
    python = os.environ.get("BYOC_ORACLE_PYTHON")
    if not python:
        pytest.skip("name an interpreter with sagemaker-training in BYOC_ORACLE_PYTHON")
    return python


@pytest.fixture
def both(job, oracle):
    """Run the probe under both commands over the same files."""

    def run() -> tuple[dict[str, Any], dict[str, Any]]:
        for name, content in (
            ("hyperparameters", {}),
            ("inputdataconfig", {}),
            ("resourceconfig", {"current_host": "localhost", "hosts": ["localhost"]}),
        ):
            # The toolkit cannot do without these files; ours can.
            if not (job.root / f"input/config/{name}.json").exists():
                job.config(name, content)
        job.probe()
        ours = job.run("train")
        assert ours.code == 0, ours.stderr
        environ = job.variables(
            SAGEMAKER_BASE_DIR=str(job.root), PYTHONPATH="", SM_STUDIO_LOCAL_MODE="true"
        )
        del environ["BYOC_ROOT"], environ["PYTHONPATH"]
        theirs = subprocess.run(
            [oracle, "-m", "sagemaker_training.cli.train"],
            env=environ, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert theirs.returncode == 0, theirs.stderr
        line = next(one for one in theirs.stdout.splitlines() if one.startswith('{"argv"'))
        return ours.seen(), json.loads(line)

    return run


def variables(seen: dict[str, Any], before: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in seen["env"].items() if before.get(name) != value}


@pytest.mark.slow
def test_hyperparameters_look_the_same(job, both):
    names = {f"p{index}": label for index, label in enumerate(TEXTS)}
    job.hyperparameters(**{name: TEXTS[label][0] for name, label in names.items()})
    ours, theirs = both()

    def view(seen: dict[str, Any]) -> dict[str, dict[str, Any]]:
        argv = dict(zip(seen["argv"][::2], seen["argv"][1::2], strict=True))
        hps = json.loads(seen["env"]["SM_HPS"], parse_constant=lambda _: "nan")
        return {
            label: {
                "argv": argv[f"--{name}"],
                "hps": hps[name],
                "hp": seen["env"][f"SM_HP_{name.upper()}"],
            }
            for name, label in names.items()
        }

    mine, other = view(ours), view(theirs)
    assert list(ours["argv"][::2]) == list(theirs["argv"][::2])
    for label, (_, differences) in TEXTS.items():
        for where in ("argv", "hps", "hp"):
            pair = (mine[label][where], other[label][where])
            expected = differences.get(where)
            if expected is None:
                assert pair[0] == pair[1], (label, where)
                assert type(pair[0]) is type(pair[1]), (label, where)
            else:
                assert pair == expected, (label, where)


@pytest.mark.slow
@pytest.mark.parametrize("label", JOBS)
def test_program_sees_the_same_job(job, both, label):
    for name, content in JOBS[label].items():
        job.config(name, content)
    ours, theirs = both()
    before = job.variables(SM_STUDIO_LOCAL_MODE="true")
    mine, other = variables(ours, before), variables(theirs, before)
    known = JOB_DIFFERENCES.get(label, {})
    if not known:
        assert ours["argv"] == theirs["argv"]
    assert ours["cwd"] == theirs["cwd"]
    for name in sorted(set(other) - set(DIFFERENCES)):
        if name in known:
            assert (mine.get(name), other[name]) == known[name]
        elif name == "SM_USER_ARGS" and known:
            assert json.loads(mine[name]) == ours["argv"]
        else:
            assert mine.get(name) == other[name], name
    clean_spellings = {
        name for name in mine if name.startswith(("SM_HP_", "SM_CHANNEL_")) and name not in other
    }
    assert set(mine) - set(other) - set(DIFFERENCES) - ADDED == clean_spellings
    assert all(name.replace("_", "").isalnum() for name in clean_spellings)
    fields, expected = (json.loads(one["SM_TRAINING_ENV"]) for one in (mine, other))
    assert set(fields) == set(expected)
    assert {name: value for name, value in fields.items() if name not in FIELDS} == {
        name: value for name, value in expected.items() if name not in FIELDS
    }


@pytest.mark.slow
def test_program_runs_under_a_runner_of_the_toolkit(job, oracle):
    """The module that MPI and SMDDP jobs go through, with the runner that needs no cluster."""
    job.hyperparameters(epochs="2", sagemaker_program='"train.py"')
    job.config("inputdataconfig", {})
    job.config("resourceconfig", {"current_host": "localhost", "hosts": ["localhost"]})
    job.probe()
    training = Path(__file__).parents[2] / "training"
    done = subprocess.run(
        [oracle, "-m", "byoc_training.toolkit", "Process"],
        env=job.variables(SAGEMAKER_BASE_DIR=str(job.root), PYTHONPATH=str(training)),
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    line = next(one for one in done.stdout.splitlines() if one.startswith('{"argv"'))
    assert json.loads(line)["argv"] == ["--epochs", "2"]
