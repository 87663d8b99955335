"""Bugs in what makes an array a mask of actions, and in where it is checked."""

from planted.mutant import Mutant, of

WHAT = of("envs/test_masks.py", "masks_are_those_that_can_mask_an_action")
HOST = of("envs/test_masks.py", "a_bad_mask_is_refused_by_environment_step_and_mask")
ENDS = of("envs/test_masks.py", "nobody_acts_on_the_successor_of_an_end")
OTHERS = of("envs/test_masks.py", "a_bad_mask_of_another_process")
ADAPTER = of("envs/test_masks.py", "a_bad_mask_of_an_adapter_is_never_acted_on")
SCORED = of("envs/test_masks.py", "a_bad_mask_of_an_adapter_ends_an_evaluation")
WRAPPED = of("envs/test_masks.py", "the_wrapper_puts_the_mask_into_the_observation")
LAST = of("envs/test_masks.py", "the_last_observation_of_an_episode")
UNFIT = of("envs/test_masks.py", "a_mask_that_does_not_fit_names_the_environment")
SAID = of("envs/test_masks.py", "masks_that_nobody_reads_are_named", "nothing_is_said_where_nothing_is_ignored")
COMPILED = of("loops/test_masks.py", "the_compiled_loop_names_the_first_bad_mask")
FIRST = of("loops/test_masks.py", "the_first_bad_mask_of_a_rollout_by_a_loop")
STUCK = of("loops/test_masks.py", "an_evaluation_stops_before_it_acts_on_a_bad_mask")
OVER = of("loops/test_masks.py", "an_episode_that_is_over_needs_no_mask")
ROWS = of("data/test_masks.py", "a_row_without_a_mask_is_refused_at_reading")
FORBIDDEN = of("data/test_masks.py", "a_recorded_action_that_its_mask_forbids_is_refused_before_learning")
COUNT = of("data/test_masks.py", "masks_tell_the_number_of_actions")
ASKED = of("runs/test_masks.py", "a_trained_agent_refuses_a_mask_that_allows_nothing")
NESTED = of("runs/test_masks.py", "a_mask_that_would_not_be_read_is_refused")
ONCE = of("runs/test_masks.py", "a_run_says_once_that_masks_are_ignored_and_a_wrapped_one_says_nothing")

MUTANTS = [
    Mutant("one component may allow nothing if another allows an action", "types.py", "allowed[..., end - size : end].any(-1)", "allowed.any(-1)", WHAT),
    Mutant("any number but 0 allows an action", "types.py", "(allowed.astype(masks.dtype) == masks).all(-1)", "(masks == masks).all(-1)", WHAT),
    Mutant("the successor of an end is checked in place of the next observation", "envs/journaled.py", "if rows.ended:\n", "self._journal.check_masks(self.spec.action, rows.obs)\n        if rows.ended:\n", ENDS),
    Mutant("the error names the first environment, whichever it is", "envs/journal.py", "i = int(bad[0])", "i = 0", HOST),
    Mutant("masks of other processes are not checked after a step", "envs/journaled.py", "self._begin(rows.ended, self._obs)\n        self._journal.check_masks(self.spec.action, self._obs)", "self._begin(rows.ended, self._obs)", OTHERS),
    Mutant("the host loop trusts an adapter", "loops/host.py", "check_masks(obs, envs.spec.action, t)", "pass", ADAPTER),
    Mutant("an evaluation trusts an adapter", "loops/evaluate.py", "check_masks(obs, envs.spec.action, t)", "pass", SCORED),
    Mutant("the masks of components lie in the order of a table's columns", "envs/masks.py", "else np.ravel(mask)", "else np.ravel(mask, order='F')", WRAPPED),
    Mutant("an environment is asked for a mask after its end", "envs/masks.py", "unasked = terminated or (", "unasked = (", LAST),
    Mutant("a mask is cast before it is checked", "envs/masks.py", "flat = join_parts(given)", "flat = np.asarray(join_parts(given), bool)", UNFIT),
    Mutant("a mask in the observation is said to be ignored", "envs/masks.py", "if seen or not", "if not", SAID),
    Mutant("the number of environments is left out of the place", "loops/state.py", "began * masks.shape[1] + first", "began + first", COMPILED),
    Mutant("the last bad mask is kept", "loops/state.py", "jnp.where(before.where < 0, y, x)", "jnp.where(new.where < 0, x, y)", FIRST),
    Mutant("a compiled evaluation acts on every mask", "loops/evaluate.py", " & ~stuck(now), step", ", step", STUCK),
    Mutant("an episode that is over needs a mask", "loops/evaluate.py", "now.t, now.over)", "now.t)", OVER),
    Mutant("recorded masks are not checked", "data/cleaning.py", "(bad := bad_masks(obs, space)).any()", "(bad := bad_masks(obs, space)).all()", ROWS),
    Mutant("actions are looked up in the mask of the first row", "data/cleaning.py", "obs[ACTION_MASK], action[:, None], axis=1", "obs[ACTION_MASK][:1].repeat(len(action), 0), action[:, None], axis=1", FORBIDDEN),
    Mutant("a mask does not tell the number of actions", "data/cleaning.py", "return _clean_discrete(x, None, notes, least)", "return _clean_discrete(x, None, notes)", COUNT),
    Mutant("an agent looks at the first observation of a batch only", "runs/policy.py", "np.flatnonzero(bad_masks(batch, spec.action))", "np.flatnonzero(np.ravel(bad_masks(batch, spec.action))[:1])", ASKED),
    Mutant("a mask inside a part is overlooked", "runs/checks.py", "if holds_mask(part)", "if False", NESTED),
    Mutant("nobody reads the notes of environments", "runs/drive.py", "return envs.reset_notes() if", "return [] if", ONCE),
]  # fmt: skip
