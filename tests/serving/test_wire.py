from __future__ import annotations

import socket

from hypothesis import given, settings
from hypothesis import strategies as st

from byoc_serving import wire
from byoc_serving.link import Link

VALUES = st.recursive(
    st.none() | st.integers() | st.binary(max_size=50) | st.text(max_size=20) | st.booleans(),
    lambda inner: st.tuples(inner, inner),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.tuples(VALUES, VALUES), max_size=4), max_size=4), st.integers(1, 40))
def test_messages_come_out_as_they_went_in_however_the_bytes_are_cut(batches, step):
    data = b"".join(wire.frame(batch) for batch in batches)
    reader = wire.Reader()
    found = []
    for start in range(0, len(data), step):
        found += reader.feed(data[start : start + step])
    assert found == [message for batch in batches for message in batch]


def test_link_that_is_not_read_blocks_and_goes_on_where_it_stopped():
    ours, theirs = socket.socketpair()
    ours.settimeout(0)
    theirs.settimeout(0)
    sender, receiver = Link(ours), Link(theirs)
    message = (wire.RUN, 1, b"x" * 4_000_000)
    sender.queue(message)
    assert not sender.flush()
    found: list[wire.Message] = []
    alive = True
    while not found:
        messages, alive = receiver.receive()
        found += messages
        sender.flush()
    assert found == [message]
    assert alive
    sender.close()
    assert receiver.receive() == ([], False)
    receiver.queue(message)
    assert receiver.flush()
    receiver.close()
