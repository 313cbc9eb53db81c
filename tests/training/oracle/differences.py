"""Every deliberate difference between what a program sees under our `train` and the toolkit's.

Each is a function that turns the toolkit's view of a job into ours: after all of them the two must
be equal, to the letter, so that a difference that is not here is a failure, and so is one that is
here and never met.
"""

from __future__ import annotations

import ast
import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.training.oracle.listing import (
    DIFFERENCES,
    Reading,
    differs,
    differs_in_values,
    strict,
)

if TYPE_CHECKING:
    from tests.training.oracle.configuration import Configuration, View

__all__ = ["DIFFERENCES"]

# The values of hyperparameters.


@differs_in_values(
    "numbers and null keep their text",
    "a program that declares text gets what was typed: 007, 1e5, 0.10, null; the toolkit writes "
    "the number anew, and an empty text for null",
)
def _numbers(raw: Any) -> Reading:
    value = strict(raw)
    if isinstance(value, bool | str | list | dict):
        return Reading()
    text = raw if isinstance(raw, str) else json.dumps(raw)
    return Reading(argument=text, variable=text)


@differs_in_values(
    "what is no JSON stays text",
    "SM_HPS is read as JSON, which has neither NaN nor Infinity nor a number that overflows",
)
def _not_json(raw: Any) -> Reading:
    if isinstance(raw, str) and strict(raw) is raw:
        try:
            json.loads(raw)
        except ValueError:
            return Reading()
        return Reading(argument=raw, value=(raw,), variable=raw)
    return Reading()


WORDS = {"True": True, "False": False, "None": None}


@differs_in_values(
    "Python's words are read",
    "str() of a value is what a generic Estimator of SDK v2 sends; in SM_HPS they have types",
)
def _words(raw: Any) -> Reading:
    if not isinstance(raw, str) or raw not in WORDS:
        return Reading()
    word = WORDS[raw]
    return Reading(value=(word,), variable=None if word is None else json.dumps(word))


@differs_in_values("Python's lists and dicts are read", "as for Python's words")
def _literals(raw: Any) -> Reading:
    if not isinstance(raw, str) or raw[:1] not in ("[", "{") or strict(raw) is not raw:
        return Reading()
    try:
        value = json.loads(json.dumps(ast.literal_eval(raw), allow_nan=False))
    except (ValueError, TypeError, SyntaxError):
        return Reading()
    if not isinstance(value, list | dict):
        return Reading()
    return Reading(
        value=(value,), variable=json.dumps(value, sort_keys=True, separators=(",", ":"))
    )


@differs_in_values(
    "a quoted boolean is one",
    'some clients encode every value once more: "true" with its quotes',
)
def _quoted_booleans(raw: Any) -> Reading:
    value = strict(raw) if isinstance(raw, str) else None
    if value is raw or value not in ("true", "True", "false", "False"):
        return Reading()
    word = value.lower() == "true"
    return Reading(argument=str(word), value=(word,), variable=json.dumps(word))


# Hyperparameters that the program does not see, arguments that it does.


@differs(
    "reserved keys",
    "mp_parameters is for a library that is not in the image; byoc_launcher and "
    "byoc_processes_per_host are ours. The toolkit hands all of them to the program",
)
def _reserved(_: Configuration, view: View) -> None:
    values, everything = view.loaded("SM_HPS"), view.loaded("SM_TRAINING_ENV")
    for name in ("mp_parameters", "byoc_launcher", "byoc_processes_per_host"):
        if name in values:
            position = view.argv.index(f"--{name}")
            del view.argv[position : position + 2]
            del values[name], everything["hyperparameters"][name]
            del view.variables[f"SM_HP_{name}".upper()]
    view.dump("SM_HPS", values)
    view.dump("SM_TRAINING_ENV", everything)
    view.dump("SM_USER_ARGS", view.argv)


@differs(
    "arguments of the container",
    "ContainerArguments after the word train are the program's; the toolkit drops them",
)
def _arguments(job: Configuration, view: View) -> None:
    view.argv += job.arguments
    view.dump("SM_USER_ARGS", view.argv)


# Hosts and hardware.


@differs(
    "hosts are sorted",
    "a host's index is its rank, equal on all hosts, whatever order the platform's lists are in",
)
def _sorted_hosts(job: Configuration, view: View) -> None:
    everything = view.loaded("SM_TRAINING_ENV")
    hosts = sorted(everything["hosts"])
    together = sorted(everything["distribution_hosts"])
    group = sorted(everything["current_instance_group_hosts"])
    master = (together or hosts)[0]
    everything |= {
        "hosts": hosts,
        "distribution_hosts": together,
        "current_instance_group_hosts": group,
        "master_hostname": master,
        "is_master": job.resources["current_host"] == master,
    }
    view.dump("SM_HOSTS", hosts)
    view.dump("SM_CURRENT_INSTANCE_GROUP_HOSTS", group)
    view.dump("SM_TRAINING_ENV", everything)


@differs(
    "the network interface exists",
    "SDK v3's local mode names one that does not; the toolkit repeats the file, or says eth0, and "
    "does not know sagemaker_network_interface_name",
)
def _interface(job: Configuration, view: View) -> None:
    wanted = job.reserved("sagemaker_network_interface_name") or job.resources.get(
        "network_interface_name"
    )
    there = sorted(path.name for path in Path("/sys/class/net").iterdir())
    found = wanted if wanted in there else default_interface(there)
    everything = view.loaded("SM_TRAINING_ENV")
    view.variables["SM_NETWORK_INTERFACE_NAME"] = everything["network_interface_name"] = found
    view.dump("SM_TRAINING_ENV", everything)


def default_interface(there: list[str]) -> str:
    """The one of the default route, else the first that is not the loopback, else that."""
    for line in Path("/proc/net/route").read_text().splitlines()[1:]:
        name, destination = line.split()[:2]
        if int(destination, 16) == 0 and name in there:
            return name
    return next((name for name in there if name != "lo"), "lo")


@differs("processors", "ours are those that this process may use; the toolkit's the machine's")
def _processors(job: Configuration, view: View) -> None:
    everything = view.loaded("SM_TRAINING_ENV")
    everything["num_cpus"] = len(job.cpus)
    view.dump("SM_NUM_CPUS", len(job.cpus))
    view.dump("SM_TRAINING_ENV", everything)


@differs("Neuron cores", "the image has none of its software; the toolkit goes by the type's name")
def _neurons(_: Configuration, view: View) -> None:
    everything = view.loaded("SM_TRAINING_ENV")
    everything["num_neurons"] = 0
    view.dump("SM_NUM_NEURONS", 0)
    view.dump("SM_TRAINING_ENV", everything)


# The job and its source.


@differs("SAGEMAKER_JOB_NAME", "ours falls back to TRAINING_JOB_NAME; the toolkit's is empty then")
def _job_name(job: Configuration, view: View) -> None:
    name = job.reserved("sagemaker_job_name") or job.environ.get("TRAINING_JOB_NAME", "")
    view.variables["SAGEMAKER_JOB_NAME"] = name


@differs(
    "the region",
    "ours is in the variables AWS_REGION and TRAINING_JOB_ARN, which the platform sets; the "
    "toolkit knows AWS_DEFAULT_REGION, which it does not. Ours sets that one for boto3 as well",
)
def _region(job: Configuration, view: View) -> None:
    arn = (job.environ.get("TRAINING_JOB_ARN", "") + ":::").split(":")[3]
    named = job.reserved("sagemaker_region") or ""
    found = job.environ.get("AWS_REGION") or job.environ.get("AWS_DEFAULT_REGION") or arn or named
    view.variables["SAGEMAKER_REGION"] = named or found
    if found:
        view.variables.setdefault("AWS_DEFAULT_REGION", found)


@differs(
    "the variable SAGEMAKER_SUBMIT_DIRECTORY",
    "it names the source as the hyperparameter does; the toolkit overwrites it",
)
def _submitted(job: Configuration, view: View) -> None:
    variable = job.environ.get("SAGEMAKER_SUBMIT_DIRECTORY")
    if variable and not job.reserved("sagemaker_submit_directory"):
        everything = view.loaded("SM_TRAINING_ENV")
        view.variables["SM_MODULE_DIR"] = everything["module_dir"] = variable
        view.dump("SM_TRAINING_ENV", everything)


@differs(
    "PYTHONPATH",
    "ours adds the source only; the toolkit freezes its own sys.path, which would shadow the "
    "packages of any other interpreter that the program starts",
)
def _python_path(job: Configuration, view: View) -> None:
    given = job.environ.get("PYTHONPATH", "").split(os.pathsep)
    path = [f"{view.variables['BYOC_ROOT']}/code", *filter(None, given)]
    view.variables["PYTHONPATH"] = os.pathsep.join(path)


@differs("PYTHONUNBUFFERED", "lines reach the log at once, also before a SIGKILL")
def _unbuffered(_: Configuration, view: View) -> None:
    view.variables.setdefault("PYTHONUNBUFFERED", "1")


# Names.


@differs(
    "a shell can name every variable",
    "besides SM_HP_BATCH-SIZE, which scripts written for the toolkit ask for, ours has the "
    "spelling of SDK v3, SM_HP_BATCH_SIZE; where two fall together the exact one stays",
)
def _spellings(job: Configuration, view: View) -> None:
    users = [name for name in job.users if f"SM_HP_{name}".upper() in view.variables]
    exact = [f"SM_CHANNEL_{name}".upper() for name in job.inputs]
    exact += [f"SM_HP_{name}".upper() for name in users]
    values = {
        re.sub(r"[^A-Z0-9_]", "_", name): view.variables[name]
        for name in exact
        if not re.fullmatch(r"[A-Z0-9_]+", name)
    }
    view.variables |= {name: value for name, value in values.items() if name not in exact}


@differs(
    "variables of SDK v3's driver, and of checkpoints",
    "scripts written for SDK v3 ask for them; the toolkit has none of them",
)
def _sdk_v3(job: Configuration, view: View) -> None:
    root, everything = view.variables["BYOC_ROOT"], view.loaded("SM_TRAINING_ENV")
    hosts = everything["hosts"]
    view.variables |= {
        "SM_INPUT_DATA_DIR": f"{root}/input/data",
        "SM_OUTPUT_FAILURE": f"{root}/output/failure",
        "SM_SOURCE_DIR": f"{root}/code",
        "SM_ENTRY_SCRIPT": job.program,
        "SM_HOST_COUNT": str(len(hosts)),
        "SM_CURRENT_HOST_RANK": str(hosts.index(job.resources["current_host"])),
        "SM_MASTER_ADDR": everything["master_hostname"],
        "SM_MASTER_PORT": "7777",
    }
    if job.checkpoints:
        view.variables["SM_CHECKPOINT_DIR"] = f"{root}/checkpoints"
