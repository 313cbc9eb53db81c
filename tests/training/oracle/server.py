"""Amazon's training toolkit over many jobs from one interpreter: run by the one that has it.

``python server.py SCRATCH`` reads a job a line, ``{"root": ..., "environ": ..., "cpus": ...}``, and
answers each with a line, the exit code. What the program and the toolkit write goes to the files
``theirs.out`` and ``theirs.err`` below the root.

A job is a fork in which the toolkit's own modules are imported anew: all that it does, its work at
import included, sees this job's variables only. Shared is what it imports of others (boto3 and so
on), which takes most of a start's time.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

TOOLKIT = "sagemaker_training"


def main() -> int:
    # The import makes directories there.
    os.environ["SAGEMAKER_BASE_DIR"] = sys.argv[1]
    importlib.import_module(f"{TOOLKIT}.cli.train")
    for name in [one for one in sys.modules if one.split(".")[0] == TOOLKIT]:
        del sys.modules[name]
    for line in sys.stdin:
        print(run(json.loads(line)), flush=True)
    return 0


def run(job: dict[str, Any]) -> int:
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    code = 1
    try:
        for number, name in ((1, "theirs.out"), (2, "theirs.err")):
            with (Path(job["root"]) / name).open("wb") as file:
                os.dup2(file.fileno(), number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.sched_setaffinity(0, job["cpus"])
        os.environ.clear()
        os.environ.update(job["environ"])
        sys.argv = ["train"]
        importlib.import_module(f"{TOOLKIT}.cli.train").main()
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    sys.exit(main())
