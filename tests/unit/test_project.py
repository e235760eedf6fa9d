"""The project's own rules: each check is shown to bite, by planting what it must find."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

# For each import contract: a module of ours, and an import that it must not have.
VIOLATIONS = {
    "client-alone": ("pipelinehost/names.py", "pipelinehost_dataverse.solution"),
    "client-thin": ("pipelinehost/errors.py", "rich"),
    "client-layers": ("pipelinehost/errors.py", "pipelinehost.names"),
    "dataverse-alone": ("pipelinehost_dataverse/solution/model.py", "grpc"),
    "server-layers": ("pipelinehost_server/store/__init__.py", "pipelinehost_server.deployment"),
    "server-grpc": ("pipelinehost_server/deployment/__init__.py", "grpc"),
    "server-client": ("pipelinehost_server/deployment/__init__.py", "pipelinehost.v1.pipeline_host_pb2_grpc"),
    "messages-without-grpc": ("pipelinehost/names.py", "pipelinehost.v1.artifacts_pb2_grpc"),
    "peewee": ("pipelinehost_server/deployment/__init__.py", "peewee"),
    "rules-pure": ("pipelinehost_server/rules.py", "time"),
}


def run(*command: str | Path, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    """A tool of the virtual environment, or make; its output is one text."""
    return subprocess.run(
        command,
        cwd=cwd,
        env={"PATH": f"{BIN}:/usr/local/bin:/usr/bin:/bin", "HOME": str(cwd), **environment},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=100,
        check=False,
    )


def lint_imports(tree: Path) -> dict[str, str]:
    """The verdict on every contract, by its id."""
    shutil.copy(ROOT / "pyproject.toml", tree)
    done = run("lint-imports", "--no-logo", "--no-cache", cwd=tree, PYTHONPATH=f"{tree}/client:{tree}/server")
    names = {contract["name"]: contract["id"] for contract in PROJECT["tool"]["importlinter"]["contracts"]}
    found = re.findall(r"^(.+?) (KEPT|BROKEN)\b", done.stdout, re.MULTILINE)
    verdicts = {names[name]: verdict for name, verdict in found}
    assert verdicts.keys() == set(names.values()), done.stdout
    return verdicts


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the packages that may be spoilt."""
    for folder in ("client", "server"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_every_import_contract_finds_the_violation_that_is_planted_for_it(tree: Path) -> None:
    before = lint_imports(tree)
    assert set(before.values()) == {"KEPT"}
    assert before.keys() == VIOLATIONS.keys(), "a contract without a planted violation, or the reverse"
    for contract, (name, module) in VIOLATIONS.items():
        (path,) = (tree / side / name for side in ("client", "server") if (tree / side / name).exists())
        text = path.read_text(encoding="utf-8")
        path.write_text(f"{text}\nimport {module}\n", encoding="utf-8")
        assert lint_imports(tree)[contract] == "BROKEN"
        path.write_text(text, encoding="utf-8")


def spoil(protos: Path, file: str, old: str, new: str) -> None:
    """Replace the one place of a proto that reads so."""
    path = protos / "pipelinehost" / "v1" / file
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {file}"
    path.write_text(text.replace(old, new), encoding="utf-8")


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("  string settings_sha256 = 19;", "", 'field "19" with name "settings_sha256" on message "Run"'),
        ("int64 revision = 21;", "int64 revision = 99;", 'field "21" with name "revision" on message "Run"'),
        ("int64 revision = 21;", "string revision = 21;", 'Field "21" with name "revision" on message "Run"'),
        ("STATE_UNKNOWN = 8;", "STATE_UNDECIDED = 8;", 'Enum value "8" on enum "State"'),
    ],
    ids=["removed", "renumbered", "retyped", "renamed"],
)
def test_a_break_of_the_protos_is_found_and_named(tmp_path: Path, old: str, new: str, complaint: str) -> None:
    shutil.copytree(ROOT / "protos", tmp_path / "protos")
    shutil.copy(ROOT / "buf.yaml", tmp_path)
    against = ("buf", "breaking", "--against", "protos/released.binpb")
    assert run(*against, cwd=tmp_path).returncode == 0
    spoil(tmp_path / "protos", "resources.proto", old, new)
    done = run(*against, cwd=tmp_path)
    assert done.returncode != 0
    assert complaint in done.stdout


def test_only_files_with_a_service_have_grpc_stubs() -> None:
    services = {
        path.stem
        for path in (ROOT / "protos/pipelinehost/v1").glob("*.proto")
        if re.search(r"^service ", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    stubs = {
        path.name.removesuffix("_pb2_grpc.py")
        for path in (ROOT / "client/pipelinehost/v1").glob("*_pb2_grpc.py")
    }
    assert stubs == services == {"artifacts", "pipeline_host"}


def test_stale_stubs_and_pages_are_found_and_named(tree: Path) -> None:
    for folder in ("protos", "docs"):
        shutil.copytree(ROOT / folder, tree / folder)
    for file in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / file, tree)
    installed = tree / "installed"  # the copy borrows our virtual environment; it has nothing to install
    installed.touch()
    check = ("make", "protos-check", f"BIN={BIN}", f"VENV={installed}")
    fresh = run(*check, cwd=tree)
    assert fresh.returncode == 0, fresh.stdout
    for name in (
        "client/pipelinehost/v1/resources_pb2.pyi",  # changed by hand
        "client/pipelinehost/v1/gone_pb2.py",  # left behind when its proto was deleted
        "docs/api.md",
        "docs/errors.md",
    ):
        path = tree / name
        before = path.read_bytes() if path.exists() else None
        path.write_bytes((before or b"") + b"\nplanted = 1\n")
        done = run(*check, cwd=tree)
        assert done.returncode != 0, name
        assert path.name in done.stdout
        assert "run make protos" in done.stdout
        if before is None:
            path.unlink()
        else:
            path.write_bytes(before)


def test_constraints_pin_every_dependency_to_a_version_that_is_allowed() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.split("==") for line in lines if not line.startswith("#"))
    pins = {canonicalize_name(name): version for name, version in pairs}
    project = PROJECT["project"]
    declared = [Requirement(text) for text in project["dependencies"]]
    for group in PROJECT["dependency-groups"].values():
        declared += [Requirement(item) for item in group if isinstance(item, str)]
    for extra in project["optional-dependencies"].values():
        declared += map(Requirement, extra)
    found = [(one, pins.get(canonicalize_name(one.name))) for one in declared]
    wrong = [str(one) for one, version in found if version is None or version not in one.specifier]
    assert not wrong, "run make constraints"


def targets() -> set[str]:
    """What the Makefile can make."""
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def told_targets(page: Path) -> list[str]:
    """What a page tells its reader to make, in the order of the page; only code counts."""
    code = re.compile(r"^```[^\n]*\n(.*?)^```|^    ([^\n]*)|`([^`\n]+)`", re.MULTILINE | re.DOTALL)
    return [
        target
        for snippet in code.findall(page.read_text(encoding="utf-8"))
        for target in re.findall(r"^(?:\$ )?make ([a-z-]+)", "\n".join(snippet), re.MULTILINE)
    ]


def test_every_target_that_is_told_of_exists() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
    assert len(told_targets(ROOT / "CONTRIBUTING.md")) > 5
    told = {(page.name, target) for page in pages for target in told_targets(page)}
    assert not {(name, target) for name, target in told if target not in targets()}


def test_the_readme_begins_with_the_demo_and_the_tests() -> None:
    assert list(dict.fromkeys(told_targets(ROOT / "README.md")))[:2] == ["demo", "test"]


def test_make_alone_shows_every_target_that_is_for_people() -> None:
    shown = set(re.findall(r"^  make ([a-z-]+)", run("make").stdout, re.MULTILINE))
    assert shown == targets() - {"protos-check"}


def test_an_old_python_is_told_what_to_do(tmp_path: Path) -> None:
    old = tmp_path / "python"
    old.write_text('#!/bin/sh\n[ "$1" = -V ] && echo Python 3.9.18 && exit\nexit 1\n', encoding="utf-8")
    old.chmod(0o755)
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).touch()
    done = run("make", "install", f"PYTHON={old}", cwd=tmp_path)
    assert done.returncode != 0
    assert f"PipelineHost needs Python 3.11 or later, and {old} is Python 3.9.18." in done.stdout
    assert "make PYTHON=" in done.stdout


@pytest.mark.parametrize("page", ["CHANGELOG.md", "CONTRIBUTING.md", "README.md", "docs"])
def test_links_between_the_pages_lead_somewhere(page: str) -> None:
    root = ROOT / page
    for source in [root] if root.is_file() else root.glob("*.md"):
        text = source.read_text(encoding="utf-8")
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
            assert (source.parent / link).exists(), f"{source.name} links to {link}"
