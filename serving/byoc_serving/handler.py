"""The user's functions: loaded once, their signatures read once.

``model_fn(model_dir)``, ``input_fn(body, content_type)``, ``predict_fn(data, model)``,
``output_fn(prediction, accept)``, or ``transform_fn(model, body, content_type, accept)`` in place
of the last three; each may take a further argument, the context. A function gets it

- by name, when a parameter is called ``context`` or ``ctx``, or
- by position, when it requires exactly one argument more than the plain call has.

``bidirectional_fn(messages, model)`` talks over a WebSocket: a generator, asynchronous or not, that
reads messages (str or bytes) from the iterator ``messages``, which is an asynchronous one too, and
yields messages. It is called on the contract's path, or on those in ``BIDIRECTIONAL_PATHS``.

A further parameter with a default, such as ``model_fn(model_dir, device="cpu")``, keeps its
default (the toolkit would put the context there). ``async def`` functions are run to their end.
"""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from byoc_serving.current import working_on
from byoc_serving.errors import HandlerError
from byoc_serving.exchange import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import ModuleType

    from byoc_serving.context import Context
    from byoc_serving.source import Source

#: Plain arguments of each function; the last two are the toolkit's optional hooks.
ARGUMENTS: Mapping[str, int] = {
    "model_fn": 1,
    "input_fn": 2,
    "predict_fn": 2,
    "output_fn": 2,
    "transform_fn": 4,
    "pre_model_fn": 1,
    "model_warmup_fn": 2,
    "bidirectional_fn": 2,
}
#: The platform's path unless the caller names another one (contract, section 12).
BIDIRECTIONAL_PATH = "/invocations-bidirectional-stream"
#: Which argument is the request's body.
BODY_POSITIONS: Mapping[str, int] = {"input_fn": 0, "transform_fn": 1}
_CONTEXT_NAMES = ("context", "ctx")


class EscapeError(Exception):
    """A function tried to end the process: SystemExit, KeyboardInterrupt or the like."""


@dataclass(frozen=True)
class Function:
    """One handler function; call it with its plain arguments and the context."""

    name: str
    call: Callable[..., Any]
    context_by: str  # "", "position", or the parameter's name
    is_async: bool
    #: A generator function, asynchronous or not: its answer is a stream.
    is_generator: bool = False
    #: The parameter for the body is annotated ``memoryview``: no copy is made for it.
    takes_view: bool = False

    def __call__(self, context: Context, *arguments: Any) -> Any:
        """Call the function as its signature asks for.

        Raises:
            EscapeError: it raised something that is no Exception.
        """
        try:
            if context.invocation is None:
                return self._call(context, arguments)
            with working_on(context.invocation):
                return self._call(context, arguments)
        except Exception:
            raise
        except BaseException as error:
            # sys.exit(), or a panic of an extension in Rust: it ends this call, not the thread
            # that owns the model.
            raise EscapeError(f"{self.name} ended with {type(error).__name__}") from error

    def _call(self, context: Context, arguments: tuple[Any, ...]) -> Any:
        if self.context_by == "position":
            result = self.call(*arguments, context)
        elif self.context_by:
            result = self.call(*arguments, **{self.context_by: context})
        else:
            result = self.call(*arguments)
        return asyncio.run(result) if self.is_async else result


@dataclass(frozen=True)
class Handler:
    """The functions that the user has written; None where the default one is meant."""

    origin: str
    model_fn: Function | None = None
    input_fn: Function | None = None
    predict_fn: Function | None = None
    output_fn: Function | None = None
    transform_fn: Function | None = None
    pre_model_fn: Function | None = None
    model_warmup_fn: Function | None = None
    bidirectional_fn: Function | None = None
    #: Where WebSockets are taken; ``BIDIRECTIONAL_PATHS`` in the handler's module.
    bidirectional_paths: tuple[str, ...] = ()

    @property
    def default_predict(self) -> bool:
        """Whether our own predict_fn asks the model."""
        return self.predict_fn is None and self.transform_fn is None

    @property
    def decodes_itself(self) -> bool:
        """Whether bodies go through our own codecs alone."""
        return self.input_fn is None and self.transform_fn is None

    @property
    def encodes_itself(self) -> bool:
        """Whether answers come from our own codecs alone."""
        return self.output_fn is None and self.transform_fn is None

    @classmethod
    def load(cls, source: Source) -> Handler:
        """Import the user's module and read its functions.

        Raises:
            HandlerError: it cannot be imported, defines no handler function, has one with a
                wrong signature, or transform_fn together with what it replaces.
        """
        if source.module is None:
            return cls(source.origin)
        module = _import(source.module)
        functions = {
            name: _function(name, getattr(module, name), source.module)
            for name in ARGUMENTS
            if getattr(module, name, None) is not None
        }
        if not functions:
            raise HandlerError(
                f"{source.module} defines none of {', '.join(ARGUMENTS)}; define model_fn at least"
            )
        clash = [n for n in ("input_fn", "predict_fn", "output_fn") if n in functions]
        if "transform_fn" in functions and clash:
            raise HandlerError(
                f"{source.module} defines transform_fn together with {', '.join(clash)}; "
                "transform_fn replaces all three: remove it, or remove the others"
            )
        return cls(
            source.origin, **functions, bidirectional_paths=_paths(module, functions, source.module)
        )


def _paths(module: ModuleType, functions: Mapping[str, Function], path: Path) -> tuple[str, ...]:
    """The paths of bidirectional_fn; none without it."""
    if "bidirectional_fn" not in functions:
        return ()
    paths = getattr(module, "BIDIRECTIONAL_PATHS", (BIDIRECTIONAL_PATH,))
    if isinstance(paths, (list, tuple)) and all(
        isinstance(text, str) and text.startswith("/") for text in paths
    ):
        return tuple(paths)
    raise HandlerError(
        f"{path.name}: BIDIRECTIONAL_PATHS is {paths!r}; expected a list of paths that start with /"
    )


def _import(path: Path) -> ModuleType:
    """Import a file by its name; its directory and ``lib`` beside it come first on sys.path."""
    folder = path.parent
    for entry in (folder / "lib", folder):
        if entry.is_dir() and str(entry) not in sys.path:
            sys.path.insert(0, str(entry))
    name = path.stem if path.stem not in sys.modules else f"byoc_handler_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise HandlerError(f"{path} is no Python module; expected a .py file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        sys.modules.pop(name, None)
        raise HandlerError(f"{path.name} cannot be imported: {explain(error, folder)}") from error
    return module


def explain(error: BaseException, folder: Path | None) -> str:
    """An exception as one line, with the file and line of the user's code that it came from."""
    kind = type(error).__name__
    if isinstance(error, SyntaxError) and error.filename:
        return f"{kind} at {Path(error.filename).name}:{error.lineno}: {error.msg}"
    where = ""
    if folder is not None:
        for frame in traceback.extract_tb(error.__traceback__):
            if Path(frame.filename).is_relative_to(folder):
                where = f" at {Path(frame.filename).relative_to(folder)}:{frame.lineno}"
    lines = [line for line in str(error).splitlines() if line.strip()]
    # torch's own messages end with what matters; others begin with it.
    text = lines[0] if lines else ""
    if text.startswith(("The following operation failed", "Traceback")):
        text = lines[-1].removeprefix(f"{kind}: ")
    return one_line(f"{kind}{where}: {text}", 600)


def _function(name: str, function: Any, path: Path) -> Function:
    if not callable(function):
        raise HandlerError(f"{path.name}: {name} is {type(function).__name__}, not a function")
    plain = ARGUMENTS[name]
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (ValueError, TypeError):
        parameters = []
        return Function(name, function, "", is_async=False)
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    variadic = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    required = [p for p in positional if p.default is p.empty]
    context_by = _context_by(parameters, plain, len(required))
    taken = plain + (1 if context_by == "position" else 0)
    excess = [
        p.name
        for i, p in enumerate(positional)
        if p.default is p.empty and i >= taken and p.name != context_by
    ] + [
        p.name
        for p in parameters
        if p.kind is p.KEYWORD_ONLY and p.default is p.empty and p.name != context_by
    ]
    if excess or (len(positional) < plain and not variadic):
        raise HandlerError(
            f"{path.name}: {name}{inspect.signature(function)} cannot be called with {plain} "
            f"argument{'s' if plain > 1 else ''}, or one more for the context"
        )
    is_async = inspect.iscoroutinefunction(function)
    body = BODY_POSITIONS.get(name, len(positional))
    takes_view = len(positional) > body and positional[body].annotation in (
        memoryview,
        "memoryview",
    )
    is_generator = inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)
    return Function(
        name,
        function,
        context_by,
        is_async=is_async,
        is_generator=is_generator,
        takes_view=takes_view,
    )


def _context_by(parameters: list[inspect.Parameter], plain: int, required: int) -> str:
    """How a function takes the context: "" (not), "position", or the parameter's name."""
    for position, parameter in enumerate(parameters):
        if parameter.name not in _CONTEXT_NAMES:
            continue
        if parameter.kind is parameter.KEYWORD_ONLY:
            return parameter.name
        # A plain argument may be called ctx; only one beyond them is the context.
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD and position >= plain:
            return parameter.name
        if parameter.kind is parameter.POSITIONAL_ONLY and position == plain:
            return "position"
    return "position" if required == plain + 1 else ""
