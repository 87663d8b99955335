"""The house's own rules, read off its syntax trees: who imports whom, what is never called, how long a file may be."""

import ast
import re
from pathlib import Path

import pytest
from mutants import MUTANTS

ROOT = Path(__file__).parent.parent
SRC = ROOT / "src" / "duologue"
FILES = {path.relative_to(SRC).with_suffix("").as_posix().replace("/", "."): path for path in sorted(SRC.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(), filename=str(path)) for name, path in FILES.items()}

GROUND = {"errors", "types", "fields", "images"}
MAY_IMPORT = {
    **{"errors": set(), "types": {"errors"}, "fields": {"errors"}, "images": {"types"}},
    **{"ops": GROUND, "envs": GROUND, "storage": GROUND, "data": GROUND | {"storage"}},
    "networks": GROUND | {"ops"},
    "algorithms": GROUND | {"ops", "networks"},
    "loops": GROUND | {"ops", "networks", "algorithms", "envs", "data"},
    "runs": GROUND | {"ops", "networks", "algorithms", "envs", "data", "storage", "loops"},
    "cli": GROUND | {"ops", "networks", "algorithms", "envs", "data", "storage", "loops", "runs"},
    "__main__": {"cli"},
}
"""What each part of the package may import besides itself."""

LINEAGE = {
    "ppo": {"a2c"}, "trpo": {"a2c"}, "acer_continuous": {"acer"}, "sac_v1": {"sac"}, "sac_discrete": {"sac"},
    "sac_x.sac_x": {"sac_x.losses", "sac_x.targets", "sac_x.task_schedulers"}, "sac_x.targets": {"sac_x.losses"},
    "cql": {"sac"}, "ddpg": {"td3"}, "td3_bc": {"td3"}, "bear": {"bcq"}, "kl_control": {"sac"},
}  # fmt: skip
"""Sideways imports between algorithms, along the papers' own lineage."""

FORBIDDEN = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "eval", "exec", "compile", "__import__"}
FORBIDDEN |= {"allow_pickle", "import_module"}

NAMED_IN_CODE = {"__init__", "algorithms.__init__"}
"""Modules that may import a module by a name: the names come from tables in the code, never from a file."""

LONGEST = 320


def ours(tree):
    """Every module of the package that is imported anywhere in the file, also inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "duologue")
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute"
            if node.module.split(".")[0] == "duologue":
                for alias in node.names:
                    inside = f"{node.module}.{alias.name}"
                    yield inside if inside.removeprefix("duologue.") in FILES else node.module


def imports(name):
    """Of one module, without the package's name; the package itself is ``."""
    return {module.removeprefix("duologue").removeprefix(".") for module in ours(TREES[name])}


def part(module):
    return module.split(".")[0]


@pytest.mark.parametrize("name", [name for name in FILES if name != "__init__"])
def test_imports_go_down_the_table(name):
    wrong = {module for module in imports(name) if part(module) not in MAY_IMPORT[part(name)] | {part(name)}}
    assert not wrong, f"{name} may not import {', '.join(sorted(map(repr, wrong)))}"


def test_the_table_has_no_cycle_between_parts():
    """The parts can be put in a row in which each imports only those before it."""
    left = dict(MAY_IMPORT)
    while left:
        ready = {name for name, may in left.items() if not may & left.keys()}
        assert ready, f"these import each other: {left}"
        left = {name: may for name, may in left.items() if name not in ready}


def test_the_tree_in_the_design_names_every_module():
    """Below the line of a folder, every module of the folder stands as a word."""
    _, *lines = (ROOT / "docs" / "design.md").read_text().partition("```text\n")[2].partition("```")[0].splitlines()
    words, folder, parent = {}, "", ""
    for line in lines:
        word, *_ = line.split()
        if word.endswith("/"):
            parent = word if line.startswith(f"  {word}") else parent
            folder = word if parent == word else f"{parent}{word}"
        words.setdefault(folder, set()).update(re.findall(r"\w+", line))
    for path in FILES.values():
        if not path.name.startswith("__"):
            folder = f"{path.parent.relative_to(SRC).as_posix()}/".removeprefix("./")
            assert path.stem in words.get(folder, ()), f"docs/design.md has no {path.stem} below {folder or 'src/'}"


def test_loops_know_the_contract_and_no_algorithm():
    for name in FILES:
        if part(name) == "loops":
            assert {module for module in imports(name) if part(module) == "algorithms"} <= {"algorithms.base"}, name


def test_algorithms_know_each_other_along_the_lineage_only():
    for name in FILES:
        if part(name) == "algorithms" and name not in ("algorithms.__init__", "algorithms.base"):
            known = {module.removeprefix("algorithms.") for module in imports(name) if part(module) == "algorithms"}
            allowed = {"base", "families"} | LINEAGE.get(name.removeprefix("algorithms."), set())
            assert known <= allowed, f"{name} imports {known - allowed}"
    assert imports("algorithms.base") & {"algorithms"} == set()


@pytest.mark.parametrize("name", FILES)
def test_nothing_that_is_read_is_ever_run(name):
    """No pickle and its kin, no eval, no import by a name that was computed."""
    for node in ast.walk(TREES[name]):
        match node:
            case ast.Import(names=names):
                used = {each for alias in names for each in alias.name.split(".")}
            case ast.ImportFrom(module=module, names=names):
                used = {*module.split("."), *(alias.name for alias in names)}
            case ast.Name(id=id):
                used = {id}
            case ast.keyword(arg=arg):
                used = {arg}
            case ast.Attribute(value=ast.Name(id=owner), attr=attr):
                used = {owner, attr} - ({"compile"} if owner == "re" else set())
            case ast.Attribute(attr=attr):
                used = {attr} - {"compile"}
            case _:
                continue
        used -= {"import_module"} if name in NAMED_IN_CODE else set()
        assert not used & FORBIDDEN, f"{name}, line {node.lineno}: {used & FORBIDDEN}"


@pytest.mark.parametrize("name", FILES)
def test_no_file_holds_two_ideas(name):
    assert len(FILES[name].read_text().splitlines()) <= LONGEST


@pytest.mark.parametrize("name", [name for name in FILES if part(name) in ("algorithms", "ops", "loops")])
def test_termination_and_truncation_are_never_one_flag(name):
    """`done` is no argument, field or attribute where it could reach a target."""
    for node in ast.walk(TREES[name]):
        match node:
            case ast.arg(arg=word) | ast.keyword(arg=word) | ast.Attribute(attr=word):
                pass
            case ast.AnnAssign(target=ast.Name(id=word)):
                pass
            case _:
                continue
        assert word not in ("done", "dones"), f"{name}, line {node.lineno}"


def test_the_walker_sees_what_it_must():
    """Each rule is broken on purpose, lest they hold because they look at nothing."""
    tree = ast.parse("def f():\n    from duologue.envs.make import make\n    import duologue.storage.files\nimport jax")
    assert set(ours(tree)) == {"duologue.envs.make", "duologue.storage.files"}
    assert set(ours(ast.parse("from duologue.storage import files, Run"))) == {
        "duologue.storage.files",
        "duologue.storage",
    }
    assert "algorithms.base" in imports("loops.host") and "envs.base" in imports("envs.gymnasium")
    assert imports("runs.run") >= {"storage.checkpoint", "runs.plan", "errors"}


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_every_mutant_still_finds_its_text(mutant):
    """`tests/mutants.py` plants bugs by replacing text, which must stand there once."""
    assert (SRC / mutant.file).read_text().count(mutant.old) == 1
    assert mutant.old != mutant.new
    for test in mutant.tests:
        assert (ROOT / "tests" / test.split("::")[0]).is_file()


def test_no_modules_import_each_other_in_a_circle():
    """Imports inside functions count too."""
    left = {name: (imports(name) & FILES.keys()) - {name} for name in FILES}
    while left:
        ready = {name for name, known in left.items() if not known & left.keys()}
        assert ready, f"these import each other: {sorted(left)}"
        left = {name: known for name, known in left.items() if name not in ready}
