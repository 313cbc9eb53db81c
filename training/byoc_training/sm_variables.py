"""The variables that a program sees: ``SM_*`` and what goes with them.

The names are those of Amazon's training toolkit 5.1 and of the drivers of SageMaker SDK v3, so
that scripts written for either run unchanged. Lists and objects are compact JSON with sorted
keys.
"""

from __future__ import annotations

import os
import re
import shutil
from typing import TYPE_CHECKING, Any

from byoc_training.hyperparameters import compact
from byoc_training.settings import MASTER_PORT

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from byoc_training.environment import Environment

#: The kernel refuses longer entries (MAX_ARG_STRLEN, 32 pages, with name and final NUL).
LONGEST_ENTRY_BYTES = 131_071


def spellings(prefix: str, name: str) -> tuple[str, ...]:
    """Both names of a variable: the toolkit's, which keeps dashes and dots, and a shell's.

    ``SM_CHANNEL_MY-DATA.V2`` is what scripts written for the toolkit ask for, and no shell can
    name; ``SM_CHANNEL_MY_DATA_V2`` is what SDK v3 gives.
    """
    raw = (prefix + name).upper()
    return tuple(dict.fromkeys((raw, re.sub(r"[^A-Z0-9_]", "_", raw))))


def build(
    environment: Environment,
    *,
    entry_point: str,
    source: Path,
    module_dir: str,
    arguments: tuple[str, ...],
    environ: Mapping[str, str],
) -> tuple[dict[str, str], tuple[str, ...]]:
    """All variables for the program.

    Args:
        environment: The job.
        entry_point: The program as the job names it.
        source: Its working directory.
        module_dir: Where the source came from.
        arguments: Its command line.
        environ: Variables of this process; those of the request are never replaced, but for
            names that the toolkit computes as well.

    Returns:
        The variables to add, and the names of those left out because the kernel would refuse
        them (about 128 KiB each).
    """
    env = environment
    values = _toolkit(env, entry_point, module_dir, arguments)
    values["SM_TRAINING_ENV"] = _training_env(env, entry_point, module_dir, environ)
    values.update(_sdk_v3(env, entry_point, source))
    if env.cluster.raw.get("topology"):
        values["SM_TOPOLOGY"] = env.cluster.raw["topology"]
    if env.checkpoints is not None:
        values["SM_CHECKPOINT_DIR"] = str(env.checkpoints)
    # The exact name goes last: where `a-b` and `a_b` both exist, each keeps its own.
    exact: dict[str, Any] = {}
    for channel in env.channels.values():
        for position, name in enumerate(spellings("SM_CHANNEL_", channel.name)):
            (values if position else exact)[name] = str(channel.path)
    for parameter in env.hyperparameters:
        for position, name in enumerate(spellings("SM_HP_", parameter.name)):
            (values if position else exact)[name] = parameter.variable
    values.update(exact)

    variables = {name: v if isinstance(v, str) else compact(v) for name, v in values.items()}
    variables["SAGEMAKER_JOB_NAME"] = str(env.reserved.get("sagemaker_job_name") or env.job_name)
    variables["SAGEMAKER_REGION"] = env.reserved_text("sagemaker_region") or env.region
    variables["CURRENT_HOST"] = env.cluster.current_host
    path = [str(source), *filter(None, environ.get("PYTHONPATH", "").split(os.pathsep))]
    variables["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(path))
    if env.region and not environ.get("AWS_DEFAULT_REGION"):
        variables["AWS_DEFAULT_REGION"] = env.region
    if "PYTHONUNBUFFERED" not in environ:
        variables["PYTHONUNBUFFERED"] = "1"

    left_out = tuple(
        name
        for name, value in variables.items()
        if "=" in name or len(os.fsencode(f"{name}={value}")) >= LONGEST_ENTRY_BYTES
    )
    return {n: v for n, v in variables.items() if n not in left_out}, left_out


def _module_name(entry_point: str) -> str:
    return entry_point.removesuffix(".py")


def _framework_parameters(env: Environment) -> dict[str, Any]:
    known = {
        "sagemaker_program",
        "sagemaker_submit_directory",
        "sagemaker_enable_cloudwatch_metrics",
        "sagemaker_region",
        "sagemaker_container_log_level",
        "sagemaker_job_name",
        "sagemaker_s3_output",
    }
    return {
        key: value
        for key, value in env.reserved.items()
        if key.startswith("sagemaker_") and key not in known
    }


def _toolkit(
    env: Environment, entry_point: str, module_dir: str, arguments: tuple[str, ...]
) -> dict[str, Any]:
    cluster, paths, devices = env.cluster, env.paths, env.devices
    return {
        "SM_HOSTS": list(cluster.hosts),
        "SM_NETWORK_INTERFACE_NAME": cluster.interface,
        "SM_HPS": {one.name: one.value for one in env.hyperparameters},
        "SM_USER_ENTRY_POINT": entry_point,
        "SM_FRAMEWORK_PARAMS": _framework_parameters(env),
        "SM_RESOURCE_CONFIG": cluster.raw,
        "SM_INPUT_DATA_CONFIG": env.input_data_config,
        "SM_OUTPUT_DATA_DIR": str(paths.output_data),
        "SM_CHANNELS": sorted(env.channels),
        "SM_CURRENT_HOST": cluster.current_host,
        "SM_CURRENT_INSTANCE_TYPE": cluster.instance_type,
        "SM_CURRENT_INSTANCE_GROUP": cluster.group,
        "SM_CURRENT_INSTANCE_GROUP_HOSTS": list(cluster.group_hosts(cluster.group)),
        "SM_INSTANCE_GROUPS": list(cluster.groups),
        "SM_INSTANCE_GROUPS_DICT": cluster.groups,
        "SM_DISTRIBUTION_INSTANCE_GROUPS": list(env.distribution_groups),
        "SM_IS_HETERO": len(cluster.groups) > 1,
        "SM_MODULE_NAME": _module_name(entry_point),
        "SM_LOG_LEVEL": env.log_level,
        "SM_FRAMEWORK_MODULE": "",
        "SM_INPUT_DIR": str(paths.input),
        "SM_INPUT_CONFIG_DIR": str(paths.config),
        "SM_OUTPUT_DIR": str(paths.output),
        "SM_NUM_CPUS": devices.cpus,
        "SM_NUM_GPUS": len(devices.gpus),
        "SM_NUM_NEURONS": 0,
        "SM_MODEL_DIR": str(paths.model),
        "SM_MODULE_DIR": module_dir,
        "SM_USER_ARGS": list(arguments),
        "SM_OUTPUT_INTERMEDIATE_DIR": str(paths.output_intermediate),
    }


def _sdk_v3(env: Environment, entry_point: str, source: Path) -> dict[str, Any]:
    return {
        "SM_INPUT_DATA_DIR": str(env.paths.data),
        "SM_OUTPUT_FAILURE": str(env.paths.failure),
        "SM_SOURCE_DIR": str(source),
        "SM_ENTRY_SCRIPT": entry_point,
        "SM_HOST_COUNT": len(env.cluster.hosts),
        "SM_CURRENT_HOST_RANK": env.cluster.rank,
        "SM_MASTER_ADDR": env.master_host,
        "SM_MASTER_PORT": str(MASTER_PORT),
    }


def _training_env(
    env: Environment, entry_point: str, module_dir: str, environ: Mapping[str, str]
) -> dict[str, Any]:
    """The toolkit's whole view of a job in one object."""
    cluster, paths, devices = env.cluster, env.paths, env.devices
    return {
        "additional_framework_parameters": _framework_parameters(env),
        "channel_input_dirs": {name: str(one.path) for name, one in env.channels.items()},
        "current_host": cluster.current_host,
        "current_instance_group": cluster.group,
        "current_instance_group_hosts": list(cluster.group_hosts(cluster.group)),
        "current_instance_type": cluster.instance_type,
        "distribution_hosts": list(env.distribution_hosts),
        "distribution_instance_groups": list(env.distribution_groups),
        "framework_module": None,
        "hosts": list(cluster.hosts),
        "hyperparameters": {one.name: one.value for one in env.hyperparameters},
        "input_config_dir": str(paths.config),
        "input_data_config": env.input_data_config,
        "input_dir": str(paths.input),
        "instance_groups": list(cluster.groups),
        "instance_groups_dict": cluster.groups,
        "is_hetero": len(cluster.groups) > 1,
        "is_master": cluster.current_host == env.master_host,
        "is_modelparallel_enabled": None,
        "is_smddpmprun_installed": shutil.which("smddpmprun") is not None,
        "is_smddprun_installed": shutil.which("smddprun") is not None,
        "job_name": environ.get("TRAINING_JOB_NAME"),
        "log_level": env.log_level,
        "master_hostname": env.master_host,
        "model_dir": str(paths.model),
        "module_dir": module_dir,
        "module_name": _module_name(entry_point),
        "network_interface_name": cluster.interface,
        "num_cpus": devices.cpus,
        "num_gpus": len(devices.gpus),
        "num_neurons": 0,
        "output_data_dir": str(paths.output_data),
        "output_dir": str(paths.output),
        "output_intermediate_dir": str(paths.output_intermediate),
        "resource_config": cluster.raw,
        "topology": cluster.raw.get("topology", []),
        "user_entry_point": entry_point,
    }
