"""What a client says on a WebSocket, on its way to a model process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from byoc_serving import wire
from byoc_serving.conversation import INBOX_BYTES, INBOX_MESSAGES

if TYPE_CHECKING:
    from collections.abc import Callable

    from byoc_serving.conversation import Messages


class Forwarding:
    """Sends messages on as far as the handler keeps up: what is sent and not taken is bounded.

    The rest waits in ``messages``, and then the client does. Used in the front's loop alone.

    Args:
        identifier: of the bidirectional stream.
        messages: from the client.
        control: sends a message to the model process.
    """

    def __init__(
        self, identifier: int, messages: Messages, control: Callable[[wire.Message], None]
    ) -> None:
        self._identifier = identifier
        self._messages = messages
        self._control = control
        self._untaken_messages = self._untaken_bytes = 0
        self._over = False
        messages.listen(self._forward)

    def taken(self, messages: int, size: int) -> None:
        """The handler has taken so many messages, of so many bytes in all."""
        self._untaken_messages -= messages
        self._untaken_bytes -= size
        self._forward()

    def end(self) -> None:
        """The stream has ended: whatever comes has nobody to read it."""
        self._over = True

    def _forward(self) -> None:
        messages = self._messages
        while (
            not self._over
            and self._untaken_messages < INBOX_MESSAGES
            and self._untaken_bytes < INBOX_BYTES
            and (message := messages.take()) is not None
        ):
            self._untaken_messages += 1
            self._untaken_bytes += len(message)
            self._control((wire.SAY, self._identifier, message))
        if not self._over and messages.over:
            self._over = True
            self._control((wire.HUSH, self._identifier))
