"""MuJoCo's warnings, each said once, however many environments are made of a model that it warns of."""

import sys


def warn_once() -> None:
    """Let MuJoCo, where it is loaded, hand its warnings to this process instead of writing them, and a file of them in
    the current folder. Whoever listens already goes on to."""
    mujoco = sys.modules.get("mujoco")
    if mujoco is None or mujoco.get_mju_user_warning() is not None:
        return
    said: set[str] = set()

    def say(warning: str) -> None:
        if warning not in said:
            said.add(warning)
            print(f"MuJoCo: {warning}", file=sys.stderr)

    mujoco.set_mju_user_warning(say)
