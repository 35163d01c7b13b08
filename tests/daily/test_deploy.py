"""The files for operators call what there is: commands, options, variables, addresses and files."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from pathlib import Path

import pytest
from typer.main import get_command

from offprint import cli
from offprint.daily.routes import operating, runs
from offprint.daily.settings import PREFIX, Settings
from offprint.store.database import URL_VARIABLE

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
if not DEPLOY.is_dir():
    pytest.skip("the files for operators come with the sources", allow_module_level=True)


def text(name: str) -> str:
    """Return a file with its wrapped lines joined."""
    return re.sub(r"\\\n\s*", " ", (DEPLOY / name).read_text(encoding="utf-8"))


def commands() -> list[list[str]]:
    """Return the commands that the service and the container run."""
    [service] = re.findall(r"^ExecStart=(.*)$", text("offprint.service"), re.MULTILINE)
    content = text("Containerfile")
    entry, arguments = (re.findall(rf"^{name} (\[.*\])$", content, re.MULTILINE)[0] for name in ("ENTRYPOINT", "CMD"))
    return [shlex.split(service), [*json.loads(entry), *json.loads(arguments)]]


@pytest.mark.parametrize("command", commands(), ids=["service", "container"])
def test_the_command_and_its_options_exist(command: list[str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    program, *arguments = command
    assert Path(program).name in project["scripts"]
    serve = get_command(cli.app).commands[arguments[0]]  # type: ignore[attr-defined]
    assert serve.make_context("serve", arguments[1:]).params["port"] == 8000


@pytest.mark.parametrize("name", ["offprint.service", "Containerfile"])
def test_every_variable_is_one_that_is_read(name: str) -> None:
    known = {f"{PREFIX}{field}".upper() for field in Settings.model_fields} | {URL_VARIABLE}
    named = set(re.findall(r"\bOFFPRINT_[A-Z_]+", text(name)))
    assert named
    assert named <= known


def test_the_container_copies_files_that_exist_and_installs_extras_that_exist() -> None:
    content = text("Containerfile")
    copied = [
        part for line in re.findall(r"^COPY (?!--from)(.*)$", content, re.MULTILINE) for part in line.split()[:-1]
    ]
    assert {"pyproject.toml", "src"} <= set(copied)
    assert [part for part in copied if not (ROOT / part).exists()] == []
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    [extras] = re.findall(r"'\.\[([a-z,]+)\]'", content)
    assert set(extras.split(",")) <= project["optional-dependencies"].keys()
    assert set(re.findall(r"--constraint (\S+)", content)) <= set(copied)


def test_the_addresses_that_are_asked_and_hidden_are_there() -> None:
    paths = {route.path for module in (operating, runs) for route in module.router.routes}  # type: ignore[attr-defined]
    [health] = re.findall(r"127\.0\.0\.1:8000(/\w+)", text("Containerfile"))
    assert health in paths
    for name in ("nginx.conf", "Caddyfile"):
        assert "/metrics" in text(name)
    assert "/metrics" in paths
    [events] = re.findall(r"location ~ (\S+) ", text("nginx.conf"))
    assert any(re.fullmatch(events, re.sub(r"\{\w+(:int)?\}", "7", path)) for path in paths)
