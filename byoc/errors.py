"""Errors of ``byoc``.

ByocError                 exit code 1
├── PackagingError        3   a model archive that SageMaker would refuse
└── RunnerError           4   ``train`` or ``serve`` cannot be started here
"""


class ByocError(Exception):
    """What was seen, what was expected, what to do: one line."""

    exit_code = 1


class PackagingError(ByocError):
    """A model archive that SageMaker would refuse, or that cannot be read or written."""

    exit_code = 3


class RunnerError(ByocError):
    """``train`` or ``serve`` cannot be started here."""

    exit_code = 4
