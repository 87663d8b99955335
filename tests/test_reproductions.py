"""The machinery of reproductions/: what is skipped, what is resumed, what the page says. No learning here."""

import dataclasses
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import duologue as dl

FOLDER = Path(__file__).parent.parent / "reproductions"


@pytest.fixture
def modules(monkeypatch):
    """`cells`, `table`, `reproduce` and the lists, which are scripts and import each other by these names."""
    monkeypatch.syspath_prepend(str(FOLDER))
    names = ("cells", "table", "reproduce", "a2c", "off_policy", "recordings")
    loaded = [__import__(name) for name in names]
    yield loaded
    for name in names:
        sys.modules.pop(name, None)


@pytest.fixture
def cells(modules):
    return modules[0]


@pytest.fixture
def table(modules):
    return modules[1]


@pytest.fixture
def recordings(modules):
    return modules[5]


@pytest.fixture
def task(cells):
    return cells.Task("tiny", "CartPole-v1", 80, dl.A2C(num_envs=2), source="a test", target=100, published="120 (x)")


def row(task, seed, mean):
    return {"name": task.name, "digest": task.digest, "seed": seed, "mean": mean}


@pytest.fixture
def stub(cells, monkeypatch):
    """The cells that were run, without running them; the third raises Ctrl-C."""
    ran = []

    def run_cell(cell, folder, *, command):
        if len(ran) == 2:
            raise KeyboardInterrupt
        ran.append((cell.seed, folder, command))
        return [row(cell.task, cell.seed + i, 0.0) for i in range(cell.count)]

    monkeypatch.setattr(cells, "run_cell", run_cell)
    return ran


def test_finished_cells_stay_after_an_interruption_and_are_skipped(cells, task, stub, tmp_path):
    todo, out = [cells.Cell(task, seed) for seed in range(4)], tmp_path / "results" / "tiny.jsonl"
    with pytest.raises(KeyboardInterrupt):
        cells.run_cells(todo, out=out, runs=tmp_path, command="make it")
    assert [json.loads(line)["seed"] for line in out.read_text().splitlines()] == [0, 1]
    assert stub[1] == (1, tmp_path / f"tiny-{task.digest}" / "seed-1", "make it --only tiny --seeds 1")
    stub.clear()
    cells.run_cells(todo, out=out, runs=tmp_path, command="make it")
    assert [seed for seed, *_ in stub] == [2, 3]
    assert [json.loads(line)["seed"] for line in out.read_text().splitlines()] == [0, 1, 2, 3]


def test_a_line_cut_off_by_a_kill_is_not_finished(cells, task, stub, tmp_path):
    out = tmp_path / "tiny.jsonl"
    out.write_text(json.dumps(row(task, 0, 1.0)) + "\n" + json.dumps(row(task, 1, 1.0))[:-4])
    cells.run_cells([cells.Cell(task, 0), cells.Cell(task, 1)], out=out, runs=tmp_path, command="c")
    assert [seed for seed, *_ in stub] == [1]
    assert [line["seed"] for line in cells.read(out)] == [0, 1]


@pytest.mark.parametrize(
    "change",
    [{"steps": 120}, {"env": "Acrobot-v1"}, {"algorithm": dl.A2C(num_envs=2, discount=0.98)}, {"name": "other"}],
)
def test_other_settings_are_another_cell_in_another_folder(cells, task, change, tmp_path):
    one, other = cells.Cell(task, 0), cells.Cell(dataclasses.replace(task, **change), 0)
    finished = [row(task, 0, 1.0)]
    assert cells.unfinished([one, other], finished) == [other]
    assert one.folder(tmp_path) != other.folder(tmp_path)


def test_a_target_or_a_source_does_not_change_the_cell(task):
    assert dataclasses.replace(task, target=1.0, source="elsewhere", published="").digest == task.digest


def test_train_begins_goes_on_and_leaves_alone(cells, task, monkeypatch, tmp_path):
    """The four states of a run folder: nothing to go on from, what cannot be loaded, half done, done."""
    calls, folder = [], tmp_path / "seed-0"
    done = SimpleNamespace(step=80, resume=pytest.fail)
    half = SimpleNamespace(step=40, resume=lambda: calls.append("resume") or done)
    monkeypatch.setattr(dl, "train", lambda *_, **options: calls.append(options) or done)

    def load(path):
        raise dl.CheckpointError("saved by another configuration")

    folder.mkdir()
    (folder / "config.json").write_text("{}")
    monkeypatch.setattr(dl, "load", load)
    assert cells.train(cells.Cell(task, 3), folder) == (done, 0)
    assert calls == [{"tasks": None, "steps": 80, "seed": 3, "seeds": 1, "run_dir": folder}]
    (folder / "checkpoints" / "latest" / "step-000000000040").mkdir(parents=True)
    with pytest.raises(dl.CheckpointError, match="another configuration"):
        cells.train(cells.Cell(task, 3), folder)
    assert calls[1:] == [] and (folder / "checkpoints" / "latest" / "step-000000000040").exists()
    monkeypatch.setattr(dl, "load", lambda path: half)
    assert cells.train(cells.Cell(task, 3), folder) == (done, 40)
    assert calls[1:] == ["resume"]
    monkeypatch.setattr(dl, "load", lambda path: done)
    assert cells.train(cells.Cell(task, 3), folder) == (done, 80)
    assert calls[2:] == []


def test_a_line_counts_where_a_field_has_come_since_then(cells, task, tmp_path):
    before = task.configuration
    del before["algorithm"]["networks"]["layer_norm"]
    other = task.configuration
    other["algorithm"]["networks"]["layer_norm"] = True
    for settings in (before, other):
        cells.append(tmp_path / "x.jsonl", {**row(task, 0, 1.0), **settings, "digest": "that of then"})
    same, changed = cells.read(tmp_path / "x.jsonl")
    assert same["digest"] == task.digest != changed["digest"]


def test_the_page_quotes_seeds_of_results_and_settings_of_today(cells, table, task):
    old = dataclasses.replace(task, algorithm=dl.A2C(num_envs=4))
    means = {0: 90.0, 1: 110.0, 2: 120.0, 3: 130.0, 4: 500.0}
    rows = [row(task, seed, mean) for seed, mean in means.items()]
    rows += [row(task, 100, 9999.0), row(old, 0, 7777.0)]
    page = table.results({"tiny": ([task], rows)}, [], command="make it")
    line = next(line for line in page.splitlines() if line.startswith("| tiny"))
    parts = [part.strip() for part in line.strip("|").split("|")]
    assert parts[:3] == ["tiny (CartPole-v1)", "80", "5"]
    assert parts[3].startswith("120.0 [")  # the mean of 110, 120 and 130
    assert parts[4] == f"{np.mean(list(means.values())):,.1f}" == "190.0"
    assert parts[5:] == ["≥ 100, reached", "120 (x)"]
    assert "9999" not in page and "9,999" not in page and "7,777" not in page
    assert "`A2C(num_envs=2)`" in page and "a test" in page and "`make it --only tiny`" in page


def test_a_target_missed_is_said(table, task):
    assert "≥ 100, missed" in table.results({"tiny": ([task], [row(task, 0, 99.9)])}, [], command="c")
    assert "missed" not in table.results({"tiny": ([task], [])}, [], command="c")


def test_expression_shows_what_is_not_a_default(table):
    wrapped = dl.Normalized(dl.A2C(learning_rate=dl.Linear(7e-4), networks=dl.Networks(hidden_sizes=(8,))), clip=5.0)
    inner = "A2C(learning_rate=Linear(start=0.0007), networks=Networks(hidden_sizes=(8,)))"
    assert table.expression(wrapped) == f"Normalized(algorithm={inner}, clip=5.0)"


def test_a_cell_from_end_to_end(cells, task, tmp_path):
    """One real cell, of two updates: what its line says can be read back and repeated."""
    cell = cells.Cell(dataclasses.replace(task, steps=20), 5)
    (found,) = cells.run_cell(cell, cell.folder(tmp_path), command="make it")
    assert json.loads(json.dumps(found)) == found
    assert (found["seed"], found["steps"], found["env"], found["command"]) == (5, 20, "CartPole-v1", "make it")
    assert len(found["scores"]) == cells.EPISODES and np.mean(found["scores"]) == pytest.approx(found["mean"])
    assert found["algorithm"]["num_envs"] == 2 and found["resumed_at"] == 0
    assert np.isfinite(found["last"]["train/value_loss"]) and found["last"]["train/entropy"] > 0.6
    again, step = cells.train(cell, cell.folder(tmp_path))
    assert step == 20 and again.evaluate(episodes=cells.EPISODES).returns.tolist() == found["scores"]


def test_seeds_that_follow_each_other_are_trained_in_one(cells, task, stub, tmp_path):
    out = tmp_path / "tiny.jsonl"
    cells.append(out, row(task, 2, 1.0))
    todo = [cells.Cell(task, seed) for seed in (4, 0, 1, 2, 3)]
    cells.run_cells(todo, out=out, runs=tmp_path, command="c", in_one=True)
    folder = tmp_path / f"tiny-{task.digest}"
    assert stub == [
        (0, folder / "seeds-0-to-1", "c --only tiny --seeds 0 1 --in-one"),
        (3, folder / "seeds-3-to-4", "c --only tiny --seeds 3 4 --in-one"),
    ]
    assert [line["seed"] for line in cells.read(out)] == [2, 0, 1, 3, 4]


def test_seeds_in_one_score_as_they_do_alone(cells, task, tmp_path):
    task = dataclasses.replace(task, steps=20)
    both = cells.run_cell(cell := cells.Cell(task, 5, 2), cell.folder(tmp_path), command="c")
    (alone,) = cells.run_cell(cell := cells.Cell(task, 6), cell.folder(tmp_path), command="c")
    assert [row["seed"] for row in both] == [5, 6] and [row["seeds_in_one"] for row in both] == [2, 2]
    assert both[0]["scores"] != both[1]["scores"] == alone["scores"]
    assert cells.Cell(task, 6).key == cells.key_of(both[1])


def test_the_last_episodes_of_training_can_score(cells, task, tmp_path):
    rows = [(2.0, 10), (None, 0), (4.0, 3), (6.0, 2)]
    with (tmp_path / "metrics.jsonl").open("w") as file:
        for mean, count in rows:
            file.write(json.dumps({"rollout/ep_rew_mean": mean, "rollout/episodes": float(count)}) + "\n")
    run = SimpleNamespace(path=tmp_path)
    of = lambda count: cells.scored(dataclasses.replace(task, scored_in_training=count), run).tolist()  # noqa: E731
    assert of(4) == [6.0] * 2 + [4.0] * 3 and len(of(6)) == 15
    long = dataclasses.replace(task, scored_in_training=50)
    assert long.digest != task.digest
    assert cells.together([cells.Cell(long, 0), cells.Cell(long, 1)]) == [cells.Cell(long, 0), cells.Cell(long, 1)]


def test_the_lists(modules, capsys):
    reproduce = modules[2]
    tasks = [task for tasks in reproduce.LISTS.values() for task in tasks]
    assert len({task.name for task in tasks}) == len(tasks)
    assert reproduce.main(["--list", "--only", "lunar", "--seeds", "0", "1"]) == 0
    assert capsys.readouterr().out.count("lunarlander") == 4
    assert reproduce.main(["--list", "--peer", "--only", "sac"]) == 0
    assert "sac-pendulum" in (shown := capsys.readouterr().out) and "sac-v1" not in shown
    with pytest.raises(SystemExit):
        reproduce.main(["--list", "--only", "chess"])


def test_every_line_of_today_counts(modules):
    """No finished cell of a list is lost because a default has changed since: then its task must say the setting."""
    cells, _, reproduce, *_ = modules
    for name, tasks in reproduce.LISTS.items():
        rows = cells.read(reproduce.RESULTS / f"{name}.jsonl")
        finished = {row["name"] for row in rows if row["seed"] < cells.FIRST_TUNING_SEED}
        assert finished <= {
            task.name for task in tasks if (task.name, task.digest) in {key[:2] for key in map(cells.key_of, rows)}
        }


def peered(cells, task):
    return dataclasses.replace(task, peer=cells.Peer("SAC", {"learning_starts": 3}, noise=0.1))


def test_the_peer_stands_beside(cells, table, task):
    """Ours − the peer's with its interval; wholly below 0 is below."""
    task = peered(cells, task)
    ours = [row(task, seed, mean) for seed, mean in enumerate([10.0, 12.0, 14.0, 16.0, 18.0])]
    name, digest, _ = cells.PeerCell(task, 0).key

    def verdict(*means):
        peers = [{"name": name, "digest": digest, "seed": seed, "mean": mean} for seed, mean in enumerate(means)]
        page = table.results({"tiny": ([task], ours)}, peers, command="c")
        return next(line for line in page.splitlines() if line.startswith("| tiny (5"))

    assert "| 4.0 [" in verdict(9.0, 10.0, 11.0) and "| not told apart |" in verdict(13.0, 14.0, 15.0)
    assert "| below |" in verdict(30.0, 31.0, 32.0) and "| above |" in verdict(1.0, 2.0, 3.0)
    assert "no interval" in verdict(9.0)
    assert "## Beside others" not in table.results({"tiny": ([task], ours)}, [], command="c")


def test_only_what_learned_from_the_same_data_stands_beside(cells, table, task):
    task = peered(cells, task)
    ours = [row(task, seed, 10.0) | {"data_digest": "a"} for seed in range(3)]
    name, digest, _ = cells.PeerCell(task, 0).key
    theirs = {"name": name, "digest": digest, "seed": 0, "mean": 9.0}
    for data, beside in (("a", True), ("b", False)):
        page = table.results({"tiny": ([task], ours)}, [theirs | {"data_digest": data}], command="c")
        assert ("## Beside others" in page) == beside


def test_a_peer_is_told_what_we_were_told(cells, task, tmp_path, monkeypatch):
    task, told = peered(cells, task), []

    def child(command, **_):
        told.append(json.loads(command[2]))
        return SimpleNamespace(stdout='noise\n{"scores": [1.0, 3.0], "versions": {}}\n')

    monkeypatch.setattr(cells, "PEER_PYTHON", tmp_path)
    monkeypatch.setattr(cells.subprocess, "run", child)
    out = tmp_path / "peers.jsonl"
    for _ in range(2):  # the second time nothing is left to do
        cells.run_peer_cells([cells.PeerCell(task, 2)], out=out, command="c")
    orders = {"env": "CartPole-v1", "steps": 80, "episodes": 20, "algorithm": "SAC", "noise": 0.1, "seed": 2}
    assert told == [{**orders, "settings": {"learning_starts": 3}}]
    (line,) = cells.read(out)
    assert line["mean"] == 2.0 and line["command"] == "c --peer --only tiny --seeds 2"


def half(count, *, ends=(), broken=(), shift=0.0):
    """Columns of `count` rows, some of which end their episode by time limit, or are followed by something else; every
    fourth is terminal."""
    obs = np.arange(count, dtype=np.float32)[:, None] + 100 * shift
    apart = np.isin(np.arange(count), [*ends, *broken])[:, None]
    return {
        "observations": obs, "actions": np.linspace(-1, 1, count, dtype=np.float32)[:, None],
        "rewards": obs[:, 0] / 3, "terminals": np.arange(count) % 4 == 3, "timeouts": np.isin(np.arange(count), ends),
        "next_observations": np.where(apart, np.float32(0.5), obs + 1),
    }  # fmt: skip


def test_two_halves_are_mixed_byte_for_byte(recordings):
    """Their first rows, with a time limit where a half stops in the midst of an episode, at a terminal row none."""
    worse, better = half(9, ends=[5]), half(12, ends=[1], shift=1.0)
    for count, seams in ((7, [6, 13]), (8, [])):
        columns = recordings.mixed(dl.from_columns(worse), dl.from_columns(better), count)
        wanted = {name: np.concatenate([worse[name][:count], better[name][:count]]) for name in worse}
        wanted["timeouts"][seams] = True
        assert list(columns) == list(wanted)
        for name, column in columns.items():
            assert column.dtype == wanted[name].dtype
            np.testing.assert_array_equal(column, wanted[name])
    data = dl.from_columns(recordings.mixed(dl.from_columns(worse), dl.from_columns(half(4)), 7))
    assert np.flatnonzero(data.rows.truncated).tolist() == [5, 6]  # a half that is shorter than asked


def test_where_a_recording_breaks_off_no_time_limit_is_mixed_in(recordings):
    broken = dl.from_columns(half(12, ends=[5], broken=[1]))
    columns = recordings.mixed(broken, broken, 10)
    assert np.flatnonzero(columns["timeouts"]).tolist() == [5, 9, 15, 19]
    assert dl.from_columns(columns).cut == (1, 11)


def test_the_folder_that_was_named_is_the_one_that_is_read(recordings, tmp_path, monkeypatch):
    name, given, folder = "halfcheetah-random-expert", tmp_path / "given", tmp_path / "data"
    ours, theirs = dl.from_columns(half(9)), dl.from_columns(half(9, shift=1.0))
    monkeypatch.setattr(recordings, "random", lambda *_: ours)
    monkeypatch.setattr(recordings, "of_cell", lambda *_: ours)
    monkeypatch.setattr(recordings, "played", lambda *_: ours)
    made = lambda name, given: recordings.made(name, folder, given=given, runs=tmp_path)  # noqa: E731
    with pytest.raises(dl.ConfigError, match=r"there is no HalfCheetah-v5-expert-100k\.npz.*leave --data out"):
        made(name, given)
    made("hopper-random-medium", given)  # of which no folder holds a half
    path = made(name, None)
    recordings.write_columns(given / recordings.EXPERT, recordings.columns_of(theirs), {"env": "x"})
    with pytest.raises(dl.ConfigError, match="is there already, and was made of something else"):
        made(name, given)
    path.unlink()
    assert made(name, given) == made(name, given) == made(name, None) == path
    assert dl.read_data(path).rows.obs.max() == 108


def test_actions_played_again_make_the_same_rows(recordings, tmp_path):
    recorded = dl.read_data(dl.collect_random("Hopper-v5", 60, tmp_path / "first.npz"))
    np.savez(tmp_path / "some-actions.npz", actions=recorded.rows.action)
    again = recordings.played("Hopper-v5", tmp_path / "some-actions.npz", tmp_path)
    assert again.rows.terminated.any() and again.digest == recorded.digest
    for recipe in recordings.RECIPES.values():
        if recipe.actions is not None:
            with np.load(recordings.ACTIONS / recipe.actions) as kept:
                assert len(kept["actions"]) == recipe.rows and kept["actions"].dtype == np.float32


def test_a_half_whose_recording_was_interrupted_is_no_half(recordings, tmp_path, monkeypatch):
    monkeypatch.setattr(recordings, "ROWS", 9)
    recordings.write_columns(tmp_path / "x-random.npz", half(8), {"env": "x"})
    with pytest.raises(dl.ConfigError, match=r"x-random\.npz has 8 of 9 rows.*interrupted. Delete it"):
        recordings.random("x", tmp_path)


@pytest.mark.parametrize("begun", [{}, {1: 20}, {1: 20, 3: 100}, {5: 40}])
def test_data_are_recorded_by_agents_that_have_learned_to_the_end(recordings, cells, tmp_path, monkeypatch, begun):
    """A cell that was begun, alone or with others in one program, is gone on with; of two, the one that is further."""
    task = next(task for task in recordings.off_policy.TASKS if task.name == "sac-hopper")
    steps = {recordings.Cell(task, 0, count).folder(tmp_path): step for count, step in begun.items()}
    alone = recordings.Cell(task, 0).folder(tmp_path)
    alone.mkdir(parents=True)
    (alone / "config.json").write_text("{}")  # which is there before the first step
    for path, step in steps.items():
        (path / "checkpoints" / "latest" / f"step-{step:012d}").mkdir(parents=True)
    trained = []

    def train(cell, folder):
        trained.append(cell.count)
        assert folder == cell.folder(tmp_path)
        agent = SimpleNamespace(collect=lambda rows, path: recordings.write_columns(path, half(9), {"env": "x"}))
        return ([agent, None] if cell.count > 1 else agent), 0

    monkeypatch.setattr(dl, "load", lambda path: SimpleNamespace(step=steps[path]))
    monkeypatch.setattr(recordings, "train", train)
    monkeypatch.setattr(recordings, "ROWS", 9)
    assert len(recordings.of_cell("sac-hopper", tmp_path / "data", tmp_path)) == 9
    assert trained == [max(begun, key=begun.get, default=1)]
