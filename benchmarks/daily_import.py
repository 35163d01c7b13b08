"""How fast arXiv's metadata dump is imported, and in how much memory: 100,000 records in the real format.

On SQLite, and on PostgreSQL where a server is named, as ``python scripts/postgres.py python benchmarks/run.py
daily-import`` does.
"""

from __future__ import annotations

import datetime
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from email.utils import format_datetime
from itertools import accumulate
from pathlib import Path
from typing import Any

import harness

N_RECORDS = 100_000
RECORDS_PER_SECOND = 5000
MEMORY_MB = 500
POSTGRES = "OFFPRINT_TEST_DATABASE_URL"

CATEGORIES = ("cs.LG", "cs.CL", "cs.CV", "stat.ML", "math.OC", "cs.AI", "hep-th", "quant-ph", "astro-ph.GA", "math.PR")
ACCENTED = (
    r"Erd{\H{o}}s",
    r"Schr\"odinger",
    r"Poincar\'e",
    r"Ha{\v{c}}ek",
    r"S{\o}rensen",
    r"Garc\'{\i}a",
    r"\L{}ukasz",
)
SYLLABLES = [
    "ab",
    "be",
    "con",
    "da",
    "el",
    "fi",
    "gra",
    "hu",
    "in",
    "jo",
    "ka",
    "le",
    "mi",
    "no",
    "or",
    "pa",
    "qui",
    "re",
    "sta",
    "ter",
    "un",
    "ver",
    "wi",
    "xo",
    "zy",
]


def write_dump(path: Path, n_records: int, seed: int = 0) -> None:
    """Write a dump of ``n_records`` lines."""
    with path.open("w", encoding="utf-8") as file:
        for record in arxiv_records(n_records, seed):
            file.write(json.dumps(record) + "\n")


def arxiv_records(n_records: int, seed: int = 0, per_month: int = 9000) -> Iterator[dict[str, Any]]:
    """Yield records in the order of their ids, ``per_month`` of them from one month, the first of January 2015."""
    draw = random.Random(seed)
    words = ["".join(draw.choices(SYLLABLES, k=draw.randint(1, 4))) for _ in range(30_000)]
    # As in any language, the n-th word is used about 1/n as often as the first.
    weights = list(accumulate(1 / (n + 5) for n in range(len(words))))
    names = [*(word.capitalize() for word in words[:5000]), *ACCENTED]

    def text(n_words: int) -> list[str]:
        return draw.choices(words, cum_weights=weights, k=n_words)

    for number in range(n_records):
        months, place = divmod(number, per_month)
        year, month = 2015 + months // 12, months % 12 + 1
        day = 1 + 27 * place // per_month
        first = datetime.datetime(year, month, day, *divmod(draw.randrange(1440), 60), tzinfo=datetime.UTC)
        versions = [first + datetime.timedelta(days=30 * n) for n in range(draw.choice((1, 1, 1, 2, 3)))]
        parsed = [[draw.choice(names), draw.choice(names), ""] for _ in range(draw.randint(1, 8))]
        title = text(draw.randint(5, 14))
        title[0] = title[0].capitalize()
        abstract = text(draw.randint(90, 230))
        abstract[3] = "$\\ell_2$"
        abstract[7] = draw.choice(ACCENTED)
        yield {
            "id": f"{year % 100:02}{month:02}.{place + 1:05}",
            "submitter": " ".join(parsed[0][1::-1]),
            "authors": ", ".join(" ".join(parts[1::-1]) for parts in parsed),
            "title": "\n  ".join(textwrap.wrap(" ".join(title), 70)),
            "comments": draw.choice((None, "12 pages, 3 figures", "Accepted; code available")),
            "journal-ref": None,
            "doi": None,
            "report-no": None,
            "categories": " ".join(draw.sample(CATEGORIES, draw.choice((1, 1, 2, 3)))),
            "license": "http://arxiv.org/licenses/nonexclusive-distrib/1.0/",
            "abstract": "  " + "\n".join(textwrap.wrap(" ".join(abstract) + ".", 78)) + "\n",
            "versions": [
                {"version": f"v{n}", "created": format_datetime(when, usegmt=True).replace(", 0", ", ")}
                for n, when in enumerate(versions, 1)
            ],
            "update_date": versions[-1].date().isoformat(),
            "authors_parsed": parsed,
        }


def comparisons() -> Iterator[harness.Comparison]:
    """Yield the first import and the second, which changes nothing, of each database, against the limit."""
    with tempfile.TemporaryDirectory() as folder:
        dump = Path(folder) / "arxiv-metadata-oai-snapshot.json"
        write_dump(dump, N_RECORDS)
        databases = {"SQLite": f"sqlite:///{folder}/papers.db"}
        if os.environ.get(POSTGRES):
            databases["PostgreSQL"] = os.environ[POSTGRES]
        for name, url in databases.items():
            for what, new in (("", N_RECORDS), (", again", 0)):
                done = _measured(url, dump)
                assert done["new"] == new, f"{done['new']} new papers in {url}; the database must be empty at first"
                yield _comparison(f"{N_RECORDS:,} records into {name}{what}", done)


def _comparison(name: str, done: dict[str, float]) -> harness.Comparison:
    limit = N_RECORDS / RECORDS_PER_SECOND
    note = f"{N_RECORDS / done['seconds']:,.0f} records/s; peak memory {done['memory_mb']:.0f} MB of {MEMORY_MB}"
    met = done["seconds"] <= limit and done["memory_mb"] <= MEMORY_MB
    return harness.Comparison(name, "the limit", done["seconds"], limit, limit / done["seconds"], 1.0, met, 1, note)


def _measured(url: str, dump: Path) -> dict[str, float]:
    """Import in a process of its own, so that the memory is the import's."""
    done = subprocess.run([sys.executable, __file__, url, str(dump)], check=True, stdout=subprocess.PIPE)
    measured: dict[str, float] = json.loads(done.stdout)
    return measured


def main(url: str, dump: str) -> None:
    """Import once and print how long it took, the most memory it held, and how many papers were new."""
    from offprint.daily.importing.arxiv_dump import ArxivDump
    from offprint.daily.importing.streaming import perform
    from offprint.store import Database

    database = Database(url)
    begun = time.perf_counter()
    report = perform(ArxivDump(Path(dump)), database)
    seconds = time.perf_counter() - begun
    memory_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "memory_mb": memory_mb, "new": report.new}))


if __name__ == "__main__":
    main(*sys.argv[1:])
