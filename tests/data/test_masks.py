"""Recorded masks: a row that no policy could have acted on is refused by its number."""

import numpy as np
import pytest

import duologue as dl
from duologue.data.dataset import from_columns
from duologue.loops.offline import prepare_data
from duologue.types import ACTION_MASK, Box, Dict, Discrete, EnvSpec

N = 12
COLUMN = f"observations/{ACTION_MASK}"


def columns(**changes):
    """Episodes of four rows. The mask allows the action and one more."""
    action = np.arange(N) % 3
    masks = np.eye(3, dtype=np.int8)[action] | np.int8([0, 0, 1])
    made = {
        "observations/x": np.arange(2.0 * N, dtype=np.float32).reshape(N, 2), COLUMN: masks,
        "actions": action, "rewards": np.ones(N, np.float32), "terminals": np.arange(N) % 4 == 3,
    }  # fmt: skip
    return made | changes


def with_row(row, mask, dtype=np.float32):
    masks = columns()[COLUMN].astype(dtype)
    masks[row] = mask
    return columns(**{COLUMN: masks})


@pytest.mark.parametrize(
    ("row", "mask", "words"),
    [
        (
            5,
            [0, 0, 0],
            r"1 of 12 rows cannot mask an action. .* row 5, with the action_mask \[0 0 0\], which",
        ),
        (0, [1, -1, 1], r"row 0, with the action_mask \[1 -1 1\]: each entry must be 1"),
        (11, [2, 1, 1], r"row 11, with the action_mask \[2 1 1\]"),
        (slice(3, 5), [0.5, 1, 1], r"2 of 12 rows cannot .* row 3, with the action_mask \[0\.5 1 1\]"),
        (7, [np.nan, 1, 1], r"column 'observations/action_mask' holds 1 NaN or infinite values, the first in row 7"),
    ],
)
def test_a_row_without_a_mask_is_refused_at_reading(row, mask, words):
    with pytest.raises(dl.ConfigError, match=words):
        from_columns(with_row(row, mask))


@pytest.mark.parametrize("start", [0, 5])
def test_a_recorded_action_that_its_mask_forbids_is_refused_before_learning(start):
    spec = EnvSpec("own", Dict({"x": Box((2,)), ACTION_MASK: Box((3,), "int8")}), Discrete(3, start=start))
    right = columns()
    right["actions"] = right["actions"] + start
    assert prepare_data(dl.BC(), from_columns(right, spec=spec)).data.spec.action == Discrete(3, start=start)
    wrong = with_row(slice(4, 6), [1, 0, 0], np.int8)  # rows 4 and 5 took 1 and 2
    wrong["actions"] = right["actions"]
    words = rf"2 of 12 rows have an action that the action_mask of the row forbids. .* row 4, with action {1 + start}\."
    with pytest.raises(dl.ConfigError, match=words):
        prepare_data(dl.BC(), from_columns(wrong, spec=spec))


def test_the_successor_of_an_end_may_allow_nothing():
    given = columns()
    after = {name: np.roll(given[f"observations/{name}"], -1, 0) for name in ("x", ACTION_MASK)}
    after[ACTION_MASK][given["terminals"]] = 0
    data = from_columns(given | {f"next_observations/{name}": x for name, x in after.items()})
    assert len(prepare_data(dl.BC(), data).data) == N


def test_masks_tell_the_number_of_actions():
    given = columns(actions=np.zeros(N, np.int64), **{COLUMN: np.ones((N, 4), np.int8)})
    data = from_columns(given)
    assert data.spec.action == Discrete(4)
    assert "Assumed: there are 4 discrete actions, as many as a mask has entries." in data.notes
    assert from_columns(columns(actions=np.full(N, 6), **{COLUMN: np.ones((N, 4), np.int8)})).spec.action == Discrete(7)
