"""Make the models again: ``python -m use_cases.water_network.training [leak] [flow]``."""

import argparse

from use_cases.water_network.training import flow, leak

_MODELS = {"leak": leak.make, "flow": flow.make}


def main() -> None:
    """Make the models that are named, or both."""
    parser = argparse.ArgumentParser(prog="python -m use_cases.water_network.training", description=__doc__)
    parser.add_argument("models", nargs="*", choices=[[], *_MODELS], help="leak, flow; both if none is named")
    for name in parser.parse_args().models or _MODELS:
        _MODELS[name]()


if __name__ == "__main__":
    main()
