"""The command line: one command per job. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from offprint.lab.measure import PaperResult
    from offprint.papers import Record, Scale

app = typer.Typer(
    help="Machine learning papers that run: apply their methods, measure their claims, read the day.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Datasets for full-scale runs.", no_args_is_help=True)
import_app = typer.Typer(help="Bring papers into the database of the site.", no_args_is_help=True)
app.add_typer(data_app, name="data")
app.add_typer(import_app, name="import")


class ScaleName(StrEnum):
    """The scales a run can have."""

    smoke = "smoke"
    quick = "quick"
    full = "full"
    paper = "paper"


Slugs = Annotated[list[str], typer.Argument(help="Papers by slug, or 'all'.", show_default=False)]
ClaimIds = Annotated[list[str] | None, typer.Option("--claim", help="Only this claim; can be repeated.")]
Device = Annotated[str, typer.Option(help="A torch device, such as cpu or cuda:0.")]
Cores = Annotated[int | None, typer.Option(help="Cores to share out; all of them when left out.")]
Again = Annotated[bool, typer.Option("--again", help="Measure also what has been measured before.")]
Seeds = Annotated[int | None, typer.Option(help="Repetitions of each claim, instead of what its record says.")]


@app.command()
def run(
    slugs: Slugs,
    scale: Annotated[ScaleName, typer.Option(help="How much work to do.")] = ScaleName.quick,
    claim: ClaimIds = None,
    seeds: Seeds = None,
    device: Device = "cpu",
    cores: Cores = None,
    again: Again = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with status 1 unless all is reproduced.")] = False,
    report: Annotated[Path | None, typer.Option(help="Write report.md, .html and .json to this folder.")] = None,
) -> None:
    """Measure the claims of papers and show the verdicts.

    A run that is stopped goes on where it stopped when it is started again.
    """
    from offprint.lab.report import report as write_report

    results = _measure(_records(slugs), scale.value, claim, seeds, device, cores, again)
    for path in write_report(results, report) if report else []:
        typer.echo(f"wrote {path}")
    verdicts = [verdict for result in results for verdict in result.verdicts]
    if "error" in verdicts or (strict and set(verdicts) - {"reproduced", "not yet measured"}):
        raise typer.Exit(1)


@app.command()
def record(slugs: Slugs, device: Device = "cpu", cores: Cores = None, again: Again = False) -> None:
    """Measure papers at full scale and write results/<slug>.json with its figures."""
    from offprint.lab.results import record_results

    for paper in _records(slugs):
        for result in _measure([paper], "full", None, None, device, cores, again):
            typer.echo(f"wrote {record_results(result, f'offprint record {paper.slug}')}")


@app.command()
def papers() -> None:
    """List the papers on record, with their recorded verdicts."""
    from offprint.lab.results import recorded_badge
    from offprint.papers import records

    for paper in records().values():
        typer.echo(f"{paper.slug:28} {recorded_badge(paper):28} {paper.title}")


@app.command()
def new(
    slug: Annotated[str, typer.Argument(help="The paper's slug, for example my-paper.")],
    title: Annotated[str | None, typer.Option(help="The paper's title.")] = None,
    family: Annotated[str, typer.Option(help="The family its method belongs to.")] = "learn",
    arxiv: Annotated[str, typer.Option(help="The paper's arXiv id.")] = "2501.00001",
    package: Annotated[Path | None, typer.Option(help="Write a package of one's own to this new folder.")] = None,
) -> None:
    """Write the files that make a paper: method, record, claims and tests.

    In a checkout of offprint they go where they belong; with --package they become a package that registers itself.
    """
    from offprint.papers.scaffold import create

    try:
        written = create(slug, title=title, family=family, arxiv=arxiv, into=package)
    except (ValueError, FileExistsError, FileNotFoundError) as error:
        _stop(str(error))
    for path in written:
        typer.echo(f"wrote {path}")


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(envvar="PORT", help="The port to listen on.")] = 8000,
) -> None:
    """Serve the daily page. The database is SQLite in the user's data folder, or OFFPRINT_DATABASE_URL."""
    try:
        from offprint.daily.server import serve as start
    except ModuleNotFoundError as error:
        _stop(f"the site needs {error.name}: pip install 'offprint[daily]'")
    start(host=host, port=port)


@import_app.command("page-text")
def page_text(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="The plain text of a daily page.")],
    year: Annotated[int, typer.Option(help="The year of the page, which its day heading leaves out.")],
) -> None:
    """Read the plain text of a daily page: its day, titles and abstracts."""
    from offprint.daily.page_text import import_page_text
    from offprint.store import Database

    try:
        outcome = import_page_text(file, year, Database())
    except ValueError as error:
        _stop(str(error))
    typer.echo(str(outcome))


@data_app.command("list")
def data_list() -> None:
    """List the datasets."""
    from offprint import data

    for name in data.names():
        typer.echo(f"{name:16} {data.describe(name).summary}")


@data_app.command("get")
def data_get(name: Annotated[str, typer.Argument(help="A dataset's name; see 'offprint data list'.")]) -> None:
    """Download a dataset; a download that was cut goes on where it stopped."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    from offprint import data

    with Progress(TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()) as bars:
        bar = bars.add_task(name, total=None)

        def show(done: float, total: float, label: str = "") -> None:
            bars.update(bar, completed=done, total=total or None, description=label or name)

        try:
            path = data.get(name, progress=show)
        except (ValueError, OSError) as error:
            bars.stop()
            _stop(str(error))
    typer.echo(f"{name} is in {path}")


def main() -> None:
    """Run the command line; Ctrl-C ends it with one line."""
    try:
        app()
    except KeyboardInterrupt:
        _stop("stopped; what was measured is kept, and the same command goes on from there", status=130)


def _measure(
    chosen: list[Record],
    scale: Scale,
    claims: list[str] | None,
    seeds: int | None,
    device: str,
    cores: int | None,
    again: bool,
) -> list[PaperResult]:
    from rich.console import Console

    from offprint.lab.executors import ProcessPool
    from offprint.lab.ledger import Ledger
    from offprint.lab.measure import measure
    from offprint.lab.tasks import plan
    from offprint.lab.terminal import Bars, table
    from offprint.store import Database

    console = Console()
    try:
        n_tasks = len(plan(chosen, scale, claims=claims, seeds=seeds, device=device))
        executor = ProcessPool(cores)
    except ValueError as error:
        _stop(str(error))
    with Bars(console, n_tasks) as bars:
        results = measure(
            chosen,
            scale,
            ledger=Ledger(Database()),
            claims=claims,
            seeds=seeds,
            executor=executor,
            device=device,
            again=again,
            listen=bars,
        )
    console.print(table(results))
    return results


def _records(slugs: list[str]) -> list[Record]:
    from offprint.papers import RecordError, measured_claims, record, records

    try:
        if slugs == ["all"]:
            return [paper for paper in records().values() if measured_claims(paper)]
        return [record(slug) for slug in slugs]
    except (KeyError, RecordError) as error:
        _stop(str(error.args[0]))


def _stop(message: str, status: int = 2) -> NoReturn:
    print(f"offprint: {message}", file=sys.stderr)
    raise SystemExit(status)


if __name__ == "__main__":
    main()
