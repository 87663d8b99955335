"""The list of planted bugs can be gone on with after an interruption."""

from mutants import MUTANTS, append_result, mutants_to_judge


def test_killed_mutants_are_skipped_and_the_rest_is_judged_again(tmp_path, capsys):
    first, second, third = MUTANTS[:3]
    results = tmp_path / "mutants.jsonl"
    assert mutants_to_judge("", results) == mutants_to_judge("", None) == MUTANTS  # no file yet
    append_result(results, first, True, "runs/test_x.py::test_y")
    append_result(results, second, False, "exit code 0")  # survived
    append_result(results, third._replace(new="another text"), True, "timeout")  # its text has changed since
    assert mutants_to_judge("", results) == MUTANTS[1:]
    assert f"1 of {len(MUTANTS)} mutants are killed already" in capsys.readouterr().out
    append_result(results, second, True, "runs/test_x.py::test_y")
    results.write_text(results.read_text() + '{"file": "cut sh')  # the machine stopped here
    assert mutants_to_judge("", results) == MUTANTS[2:]
    append_result(results, third, True, "timeout")
    assert mutants_to_judge("", results) == MUTANTS[3:]
