"""What the commands that talk to AWS have in common: options, the way out, and TOML files."""

from __future__ import annotations

import functools
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from byoc import hosts, settings, toml_file
from byoc.aws import Aws  # noqa: TC001 - of a dataclass
from byoc.console import Console
from byoc.errors import SettingsError
from byoc.settings import connect

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Function = Callable[..., None]

#: Keeps the line breaks of a help text's examples; click takes the character out.
AS_IS = "\b"
#: Options of every command that starts something.
role = click.option(
    "--role", metavar="ROLE", help="Name or ARN. Default: BYOC_ROLE, byoc.toml, found."
)
bucket = click.option(
    "--bucket", metavar="BUCKET", help="Default: BYOC_BUCKET, sagemaker-REGION-ACCOUNT."
)


@dataclass(frozen=True)
class Call:
    """A call of a command.

    Attributes:
        aws: The way to AWS.
        console: The command's voice.
        yes: Whether everything that would be asked is answered with yes.
    """

    aws: Aws
    console: Console
    yes: bool = False

    @property
    def dry_run(self) -> bool:
        """Whether nothing is sent."""
        return self.aws.dry_run

    def agreed(self, question: str) -> bool:
        """Ask, on a terminal; elsewhere nobody can agree but by ``--yes``."""
        if self.yes or self.dry_run:
            return True
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            return False
        self.console.close()
        return click.confirm(question, err=True)

    def may_create(self, bucket: str) -> bool:
        """Ask whether the account's default bucket may be made."""
        return self.agreed(f"The bucket {bucket} is not there. Make it?")


def aws_command(*, yes: bool = False, dry_run: bool = True) -> Callable[[Function], Function]:
    """Give a command its `Call` and the options that make it.

    Args:
        yes: Whether it may ask something.
        dry_run: Whether it can print its requests in place of sending them.
    """

    def decorate(function: Function) -> Function:
        @functools.wraps(function)
        def run(
            *,
            region: str | None,
            profile: str | None,
            endpoint_url: str | None,
            as_json: bool,
            dry_run: bool = False,
            yes: bool = False,
            **rest: Any,
        ) -> None:
            console = Console(machine=as_json or dry_run, quiet=dry_run)
            aws = connect(region, profile=profile, endpoint_url=endpoint_url, dry_run=dry_run)
            try:
                function(Call(aws, console, yes), **rest)
            finally:
                console.close()
            if dry_run:
                console.result(aws.planned)

        options: list[Callable[[Any], Any]] = [
            click.option("--region", metavar="REGION", help="Default: AWS_REGION, byoc.toml, …"),
            click.option("--profile", metavar="NAME", help="Of AWS's configuration files."),
            click.option(
                "--endpoint-url",
                metavar="URL",
                help="In place of AWS; default: AWS_ENDPOINT_URL (byoc local env).",
            ),
            click.option("--json", "as_json", is_flag=True, help="The result as JSON."),
        ]
        if dry_run:
            options.append(
                click.option(
                    "--dry-run", is_flag=True, help="Print the exact requests, and send nothing."
                )
            )
        if yes:
            options.append(click.option("--yes", "-y", is_flag=True, help="Ask nothing."))
        decorated: Any = run
        for option in reversed(options):
            decorated = option(decorated)
        return cast("Function", decorated)

    return decorate


def aside(line: str) -> None:
    """A line beside the result, whatever form that has."""
    click.echo(f"byoc: {line}", err=True)


def toml_argument(
    table: str, maps: Sequence[str] = (), paths: Sequence[str] = ()
) -> Callable[[Function], Function]:
    """An argument ``[FILE]``: a TOML file whose table stands for options that are not given.

    Args:
        table: Of the file.
        maps: Options ``NAME=VALUE`` that are tables in the file; see `merged`.
        paths: Keys and maps whose relative paths start at the file's folder.
    """

    def read(context: click.Context, _: click.Parameter, value: Path | None) -> Path | None:
        if value is None:
            _unread(table)
            return None
        content = toml_file.read(value)
        section: dict[str, Any] = content.get(table, {})
        parameters = _parameters(context.command)
        toml_file.known(section, [*parameters, *maps], f"{value}, [{table}]")
        defaults = {key: content[key] for key in toml_file.COMMON if key in content}
        for key, given in section.items():
            if key in maps:
                if not isinstance(given, dict):
                    raise SettingsError(f"{value}: {table}.{key} is {given!r}; expected a table")
                context.meta[f"byoc.{key}"] = {
                    name: _from(value, one) if key in paths else one for name, one in given.items()
                }
                continue
            parameter = parameters[key]
            if isinstance(given, list) != parameter.multiple or isinstance(given, dict):
                form = "a list" if parameter.multiple else "a value"
                raise SettingsError(f"{value}: {table}.{key} is {given!r}; expected {form}")
            defaults[str(parameter.name)] = _from(value, given) if key in paths else given
        context.default_map = {**(context.default_map or {}), **defaults}
        return value

    return click.argument(
        "file",
        required=False,
        is_eager=True,
        expose_value=False,
        callback=read,
        type=click.Path(dir_okay=False, path_type=Path),
    )


def merged(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """A map of the TOML file with what is given on the command line on top."""
    return {**click.get_current_context().meta.get(f"byoc.{name}", {}), **given}


def texts(values: dict[str, Any]) -> dict[str, str]:
    """Values of a TOML file as text; booleans in small letters, as shells have them."""
    return {
        key: str(value).lower() if isinstance(value, bool) else str(value)
        for key, value in values.items()
    }


def _unread(table: str) -> None:
    """Raise where the configuration file has a command's table, which is of no use there.

    Raises:
        SettingsError: It has; says how it is read.
    """
    path = settings.config_file()
    if path is not None and table in toml_file.read(path):
        raise SettingsError(
            f"{path} has a table [{table}], which is read only where the file is named: "
            f"byoc {table} {path}"
        )


def _parameters(command: click.Command) -> dict[str, click.Option]:
    """Options by their long names; without the second spelling of a pair, which means no."""
    return {
        option[2:]: parameter
        for parameter in command.params
        if isinstance(parameter, click.Option)
        for option in parameter.opts
        if option.startswith("--")
    }


def _from(file: Path, value: Any) -> Any:
    """A path relative to the file's folder; addresses and whole paths as they are."""
    if not isinstance(value, str) or value.startswith(("s3://", "/", "~")):
        return value
    return str(file.parent / value)


def instance_types(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    """SageMaker's instance types, for the shell's completion."""
    found = {one for use in hosts.USES for one in hosts.instance_types(use)}
    return sorted(one for one in found if one.startswith(incomplete))
