"""Make the models again: ``python -m use_cases.water_network.training [leak] [leak_2] [central] [flow]``."""

import argparse
from collections.abc import Callable
from functools import partial

from use_cases.water_network.training import central, flow, leak

_MODELS: dict[str, Callable[[], None]] = {
    "leak": partial(leak.make, leak.FIRST),
    "leak_2": partial(leak.make, leak.SECOND),
    "central": central.make,
    "flow": flow.make,
}


def main() -> None:
    """Make the models that are named, or all."""
    parser = argparse.ArgumentParser(prog="python -m use_cases.water_network.training", description=__doc__)
    parser.add_argument("models", nargs="*", choices=[[], *_MODELS], help="all if none is named")
    for name in parser.parse_args().models or _MODELS:
        _MODELS[name]()


if __name__ == "__main__":
    main()
