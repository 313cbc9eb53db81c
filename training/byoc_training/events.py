"""Scalars as TensorBoard reads them.

Written here and not by the package: importing its writer takes longer than many a training's
start-up may, and a file of scalars is three small formats. TFRecord frames (length, its checksum,
data, its checksum; tensorflow/core/lib/io/record_writer.h), ``Event`` and ``Summary`` messages in
protobuf's wire format (field numbers from event.proto and summary.proto), and CRC-32C (RFC 3720,
B.4) with TensorFlow's mask. The tests read the files with TensorBoard itself.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from typing import TYPE_CHECKING

from byoc_training.appended import AppendedFile

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_VERSION = b"brain.Event:2"
#: Castagnoli's polynomial, bits reversed.
_POLYNOMIAL = 0x82F63B78
_SESSION_START = 1


class EventFile:
    """A new file of events in a TensorBoard run's directory.

    Args:
        folder: The directory: one run. It has one writer at a time.
        first_step: What earlier files of the run say from this step on counts no longer: it is
            about to come again. None: all of it counts.
    """

    def __init__(self, folder: Path, first_step: int | None = None) -> None:
        # Readers take the files in the order of their names.
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
        self._file = AppendedFile(folder / name)
        self._first_step = first_step
        self._begun = False

    def scalars(self, values: Mapping[str, float], step: int, seconds: float) -> None:
        """Write numbers of one step.

        Args:
            values: By tag.
            step: From 0.
            seconds: When, since 1970.

        Raises:
            OSError: They cannot be written; nothing of them is.
        """
        records = b""
        if not self._begun:
            records = _record(_event(seconds, 0, _text(3, _VERSION)))
            if self._first_step is not None:
                started = _message(7, _number(1, _SESSION_START))
                records += _record(_event(seconds, self._first_step, started))
        summary = b"".join(
            _message(1, _text(1, tag.encode()) + struct.pack("<Bf", 2 << 3 | 5, _single(value)))
            for tag, value in values.items()
        )
        self._file.append(records + _record(_event(seconds, step, _message(5, summary))))
        self._begun = True

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


def _single(value: float) -> float:
    """What a float32 can hold: infinity for what is beyond."""
    try:
        struct.pack("<f", value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")
    return value


def _event(seconds: float, step: int, rest: bytes) -> bytes:
    return struct.pack("<Bd", 1 << 3 | 1, seconds) + _number(2, step) + rest


def _number(field: int, value: int) -> bytes:
    return bytes([field << 3]) + _varint(value % 2**64)


def _text(field: int, value: bytes) -> bytes:
    return bytes([field << 3 | 2]) + _varint(len(value)) + value


_message = _text


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _record(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return length + _checksum(length) + data + _checksum(data)


def _table_entry(value: int) -> int:
    for _ in range(8):
        value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)
    return value


_TABLE = tuple(map(_table_entry, range(256)))


def _checksum(data: bytes) -> bytes:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    crc ^= 0xFFFFFFFF
    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
    return struct.pack("<I", masked)
