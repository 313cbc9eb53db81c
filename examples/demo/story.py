"""The steps of the demo, each told while it happens."""

from __future__ import annotations

import random
import shutil
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from byoc.local.layout import TrainingLayout
from byoc.local.runners.base import SERVING_STOP_SECONDS, TRAINING_STOP_SECONDS
from byoc.packaging import pack, unpack
from examples.demo import asking, channel, picture
from examples.demo.errors import DemoError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from byoc.local.runners.base import Runner, Running

EXAMPLE = Path(__file__).parents[1] / "mnist"


@dataclass(frozen=True)
class Story:
    """Everything the demo can be asked for.

    Attributes:
        runner: how ``train`` and ``serve`` are run.
        data: the source of the digits, see ``channel.prepare``.
        hyperparameters: for the training script.
        seed: chooses the digit to ask for; ``None`` for any.
        digits: how many digits to ask for.
        output: the folder that everything is written to; made anew, but for its ``data``.
    """

    runner: Runner
    data: str
    hyperparameters: Mapping[str, str]
    seed: int | None
    digits: int
    output: Path

    def tell(self) -> None:
        """Run the story from the data to the answer."""
        started = time.monotonic()
        self._clear()
        say(f"Engine: {self.runner.description}")
        heading(1, "A channel of handwritten digits")
        folder, description = channel.prepare(self.data, self.output / "data")
        images, labels = channel.read_test_set(folder)
        say(f"{description} -> {folder}")
        self._train(folder)
        heading(3, "model.tar.gz, packed and unpacked as the platform does it")
        archive = self.output / "model.tar.gz"
        size = pack(self.output / "job" / "model", archive)
        names = unpack(archive, self.output / "endpoint" / "model", read_only=True)
        say(f"{archive} ({size / 1e6:.1f} MB): {', '.join(names)}")
        with self._server() as server:
            first = self.seed if self.seed is not None else random.randrange(1_000_000)
            right = 0
            for number in range(self.digits):
                index = random.Random(first + number).randrange(len(labels))
                answer = asking.ask(server, images[index])
                right += answer.digit == int(labels[index])
                if number == 0:
                    heading(5, f"One random test digit (number {index}, SEED={first})")
                    self._show(images[index], int(labels[index]), answer)
        if self.digits > 1:
            say(f"{right} of {self.digits} digits (SEED={first}..{first + number}) answered right")
        heading(6, f"Done in {time.monotonic() - started:.1f} s; everything is stopped")
        job = self.output / "job"
        say(f"model           {archive}")
        say(f"training curve  {job / 'output' / 'data' / 'training-curve.png'}")
        say(f"the digit       {self.output / 'digit.png'}")
        say(f"logs            {self.output / 'train.log'}  {self.output / 'serve.log'}")

    def _clear(self) -> None:
        """Remove what the last run made; its data stays."""
        self.output.mkdir(parents=True, exist_ok=True)
        for name in ("job", "endpoint"):
            for path in (self.output / name).rglob("*"):
                if path.is_dir() and not path.is_symlink():
                    path.chmod(0o755)
            if (self.output / name).is_dir():
                (self.output / name).chmod(0o755)
                shutil.rmtree(self.output / name)
        for name in ("model.tar.gz", "digit.png", "train.log", "serve.log"):
            (self.output / name).unlink(missing_ok=True)

    def _train(self, folder: Path) -> None:
        """The training job."""
        words = " ".join(f"{name}={value}" for name, value in self.hyperparameters.items())
        heading(2, f"train  ({words})")
        hyperparameters = dict(self.hyperparameters)
        layout = TrainingLayout(self.output / "job", hyperparameters, {"training": folder})
        layout.create()
        # On a machine that does other things as well, threads that spin while they wait for each
        # other slow an epoch down threefold.
        environment = {"TRAINING_JOB_NAME": "mnist-demo", "OMP_WAIT_POLICY": "PASSIVE"}
        if self.runner.uses_this_environment:
            environment |= {
                "SAGEMAKER_PROGRAM": "train.py",
                "SAGEMAKER_SUBMIT_DIRECTORY": str(EXAMPLE),
            }
        with log(self.output / "train.log") as on_line:
            job = self.runner.train(layout, environment, on_line)
            try:
                code = job.wait()
            finally:
                if job.poll() is None:
                    job.stop(TRAINING_STOP_SECONDS)
        if code != 0:
            reason = layout.failure.splitlines() or ["it left no failure file"]
            raise DemoError(f"train ended with exit code {code}: {reason[0]}", "see train.log")

    @contextmanager
    def _server(self) -> Iterator[Running]:
        """The server, ready; stopped in any case."""
        heading(4, "serve")
        with log(self.output / "serve.log") as on_line:
            server = self.runner.serve(self.output / "endpoint" / "model", {}, on_line)
            try:
                states: list[str] = []

                def on_state(state: str) -> None:
                    phase = state.partition(",")[0]
                    if phase not in states:
                        states.append(phase)
                        say(f"/ping: {state}")

                seconds = asking.wait_until_ready(server, on_state)
                say(f"/ping: 200 after {seconds:.1f} s at http://127.0.0.1:{server.address[1]}")
                yield server
            finally:
                code = server.stop(SERVING_STOP_SECONDS)
                say(f"serve stopped with exit code {code}")

    def _show(self, image: NDArray[np.uint8], label: int, answer: asking.Answer) -> None:
        unicode = (sys.stdout.encoding or "").lower().startswith("utf")
        picture.write_png(image, self.output / "digit.png")
        print(picture.in_terminal(image, unicode=unicode))
        print(f"\nMost likely answer: {answer.digit}")
        say(f"(it is a {label}; answered in {answer.milliseconds:.1f} ms)\n")
        print(picture.bars(answer.probabilities, unicode=unicode), flush=True)


def heading(number: int, text: str) -> None:
    """The title of a step."""
    print(f"\n[{number}/6] {text}", flush=True)


def say(text: str) -> None:
    """One line of a step."""
    print(f"  {text}", flush=True)


@contextmanager
def log(path: Path) -> Iterator[Callable[[str], None]]:
    """Write every line to a file and to the terminal."""
    with path.open("w", encoding="utf-8") as file:

        def on_line(line: str) -> None:
            print(line, file=file, flush=True)
            print(f"  | {line}", flush=True)

        yield on_line
