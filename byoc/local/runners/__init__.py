"""Run ``train`` and ``serve`` here: as processes of this environment, or as the images' containers.

Both runners give the program the same contract: its root at ``/opt/ml`` (``BYOC_ROOT`` moves it for
a process), one word as its command, SIGTERM to stop.
"""
