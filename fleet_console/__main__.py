"""``fleet``: the command line. What was asked for goes to stdout, complaints to stderr."""

import sys

from fleet_console.commands.root import app
from fleet_console.errors import ConsoleError
from fleet_signing.errors import SigningError


def main() -> int:
    """Run one command; the exit code, as ``fleet --help`` lists them."""
    try:
        app()
    except ConsoleError as error:
        print(f"fleet: {error}", file=sys.stderr)  # noqa: T201 - it is a command
        return error.exit_code
    except SigningError as error:
        print(f"fleet: {error}", file=sys.stderr)  # noqa: T201
        return ConsoleError.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
