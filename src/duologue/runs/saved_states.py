"""The states that a run saves: the newest states, and the state of the best evaluation."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from duologue.data import ring as rings
from duologue.errors import CheckpointError
from duologue.loops.state import LoopState
from duologue.runs.rows import RowWriter
from duologue.storage import checkpoint, files


class SavedStates:
    """Saves states of a loop to `checkpoints/latest` and `checkpoints/best` of a run folder."""

    def __init__(self, path: Path):
        self.latest, self.best = path / "checkpoints" / "latest", path / "checkpoints" / "best"
        self.best_score = read_best_score(self.best)
        """Score of the best evaluation so far, −∞ before the first."""
        self._saved: int | None = None

    def save(self, state: LoopState, step: int) -> None:
        """Save the newest state; a second call for the same step does nothing."""
        if step != self._saved:
            write_state(self.latest, state, step)
            self._saved = step

    def save_best(self, state: LoopState, step: int, score: float) -> None:
        """Save the state of the best evaluation so far, and delete the earlier state. It has no replay, because only
        its policy is ever read."""
        if (worse := checkpoint.checkpoint_path(self.best, step)).exists():  # the same step, before an inexact resume
            files.discard(worse)
        path = write_state(self.best, replace(state, replay=None), step, score=score)
        self.best_score = score
        for other in self.best.glob("step-*"):  # after a resume an earlier step may be the better one
            if other != path:
                files.discard(other)

    @contextmanager
    def save_on_failure(self, state: LoopState, step: int, rows: RowWriter) -> Iterator[None]:
        """A context that saves the state where its body raises: an evaluation, a logger or a callback."""
        try:
            yield
        except BaseException:
            try:
                rows.sync()
            finally:
                self.save(state, step)
            raise


def read_best_score(directory: Path) -> float:
    """Score of the best evaluation in a run folder, −∞ where there is none."""
    try:
        return checkpoint.read_manifest(checkpoint.find_latest(directory)[0]).info["score"]
    except CheckpointError:
        return -np.inf


def write_state(directory: Path, state: LoopState, step: int, *, score: float | None = None) -> Path:
    """Write a checkpoint, and keep the two newest."""
    packed = state if state.replay is None else replace(state, replay=rings.pack(state.replay))
    path = checkpoint.save_tree(directory, step, packed, info={"score": score}, check=state.algorithm)
    checkpoint.prune(directory, keep=2)
    return path


def read_state(path: Path, like: LoopState) -> LoopState:
    """The state in a checkpoint, for a run whose first state is `like`. Arrays from which Gymnasium environments are
    restored may have any shape. Raises `CheckpointError`."""
    if like.replay is None:
        return checkpoint.load_tree(path, like)
    state = checkpoint.load_tree(path, replace(like, replay=rings.open_template(like.replay)))
    try:
        return replace(state, replay=rings.unpack(state.replay, like.replay))
    except ValueError as error:
        raise CheckpointError(f"{path} holds a replay that does not fit this run: {error}.") from error
