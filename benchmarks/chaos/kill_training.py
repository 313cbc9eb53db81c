"""Killed at random instants, a training goes on and ends with the very same weights.

``python benchmarks/chaos/kill_training.py --kills 1000``

Runs of a small but complete training (dropout, momentum, a shuffled order of the data, a
checkpoint every few steps) are killed again and again, by SIGTERM or SIGKILL, at instants that a
seed determines as far as a clock can; now and then the newest checkpoint is damaged as well. Each
attempt is a process of its own, forked from one that has imported torch. Every run must come to
its end, and its weights must be those of a run that nobody disturbed, bit for bit.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # an optimiser imports it: once here, not in every attempt

from byoc_training.checkpoint import Checkpoints, Stop

STEPS = 120
EXAMPLES, FEATURES, CLASSES, BATCH = 256, 16, 4, 32
DAMAGED_SHARE = 0.1
#: Ends an attempt that was told to stop.
STOPPED = 3


def train(folder: Path) -> bool:
    """Train from the newest checkpoint; False when told to stop before the end."""
    torch.set_num_threads(1)
    checkpoints, stop = Checkpoints(folder, "run"), Stop()
    torch.manual_seed(0)
    data = torch.randn(EXAMPLES, FEATURES)
    labels = data[:, :CLASSES].argmax(1)
    model = torch.nn.Sequential(
        torch.nn.Linear(FEATURES, 32),
        torch.nn.ReLU(),
        torch.nn.Dropout(0.5),
        torch.nn.Linear(32, CLASSES),
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    step = 0
    state = checkpoints.load()
    if state is not None:
        step = state["step"]
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
    while step < STEPS:
        if stop:
            checkpoints.save(step, snapshot(step, model, optimizer))
            return False
        batch = torch.randint(EXAMPLES, (BATCH,))
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(data[batch]), labels[batch])
        loss.backward()  # type: ignore[no-untyped-call] # torch's own
        optimizer.step()
        step += 1
        if step % 4 == 0:
            checkpoints.save(step, snapshot(step, model, optimizer))
    torch.save(model.state_dict(), folder / "final")
    return True


def snapshot(step: int, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """What a checkpoint holds."""
    return {"step": step, "model": model.state_dict(), "optimizer": optimizer.state_dict()}


def attempt(folder: Path) -> int:
    """Start one; the process."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        code = 0 if train(folder) else STOPPED
    except BaseException:  # noqa: BLE001 - a child must never go on as its parent
        import traceback  # noqa: PLC0415 - rarely needed

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def wait(pid: int, seconds: float | None) -> int | None:
    """Its status, negative for a signal; None when it still runs after the time."""
    until = None if seconds is None else time.monotonic() + seconds
    while True:
        done, status = os.waitpid(pid, os.WNOHANG if until is not None else 0)
        if done:
            return os.waitstatus_to_exitcode(status)
        if until is not None and time.monotonic() >= until:
            return None
        time.sleep(0.0005)


def damage(folder: Path, chance: random.Random) -> bool:
    """Cut off, or change a bit of, the newest checkpoint, where there is one before it."""
    found = Checkpoints(folder, "run").newest_first()
    if len(found) < 2:
        return False
    content = bytearray(found[0].read_bytes())
    place = chance.randrange(len(content))
    if chance.random() < 0.5:
        del content[place:]
    else:
        content[place] ^= 1 << chance.randrange(8)
    found[0].write_bytes(content)
    return True


def weights(folder: Path) -> bytes:
    """The final weights as bytes."""
    state = torch.load(folder / "final", weights_only=True)
    return b"".join(state[name].numpy().tobytes() for name in sorted(state))


def main() -> int:
    """Kill until there have been enough; 0 when every run has ended as it should."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)
    seen: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as top:
        calm = Path(top, "calm")
        calm.mkdir()
        began = time.monotonic()
        if wait(attempt(calm), None) != 0:
            print((calm / "log").read_text(), file=sys.stderr)
            return 1
        length_s = time.monotonic() - began
        wanted = weights(calm)
        while seen["kills"] < arguments.kills:
            folder = Path(top, "run")
            folder.mkdir()
            while True:
                pid = attempt(folder)
                status = wait(pid, chance.uniform(0, length_s))
                if status is None:
                    number = chance.choice((signal.SIGTERM, signal.SIGKILL))
                    os.kill(pid, number)
                    seen["kills"] += 1
                    seen[number.name] += 1
                    status = wait(pid, None)
                if status == 0:
                    break
                if status not in (STOPPED, -signal.SIGTERM, -signal.SIGKILL):
                    print((folder / "log").read_text(), file=sys.stderr)
                    return 1
                seen["told, saved"] += status == STOPPED
                if chance.random() < DAMAGED_SHARE:
                    seen["damaged"] += damage(folder, chance)
            seen["runs"] += 1
            seen["different"] += weights(folder) != wanted
            seen["passed over"] += (folder / "log").read_text().count("skipping")
            shutil.rmtree(folder)
    print(json.dumps(dict(seen)))
    return 1 if seen["different"] else 0


if __name__ == "__main__":
    sys.exit(main())
