"""``python -m examples.demo``: the command behind ``make demo``."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import click
from botocore.exceptions import BotoCoreError, ClientError

from byoc.errors import ByocError
from examples.demo import channel
from examples.demo.errors import DemoError
from examples.demo.story import Story


def pairs(words: tuple[str, ...]) -> dict[str, str]:
    """``name=value`` words as hyperparameters."""
    found = {}
    for word in " ".join(words).split():
        name, equals, value = word.partition("=")
        if not (name and equals):
            raise DemoError(f"{word!r} is no hyperparameter", "write name=value, such as lr=0.5")
        found[name.removeprefix("--")] = value
    return found


def forget_aws() -> None:
    """Let nothing of a surrounding AWS session, such as a profile, have a say in the story."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        os.environ[name] = os.devnull


@click.command()
@click.option("--data", default="digits", help="digits, mnist, or a folder with the idx files")
@click.option("--engine", type=click.Choice(["process", "docker"]), default="process")
@click.option("--epochs", type=click.IntRange(1), help="default: 12 for digits, else 1")
@click.option("--seed", type=click.IntRange(0), help="of the training and of the digit asked for")
@click.option("--digits", type=click.IntRange(1), default=1, help="how many digits to ask for")
@click.option("--hyperparameters", "words", multiple=True, help='such as "lr=0.5 batch-size=32"')
@click.option("--output", type=click.Path(path_type=Path), default=Path("demo-output"))
def main(
    *,
    data: str,
    engine: str,
    epochs: int | None,
    seed: int | None,
    digits: int,
    words: tuple[str, ...],
    output: Path,
) -> None:
    """Train on handwritten digits, serve the model, ask it for one of them."""
    # SIGTERM ends the story as Ctrl-C does: what it started is stopped first. Both are set, since
    # a shell starts its background jobs with SIGINT ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    forget_aws()
    try:
        hyperparameters = {"epochs": str(epochs or channel.EPOCHS.get(data, 1))}
        if seed is not None:
            hyperparameters["seed"] = str(seed)
        story = Story(
            engine=engine,
            data=data,
            hyperparameters={**hyperparameters, **pairs(words)},
            seed=seed,
            digits=digits,
            output=output,
        )
        story.tell()
    except DemoError as error:
        sys.exit(f"demo: {error}; {error.hint}")
    except (ByocError, BotoCoreError, ClientError, OSError) as error:
        sys.exit(f"demo: {' '.join(str(error).split())}")
    except KeyboardInterrupt:
        sys.exit("demo: stopped")


if __name__ == "__main__":
    main()
