"""What the tests of the command line share: a user's empty folder, and a call of the command."""

import pytest

from duologue.cli import main as cli


@pytest.fixture(autouse=True)
def _as_a_user(unchecked, tmp_path, monkeypatch):
    """In an empty folder, with JAX as the tests have set it up."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def duologue(capsys):
    """`(exit code, stdout, stderr)` of a command."""

    def call(*arguments):
        with pytest.raises(SystemExit) as exit:
            cli.main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return exit.value.code or 0, out, err

    return call
