"""Runs the program under one of sagemaker-training's own runners (MPI, SMDDP, XLA).

``python -m byoc_training.toolkit RUNNER`` is what `launch` starts for these jobs, in its own
process: the toolkit works at import and configures the whole interpreter. The source is in
place already, so the toolkit takes it from there; the failure file stays ours.
"""

from __future__ import annotations

import importlib
import sys


def main() -> int:
    """Run it; an exception of the toolkit ends this process with its traceback, for `train`."""
    environment = importlib.import_module("sagemaker_training.environment").Environment()
    runner = importlib.import_module("sagemaker_training.runner")
    entry_point = importlib.import_module("sagemaker_training.entry_point")
    entry_point.run(
        uri=environment.module_dir,
        user_entry_point=environment.user_entry_point,
        args=environment.to_cmd_args(),
        env_vars=environment.to_env_vars(),
        runner_type=runner.RunnerType[sys.argv[1]],
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
