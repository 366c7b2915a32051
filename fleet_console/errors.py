"""The errors of the console, each with the exit code that a script sees.

::

    ConsoleError         1  refused or failed
    ├── Absent           1  there is no such thing
    ├── UsageError       2  the command line lacks something
    └── Unreachable      3  the server does not answer
"""

from typing import ClassVar


class ConsoleError(Exception):
    """It could not be done; the message says what to do."""

    exit_code: ClassVar = 1


class UsageError(ConsoleError):
    """The command line lacks something that only its writer knows."""

    exit_code: ClassVar = 2


class Unreachable(ConsoleError):  # noqa: N818 - what the server is
    """The server does not answer."""

    exit_code: ClassVar = 3


class Absent(ConsoleError):  # noqa: N818 - what it is
    """There is no such device, rollout or part; the message says of whom."""
