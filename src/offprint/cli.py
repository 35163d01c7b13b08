"""The command line: one command per job. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.orm import Session
    from torch.nn import Module

    from offprint.daily.importing.streaming import Source
    from offprint.lab.measure import PaperResult
    from offprint.methods.certify.verification.verifier import VerificationResult
    from offprint.methods.certify.vnnlib import Property
    from offprint.papers import Record, Scale

app = typer.Typer(
    help="Machine learning papers that run: apply their methods, measure their claims, read the day.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Datasets for full-scale runs.", no_args_is_help=True)
admin_app = typer.Typer(help="Run the site: moderators, comments, bans, figures.", no_args_is_help=True)
import_app = typer.Typer(help="Bring papers into the database of the site.", no_args_is_help=True)
digest_app = typer.Typer(help="Mail new papers to those who subscribe.", no_args_is_help=True)
app.add_typer(data_app, name="data")
app.add_typer(import_app, name="import")
app.add_typer(digest_app, name="digest")
app.add_typer(admin_app, name="admin")


class Frequency(StrEnum):
    """How often a digest comes."""

    daily = "daily"
    weekly = "weekly"


class Method(StrEnum):
    """How margins are bounded."""

    alpha_crown = "alpha-crown"
    crown = "crown"


class Branching(StrEnum):
    """What branch and bound splits."""

    auto = "auto"
    input = "input"
    relu = "relu"


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
ImportFile = Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="The file to read.")]
Who = Annotated[str, typer.Argument(metavar="EMAIL", help="The mail address, or the handle.", show_default=False)]
Undo = Annotated[bool, typer.Option("--undo", help="Take it back.")]
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
def certify(
    model: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="The network; .onnx.gz too.")],
    property: Annotated[Path, typer.Argument(metavar="PROPERTY.vnnlib", help="The property; .vnnlib.gz too.")],
    timeout: Annotated[float, typer.Option(help="Seconds until the answer is unknown.")] = 300.0,
    method: Annotated[Method, typer.Option(help="How margins are bounded.")] = Method.alpha_crown,
    branching: Annotated[Branching, typer.Option(help="What is split.")] = Branching.auto,
    batch: Annotated[int, typer.Option(min=1, help="Domains that are bounded at once.")] = 64,
    device: Device = "cpu",
    counterexample: Annotated[Path | None, typer.Option(help="Write a counterexample to this file.")] = None,
) -> None:
    """Prove a property of a network, or find a counterexample.

    The first line says verified, counterexample or unknown; the exit status is 0, 1 or 3.
    """
    import time

    start = time.monotonic()
    try:
        from offprint.methods.certify import vnnlib
        from offprint.methods.certify.onnx_import.convert import from_onnx

        asked, network = vnnlib.read(property), from_onnx(model)
        left = max(timeout - (time.monotonic() - start), 1e-3) if timeout > 0 else timeout
        result = _verified(network, asked, method.value, branching.value, left, batch, device)
    except (ValueError, NotImplementedError, OSError, ModuleNotFoundError, RuntimeError) as error:
        _stop(str(error))
    typer.echo(result.status)
    if result.counterexample is not None and result.output is not None:
        found = {"X": result.counterexample.flatten().tolist(), "Y": result.output.tolist()}
        lines = [f"({kind}_{i} {value!r})" for kind, values in found.items() for i, value in enumerate(values)]
        if counterexample is not None:
            counterexample.write_text("(" + "\n".join(lines) + ")\n")
            typer.echo(f"wrote {counterexample}")
        else:
            typer.echo(
                "\n".join(lines if len(lines) <= 40 else [*lines[:40], "… (--counterexample writes all to a file)"])
            )
    else:
        typer.echo(f"no input has a margin below {result.bound:.6g}")
    split = {"none": "nothing was split", "input": "boxes of inputs were split", "relu": "ReLUs were split"}
    typer.echo(f"{result.n_domains} domains, {result.n_open} of them open; {split[result.branching]}")
    raise typer.Exit({"verified": 0, "counterexample": 1, "unknown": 3}[result.status])


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(envvar="PORT", help="The port to listen on.")] = 8000,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Processes that answer.")] = 1,
    with_digest: Annotated[bool, typer.Option("--with-digest", help="Send the digests that are due, daily.")] = False,
) -> None:
    """Serve the daily page. The database is SQLite in the user's data folder, or OFFPRINT_DATABASE_URL."""
    try:
        from offprint.daily.server import serve as start
    except ModuleNotFoundError as error:
        _stop(f"the site needs {error.name}: pip install 'offprint[daily]'")
    start(host=host, port=port, workers=workers, with_digest=with_digest)


@app.command()
def embed(
    model: Annotated[
        str | None, typer.Option(help="A sentence-transformers model by name or path; else OFFPRINT_SEMANTIC_MODEL.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, max=4096, help="Papers that are encoded at once.")] = 64,
) -> None:
    """Make the vectors of papers that search by meaning needs: those that are missing or out of date.

    A run that is stopped goes on where it stopped when it is started again.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from offprint.daily.search.embedding import embed as make_vectors
    from offprint.daily.search.semantic import load_encoder
    from offprint.daily.settings import Settings
    from offprint.store import Database

    if not (model := model or Settings().semantic_model):
        _stop("name a model: --model, or OFFPRINT_SEMANTIC_MODEL for the site as well")
    try:
        encoder = load_encoder(model)
    except ModuleNotFoundError as error:
        _stop(f"search by meaning needs {error.name}: pip install 'offprint[semantic]'")
    except (OSError, ValueError) as error:
        _stop(f"the model {model!r} cannot be loaded: {error}")
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns) as bars:
        bar = bars.add_task("papers", total=None)

        def show(done: int, total: int) -> None:
            bars.update(bar, completed=done, total=total)

        made = make_vectors(Database(), model, encoder, progress=show, batch=batch)
    typer.echo(f"{made:,} vectors made; the others were up to date")


@app.command()
def backup(file: Annotated[Path, typer.Argument(help="The file to write.", dir_okay=False)]) -> None:
    """Copy the SQLite database to a file, whole and checked, also while the site is served."""
    from offprint.daily.backup import BackupError
    from offprint.daily.backup import backup as write

    try:
        size = write(file)
    except BackupError as error:
        _stop(str(error))
    typer.echo(f"wrote {file} ({size / 1e6:.1f} MB)")


@admin_app.command("make-moderator")
def make_moderator(who: Who, undo: Undo = False) -> None:
    """Let a reader moderate."""
    from offprint.daily import admin

    _administer(lambda session: admin.set_moderator(session, who, not undo))


@admin_app.command()
def ban(
    who: Who,
    hide_comments: Annotated[bool, typer.Option("--hide-comments", help="Hide all that was written, too.")] = False,
) -> None:
    """Keep a reader from taking part."""
    from offprint.daily import admin

    _administer(lambda session: admin.set_banned(session, who, True, hide_comments=hide_comments))


@admin_app.command()
def unban(who: Who) -> None:
    """Let a reader take part again."""
    from offprint.daily import admin

    _administer(lambda session: admin.set_banned(session, who, False))


@admin_app.command()
def hide(
    comment: Annotated[int, typer.Argument(help="The comment's number, which its link ends in.")], undo: Undo = False
) -> None:
    """Hide a comment from all but moderators and its author."""
    from offprint.daily import admin

    _administer(lambda session: admin.set_hidden(session, comment, not undo))


@admin_app.command()
def stats() -> None:
    """Show how much there is of everything."""
    from offprint.daily import admin

    _administer(lambda session: "\n".join(f"{number:>10,} {name}" for name, number in admin.stats(session).items()))


@import_app.command("page-text")
def import_page_text(
    file: ImportFile,
    year: Annotated[int, typer.Option(help="The year of the page, which its day heading leaves out.")],
) -> None:
    """Read the plain text of a daily page: its day, titles and abstracts."""
    from offprint.daily.importing.page_text import PageText

    _import(lambda: PageText(file, year))


@import_app.command("hub-json")
def import_hub_json(file: ImportFile) -> None:
    """Read daily papers as the Hub's API returns them: a JSON list, or a paper per line."""
    from offprint.daily.importing.hub_json import HubJson

    _import(lambda: HubJson(file))


@import_app.command("arxiv-dump")
def import_arxiv_dump(
    file: ImportFile,
    category: Annotated[list[str] | None, typer.Option(help="Only this category; can be repeated.")] = None,
) -> None:
    """Read arXiv's metadata dump: JSON lines, plain, gzipped or in the zip it comes in."""
    from offprint.daily.importing.arxiv_dump import ArxivDump

    _import(lambda: ArxivDump(file, category or ()))


@import_app.command("arxiv")
def import_arxiv(
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="arXiv ids, such as 2310.02987.")] = None,
    category: Annotated[str | None, typer.Option(help="All papers of this category, such as cs.LG.")] = None,
    since: Annotated[str | None, typer.Option(help="The first day of submission, such as 2025-08-01.")] = None,
    delay: Annotated[float, typer.Option(min=0.0, help="Seconds between requests; arXiv asks for 3.")] = 3.0,
) -> None:
    """Ask arXiv's API for papers by id, or for all of a category since a day.

    OFFPRINT_ARXIV_URL changes the address that is asked.
    """
    from datetime import date

    try:
        from offprint.daily.importing.arxiv_api import ArxivApi
        from offprint.daily.settings import Settings
    except ModuleNotFoundError as error:
        _stop(f"this import needs {error.name}: pip install 'offprint[daily]'")

    def source() -> ArxivApi:
        first = date.fromisoformat(since) if since else None
        endpoint = Settings().arxiv_url
        return ArxivApi(ids or [], category=category, since=first, endpoint=endpoint, delay=delay)

    _import(source)


@digest_app.command("send")
def digest_send(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would go out and change nothing.")] = False,
    frequency: Annotated[Frequency | None, typer.Option(help="Only these; both when left out.")] = None,
) -> None:
    """Send the digests that are due: daily ones on days with new papers, weekly ones from Monday on.

    Run it once a day; a run that is stopped goes on where it stopped. Without OFFPRINT_SMTP_URL mail goes to a folder.
    """
    from rich.console import Console

    try:
        from offprint.daily import settings
        from offprint.daily.mail.command import send
    except ModuleNotFoundError as error:
        _stop(f"mail needs {error.name}: pip install 'offprint[daily]'")
    from offprint.store import Database

    try:
        chosen = frequency.value if frequency else None
        status = send(Database(), settings.load(), chosen, dry_run=dry_run, console=Console())
    except ValueError as error:
        _stop(str(error))
    raise typer.Exit(status)


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


def _verified(
    network: Module, asked: Property, method: str, branching: str, timeout: float, batch: int, device: str
) -> VerificationResult:
    """Verify under a line that shows how far it is; it goes to the error stream, away from the answer."""
    from rich.console import Console

    from offprint.methods.certify.verification.verifier import verify

    with Console(stderr=True).status("attacking and bounding") as line:

        def show(n_decided: int, n_open: int, bound: float) -> None:
            line.update(f"{n_decided} domains decided, {n_open} open, least bound {bound:.4g}")

        return verify(
            network,
            asked,
            method=method,
            branching=branching,
            time_limit=timeout,
            batch=batch,
            device=device,
            progress=show,
        )


def _administer(work: Callable[[Session], str]) -> None:
    """Do something in the database and print what was done, or why not."""
    from offprint.daily.admin import UnknownError
    from offprint.store import Database

    database = Database()
    try:
        with database.session() as session:
            typer.echo(work(session))
    except UnknownError as error:
        _stop(str(error))
    finally:
        database.close()


def _records(slugs: list[str]) -> list[Record]:
    from offprint.papers import RecordError, measured_claims, record, records

    try:
        if slugs == ["all"]:
            return [paper for paper in records().values() if measured_claims(paper)]
        return [record(slug) for slug in slugs]
    except (KeyError, RecordError) as error:
        _stop(str(error.args[0]))


def _import(open_source: Callable[[], Source]) -> None:
    """Import a source under a progress bar and say what was found; what could not be used is no failure."""
    from offprint.daily.importing.progress import shown
    from offprint.daily.importing.streaming import SourceError, perform
    from offprint.store import Database

    try:
        with shown() as progress:
            report = perform(open_source(), Database(), progress)
    except (SourceError, ValueError, OSError) as error:
        _stop(str(error))
    typer.echo(str(report))
    if report.unreadable:
        _stop("nothing could be read")


def _stop(message: str, status: int = 2) -> NoReturn:
    print(f"offprint: {message}", file=sys.stderr)
    raise SystemExit(status)


if __name__ == "__main__":
    main()
