"""``python -m benchmarks SUBJECT [--json]``: measure, and say on what machine."""

import argparse
import json
import os
from importlib import import_module
from typing import Final

SUBJECTS: Final = ("inference", "ingest", "footprint", "director", "escalation", "access", "audit", "lists")

# Before NumPy comes in anywhere: the agent's worker holds it to one thread too.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def main() -> None:
    """Run one benchmark and print what it found."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("subject", choices=SUBJECTS)
    parser.add_argument("--json", action="store_true", help="print one JSON document and nothing else")
    arguments = parser.parse_args()
    machine = import_module("benchmarks.machine")
    began = machine.now()
    results = import_module(f"benchmarks.{arguments.subject}").measure()
    document = {"benchmark": arguments.subject, "results": results, "machine": machine.describe(began)}
    if arguments.json:
        print(json.dumps(document, indent=2))
    else:
        print("\n".join(_lines(document)))


def _lines(document: object, depth: int = 0) -> list[str]:
    """``document`` as indented text, for a person."""
    if not isinstance(document, dict):
        return [f"{'  ' * depth}{document}"]
    lines = []
    for key, value in document.items():
        if isinstance(value, dict):
            lines += [f"{'  ' * depth}{key}", *_lines(value, depth + 1)]
        else:
            lines.append(f"{'  ' * depth}{key}: {value}")
    return lines


if __name__ == "__main__":
    main()
