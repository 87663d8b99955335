"""Bugs in what wrappers, memories, processes and successes of a user's environment may do, planted."""

from planted.mutant import Mutant, of

NAMED = of("envs/test_wrappers.py", "running_statistics_are_named_with_their_remedy")
STILL = of("envs/test_wrappers.py", "what_stays_as_it_is_needs_no_remark")
THROUGH = of("envs/test_wrappers.py", "remarks_pass_through_seeds_tasks_and_processes")
TRAINING = of("runs/test_wrapper_statistics.py", "training_says_it_once_and_again_where_it_goes_on")
ON_DATA = of("runs/test_wrapper_statistics.py", "a_run_on_data_says_it_of_its_evaluations")
PLAYING = of("runs/test_wrapper_statistics.py", "evaluating_recording_and_watching_say_it")

MUTANTS = [
    Mutant("only the outermost wrapper is looked at", "envs/wrappers.py", "while isinstance(env, gym.Wrapper):", "while False:", NAMED),
    Mutant("statistics inside a dict are not found", "envs/wrappers.py", "value.values() if isinstance(value, dict) else ", "", NAMED),
    Mutant("statistics that stay as they are are named", "envs/wrappers.py", ' and bool(getattr(env, "update_running_mean", True))', "", STILL),
    Mutant("tasks hide the remarks", "envs/tasks.py", "spec, envs.num_envs, envs.notes", "spec, envs.num_envs, ()", THROUGH),
    Mutant("training does not say it", "runs/drive.py", "*env_notes(envs), ", "", TRAINING),
    Mutant("training says it twice", "runs/session.py", "shown.note if plan.offline else lambda _: None", "shown.note", TRAINING),
    Mutant("a run on data does not say it", "runs/session.py", "shown.note if plan.offline else lambda _: None", "lambda _: None", ON_DATA),
    Mutant("an evaluation does not say it", "runs/evaluation.py", "            note(text)", "            pass", PLAYING),
]  # fmt: skip
