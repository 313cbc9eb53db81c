"""From the model's output to the response: output_fn, the user's or ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from byoc_serving.context import header_value
from byoc_serving.decoding import answer_type
from byoc_serving.errors import RequestError
from byoc_serving.exchange import Invocation, Response
from byoc_serving.faults import classify
from byoc_serving.negotiation import choose, media_type
from byoc_serving.streams import Generation, Streams, discard, is_stream

if TYPE_CHECKING:
    from collections.abc import Callable

    from byoc_serving.context import Context
    from byoc_serving.handler import Handler
    from byoc_serving.settings import Settings


class Writer:
    """Writes the responses of one model.

    Args:
        handler: the user's functions.
        settings: the server's.
        streams: where responses that are made while they are sent run.
        encode: a prediction and a type of ours to a body; None: our codecs.
    """

    def __init__(
        self,
        handler: Handler,
        settings: Settings,
        streams: Streams,
        encode: Callable[[Any, str], Any] | None = None,
    ) -> None:
        self._handler = handler
        self._settings = settings
        self._streams = streams
        self._encode = encode or _encode

    def accept(self, invocation: Invocation) -> str:
        """The type to answer in.

        Raises:
            NotAcceptableError: none of ours is accepted.
        """
        if not invocation.answer_type:
            invocation.answer_type = answer_type(
                invocation,
                self._settings.default_accept,
                own_output=not self._handler.encodes_itself,
                line_for_line=self._settings.batch,
            )
        return invocation.answer_type

    def write(self, invocation: Invocation, prediction: Any, context: Context) -> Response:
        """The response for what predict_fn or the model returned.

        Raises:
            Exception: whatever the user's output_fn raises, and the codecs' errors.
        """
        output = self._handler.output_fn
        if is_stream(prediction) and not (output and output.is_generator):
            return self.streamed(invocation, prediction, context)
        accept = self.accept(invocation)
        if output:
            prediction = output(context, prediction, accept)
        if is_stream(prediction):
            return self.streamed(invocation, prediction, context, whole=True)
        return self.response(prediction, accept, context)

    def streamed(
        self, invocation: Invocation, items: Any, context: Context, *, whole: bool = False
    ) -> Response:
        """A response whose items are made while it is sent.

        Args:
            invocation: the request.
            items: what the handler's function returned.
            context: the request's.
            whole: the items have been through output_fn or transform_fn already; otherwise
                output_fn gets them one by one.
        """
        output = None if whole else self._handler.output_fn
        convert = None
        if output is not None:
            accept = self.accept(invocation)

            def convert(item: Any) -> Any:
                return output(context, item, accept)

        stage = "output" if whole and self._handler.output_fn else "predict"
        generation = Generation(
            items,
            context,
            invocation.request_id,
            invocation.accept,
            convert,
            lambda error: classify(
                stage, error, invocation, default_predict=self._handler.default_predict
            ),
        )
        try:
            return Response(200, stream=self._streams.start(generation.run))
        except RequestError:
            discard(items)
            raise

    def response(self, result: Any, accept: str, context: Context) -> Response:
        """What output_fn or the default gave: (body, type), bytes, str, or something to encode."""
        from byoc_serving import codecs  # noqa: PLC0415 - numpy is imported by now

        kind = accept
        users = bool(self._handler.output_fn or self._handler.transform_fn)
        if users and isinstance(result, tuple) and len(result) == 2:
            second = result[1]
            if isinstance(second, str) and "/" in second:
                result, kind = result[0], _content_type(second)
        if users and isinstance(result, str):
            body = result.encode()
        elif isinstance(result, (bytes, bytearray, memoryview)):
            body = bytes(result)
        else:
            if media_type(kind) not in codecs.OUTPUT_TYPES:
                kind = choose(kind, codecs.OUTPUT_TYPES, "application/json")
            body = self._encode(result, kind)
        context.save()
        return Response(
            context.response_status or 200,
            body,
            context.response_content_type or kind,
            context.headers(),
        )


def _content_type(value: str) -> str:
    try:
        return header_value(value)
    except ValueError as error:
        # A bug of the handler wherever it returned it: a ValueError of predict_fn's would be
        # taken for its opinion of the input.
        raise TypeError(f"content type {value[:60]!r}: {error}") from None


def _encode(prediction: Any, kind: str) -> bytes:
    from byoc_serving import codecs  # noqa: PLC0415 - numpy is imported by now

    return codecs.encode(prediction, kind)
