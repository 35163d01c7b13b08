"""The OpenAPI document, and whether the site does what it says, for thousands of requests made from it."""

from __future__ import annotations

import datetime
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import jsonschema_rs
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    positive_data_acceptance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)
from tests.daily.conftest import Site

from offprint.daily.library import title_key
from offprint.store import Database, Listing, Paper

CHECKS = [
    schemathesis.checks.not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
    positive_data_acceptance,
    unsupported_method,
]

POSITIVE = schemathesis.GenerationMode.POSITIVE


@pytest.fixture
def described(client: Site, recorded_alpha: object) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/api/openapi.json").json()
    return found


def test_the_document_is_whole(described: dict[str, Any]) -> None:
    assert described["openapi"].startswith("3.1.")
    assert described["servers"] == [{"url": "http://127.0.0.1"}]
    assert set(described["paths"]) == {
        "/api/daily_papers",
        "/api/papers/search",
        "/api/papers/{id}",
        "/papers/{id}.md",
        "/api/claims",
    }
    for path, methods in described["paths"].items():
        assert set(methods) == {"get"}
        operation = methods["get"]
        told = operation["responses"]
        assert {"200", "304", "429", "500"} <= set(told)
        assert ("404" in told) == ("{id}" in path)
        assert ("400" in told) == ("{id}" not in path)
        assert ("422" in told) == (path == "/api/daily_papers")
        for status, response in told.items():
            assert response["description"]
            if status >= "4":
                assert list(response["content"]) == ["application/problem+json"]
        assert operation["description"]
        for parameter in operation["parameters"]:
            assert parameter["description"]
    for schema in described["components"]["schemas"].values():
        jsonschema_rs.meta.validate(schema)
        assert schema["description"]
    assert "null" not in str(described)
    references = set(re.findall(r"#/components/schemas/(\w+)", str(described)))
    assert references == set(described["components"]["schemas"])


def requests_of(site: Site, count: int) -> Counter[str]:
    """Make requests from the document, each checked against it; returns how many there were of each kind."""
    made: Counter[str] = Counter()
    schema = schemathesis.openapi.from_asgi("/api/openapi.json", site.app)
    kinds = [(result.ok(), mode) for result in schema.get_all_operations() for mode in schemathesis.GenerationMode]
    # Any text may be the name of a paper, so that none is against the document.
    kinds = [(operation, mode) for operation, mode in kinds if mode is POSITIVE or "{id}" not in operation.path]
    for operation, mode in kinds:
        ask(operation, mode, count // len(kinds), made)
    return made


def ask(
    operation: schemathesis.APIOperation, mode: schemathesis.GenerationMode, count: int, made: Counter[str]
) -> None:
    """Make requests of one kind, some of them for what is there."""

    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(operation.as_strategy(generation_mode=mode), st.sampled_from([None, None, "2501.00001", "2412.00001"]))
    def send(case: schemathesis.Case, name: str | None) -> None:
        if no_such_week(case):
            return
        if name and case.path_parameters and mode is POSITIVE:
            case.path_parameters["id"] = name
        response = case.call_and_validate(checks=CHECKS)
        made[f"{operation.path} {mode.value} {response.status_code}"] += 1

    send()


def no_such_week(case: schemathesis.Case) -> bool:
    """Whether it asks for week 53 of a year that has 52, which no schema can rule out."""
    week = (case.query or {}).get("week")
    if not isinstance(week, str) or not re.fullmatch("[0-9]{4}-W53", week):
        return False
    return datetime.date(int(week[:4]), 12, 28).isocalendar().week != 53


def fill(database: Database) -> None:
    """Add papers of every shape that an import may bring."""
    with database.session() as session:
        for number in range(30):
            title = f"Paper {number} " + "é\u202e<b>\x01" * (number % 3)
            paper = Paper(
                title=title,
                title_key=title_key(title),
                authors=["Ada", ""] * (number % 4),
                arxiv=f"2412.{number:05}" if number % 2 else None,
                abstract=None if number % 5 else "words\n" * number,
                code="https://github.com/a/b" if number % 3 else "not an address",
                categories=["cs.LG"] * (number % 2),
                published_at=datetime.datetime(2024, 12, 1, tzinfo=datetime.UTC) if number % 2 else None,
            )
            session.add(paper)
            day = datetime.date(2024, 12, 1) + datetime.timedelta(days=number)
            paper.listings.append(Listing(day=day, submitter="ada" if number % 2 else None))


def test_more_than_a_hundred_requests_made_from_the_document(
    client: Site, database: Database, recorded_alpha: object
) -> None:
    fill(database)
    made = requests_of(client, 104)
    assert sum(made.values()) >= 100
    assert not [kind for kind in made if kind.endswith("500")]


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_ten_thousand_requests_made_from_the_document(
    site: Callable[..., Site], database: Database, recorded_alpha: object
) -> None:
    fill(database)
    made = requests_of(site(), 11_000)
    print(*sorted(made.items()), sep="\n")
    assert sum(made.values()) >= 10_000
    assert not [kind for kind in made if kind.endswith("500")]
