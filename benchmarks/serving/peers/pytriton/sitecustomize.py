"""Triton's stub brings an interpreter of its own, older than the standard library around it.

Some patch releases of Python ask a lock for its recursion count, which the older interpreter's
built-in lock does not have; the pure Python lock does. Without this the model does not load.
"""

import threading
from multiprocessing import resource_tracker

if not hasattr(threading.RLock(), "_recursion_count"):
    resource_tracker._resource_tracker._lock = threading._PyRLock()
