"""``python -m firmware_profiles schema`` prints the JSON Schema that ``docs/`` holds a copy of."""

import json
import sys
from collections.abc import Sequence

from firmware_profiles.schema import json_schema
from fleet_protocol.texts import _


def main(arguments: Sequence[str]) -> int:
    """Print the schema; 2 for any other wish."""
    if list(arguments) != ["schema"]:
        sys.stderr.write(_("usage: python -m firmware_profiles schema") + "\n")
        return 2
    sys.stdout.write(json.dumps(json_schema(), indent=2, sort_keys=True) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
