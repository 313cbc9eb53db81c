"""The command ``byoc``.

Commands are found by name and loaded when they are called, so that ``byoc --help`` answers at
once. One place turns errors into a line and an exit code (see ``byoc.errors``).
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING

from byoc.errors import ByocError

if TYPE_CHECKING:
    import click

#: Each command with its line in ``byoc --help``; the module is ``byoc.commands.<name>``.
COMMANDS = {
    "build": "Build the training and the inference image from this repository.",
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
        """Bring your own PyTorch container to Amazon SageMaker."""

    return main_group


def main() -> None:
    """Run ``byoc``; ends the process with the exit code of what happened."""
    try:
        cli = group()
    except ModuleNotFoundError as error:
        print(
            f"byoc: the package {error.name} is missing; byoc runs on the user's machine, "
            "install it there: pip install 'sagemaker-byoc[control]'",
            file=sys.stderr,
        )
        sys.exit(ByocError.exit_code)
    try:
        cli(prog_name="byoc")
    except ByocError as error:
        print(f"byoc: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
