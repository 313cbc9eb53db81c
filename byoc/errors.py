"""Errors of ``byoc``.

ByocError                 exit code 1
├── PackagingError        3   a model archive that SageMaker would refuse
├── RunnerError           4   ``train`` or ``serve`` cannot be started here
├── EngineError           5   no Docker engine here that can do what is asked
├── BuildError            6   an image cannot be built
├── BudgetError           7   an image is larger than the repository allows
└── LocalError            8   the local endpoint cannot run, or does not
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


class EngineError(ByocError):
    """No Docker engine here that can do what is asked."""

    exit_code = 5


class BuildError(ByocError):
    """An image cannot be built."""

    exit_code = 6


class BudgetError(ByocError):
    """An image is larger than the repository allows."""

    exit_code = 7


class LocalError(ByocError):
    """The local endpoint cannot run, or does not."""

    exit_code = 8
