"""Errors of ``byoc``.

ByocError                 exit code 1
├── PackagingError        3   a model archive that SageMaker would refuse
├── RunnerError           4   ``train`` or ``serve`` cannot be started here
├── EngineError           5   no Docker engine here that can do what is asked
├── BuildError            6   an image cannot be built
├── BudgetError           7   an image is larger than the repository allows
├── LocalError            8   the local endpoint cannot run, or does not
├── SettingsError         9   what was asked for is incomplete, wrong, or contradicts itself
├── CredentialsError     10   AWS does not know who asks, or does not let them
├── UnreachableError     11   no answer from AWS, or from the endpoint in its place
├── RequestError         12   AWS refused a request
├── NotFoundError        13   there is nothing of that name
├── FailedError          14   a job or an endpoint ended otherwise than asked
├── CombinationError     15   an image that cannot start on that instance
├── RegistryError        16   an image cannot be pushed, or arrived as SageMaker refuses it
├── InvocationError      17   a model answered with an error
└── DoctorError          18   something on this machine or in the account has to be mended

Besides: 2, wrong usage, as click says it; 70, a fault of byoc's own; 130, Ctrl-C.
"""

#: Exit code of what should never happen.
FAULT = 70
#: As a shell reports a program that Ctrl-C has ended.
INTERRUPTED = 130


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


class SettingsError(ByocError):
    """What was asked for is incomplete, wrong, or contradicts itself."""

    exit_code = 9


class CredentialsError(ByocError):
    """AWS does not know who asks, or does not let them."""

    exit_code = 10


class UnreachableError(ByocError):
    """No answer from AWS, or from the endpoint in its place."""

    exit_code = 11


class RequestError(ByocError):
    """AWS refused a request."""

    exit_code = 12


class NotFoundError(ByocError):
    """There is nothing of that name."""

    exit_code = 13


class FailedError(ByocError):
    """A job or an endpoint ended otherwise than asked."""

    exit_code = 14


class CombinationError(ByocError):
    """An image that cannot start on that instance."""

    exit_code = 15


class RegistryError(ByocError):
    """An image cannot be pushed, or arrived in a form that SageMaker refuses."""

    exit_code = 16


class InvocationError(ByocError):
    """A model answered with an error."""

    exit_code = 17


class DoctorError(ByocError):
    """Something on this machine or in the account has to be mended."""

    exit_code = 18
