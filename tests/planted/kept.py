"""Bugs around a run, planted again: rows lost, environments left open, what is said twice or not at all."""

from planted.mutant import Mutant
from planted.recorded import of

KEPT = of("runs/test_recorded.py", "what_was_recorded_is_kept_whatever_ends_it")
OWN = of("runs/test_recorded.py", "recording_leaves_a_users_adapter_open")
BOTH = of("runs/test_recorded.py", "both_is_said_where_it_decides")
DIVERGES = of("runs/test_recorded.py", "a_fit_that_diverges_is_no_worth")
ROOM = of("runs/test_recorded.py", "data_that_the_device_cannot_hold_are_refused_by_name")
SHARE = of("runs/test_recorded.py", "a_share_that_is_none_of_a_batch_is_refused")
IDLE = of("runs/test_recorded.py", "fields_that_say_nothing_on_data_are_named")
OPTIONS = of("runs/test_options.py", "an_option_out_of_its_range_is_refused_by_name")
CLOSED = of("runs/test_session.py", "environments_are_closed_where_nothing_can_begin")
IGNORED = of("cli/test_main.py", "what_would_be_ignored_is_refused")
ANEW = of("loops/test_loops.py", "an_evaluation_on_the_host_begins_episodes_anew_inside_its_program")

MUTANTS = [
    Mutant("a recording that ends early is lost", "runs/collect.py", "if rows.count:", "if rows.count == steps:", KEPT),
    Mutant(
        "an interrupted recording looks finished", "runs/collect.py", "    interruption.raise_again()\n", "", KEPT,
    ),
    Mutant("recording closes a user's adapter", "runs/collect.py", "close_envs(envs, source)", "envs.close()", OWN),
    Mutant("settled flags are asked about", "runs/data_sources.py", 'if timeout_and_terminal != "timeout" and', "if False and", BOTH),
    Mutant(
        "fitted Q forgets what both flags were", "runs/run.py", "open_source(dataset, self.plan.timeout_and_terminal)",
        'open_source(dataset, "timeout")', BOTH,
    ),
    Mutant(
        "data of then are refused for their settled flags", "runs/data_sources.py",
        "open_source(source or plan.dataset, plan.timeout_and_terminal)",
        "read_data(source or plan.dataset, timeout_and_terminal=plan.timeout_and_terminal)", BOTH,
    ),
    Mutant(
        "a fit that diverged is a worth", "runs/fitted_q.py", "if not all(np.isfinite", "if not any(np.isfinite", DIVERGES,
    ),
    Mutant(
        "data may be larger than the device", "runs/checks.py", "if needed > available:\n        part",
        "if False:\n        part", ROOM,
    ),
    Mutant(
        "there is only one window at a time", "runs/checks.py", "2 * data.nbytes * rows.window",
        "data.nbytes * rows.window", ROOM,
    ),
    Mutant(
        "data beside a replay take no room", "runs/checks.py", "data.nbytes + replay_bytes > available", "replay_bytes > available", ROOM,
    ),
    Mutant(
        "a share of none takes all rows to the device", "runs/drive.py", "is not None and share else {}",
        "is not None else {}", ROOM,
    ),
    Mutant("a share may be no row of a batch", "runs/checks.py", "in (0, size):", "in ():", SHARE),
    Mutant(
        "fields without a say are not named", "runs/drive.py", "if ignored else []",
        "if False else []", IDLE,
    ),
    Mutant(
        "numbers of a run are taken as they stand", "runs/options.py",
        "check_fields(self)", "pass", OPTIONS,
    ),
    Mutant(
        "environments with which nothing can begin stay open", "runs/environments.py",
        "    except BaseException:\n        close_envs(envs, source)", "    except BaseException:\n        pass", CLOSED,
    ),
    Mutant(
        "environments of a run whose schedule cannot be stay open", "runs/planning.py",
        "with close_on_failure(envs, env):", "if True:", CLOSED,
    ),
    Mutant(
        "a run that cannot go on leaves its environments open", "runs/drive.py",
        "replay_bytes, mixed))\n        finally:\n            close_envs(envs, env)",
        "replay_bytes, mixed))\n        finally:\n            pass", CLOSED,
    ),
    Mutant(
        "environments of an evaluation stay open", "runs/evaluator.py", "finally:\n            close_envs(envs, source)",
        "finally:\n            pass",
        CLOSED,
    ),
    Mutant(
        "options that do nothing are taken", "cli/actions.py",
        "if (value := getattr(command, name)) != getattr(type(command), name):", "if value := None:", IGNORED,
    ),
    Mutant(
        "what acting remembers outlives its episode in evaluation", "loops/evaluate.py",
        "carry = restart_carry(carry, algorithm.initial_carry(len(ended)), ended)", "del ended", ANEW,
    ),
]  # fmt: skip
