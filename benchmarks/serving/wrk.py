"""One run of wrk, with its Lua script written for the bodies at hand."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

#: Bodies take turns; the summary is one line of JSON on standard error.
_SCRIPT = """\
local requests, turn = {}, 0
init = function(args)
  for number = 1, %(count)d do
    local file = assert(io.open(string.format("%(folder)s/body-%%d", number), "rb"))
    requests[number] = wrk.format("POST", %(route)s, {%(headers)s}, file:read("*a"))
    file:close()
  end
end
request = function()
  turn = turn %% #requests + 1
  return requests[turn]
end
done = function(summary, latency)
  local errors = summary.errors
  io.stderr:write(string.format(
    '{"requests":%%d,"duration_us":%%d,"p50_us":%%d,"p99_us":%%d,"status":%%d,"socket":%%d}\\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
"""


@dataclass(frozen=True)
class Load:
    """What wrk saw.

    Attributes:
        rate: right answers a second: those with an error status are taken off.
        p50_ms: median latency; p99_ms: the 99th percentile. wrk is a closed loop, so neither
            counts the time that a request could not be sent.
        errors: answers with a status of 400 or more, and broken or timed out connections.
    """

    rate: float
    p50_ms: float
    p99_ms: float
    errors: int


def run(
    url: str,
    route: str,
    requests: Sequence[tuple[bytes, Mapping[str, str]]],
    folder: Path,
    connections: int,
    seconds: float,
    threads: int = 1,
) -> Load:
    """Put load on a server.

    Args:
        url: ``http://host:port``.
        route: the path.
        requests: bodies and headers; the headers are the first one's but for its length.
        folder: where the script may be written.
        connections: kept alive, divided among the threads.
        seconds: whole ones.
        threads: wrk's.

    Raises:
        RuntimeError: wrk failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for number, (body, _) in enumerate(requests, 1):
        (folder / f"body-{number}").write_bytes(body)
    headers = ",".join(f"[{json.dumps(k)}]={json.dumps(v)}" for k, v in requests[0][1].items())
    script = folder / "load.lua"
    script.write_text(
        _SCRIPT
        % {
            "count": len(requests),
            "folder": folder,
            "route": json.dumps(route),
            "headers": headers,
        }
    )
    command = ["wrk", f"-t{threads}", f"-c{connections}", f"-d{max(1, round(seconds))}s"]
    command += ["--timeout", "20s"]
    done = subprocess.run(
        [*command, "-s", str(script), url], capture_output=True, text=True, check=False
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith('{"requests"')]
    if done.returncode or not lines:
        raise RuntimeError(f"wrk failed: {(done.stderr or done.stdout).strip()[-300:]}")
    seen = json.loads(lines[-1])
    good = seen["requests"] - seen["status"]
    return Load(
        rate=good / (seen["duration_us"] / 1e6),
        p50_ms=seen["p50_us"] / 1e3,
        p99_ms=seen["p99_us"] / 1e3,
        errors=seen["status"] + seen["socket"],
    )
