"""Asks ``/ping`` many times a second from a process of its own; prints what it saw as JSON."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import sys
import time

from benchmarks.load import quantile


def main() -> None:
    """Arguments: port, seconds, pings a second, seconds that only the maximum counts."""
    with contextlib.suppress(OSError):
        # It stands for a machine of its own: the clients beside it must not keep it waiting.
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    port, seconds, per_s, fill_s = int(sys.argv[1]), *map(float, sys.argv[2:5])
    began = time.monotonic()
    latencies: list[float] = []
    bad = 0
    connection: http.client.HTTPConnection | None = None
    for number in range(int(seconds * per_s)):
        due = began + number / per_s
        time.sleep(max(0.0, due - time.monotonic()))
        if time.monotonic() > began + seconds:
            break
        try:
            connection = connection or http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            connection.request("GET", "/ping")
            response = connection.getresponse()
            response.read()
            bad += response.status != 200
        except (OSError, http.client.HTTPException):
            bad += 1
            if connection:
                with contextlib.suppress(OSError):
                    connection.close()
            connection = None
        # From when it was due: a ping that keeps the next one waiting is late twice.
        latencies.append(time.monotonic() - due)
    steady = sorted(latencies[int(fill_s * per_s) :])
    figures = {
        "p50_ms": round(1e3 * quantile(steady, 0.5), 2),
        "p99_ms": round(1e3 * quantile(steady, 0.99), 2),
        "max_ms": round(1e3 * max(latencies), 2),
    }
    print(json.dumps({"pings": len(latencies), "bad": bad, **figures}))


if __name__ == "__main__":
    main()
