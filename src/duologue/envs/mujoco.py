"""MuJoCo's warnings, each said once, however many environments are made of a model that it warns of."""

import sys


def warn_once() -> None:
    """Print each warning of MuJoCo once, where it is loaded. By itself it prints every one, and adds it to a file in
    the current folder. Does nothing where somebody listens already."""
    mujoco = sys.modules.get("mujoco")
    if mujoco is None or mujoco.get_mju_user_warning() is not None:
        return
    said: set[str] = set()

    def say(warning: str) -> None:
        if warning not in said:
            said.add(warning)
            print(f"MuJoCo: {warning}", file=sys.stderr)

    mujoco.set_mju_user_warning(say)
