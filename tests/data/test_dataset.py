"""What recorded data says comes out as it was meant: no successor of another episode, no time limit taken for a death,
and nothing changed without a word."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from duologue.data import dataset
from duologue.data import ring as rings
from duologue.data.recording import parse_env
from duologue.data.summary import data_card
from duologue.data.writing import file_metadata
from duologue.errors import ConfigError
from duologue.types import Box, Dict, Discrete, EnvSpec, MultiDiscrete

ENV = EnvSpec("env", Box((2,)), Box((1,), "float32", (-1.0,), (1.0,)))


def numbered(n, **changes):
    """Rows whose observations are `[t, -t]`, each the successor of the one before; `None` leaves a column out."""
    obs = np.stack([np.arange(n), -np.arange(n)], -1).astype(np.float32)
    columns = {
        "observations": obs, "actions": np.linspace(-0.5, 0.5, n, dtype=np.float32)[:, None],
        "rewards": np.arange(n, dtype=np.float32), "terminals": np.zeros(n, bool), "timeouts": np.zeros(n, bool),
        "next_observations": obs + np.float32([1, -1]),
    } | changes  # fmt: skip
    return {name: column for name, column in columns.items() if column is not None}


def at(n, *rows):
    return np.isin(np.arange(n), rows)


def build(n, **changes):
    return dataset.from_columns(numbered(n, **changes))


def flags(data):
    """Terminated and truncated rows."""
    return np.flatnonzero(data.rows.terminated).tolist(), np.flatnonzero(data.rows.truncated).tolist()


def noted(data, words):
    return any(words in note for note in data.notes)


# Successors and cuts


def test_a_successor_may_be_off_by_what_rounding_does_and_no_more():
    """A thousandth is a break; at 10,000 three millionths of it are none."""
    near = numbered(6)["next_observations"]
    near[2] += 1e-3
    assert flags(build(6, next_observations=near))[1] == [2, 5]
    far = numbered(6)["observations"] + np.float32(1e4)
    off = (far + np.float32([1, -1])) * np.float32(1 + 3e-6)
    assert flags(build(6, observations=far, next_observations=off))[1] == [5]


def test_the_files_own_successors_are_kept():
    data = build(4, terminals=at(4, 1), timeouts=at(4, 3))
    np.testing.assert_array_equal(data.rows.next_obs, numbered(4)["next_observations"])
    assert flags(data) == ([1], [3]) and data.cut == ()
    assert data.rows.extras == {} and len(data) == 4 and data.nbytes == 4 * (2 * 4 + 4 + 4 + 2 + 2 * 4)


def test_without_successors_a_time_limits_row_is_dropped_and_the_row_before_cut():
    data = build(6, timeouts=at(6, 2, 5), next_observations=None)
    assert data.rows.reward.tolist() == [0, 1, 3, 4]
    assert data.rows.next_obs[:, 0].tolist() == [1, 2, 4, 5]
    assert flags(data) == ([], [1, 3]) and data.cut == ()
    assert noted(data, "2 of 6 rows ended by time limit")


def test_without_successors_a_terminal_row_keeps_its_own_observation():
    data = build(5, terminals=at(5, 2, 4), next_observations=None)
    assert data.rows.next_obs[:, 0].tolist() == [1, 2, 2, 4, 4]
    assert flags(data) == ([2, 4], [])


def test_without_successors_the_unfinished_last_row_is_dropped():
    data = build(5, terminals=at(5, 1), next_observations=None)
    assert data.rows.reward.tolist() == [0, 1, 2, 3]
    assert flags(data) == ([1], [3]) and data.cut == (3,) and noted(data, "last episode is unfinished")
    after_terminal = build(3, terminals=at(3, 1), next_observations=None)
    assert flags(after_terminal) == ([1], []) and len(after_terminal) == 2 and after_terminal.cut == ()


def test_a_drop_after_a_terminal_leaves_it_terminal():
    data = build(5, terminals=at(5, 1), timeouts=at(5, 2, 4), next_observations=None)
    assert data.rows.reward.tolist() == [0, 1, 3] and flags(data) == ([1], [2])


def test_no_row_with_a_successor_is_refused():
    with pytest.raises(ConfigError, match="no row has a successor"):
        build(2, timeouts=at(2, 0, 1), next_observations=None)


def test_with_successors_the_unfinished_last_episode_is_cut():
    data = build(3)
    assert (
        len(data) == 3 and flags(data) == ([], [2]) and data.cut == (2,) and noted(data, "last episode is unfinished")
    )


@pytest.mark.parametrize("known", [True, False])
def test_where_the_next_observation_is_another_the_episode_is_cut(known):
    following = numbered(6)["next_observations"]
    following[2] += 0.5
    following[4] *= np.float32(1 + 1e-6)
    data = build(6, next_observations=following, terminals=at(6, 5), timeouts=at(6) if known else None)
    assert flags(data) == ([5], [2]) and data.cut == ((2,) if known else ())
    assert noted(data, "1 of 6 rows have a successor that differs") and noted(data, "no column timeouts") is not known


def test_neither_timeouts_nor_successors_is_said():
    assert noted(build(3, timeouts=None, next_observations=None), "cannot be found")


def test_a_time_limit_whose_successor_is_the_next_row_is_said():
    assert noted(build(4, timeouts=at(4, 1, 3)), "1 of 4 rows have the next row's observation")


# Flags


def test_time_limits_that_are_all_terminals_too_are_time_limits():
    columns = numbered(6, terminals=at(6, 1, 2, 5), timeouts=at(6, 2, 5))
    data = dataset.from_columns(columns)
    assert flags(data) == ([1], [2, 5]) and noted(data, "read as time limits")
    data = dataset.from_columns(columns, timeout_and_terminal="terminal")
    assert flags(data) == ([1, 2, 5], []) and noted(data, "2 of 6 rows are both")


def test_where_only_some_are_both_the_terminal_wins():
    data = build(6, terminals=at(6, 2), timeouts=at(6, 2, 5))
    assert flags(data) == ([2], [5]) and noted(data, "1 of 6 rows are both")


def test_both_must_be_one_of_two(unchecked):
    with pytest.raises(ConfigError, match="timeout_and_terminal = 'neither'"):
        dataset.from_columns(numbered(3), timeout_and_terminal="neither")


# Columns

BAD = {
    "no-terminals": ({"terminals": None}, "no column 'terminals'.*np.zeros"),
    "no-rewards": ({"rewards": None}, "no column 'rewards'"),
    "nan": ({"rewards": np.array([0, 1, np.nan, np.inf])}, "'rewards' holds 2 NaN or infinite values, .* row 2"),
    "infinite": ({"next_observations": np.full((4, 2), -np.inf)}, "'next_observations' holds 8 NaN or infinite"),
    "objects": ({"rewards": np.array([0, 1, 2, None])}, "'rewards' is object"),
    "strings": ({"actions": np.array(list("abcd"))}, "'actions' is <U1"),
    "complex": ({"rewards": np.zeros(4, complex)}, "'rewards' is complex128"),
    "overflow": ({"observations": np.full((4, 2), 1e39)}, "'observations' holds numbers too large for float32"),
    "lengths": ({"rewards": np.zeros(3)}, "'rewards' has 3 rows: it must have 4, as column 'observations'"),
    "number": ({"rewards": np.float32(1) * np.ones(())}, r"'rewards' is float64\[\]"),
    "matrix": ({"rewards": np.zeros((4, 2))}, r"'rewards' has the shape \[4, 2\]"),
    "flag": ({"terminals": np.array([0, 0, 2, 1])}, "'terminals' holds 2 in row 2"),
    "successor": ({"next_observations": np.zeros((4, 3))}, "'next_observations' differ: must have one shape"),
    "negative": ({"actions": np.array([0, -1, 0, 0])}, "'actions' is int64.* it must hold one integer"),
    "twice": ({"extras/probs": np.zeros(4), "infos/probs": np.zeros(4)}, "two columns hold 'probs'"),
    "wide-extra": ({"extras/n": np.full(4, 2**40)}, "'extras/n' holds numbers too large for int32"),
    "dict-reward": ({"rewards": {"a": np.zeros(4)}}, "'rewards' is a dict of a"),
    "empty-dict": ({"observations": {}}, "'observations' is a dict of nothing"),
    "whole-and-parts": ({"observations/x": np.zeros(4)}, "as one array and as a group"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_bad_column_is_refused_by_name(case):
    changes, words = BAD[case]
    with pytest.raises(ConfigError, match=words):
        build(4, **changes)


def test_no_rows_are_refused():
    with pytest.raises(ConfigError, match="no rows"):
        build(0)


def test_what_is_converted_is_noted():
    plain = numbered(3)
    data = build(
        3, observations=plain["observations"].astype(">f8"), rewards=np.arange(3)[:, None],
        terminals=np.float32([0, 0, 1]), timeouts=np.zeros(3, np.int8), other=np.zeros(3),
        **{"extras/probs": np.ones((3, 2)), "infos/action_log_probs": np.ones(3, np.float32), "infos/qpos": np.ones(3)},
    )  # fmt: skip
    for name in ("obs", "action", "reward", "next_obs"):
        array = getattr(data.rows, name)
        assert array.dtype == np.float32 and array.dtype.isnative
    np.testing.assert_array_equal(data.rows.obs, plain["observations"])
    assert data.rows.reward.tolist() == [0, 1, 2] and flags(data) == ([2], [])
    assert {name: x.dtype.name for name, x in data.rows.extras.items()} == {"probs": "float32", "log_prob": "float32"}
    for words in (
        "observations: bytes were swapped from >f8", "observations: float64 became float32",
        "rewards: [3, 1] became [3]", "rewards: int64 became", "terminals: float32 became bool",
        "timeouts: int8 became bool", "extras/probs: float64 became", "Not read: infos/qpos, other.",
    ):  # fmt: skip
        assert noted(data, words), words


def test_clean_data_has_nothing_to_note():
    data = build(3, terminals=at(3, 2))
    assert data.notes == (f"{dataset.ASSUMED}actions are bounded by -1 and 1, within which all lie.",)


def test_images_stay_bytes_and_dicts_stay_dicts():
    image, vector = np.arange(3 * 4, dtype=np.uint8).reshape(3, 2, 2, 1), np.arange(3, dtype=np.uint8)
    obs = {"image": image, "vector": vector}
    data = build(3, observations=obs, next_observations=obs, terminals=at(3, 0, 1, 2))
    assert data.spec.observation == Dict({"image": Box((2, 2, 1), "uint8"), "vector": Box((1,), "float32")})
    np.testing.assert_array_equal(data.rows.obs["image"], image)
    parts = {f"{column}/{name}": x for column in ("observations", "next_observations") for name, x in obs.items()}
    again = build(3, observations=None, next_observations=None, terminals=at(3, 0, 1, 2), **parts)
    assert again.digest == data.digest


@pytest.mark.parametrize("shape", [(9, 8), (2, 3), (9, 8, 3), (4, 9, 8, 3)], ids=str)
def test_images_of_every_rank_stay_bytes_and_bytes_of_0_and_1_have_this_bound(shape):
    pixels = np.arange(3 * np.prod(shape), dtype=np.int64).reshape(3, *shape).astype(np.uint8)
    data = build(3, observations=pixels, next_observations=None)
    assert data.spec.observation == Box(shape, "uint8") and data.rows.obs.dtype == np.uint8
    board = build(3, observations=pixels % 2, next_observations=None)
    assert board.spec.observation == Box(shape, "uint8", (0.0,), (1.0,))
    assert noted(board, f"{dataset.ASSUMED}observations are bytes from 0 to 1.")
    known = dataclasses.replace(ENV, observation=Box(shape, "uint8", (0.0,), (255.0,)))
    fitted = dataset.adapt_to_env(board, known)
    assert fitted.spec == known and not noted(fitted, "bytes from 0 to 1")


def test_an_observation_that_never_changes_is_noted():
    obs = numbered(4)["observations"] * np.float32([1, 0])
    assert noted(build(4, observations=obs, next_observations=None), "1 of 2 entries never change (1)")


def test_an_action_or_a_reward_that_never_changes_is_noted():
    assert not any("never" in note or "all are" in note for note in build(4).notes)
    assert noted(build(4, actions=np.full((4, 1), 0.5, np.float32)), "actions: 1 of 1 entries never change (0)")
    assert noted(build(4, actions=np.int64([2] * 4)), "actions: all are 2.")
    assert noted(build(4, rewards=np.full(4, 0.5, np.float32)), "rewards: all are 0.5.")


def test_discrete_actions_are_told_from_real_ones():
    for column in (np.int64([0, 2, 1]), np.float64([0, 2, 1]), np.int16([[0], [2], [1]])):
        data = build(3, actions=column)
        assert data.spec.action == Discrete(3) and noted(data, "Assumed: there are 3 discrete actions")
        assert data.rows.action.dtype == np.int32 and data.rows.action.tolist() == [0, 2, 1]
    data = build(3, actions=np.float32([0, 2, 0.5]))
    assert data.spec.action == Box((1,), "float32", (0.0,), (2.0,)) and data.rows.action.shape == (3, 1)
    assert noted(data, "smallest and largest")
    assert build(3, actions=np.float32([[0], [1], [0]])).spec.action == ENV.action
    known = dataclasses.replace(ENV, action=Discrete(5, start=1))
    data = dataset.from_columns(numbered(3, actions=np.float64([[1], [5], [2]])), spec=known)
    assert data.spec == known and data.rows.action.tolist() == [0, 4, 1] and not noted(data, dataset.ASSUMED)
    with pytest.raises(ConfigError, match="'actions' holds 6: must be one of"):
        dataset.from_columns(numbered(3, actions=np.int64([1, 6, 2])), spec=known)


def test_the_digest_is_of_the_numbers():
    data = build(4)
    assert data.digest == dataset.from_columns(numbered(4), source="elsewhere").digest and len(data.digest) == 64
    for name in ("observations", "actions", "rewards", "next_observations"):
        other = numbered(4)
        other[name][2] += np.float32(0.125)
        assert dataset.from_columns(other).digest != data.digest, name
    assert build(4, terminals=at(4, 3)).digest != build(4, timeouts=at(4, 3)).digest


# To the environment


def test_fit_takes_the_environments_bounds_and_clips():
    data = build(3, actions=np.float32([[-2], [0.5], [1]]))
    fitted = dataset.adapt_to_env(data, ENV)
    assert fitted.spec == ENV and fitted.rows.action.tolist() == [[-1], [0.5], [1]]
    assert noted(fitted, "1 of 3 rows lay outside the bounds of env") and not noted(fitted, dataset.ASSUMED)
    assert fitted.digest == data.digest and dataset.adapt_to_env(fitted, ENV).notes == fitted.notes


OTHERS = {
    "observation": EnvSpec("env", Box((3,)), ENV.action),
    "image": EnvSpec("env", Box((2, 2, 1), "uint8"), ENV.action),
    "fractions": EnvSpec("env", Box((2,), "int8"), ENV.action),
    "dict": EnvSpec("env", Dict({"x": Box((2,))}), ENV.action),
    "action": EnvSpec("env", ENV.observation, Box((2,))),
    "discrete": EnvSpec("env", ENV.observation, Discrete(2)),
}


@pytest.mark.parametrize("case", OTHERS)
def test_a_file_for_another_environment_is_refused_with_both_names(case):
    data = dataset.from_columns(numbered(3, observations=numbered(3)["observations"] + np.float32(0.5)), source="file")
    with pytest.raises(ConfigError, match=r"file has the .*env .*: a file for another environment"):
        dataset.adapt_to_env(data, OTHERS[case])


def test_an_environment_of_another_name_is_told():
    """Its shapes are the same, so nothing says that it is another one."""
    data = dataset.from_columns(numbered(3), spec=dataclasses.replace(ENV, id="HalfCheetah-v5"))
    fitted = dataset.adapt_to_env(data, dataclasses.replace(ENV, id="Walker2d-v5"))
    assert noted(fitted, "The data were recorded in HalfCheetah-v5, and are used for Walker2d-v5.")
    assert not noted(dataset.adapt_to_env(data, data.spec), "recorded in") and not noted(
        dataset.adapt_to_env(build(3), ENV), "recorded in"
    )


def test_fit_gives_observations_the_environments_kind():
    bits = np.int64([[0, 1], [1, 1], [0, 0]])
    data = build(3, observations=bits, next_observations=None)
    for space in (Box((2,), "int8"), MultiDiscrete((2, 2))):
        fitted = dataset.adapt_to_env(data, dataclasses.replace(ENV, observation=space))
        assert fitted.rows.obs.dtype.kind == fitted.rows.next_obs.dtype.kind == "i" and noted(fitted, "became int")
        assert fitted.rows.obs.tolist() == bits[:2].tolist()
    with pytest.raises(ConfigError):
        dataset.adapt_to_env(data, dataclasses.replace(ENV, observation=MultiDiscrete((2, 1))))
    states = dataclasses.replace(ENV, observation=Discrete(4))
    fitted = dataset.adapt_to_env(build(3, observations=np.int64([0, 3, 2]), next_observations=None), states)
    assert fitted.rows.obs.tolist() == [0, 3] and dataset.adapt_to_env(fitted, states).rows.obs.tolist() == [0, 3]


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 3)], ids=str)
def test_bytes_fit_floats_only_as_0_and_1(shape):
    """Floats may be bytes divided by 255. Where all bytes are 0 or 1, both are the same numbers."""
    bits = np.random.default_rng(0).integers(2, size=(3, *shape), dtype=np.uint8)
    for dtype in ("float32", "bool", "int8"):
        space = dataclasses.replace(ENV, observation=Box(shape, dtype))
        fitted = dataset.adapt_to_env(build(3, observations=bits, next_observations=None), space)
        assert fitted.rows.obs.dtype.name == dtype and fitted.rows.obs.tolist() == bits[:2].tolist()
    with pytest.raises(ConfigError, match="another environment"):
        floats = dataclasses.replace(ENV, observation=Box(shape))
        dataset.adapt_to_env(build(3, observations=2 * bits, next_observations=None), floats)


def test_fit_counts_discrete_actions_as_the_environment_does():
    data = build(3, actions=np.int64([1, 3, 2]))
    env = dataclasses.replace(ENV, action=Discrete(3, start=1))
    assert dataset.adapt_to_env(data, env).rows.action.tolist() == [0, 2, 1]
    with pytest.raises(ConfigError, match="another environment"):
        dataset.adapt_to_env(data, dataclasses.replace(ENV, action=Discrete(3)))


# The ring

SAMPLE = jax.jit(rings.sample, static_argnums=(2, 3))


def test_the_ring_is_full_and_holds_the_rows():
    data = build(5)
    ring = dataset.full_ring(data)
    assert ring.capacity == 5 and int(ring.written) == 5 and ring.frames is None
    batch = SAMPLE(ring, jax.random.key(0), 64, None)
    rows = np.asarray(batch.reward).astype(int)
    assert set(rows) == set(range(5))
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x, y[rows]), batch, data.rows)


@settings(max_examples=60, deadline=None)
@given(
    kinds=st.lists(st.sampled_from(["", "", "terminal", "timeout", "both", "break"]), min_size=12, max_size=12),
    successors=st.booleans(), timeouts=st.booleans(),
)  # fmt: skip
def test_no_sequence_crosses_an_end_or_a_gap(kinds, successors, timeouts):
    """Each episode begins 100 further on. What no column tells cannot be found: without successors, breaks, and without
    timeouts, time limits."""
    kinds = np.array(kinds)
    if not successors:
        kinds[kinds == "break"] = ""
        kinds[kinds == "timeout"] = "timeout" if timeouts else ""
    ended = kinds != ""
    start = np.arange(12) + 100 * (np.cumsum(ended) - ended)
    obs = start[:, None].astype(np.float32)
    columns = numbered(
        12, observations=obs, next_observations=obs + 1 if successors else None,
        terminals=np.isin(kinds, ("terminal", "both")),
        timeouts=np.isin(kinds, ("timeout", "both")) if timeouts else None,
    )  # fmt: skip
    try:
        data = dataset.from_columns(columns)
    except ConfigError as error:
        assert "no row has a successor" in str(error)
        return
    flagged = data.rows.terminated | data.rows.truncated
    assert flagged[-1] and not (data.rows.terminated & data.rows.truncated).any()
    wrong = (data.rows.next_obs[:, 0] != data.rows.obs[:, 0] + 1) & ~data.rows.terminated
    assert not wrong.any()
    if len(data) < 3:
        return
    batch = jax.device_get(rings.sample(dataset.full_ring(data), jax.random.key(0), 32, 3))
    cut = (batch.terminated | batch.truncated)[:-1]
    assert (cut | (batch.next_obs[:-1] == batch.obs[1:]).all(-1)).all()


# The card


def test_the_card_counts_whole_episodes():
    data = build(7, terminals=at(7, 1), timeouts=at(7, 4), actions=np.float32([[-1], [0], [0], [1], [0], [0], [0.5]]))
    told = data_card(data)
    assert list(told) == [
        "source",
        "rows",
        "episodes",
        "returns",
        "lengths",
        "rewards",
        "observations",
        "actions",
        "flags",
        "memory",
        "notes",
    ]
    assert told["rows"] == "7" and told["episodes"] == "3 (2 complete, 1 unfinished)"
    assert told["returns"] == "mean 5.00, min 1.00, max 9.00" and told["lengths"] == "mean 2.50, min 2.00, max 3.00"
    assert told["rewards"] == "mean 3.00, min 0.00, max 6.00"
    assert told["actions"] == "0: -1.00 … 1.00, 28.6% at bounds" and told["observations"] == "vectors of 2"
    assert told["flags"].startswith("1 terminals, 1 timeouts, 1 cuts") and "unfinished" in told["notes"]
    assert data_card(build(3))["returns"] == "no complete episode"
    assert data_card(build(3, actions=np.int64([0, 2, 2])))["actions"] == "0: 1, 1: 0, 2: 2"


def test_the_card_names_images_and_the_number_of_their_channels():
    parts = {
        "board": np.zeros((3, 8, 8, 111), np.float32), "grey": np.full((3, 9, 7), 9, np.uint8),
        "stack": np.zeros((3, 2, 9, 9, 3), np.uint8), "state": np.zeros((3, 5), np.float32),
    }  # fmt: skip
    data = build(3, observations=parts, next_observations=parts)
    assert data_card(data)["observations"] == (
        "board: images of 8 × 8 with 111 channels; grey: images of 9 × 7 with 1 channel; "
        "stack: images of 9 × 9 with 6 channels; state: vectors of 5"
    )
    states = dataclasses.replace(data.spec, observation=Dict({"a": Discrete(4), "b": MultiDiscrete((2, 2))}))
    assert data_card(dataclasses.replace(data, spec=states))["observations"] == "a: integers below 4; b: 2 integers"


@pytest.mark.parametrize(
    ("source", "score"),
    [
        ("x/halfcheetah_medium_expert-v2.hdf5", f"{100 * (6 + 280.18) / (12135.0 + 280.18):.1f}"),
        ("hopper-medium-v2.npz", f"{100 * (6 + 20.27) / (3234.3 + 20.27):.1f}"),
        ("walker2d_full_replay-v2.hdf5", f"{100 * (6 - 1.63) / (4592.3 - 1.63):.1f}"),
        ("ant_random.hdf5", f"{100 * (6 + 325.6) / (3879.7 + 325.6):.1f}"),
        ("HalfCheetah-v5-medium.npz", None), ("antmaze-medium-v1.hdf5", None), ("elephant-medium-v0.npz", None),
    ],
)  # fmt: skip
def test_d4rls_score_is_given_for_d4rls_files_alone(source, score):
    data = dataset.from_columns(numbered(4, terminals=at(4, 3)), source=source)
    assert data_card(data).get("D4RL's normalised score") == score


def recording_of(seen, act=0.5):
    """Columns of six rows, with one observation in all."""
    return {
        "observations": np.stack([np.asarray(seen, np.float32)] * 6), "actions": np.full(6, act, np.float32),
        "rewards": np.ones(6), "terminals": np.arange(6) == 5, "timeouts": np.zeros(6, bool),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("space", "seen", "inside"),
    [
        (Box(()), 0.5, 0.5),
        (Box((), "int32"), 7, 7),
        (MultiDiscrete((3, 2), start=(1, -5)), [2, -5], [1, 0]),
        (MultiDiscrete((3,), start=(10,)), [12], [2]),
    ],
    ids=str,
)
def test_recorded_observations_without_axes_or_with_a_start_are_those_of_the_environment(space, seen, inside):
    """The values 1 and 2 of three from 1 were read as 1 and 2 from 0."""
    data = dataset.from_columns(recording_of(seen), spec=EnvSpec("env", space, Box((), "float32", (-1.0,), (1.0,))))
    assert data.rows.obs.dtype == space_type(space) and data.rows.action.shape == (6, 1)
    np.testing.assert_array_equal(data.rows.obs[0], inside)
    assert data.rows.obs.shape == (6, *np.shape(inside))


def space_type(space):
    return np.int32 if isinstance(space, MultiDiscrete) else np.dtype(space.dtype)


@pytest.mark.parametrize("shape", [(), (2, 1)])
def test_a_file_holds_the_bounds_of_actions_of_every_rank(shape):
    space = Box(shape, "float32", (-1.0,) * int(np.prod(shape)), None)
    _, read = parse_env(json.loads(json.dumps(file_metadata("env", space))), "file", "env")
    assert read == space
