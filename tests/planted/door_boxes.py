"""Bugs at the door of actions: bounds by component, and what an environment gets."""

from planted.mutant import Mutant
from planted.recorded import of

SIDES = of("test_types.py", "a_bound_is_that_of_its_component")
INWARDS = of("test_types.py", "a_bound_that_float32_cannot_hold_moves_inwards")
CLIPPED = of("test_types.py", "actions_are_clipped_at_each_side_that_a_component_has")
SCALED = of("test_types.py", "the_initial_policy_is_scaled_by_component")
NAMED = of("test_types.py", "what_needs_bounds_names_the_component_that_lacks_one")
INSIDE = of("test_types.py", "every_action_reaches_the_environment_inside_its_space")
KWARGS = of("runs/test_door.py", "arguments_of_the_environment_hold_in_training_evaluation_and_after_loading")
OTHERS = of("runs/test_door.py", "another_environment_does_not_get_the_arguments_of_the_run")
REFUSED = of("runs/test_door.py", "arguments_that_no_environment_takes_are_refused")

MUTANTS = [
    Mutant("one infinite element frees its side", "envs/spaces.py", "sides.append(None if all(", "sides.append(None if any(", SIDES),
    Mutant("bounds round outwards", "envs/spaces.py", "np.nextafter(rounded, np.float32(inwards)), rounded)", "rounded, rounded)", INWARDS),
    Mutant("a Box without lows is not clipped", "types.py", "(space.low is None and space.high is None):\n        return action\n    low", "(space.low is None or space.high is None):\n        return action\n    low", CLIPPED),
    Mutant("half a bound scales", "networks/heads.py", "finite = np.isfinite(low) & np.isfinite(high)", "finite = np.isfinite(low) | np.isfinite(high)", SCALED),
    Mutant("an action may begin outside its box", "networks/heads.py", "np.clip(np.float32(0), low, high)", "np.clip(np.float32(0), -np.inf, np.inf) + 0 * np.nan_to_num(low)", SCALED),
    Mutant("a bounded Box may lack a bound", "types.py", "and None not in (*self.low, *self.high)", "", NAMED),
    Mutant("components count from 0", "types.py", "action.astype(np.int64) + space.starts", "action.astype(np.int64) + 0", INSIDE),
    Mutant("the dtype of an action is ours", "types.py", "bounded_actions(space, action).astype(dtype)", "bounded_actions(space, action)", INSIDE),
    Mutant("an evaluation forgets the arguments", "runs/environments.py", "env = with_kwargs(env, plan.env_kwargs)", "env = env", KWARGS),
    Mutant("any environment gets the arguments", "runs/environments.py", "if strip_tasks(env) == plan.env:", "if isinstance(env, str):", OTHERS),
    Mutant("arguments for no environment are ignored", "envs/make.py", "    if not env_kwargs:\n", "    if not env_kwargs or not isinstance(env, str):\n", REFUSED),
]  # fmt: skip
