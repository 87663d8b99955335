"""Other people's packages: skip a test that needs one where it is missing, or import it past its own warnings."""

import importlib.util
import warnings
from types import ModuleType

import pytest


def require(name: str) -> None:
    """Skip the running test, with a reason, where a package is not installed."""
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"needs {name}")


def import_rlax() -> ModuleType:
    """rlax, for second opinions on returns."""
    require("rlax")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import rlax
    return rlax
