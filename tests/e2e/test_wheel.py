"""The wheel in empty environments: what is declared suffices, and the client alone is thin."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

IMPORT_EVERYTHING_BELOW_THE_CLI = """
import importlib, pkgutil, pipelinehost
from pipelinehost import Client
names = [module.name for module in pkgutil.walk_packages(pipelinehost.__path__, "pipelinehost.")]
for name in names:
    if not name.startswith("pipelinehost.cli"):
        importlib.import_module(name)
print(len(names), Client.__name__)
"""


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """A command away from the checkout, so that only what is installed can be imported."""
    environment = {
        name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}
    }
    return subprocess.run(
        command,
        cwd=cwd,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        timeout=100,
        check=False,
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``make dist`` builds: a wheel out of the sdist."""
    folder = tmp_path_factory.mktemp("dist")
    built = run("make", "dist", f"DIST={folder}", cwd=ROOT)
    assert built.returncode == 0, built.stdout
    (wheel,) = folder.glob("*.whl")
    (sdist,) = folder.glob("*.tar.gz")
    assert sdist.name.removesuffix(".tar.gz") == "-".join(wheel.name.split("-")[:2])
    return wheel


def test_every_file_of_the_packages_is_in_the_wheel(wheel: Path) -> None:
    roots = (ROOT / "client/pipelinehost", *(ROOT / "server").glob("pipelinehost_*"))
    files = {
        str(path.relative_to(root.parent))
        for root in roots
        for path in root.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert packed == files


def install(wheel: Path, extra: str, folder: Path) -> Path:
    """Install the wheel, with an extra, into an empty environment; gives the folder of its programs."""
    environment = folder / "environment"
    made = run(sys.executable, "-m", "venv", "--without-pip", environment, cwd=folder)
    assert made.returncode == 0, made.stdout
    pip = (sys.executable, "-m", "pip", "--python", environment / "bin" / "python")
    constraints = ROOT / "constraints.txt"
    done = run(*pip, "install", "--quiet", "--constraint", constraints, f"{wheel}{extra}", cwd=folder)
    if done.returncode and run(*pip, "index", "versions", "protobuf", cwd=folder).returncode:
        pytest.skip("the package index cannot be reached, so nothing can be installed")
    assert done.returncode == 0, done.stdout
    return environment / "bin"


@pytest.fixture(scope="module")
def client_alone(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment with the wheel and no extra."""
    return install(wheel, "", tmp_path_factory.mktemp("client"))


def test_the_client_alone_is_thin(client_alone: Path, tmp_path: Path) -> None:
    imported = run(
        client_alone / "python", "-W", "error", "-c", IMPORT_EVERYTHING_BELOW_THE_CLI, cwd=tmp_path
    )
    assert imported.returncode == 0, imported.stdout
    for module in ("click", "rich", "peewee", "httpx", "lxml"):
        absent = run(client_alone / "python", "-c", f"import {module}", cwd=tmp_path)
        assert f"No module named '{module}'" in absent.stdout


@pytest.mark.parametrize(
    ("program", "extra"),
    [("pipelinehost", "cli"), ("pipelinehost-server", "server"), ("pipelinehost-emulator", "server")],
)
def test_a_program_without_its_extra_says_which_one_to_install(
    client_alone: Path, tmp_path: Path, program: str, extra: str
) -> None:
    told = run(client_alone / program, "--help", cwd=tmp_path)
    assert told.returncode == 1, told.stdout
    assert f"pip install 'pipelinehost[{extra}]'" in told.stdout
    assert "Traceback" not in told.stdout


@pytest.mark.parametrize(
    ("extra", "names"),
    [("[cli]", ["pipelinehost"]), ("[server]", ["pipelinehost-server", "pipelinehost-emulator"])],
)
def test_the_programs_run_with_their_extra(wheel: Path, tmp_path: Path, extra: str, names: list[str]) -> None:
    programs = install(wheel, extra, tmp_path)
    for name in names:
        told = run(programs / name, "--help", cwd=tmp_path)
        assert told.returncode == 0, told.stdout
        assert name in told.stdout
