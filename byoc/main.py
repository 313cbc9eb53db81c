"""The command ``byoc``.

Commands are found by name and loaded when they are called, so that ``byoc --help`` answers at
once. One place turns errors into a line and an exit code (see ``byoc.errors``).
"""

from __future__ import annotations

import errno
import importlib
import importlib.util
import os
import sys
from typing import TYPE_CHECKING

from byoc.errors import FAULT, INTERRUPTED, ByocError

if TYPE_CHECKING:
    import click

#: What a write to a full disk, or to a device that is gone, ends with.
_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
#: Each command with its line in ``byoc --help``; the module is ``byoc.commands.<name>``.
COMMANDS = {
    "build": "Build the training and the inference image from this repository.",
    "push": "Push images to ECR, and verify how they arrived.",
    "train": "Train a model: upload data, start a training job, and wait for it if asked.",
    "deploy": "Serve a model: make a model, a configuration and an endpoint.",
    "invoke": "Ask an endpoint: with a file, an image, the standard input, or a random digit.",
    "transform": "Run a model over the files of a folder: a batch transform job.",
    "process": "Run a program in an image: a processing job.",
    "logs": "Print the log of a job or an endpoint.",
    "list": "List jobs, endpoints and models.",
    "describe": "Print all that is known of a job, an endpoint, a model or a configuration.",
    "stop": "Stop a job.",
    "delete": "Delete endpoints, models and configurations.",
    "package": "Pack a folder as the archive that SageMaker takes.",
    "doctor": "Look at this machine and the account, and say what to mend.",
    "local": "SageMaker on this machine: one endpoint that really runs the images.",
}


def group() -> click.Group:
    """The command line, as a click group."""
    import click  # noqa: PLC0415 - absent in the images, where only train or serve is of use

    class LazyGroup(click.Group):
        def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
            return [*COMMANDS]

        def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
            if cmd_name not in COMMANDS:
                return None
            module = importlib.import_module(f"byoc.commands.{cmd_name}")
            command: click.Command = module.command
            return command

        def format_commands(
            self,
            ctx: click.Context,  # noqa: ARG002
            formatter: click.HelpFormatter,
        ) -> None:
            # The lines come from the table: listing the commands loads none of them.
            with formatter.section("Commands"):
                formatter.write_dl([*COMMANDS.items()])

    @click.group("byoc", cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
    @click.version_option(package_name="sagemaker-byoc", prog_name="byoc")
    def main_group() -> None:
        """Bring your own PyTorch container to Amazon SageMaker.

        \b
          make build push                               two images, to your registry
          byoc train --data training=FOLDER --wait      a job
          byoc deploy --job NAME                        an endpoint
          byoc invoke ENDPOINT --random-digit FOLDER    an answer
          byoc delete ENDPOINT

        The same on this machine, without an account: byoc local up -d, then
        eval "$(byoc local env)".

        Completion for bash: eval "$(_BYOC_COMPLETE=bash_source byoc)" (or zsh_source, fish_source).
        """  # noqa: D301 - click's mark

    return main_group


def main() -> None:
    """Run ``byoc``; ends the process with the exit code of what happened."""
    # Looked for, not imported: the training image has click for another package's sake.
    packages = ("docker", "rich", "click")
    missing = next((name for name in packages if importlib.util.find_spec(name) is None), None)
    if missing:
        print(
            f"byoc: the package {missing} is missing; byoc runs on the user's machine, "
            "install it there: pip install 'sagemaker-byoc[control]'",
            file=sys.stderr,
        )
        sys.exit(ByocError.exit_code)
    import click  # noqa: PLC0415 - as above

    cli = group()
    try:
        try:
            code = cli(prog_name="byoc", standalone_mode=False)
        finally:  # here, where a full disk can still be told, and not at the interpreter's end
            sys.stdout.flush()
    except click.ClickException as error:  # wrong usage
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:  # Ctrl-C, or a question that was not answered
        print("byoc: interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except ByocError as error:
        print(f"byoc: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:  # of `byoc list | head`
        _drop_output()
        sys.exit(ByocError.exit_code)
    except Exception as error:
        if isinstance(error, OSError) and error.filename is None and error.errno in _UNWRITABLE:
            _drop_output()
            print(f"byoc: the output cannot be written: {error.strerror}", file=sys.stderr)
            sys.exit(ByocError.exit_code)
        if os.environ.get("BYOC_DEBUG"):
            raise
        words = " ".join(str(error).split()) or "no message"
        print(
            f"byoc: a fault of byoc's own: {type(error).__name__}: {words[:400]}; BYOC_DEBUG=1 "
            "shows where",
            file=sys.stderr,
        )
        sys.exit(FAULT)
    sys.exit(code if isinstance(code, int) else 0)


def _drop_output() -> None:
    """Let what is still buffered go nowhere, without another error at the interpreter's end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
