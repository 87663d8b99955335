"""What MuJoCo warns of is said, once."""

import pytest

from duologue.envs.gymnasium import warn_once
from duologue.envs.make import make

mujoco = pytest.importorskip("mujoco")
OLD = '<mujoco><compiler settotalmass="1"/><worldbody><body><geom size="1"/></body></worldbody></mujoco>'


@pytest.fixture(autouse=True)
def nobody_listens():
    mujoco.set_mju_user_warning(None)
    yield
    mujoco.set_mju_user_warning(None)


def test_a_warning_is_said_once(capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    warn_once()
    for _ in range(3):
        mujoco.MjModel.from_xml_string(OLD)
    warn_once()  # as for every further environment
    mujoco.MjModel.from_xml_string(OLD)
    assert capfd.readouterr().err.count("settotalmass") == 1
    assert not list(tmp_path.iterdir())


def test_another_listener_stays(capfd):
    heard = []
    mujoco.set_mju_user_warning(heard.append)
    make("HalfCheetah-v5", 2, seed=0).close()
    assert len(heard) == 2 and "settotalmass" not in capfd.readouterr().err


def test_environments_beyond_the_first_are_silent(capfd):
    make("HalfCheetah-v5", 5, seed=0).close()
    assert capfd.readouterr().err.count("settotalmass") <= 2  # before MuJoCo is loaded, nobody can listen
