"""Bugs at the door of spaces: what is refused and where, what a message shows, how integers and records are read."""

from planted.mutant import Mutant, of

SPACES = "envs/test_spaces.py"
PLACE = of(SPACES, "a_part_is_refused_by_its_place")
NAMES = of(SPACES, "parts_have_names_and_something_to_observe")
COMPONENT = of(SPACES, "an_action_is_refused_by_its_component")
BRIEF = of(SPACES, "messages_show_long_spaces_in_few_words")
SCALAR = of(SPACES, "actions_without_axes_reach_the_environment_as_arrays_without_axes")
INTEGERS = of("test_images.py", "integers_are_divided_by_the_larger_side_of_their_range")
NOTES = of("test_images.py", "notes_name_the_parts_and_their_axes")
OWN = of("networks/test_encoders.py", "integers_with_bounds_of_their_own_are_divided_one_by_one")
SCALED = of("test_types.py", "the_initial_policy_is_scaled_by_component")
BOUNDS = of("test_types.py", "what_needs_bounds_names_the_component_that_lacks_one")
HALF = of("ops/test_statistics.py", "half_precision_is_computed_in_float32")
RECORDED = of("data/test_dataset.py", "recorded_observations_without_axes_or_with_a_start_are_those_of_the_environment")
FILE = of("data/test_dataset.py", "a_file_holds_the_bounds_of_actions_of_every_rank")
NOTHING = of("networks/test_builder.py", "an_observation_without_an_element_is_refused")

MUTANTS = [
    Mutant("a refusal does not know the place of its part", "envs/spaces.py", 'observation_space(part, f"{at}[{name!r}]")', "observation_space(part, at)", PLACE),
    Mutant("a Box without elements is observed", "envs/spaces.py", "if not math.prod(space.shape):", "if False:", PLACE),
    Mutant("a low of infinity is no bound", "envs/spaces.py", "~((space.low < most) & (space.high > -most))", "~((space.low < np.inf) & (space.high > -most))", PLACE),
    Mutant("observations have no largest size", "envs/spaces.py", 'if at == "action" else LARGEST_OBSERVED', "if True else 0", of("envs/test_spaces.py", "an_observation_whose_numbers_have_no_square_in_float32_is_refused")),
    Mutant("NaN is a bound", "envs/spaces.py", "~((space.low < most) & (space.high > -most))", "(space.low >= most) | (space.high <= -most)", PLACE),
    Mutant("a start may leave int32", "envs/spaces.py", "if not INT32.min <= start <= start + n - 1 <= INT32.max:", "if False:", PLACE),
    Mutant("the last value may leave int32", "envs/spaces.py", "<= start <= start + n - 1 <= INT32.max", "<= start <= INT32.max", PLACE),
    Mutant("an integer may have any number of values", "envs/spaces.py", "if n > MAX_VALUES:", "if False:", PLACE),
    Mutant("a Dict without parts is observed", "envs/spaces.py", "    if not parts:\n", "    if False:\n", NAMES),
    Mutant("a key may be a number", "envs/spaces.py", "if not isinstance(key, str)]", "if False]", NAMES),
    Mutant("actions may have bounds at infinity", "envs/spaces.py", '            check_bounds(space, "action")\n', "", COMPONENT),
    Mutant("a long space is shown whole", "types.py", "if len(whole) <= LONG and", "if True or", BRIEF),
    Mutant("an action without axes is a scalar", "envs/spaces.py", "[action[i, ...] for i in", "[action[i] for i in", SCALAR),
    Mutant("one integer without axes is a vector", "types.py", "whole if shape is None else", "whole if not shape else", SCALAR),
    Mutant("only bytes are divided", "images.py", 'startswith(("int", "uint"))', 'startswith("uint")', INTEGERS),
    Mutant("integers are divided by high alone", "images.py", "max(abs(low), abs(high))", "abs(high)", INTEGERS),
    Mutant("the widest ranges divide too", "images.py", "if 0 < size <= WIDEST else 1.0", "if 0 < size else 1.0", INTEGERS),
    Mutant("nobody hears of wide integers", "images.py", "if sizes and (largest := max(sizes)) > WIDEST:", "if sizes and (largest := max(sizes)) > math.inf:", NOTES),
    Mutant("one scale for all elements", "networks/encoders.py", "jnp.asarray(scale, jnp.float32)", "jnp.asarray(scale[:1], jnp.float32)", OWN),
    Mutant("half a bound far from 0 has no width", "networks/heads.py", "np.where(finite, 0.5 * (high - low), np.float32(1))", "np.where(finite, 0.5 * (high - low), 0.5 * ((np.clip(np.float32(0), low, high) + np.float32(1)) - (np.clip(np.float32(0), low, high) - np.float32(1))))", SCALED),
    Mutant("bounds of any size are computed with", "networks/heads.py", "any(LARGEST_BOUND < abs(side) < np.inf for side in (low, high))", "False", BOUNDS),
    Mutant("bounds of any distance are computed with", "networks/heads.py", "if high - low < LEAST_WIDTH or any(", "if any(", BOUNDS),
    Mutant("networks of nothing are built", "networks/builder.py", "if not encoder.size:", "if False:", NOTHING),
    Mutant("moments of half precision overflow", "ops/statistics.py", "        batch = batch.astype(jnp.float32)\n", "", HALF),
    Mutant("recorded observations count from 0", "data/dataset.py", "values = obs - theirs.starts", "values = obs - 0", RECORDED),
    Mutant("recorded observations have an axis", "data/dataset.py", "case Box(shape=(1,), dtype=kind), Box(shape=()):", "case Box(shape=(-1,), dtype=kind), Box(shape=()):", RECORDED),
    Mutant("recorded actions have an axis", "data/cleaning.py", "single = space is not None and not space.shape", "single = False", RECORDED),
    Mutant("bounds in a file have an axis", "data/recording.py", "if low.shape == high.shape and not", "if low.shape == high.shape and low.ndim and not", FILE),
]  # fmt: skip
