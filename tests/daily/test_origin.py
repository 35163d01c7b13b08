"""Where requests come from and the address of the site: what whoever asks says of either is not believed."""

from __future__ import annotations

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request

from offprint.daily.origin import base_address, is_here, is_loopback, mailed_address
from offprint.daily.settings import Settings


def request(
    host: str = "127.0.0.1:8000",
    *,
    client: str | None = "127.0.0.1",
    base_url: str = "",
    scheme: str = "http",
    server: str = "192.0.2.1",
    **headers: str,
) -> Request:
    """Return a request for a page of a site."""

    class App:
        class state:
            settings = Settings(base_url=base_url)

    sent = {"host": host} | {name.replace("_", "-"): value for name, value in headers.items()}
    scope = {
        "type": "http", "method": "GET", "path": "/papers/a", "query_string": b"", "scheme": scheme, "root_path": "",
        "headers": [(name.encode(), value.encode()) for name, value in sent.items()], "app": App,
        "client": None if client is None else (client, 1), "server": (server, 8000),
    }  # fmt: skip
    return Request(scope)


@pytest.mark.parametrize(
    ("host", "here"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("::ffff:203.0.113.7", False),
        ("192.0.2.1", False),
        ("0.0.0.0", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("testclient", False),
        ("", False),
    ],
)
def test_addresses_of_this_machine(host: str, here: bool) -> None:
    assert is_loopback(host) is here
    assert is_here(request(client=host)) is here


@pytest.mark.parametrize("name", ["forwarded", "x_forwarded_for", "x_forwarded_host", "x_real_ip", "via"])
def test_what_a_proxy_passes_on_comes_from_elsewhere(name: str) -> None:
    assert is_here(request())
    assert not is_here(request(**{name: "127.0.0.1"}))
    assert not is_here(request(client=None))


@pytest.mark.parametrize("base", [base_address, mailed_address])
def test_the_address_that_is_set_counts_whatever_was_asked_for(base: object) -> None:
    assert base(request("evil.example", base_url="https://a.example/")) == "https://a.example"  # type: ignore[operator]


@pytest.mark.parametrize(
    ("host", "scheme", "mailed"),
    [
        ("127.0.0.1:8000", "http", True),
        ("localhost:8000", "https", True),
        ("[::1]:8000", "http", True),
        ("192.0.2.1:8000", "http", True),
        ("192.0.2.2:8000", "http", False),
        ("evil.example", "https", False),
        ("localhost.evil.example", "http", False),
    ],
)
def test_mails_lead_to_this_server_only(host: str, scheme: str, mailed: bool) -> None:
    asked = request(host, scheme=scheme)
    assert base_address(asked) == f"{scheme}://{host}"
    if mailed:
        assert mailed_address(asked) == f"{scheme}://{host}"
    else:
        with pytest.raises(HTTPException, match=r"503.*OFFPRINT_BASE_URL"):
            mailed_address(asked)
