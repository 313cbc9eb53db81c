"""``byoc invoke``: ask an endpoint, and show its answer."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from byoc import invocations as asking
from byoc.commands.options import aws_command
from byoc.digits import random_digit
from byoc.errors import SettingsError

if TYPE_CHECKING:
    from byoc.commands.options import Call
    from byoc.digits import Digit


@click.command("invoke")
@click.argument("endpoint")
@click.argument("file", required=False, metavar="[FILE|-]")
@click.option(
    "--random-digit",
    "folder",
    metavar="FOLDER",
    type=click.Path(file_okay=False, exists=True, path_type=Path),
    help="Ask for one of the digits in a folder with MNIST's files.",
)
@click.option("--seed", type=int, help="Chooses the digit.")
@click.option("--body", metavar="TEXT", help="The body itself.")
@click.option("--content-type", metavar="TYPE", help="Default: by the file's name and content.")
@click.option("--accept", default=asking.JSON, show_default=True, metavar="TYPE")
@click.option("--variant", metavar="NAME", help="That is to answer.")
@click.option("--target-model", metavar="NAME", help="Of a multi-model endpoint.")
@click.option("--custom-attributes", metavar="TEXT", help="For the container.")
@click.option("--inference-id", metavar="ID", help="For logs.")
@click.option("--async", "asynchronous", is_flag=True, help="Through S3; waits for the answer.")
@click.option("--stream", is_flag=True, help="Print the answer piece by piece.")
@click.option("--bucket", metavar="BUCKET", help="With --async.")
@click.option(
    "--output",
    "-o",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the answer there, as it is.",
)
@aws_command(yes=True)
def command(  # noqa: PLR0913 - a command has as many arguments as options
    call: Call,
    *,
    endpoint: str,
    file: str | None,
    folder: Path | None,
    seed: int | None,
    body: str | None,
    content_type: str | None,
    asynchronous: bool,
    stream: bool,
    bucket: str | None,
    output: Path | None,
    **rest: Any,
) -> None:
    """Ask an endpoint: with a file, an image, the standard input, or a random digit.

    \b
      byoc invoke digits --random-digit data/mnist
      byoc invoke digits seven.png
      echo '[[0.1, 0.2]]' | byoc invoke my-endpoint -
      byoc invoke my-endpoint rows.csv --accept text/csv -o answer.csv
    """  # noqa: D301 - click's mark
    sources = [one for one in (file, folder, body) if one is not None]
    if len(sources) != 1:
        raise SettingsError(
            "give one body: a FILE, - for the standard input, --body or --random-digit"
        )
    digit = None
    if folder is not None:
        seed = random.randrange(1_000_000) if seed is None else seed
        digit = random_digit(folder, seed)
        content = digit.tensor
    else:
        content = _content(file, body)
    kind = content_type or asking.content_type_of(file if file != "-" else None, content)
    question = asking.Question(content, kind, **rest)
    if stream:
        _stream(call, endpoint, question, output, asynchronous=asynchronous)
        return
    if asynchronous:
        answer = asking.invoke_async(
            call.aws, endpoint, question, bucket=bucket, may_create=call.may_create,
            report=call.console,
        )  # fmt: skip
    else:
        answer = asking.invoke(call.aws, endpoint, question)
    if call.dry_run:
        return
    if output is not None:
        _save(call, answer, output)
    elif call.console.machine:
        call.console.result(_described(answer, digit))
    else:
        _show(call, answer, digit, seed)


def _content(file: str | None, body: str | None) -> bytes:
    if body is not None:
        return body.encode()
    if file == "-":
        return sys.stdin.buffer.read()
    return asking.read_body(Path(str(file)).expanduser())


def _stream(
    call: Call,
    endpoint: str,
    question: asking.Question,
    output: Path | None,
    *,
    asynchronous: bool,
) -> None:
    if asynchronous:
        raise SettingsError("an answer comes by --async or by --stream, not by both")
    if call.console.machine and not call.dry_run:
        raise SettingsError(
            "--stream hands the model's bytes on as they come, which are no result as JSON; "
            "leave --stream or --json out"
        )
    pieces = asking.stream(call.aws, endpoint, question)
    if output is not None:
        _write(output, b"".join(pieces))
        return
    for piece in pieces:
        sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
    if not call.dry_run and sys.stdout.isatty():
        print()


def _save(call: Call, answer: asking.Answer, path: Path) -> None:
    _write(path, answer.body)
    count, kind = len(answer.body), answer.content_type
    call.console.say(f"{count} bytes of {kind} in {path}")
    if call.console.machine:
        call.console.result({"file": str(path), "bytes": count, "content_type": kind})


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise SettingsError(f"cannot write {path}: {error.strerror}") from error


def _described(answer: asking.Answer, digit: Digit | None) -> dict[str, Any]:
    scores = answer.scores
    found: dict[str, Any] = {
        "answer": answer.data,
        "content_type": answer.content_type,
        "milliseconds": round(answer.milliseconds, 1),
        "variant": answer.variant,
        "custom_attributes": answer.custom_attributes,
    }
    if scores:
        found["most_likely"] = [row.index(max(row)) for row in scores]
        found["scores"] = scores
    if digit is not None:
        found["digit"] = {"number": digit.number, "label": digit.label}
    return found


def _show(call: Call, answer: asking.Answer, digit: Digit | None, seed: int | None) -> None:
    console = call.console
    if digit is not None:
        print(f"random digit {digit.number} (--seed {seed})")
        print(digit.text(unicode=console.unicode))
        print()
    scores = answer.scores
    took = f"answered in {answer.milliseconds:.1f} ms" + (
        f" by {answer.variant}" if answer.variant else ""
    )
    if len(scores) == 1:
        (row,) = scores
        print(f"Most likely answer: {row.index(max(row))}")
        print(f"  ({f'it is a {digit.label}; ' if digit else ''}{took})\n")
        console.bars(row)
    elif scores:
        rows = [(str(n), str(row.index(max(row))), f"{100 * max(row):.2f} %")
                for n, row in enumerate(scores)]  # fmt: skip
        console.table(("row", "answer", "probability"), rows)
        print(f"({took})")
    else:
        _show_data(call, answer)
        print(f"({took})", file=sys.stderr)


def _show_data(call: Call, answer: asking.Answer) -> None:
    data = answer.data
    if isinstance(data, bytes):
        if sys.stdout.isatty():
            print(f"{len(data)} bytes of {answer.content_type}; write them with --output FILE")
        else:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
    elif isinstance(data, str):
        print(data, end="" if data.endswith("\n") else "\n")
    else:
        call.console.result(data)
