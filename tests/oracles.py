"""Second opinions: other people's code, imported past its own warnings."""

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import rlax

__all__ = ["rlax"]
