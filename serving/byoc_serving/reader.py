"""From a request's body to the model's input: input_fn, the user's or ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from byoc_serving.decoding import decode
from byoc_serving.errors import BadBodyError
from byoc_serving.negotiation import media_type

if TYPE_CHECKING:
    from byoc_serving.context import Context
    from byoc_serving.exchange import Invocation
    from byoc_serving.handler import Function, Handler


class Reader:
    """Reads the requests of one model.

    Args:
        handler: the user's functions.
        device: where our own input_fn puts its tensors: ``cuda:0`` for a predict_fn of the
            user's on a GPU; ``cpu`` otherwise: for our own they wait here until their pass.
    """

    def __init__(self, handler: Handler, device: str) -> None:
        self._input = handler.input_fn
        self._device = device

    def read(self, invocation: Invocation, context: Context) -> Any:
        """The input: what the user's input_fn returns, or a tensor of the array in the body.

        Raises:
            Exception: whatever the user's function raises, and the errors of ``decode``.
        """
        if self._input:
            body = body_for(self._input, invocation)
            return self._input(context, body, invocation.content_type)
        if invocation.data is None:
            decode(invocation)
        import torch  # noqa: PLC0415 - imported by now

        tensor = torch.from_numpy(invocation.data)
        invocation.data = None
        return tensor if self._device == "cpu" else tensor.to(self._device)


def body_for(function: Function, invocation: Invocation) -> bytes | str | memoryview:
    """A body as a function of the user's wants it.

    As the toolkit has it: str for text types, bytes for the others. Without a copy, whatever the
    type, where the function's parameter says ``memoryview``.
    """
    from byoc_serving import codecs  # noqa: PLC0415 - numpy is imported by now

    if function.takes_view:
        return memoryview(invocation.body)
    if media_type(invocation.content_type) not in codecs.TEXT_TYPES:
        return bytes(invocation.body)
    try:
        return str(invocation.body, "utf-8")
    except UnicodeDecodeError as error:
        raise BadBodyError(
            f"not UTF-8: byte {error.start} is {invocation.body[error.start]:#04x}; "
            f"{invocation.content_type} is text"
        ) from None
