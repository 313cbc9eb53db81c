"""The steps of the demo, each told while it happens."""

from __future__ import annotations

import json
import math
import random
import shutil
import sys
import tarfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from byoc.packaging import unpack
from examples.demo import channel, picture
from examples.demo.calls import Answer, Calls
from examples.demo.sagemaker import sagemaker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

#: MNIST's mean and standard deviation: the article's client sends normalised tensors.
MEAN, DEVIATION = 0.1307, 0.3081
ENGINES = {
    "process": "processes of this environment (no container)",
    "docker": "containers of sagemaker-byoc-training and sagemaker-byoc-inference",
}


@dataclass(frozen=True)
class Story:
    """Everything the demo can be asked for.

    Attributes:
        engine: ``process`` or ``docker``: what the local endpoint runs.
        data: the source of the digits, see ``channel.prepare``.
        hyperparameters: for the training script.
        seed: chooses the digit to ask for; ``None`` for any.
        digits: how many digits to ask for.
        output: the folder that everything is written to; made anew, but for its ``data``.
    """

    engine: str
    data: str
    hyperparameters: Mapping[str, str]
    seed: int | None
    digits: int
    output: Path

    def tell(self) -> None:
        """Run the story from the data to the answer."""
        started = time.monotonic()
        self._clear()
        folder, description = channel.prepare(self.data, self.output / "data")
        images, labels = channel.read_test_set(folder)
        with sagemaker(self.output / "sagemaker", self.engine) as exports:
            say(f"SageMaker on this machine: {exports['AWS_ENDPOINT_URL']}")
            say(f"Engine: {ENGINES[self.engine]}")
            calls = Calls(exports)
            heading(1, "A channel of handwritten digits, uploaded to S3")
            uri = calls.upload(folder)
            say(f"{description} in {folder} -> {uri}")
            self._train(calls, uri)
            with log(self.output / "serve.log") as on_line:
                lines = calls.endpoint_lines()
                heading(3, "CreateModel, CreateEndpointConfig, CreateEndpoint")
                calls.deploy()
                calls.follow_endpoint(lines, say, on_line)
                self._ask(calls, images, labels)
                for line in lines.new():
                    on_line(line)
            heading(5, "DeleteEndpoint, DeleteEndpointConfig, DeleteModel")
            calls.delete()
        heading(6, f"Done in {time.monotonic() - started:.1f} s; everything is stopped")
        say(f"model           {self.output / 'model.tar.gz'}")
        say(f"training curve  {self.output / 'output' / 'training-curve.png'}")
        say(f"the digit       {self.output / 'digit.png'}")
        say(f"logs            {self.output / 'train.log'}  {self.output / 'serve.log'}")

    def _clear(self) -> None:
        """Remove what the last run made; its data stays."""
        self.output.mkdir(parents=True, exist_ok=True)
        for name in ("output", "sagemaker"):
            for path in (self.output / name).rglob("*"):
                if path.is_dir() and not path.is_symlink():
                    path.chmod(0o755)
            if (self.output / name).is_dir():
                shutil.rmtree(self.output / name)
        for name in ("model.tar.gz", "output.tar.gz", "digit.png", "train.log", "serve.log"):
            (self.output / name).unlink(missing_ok=True)

    def _train(self, calls: Calls, uri: str) -> None:
        """The training job, and what it leaves in S3."""
        words = " ".join(f"{name}={value}" for name, value in self.hyperparameters.items())
        heading(2, f"CreateTrainingJob  ({words})")
        calls.train(uri, self.hyperparameters)
        with log(self.output / "train.log") as on_line:
            calls.follow_job(say, on_line)
        archive, further = self.output / "model.tar.gz", self.output / "output.tar.gz"
        calls.download(archive.name, archive)
        with tarfile.open(archive) as tar:
            names = sorted(member.name for member in tar if member.isfile())
        say(f"{archive} ({archive.stat().st_size / 1e6:.1f} MB): {', '.join(names)}")
        calls.download(further.name, further)
        unpack(further, self.output / "output")

    def _ask(self, calls: Calls, images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> None:
        """Random test digits; the first is shown."""
        first = self.seed if self.seed is not None else random.randrange(1_000_000)
        right = 0
        for number in range(self.digits):
            index = random.Random(first + number).randrange(len(labels))
            answer = calls.invoke(tensor(images[index]))
            probabilities = [math.exp(value) for value in json.loads(answer.body)[0]]
            digit = int(np.argmax(probabilities))
            right += digit == int(labels[index])
            if number == 0:
                heading(4, f"InvokeEndpoint: one random test digit (number {index}, SEED={first})")
                self._show(images[index], int(labels[index]), answer, probabilities)
        if self.digits > 1:
            say(f"{right} of {self.digits} digits (SEED={first}..{first + number}) answered right")

    def _show(
        self, image: NDArray[np.uint8], label: int, answer: Answer, probabilities: list[float]
    ) -> None:
        unicode = (sys.stdout.encoding or "").lower().startswith("utf")
        picture.write_png(image, self.output / "digit.png")
        print(picture.in_terminal(image, unicode=unicode))
        print(f"\nMost likely answer: {int(np.argmax(probabilities))}")
        say(f"(it is a {label}; {answer.variant} answered in {answer.milliseconds:.1f} ms)\n")
        print(picture.bars(probabilities, unicode=unicode), flush=True)


def tensor(image: NDArray[np.uint8]) -> bytes:
    """One image ``[28, 28]`` as the normalised tensor ``[1, 1, 28, 28]`` in JSON."""
    normalised = (image[None, None].astype(np.float32) / 255 - MEAN) / DEVIATION
    return json.dumps(normalised.tolist()).encode()


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
