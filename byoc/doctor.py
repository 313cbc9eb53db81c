"""A look at this machine and at the account: what is well, what is not, and how to mend it.

Every check only reads. They run side by side and have ten seconds together; what has not answered
by then is said to have not answered.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from byoc import account_checks, machine_checks
from byoc.errors import ByocError
from byoc.findings import NOTE, WRONG, Finding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from byoc.findings import Patient

#: For all checks together.
SECONDS = 9.0
CHECKS: dict[str, Callable[[Patient], list[Finding]]] = {
    "engine": machine_checks.engine,
    "GPU": machine_checks.gpu,
    "disk": machine_checks.disk,
    "images": machine_checks.images,
    "credentials": account_checks.credentials,
    "role": account_checks.role,
    "bucket": account_checks.bucket,
    "ECR": account_checks.registry,
    "quotas": account_checks.quotas,
}


def examine(patient: Patient, seconds: float = SECONDS) -> Iterator[Finding]:
    """Run all checks; their findings come in a fixed order, as soon as they can.

    Args:
        patient: What is examined.
        seconds: For all together.
    """
    found: dict[str, list[Finding]] = {}
    done = {name: threading.Event() for name in CHECKS}

    def run(name: str, check: Callable[[Patient], list[Finding]]) -> None:
        try:
            found[name] = check(patient)
        except ByocError as error:
            seen, _, fix = str(error).partition("; ")
            found[name] = [Finding(name, WRONG, seen, fix)]
        except Exception as error:  # noqa: BLE001 - one check's fault is not the others'
            found[name] = [
                Finding(name, NOTE, f"could not be looked at ({' '.join(str(error).split())})")
            ]
        done[name].set()

    for name, check in CHECKS.items():
        threading.Thread(target=run, args=(name, check), daemon=True).start()
    until = time.monotonic() + seconds
    for name in CHECKS:
        if done[name].wait(max(0.0, until - time.monotonic())):
            yield from found[name]
        else:
            yield Finding(name, NOTE, f"no answer within {seconds:.0f} s", "check the network")
