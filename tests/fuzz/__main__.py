"""Coverage-guided fuzzing of what reads a stranger's bytes.

``make fuzz SECONDS=600``: each target (``targets``) for so long, one line a target; inputs that
found a new way are kept below ``build/fuzz`` for the next run, those that broke a promise too, and
then the exit code is 1. Needs the package atheris (there are wheels for Python 3.11 to 3.13).
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

from tests.fuzz.findings import Findings

#: No input of a few kilobytes may take longer.
TIMEOUT_S = 5
#: What the interpreter, numpy and the corpus need, and then some.
RSS_MIB = 1024
LONGEST_BYTES = 4096
_RUNS = re.compile(r"stat::number_of_executed_units:\s+(\d+)")
_WAYS = re.compile(r"cov: (\d+)")


def main() -> int:
    """Fuzz each target in a process of its own."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--seconds", type=float, default=60.0, help="for each target")
    parser.add_argument("--seed", type=int, default=1, help="of the fuzzer's random numbers")
    parser.add_argument("--targets", default="", help="names between commas; default: all")
    parser.add_argument("--folder", type=Path, default=Path("build/fuzz"))
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    options, rest = parser.parse_known_args()
    if options.inside:
        inside(options.inside, rest)
    from tests.fuzz.targets import TARGETS

    names = options.targets.split(",") if options.targets else list(TARGETS)
    unknown = [name for name in names if name not in TARGETS]
    if unknown:
        parser.error(f"unknown targets {', '.join(unknown)}; there are {', '.join(TARGETS)}")
    broken = 0
    for name in names:
        found = fuzz(name, TARGETS[name][1], options)
        broken += found.broken
        print(f"fuzz: {found}", flush=True)
    return 1 if broken else 0


def fuzz(name: str, seeds: list[bytes], options: argparse.Namespace) -> Findings:
    """One target, for its time."""
    folder = options.folder.resolve() / name
    corpus, artifacts = folder / "corpus", folder / "broken"
    corpus.mkdir(parents=True, exist_ok=True)
    artifacts.mkdir(exist_ok=True)
    before = set(artifacts.iterdir())
    for seed in seeds:
        (corpus / hashlib.sha1(seed, usedforsecurity=False).hexdigest()).write_bytes(seed)
    command = [
        *(sys.executable, "-m", "tests.fuzz", "--inside", name, str(corpus)),
        *(f"-max_total_time={max(1, round(options.seconds))}", f"-seed={options.seed}"),
        *(f"-timeout={TIMEOUT_S}", f"-rss_limit_mb={RSS_MIB}", f"-max_len={LONGEST_BYTES}"),
        *(f"-artifact_prefix={artifacts}/", "-print_final_stats=1"),
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, errors="replace", check=False, env=dict(os.environ)
    )
    runs, ways = _RUNS.findall(done.stderr), _WAYS.findall(done.stderr)
    found = Findings(
        name,
        int(runs[-1]) if runs else 0,
        options.seconds,
        int(ways[-1]) if ways else 0,
        sum(1 for _ in corpus.iterdir()),
        sorted(set(artifacts.iterdir()) - before),
        done.returncode,
    )
    if found.broken:
        print(done.stderr[-4000:], file=sys.stderr)
    return found


def inside(name: str, arguments: list[str]) -> None:
    """The fuzzer itself, which ends the process."""
    import atheris  # type: ignore[import-untyped] # optional

    with atheris.instrument_imports(include=["byoc_serving"]):
        from tests.fuzz.targets import TARGETS
    atheris.Setup([sys.argv[0], *arguments], TARGETS[name][0])
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
