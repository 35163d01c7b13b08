"""What ``offprint new`` writes: it passes the contract tests, its own tests and the linter as it stands."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from offprint.papers import Record
from offprint.papers.scaffold import create

ROOT = Path(__file__).parents[2]
SLUG = "made-up-by-test"
NAME = "made_up_by_test"


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of this checkout's source and contract tests, with a folder inside it as the current one."""
    root = tmp_path / "checkout"
    ignored = shutil.ignore_patterns("__pycache__", ".mypy_cache", ".pytest_cache")
    shutil.copytree(ROOT / "src", root / "src", ignore=ignored)
    for folder in ("contract", "support"):
        shutil.copytree(ROOT / "tests" / folder, root / "tests" / folder, ignore=ignored)
    for name in ("pyproject.toml", ".importlinter"):
        shutil.copy(ROOT / name, root / name)
    monkeypatch.chdir(root / "src")
    return root


def run(*arguments: str, at: Path, path: Path) -> None:
    """Run a Python module in a process of its own, with one folder more on the path."""
    environment = {**os.environ, "PYTHONPATH": str(path), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", *arguments]
    ended = subprocess.run(command, cwd=at, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def pytest_passes(*arguments: str, at: Path, path: Path) -> None:
    run("pytest", "-q", "-p", "no:cacheprovider", *arguments, at=at, path=path)


def register(source: Path, package: str) -> None:
    """Make a source folder look as if its package were installed, entry point and all."""
    metadata = source / f"{package}-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1\n", encoding="utf-8")
    (metadata / "entry_points.txt").write_text(f"[offprint.papers]\nown = {package}.papers\n", encoding="utf-8")


# One family that is there, and one whose package has to be made.
@pytest.mark.parametrize("family", ["bags", pytest.param("theory", marks=pytest.mark.slow)])
def test_a_paper_in_a_checkout_passes_everything(checkout: Path, family: str) -> None:
    written = create(SLUG, title='A "quoted" title: \\alpha', family=family, arxiv="2403.12345")
    places = {str(path.relative_to(checkout)) for path in written}
    assert places >= {
        f"src/offprint/methods/{family}/{NAME}.py",
        f"src/offprint/papers/{NAME}/paper.toml",
        f"src/offprint/papers/{NAME}/__init__.py",
        f"src/offprint/papers/{NAME}/claims.py",
        f"tests/methods/{family}/test_{NAME}.py",
    }
    assert all(path.is_file() for path in written)
    tests = f"tests/methods/{family}/test_{NAME}.py"
    pytest_passes("tests/contract", tests, "-k", f"{NAME} or {SLUG} or floors_hold", at=checkout, path=checkout / "src")


def test_a_package_of_its_own_passes_everything(tmp_path: Path) -> None:
    home = tmp_path / "our-lab"
    written = create(SLUG, into=home)
    assert home / "src" / "our_lab" / "papers" / NAME / "paper.toml" in written
    register(home / "src", "our_lab")
    pytest_passes(at=home, path=home / "src")
    pytest_passes("tests/contract", "-k", f"{NAME} or {SLUG}", at=ROOT, path=home / "src")


def test_what_is_written_is_clean(checkout: Path, tmp_path: Path) -> None:
    pytest.importorskip("ruff")
    home = tmp_path / "our-lab"
    for root, written in ((checkout, create(SLUG, family="theory")), (home, create(SLUG, into=home))):
        files = [str(path) for path in written if path.suffix in (".py", ".pyi")]
        for command in (["check"], ["format", "--check"]):
            run("ruff", *command, "--no-cache", "--config", str(root / "pyproject.toml"), *files, at=root, path=root)


def test_a_package_takes_a_second_paper(tmp_path: Path) -> None:
    home = tmp_path / "our-lab"
    before = {path: path.read_bytes() for path in create(SLUG, into=home)}
    added = create("another-one", into=home)
    assert home / "src" / "our_lab" / "methods" / "another_one.py" in added
    assert not set(added) & set(before)
    assert all(path.read_bytes() == content for path, content in before.items())


def test_the_record_says_what_was_asked_for(tmp_path: Path) -> None:
    create(SLUG, title='On "quotes" and \\', family="privacy", arxiv="2310.02987", into=tmp_path / "our-lab")
    record = Record.read(tmp_path / "our-lab" / "src" / "our_lab" / "papers" / NAME / "paper.toml")
    assert (record.slug, record.title, record.family) == (SLUG, 'On "quotes" and \\', "privacy")
    assert (record.arxiv, record.year) == ("2310.02987", 2023)
    assert record.methods == (f"our_lab.methods.{NAME}:{NAME}",)


def test_nothing_is_overwritten_and_nothing_written_then(checkout: Path) -> None:
    in_the_way = checkout / "tests" / "methods" / "learn" / f"test_{NAME}.py"
    in_the_way.parent.mkdir(parents=True)
    in_the_way.write_text("mine", encoding="utf-8")
    before = sorted(checkout.rglob("*"))
    with pytest.raises(FileExistsError, match=f"nothing was written.*test_{NAME}.py"):
        create(SLUG)
    assert in_the_way.read_text(encoding="utf-8") == "mine"
    assert sorted(checkout.rglob("*")) == before


@pytest.mark.parametrize("slug", ["registry", "rules", "templates"])
def test_a_name_of_this_floor_is_not_shadowed(checkout: Path, slug: str) -> None:
    with pytest.raises(FileExistsError, match=slug):
        create(slug)
    assert not (checkout / "src" / "offprint" / "papers" / slug / "paper.toml").exists()


def test_a_taken_slug_is_refused(tmp_path: Path, make_paper) -> None:  # type: ignore[no-untyped-def]
    make_paper({"a": "{ holds = true }"}, "", slug="own-paper")
    with pytest.raises(FileExistsError, match="'own-paper' is taken"):
        create("own-paper", into=tmp_path / "our-lab")


@pytest.mark.parametrize(
    "slug", ["", "My-paper", "my_paper", "my--paper", "-a", "a-", "3d", "../up", "import", "a" * 41]
)
def test_a_bad_slug_is_refused(slug: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="slug must be"):
        create(slug, into=tmp_path / "our-lab")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"family": "cooking"}, "family must be one of certify"),
        ({"arxiv": "2501.1"}, "arxiv must be"),
        ({"arxiv": "2513.00001"}, "arxiv must be"),
        ({"title": "  "}, "title must not be empty"),
    ],
)
def test_bad_options_are_refused(options: dict[str, str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        create(SLUG, into=tmp_path / "our-lab", **options)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("folder", ["1lab", "numpy", "class", "a&b"])
def test_a_folder_that_can_name_no_package_is_refused(folder: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="into must"):
        create(SLUG, into=tmp_path / folder)
    assert list(tmp_path.iterdir()) == []


def test_outside_a_checkout_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="give the folder of a package of your own"):
        create(SLUG)


@pytest.mark.slow
def test_a_package_can_really_be_installed(tmp_path: Path) -> None:
    pytest.importorskip("hatchling")
    home = tmp_path / "our-lab"
    create(SLUG, into=home)
    venv.create(tmp_path / "env", with_pip=True, system_site_packages=True)
    python = str(tmp_path / "env" / "bin" / "python")
    # A virtual environment made inside another one sees the system's packages, not the outer environment's.
    outer = os.pathsep.join(path for path in sys.path if path)
    environment = {**os.environ, "PYTHONPATH": outer}
    install = [python, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "-e", str(home)]
    subprocess.run(install, check=True, env=environment)
    code = f"from offprint.papers import record; print(record({SLUG!r}).package)"
    shown = subprocess.run([python, "-c", code], check=True, env=environment, capture_output=True, text=True)
    assert shown.stdout.strip() == f"our_lab.papers.{NAME}"
