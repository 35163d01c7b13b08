"""What keeps the site safe: headers on every answer, and proof that a form was sent from a page of ours."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable
from urllib.parse import parse_qs, urlsplit

from itsdangerous import BadSignature, URLSafeTimedSerializer
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from offprint.daily.settings import Settings, data_folder

COOKIE = "offprint_visitor"
SESSION_COOKIE = "offprint_session"
TOKEN_SECONDS = 7 * 24 * 3600
LARGEST_FORM = 8192
LARGEST_TEXT = 65536
MOST_FIELDS = 40
FORM_TYPE = "application/x-www-form-urlencoded"
LARGEST_BODY = 256 * 1024
"""No request may be larger, whatever it holds and wherever it goes."""

HSTS = "max-age=31536000"
TOO_LARGE = "This is too large."

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "font-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    # Not no-referrer: browsers would then send "Origin: null" with our own forms.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


class SecurityHeaders:
    """Adds the headers to every answer that does not set them itself.

    Parameters
    ----------
    app : ASGI application
    https : bool
        Whether readers reach the site over TLS, even where a proxy passes their requests on without it.
    """

    def __init__(self, app: ASGIApp, https: bool = False) -> None:
        self.app = app
        self.https = https

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and add the headers on the way back."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in strict_headers(self.https or scope.get("scheme") == "https").items():
                    headers.setdefault(name, value)
            await send(message)

        await self.app(scope, receive, send_with_headers if scope["type"] == "http" else send)


def strict_headers(https: bool) -> dict[str, str]:
    """Return the headers of an answer, over TLS or not."""
    return HEADERS | {"Strict-Transport-Security": HSTS} if https else HEADERS


class Bounds:
    """Refuses what no reader sends: too large a body, however it is sent, NUL (databases refuse it), a false host.

    Parameters
    ----------
    app : ASGI application
    refuse : callable
        Makes the answer from the request, a status and an explanation.
    """

    def __init__(self, app: ASGIApp, refuse: Callable[[Request, int, str], Response]) -> None:
        self.app = app
        self.refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on while it keeps within the bounds."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        if refusal := _refusal(Request(scope)):
            return await self.refuse(Request(scope), *refusal)(scope, receive, send)
        received = 0

        async def receive_bounded() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > LARGEST_BODY:
                raise HTTPException(413, TOO_LARGE)  # where the body is read, so that it becomes a page
            return message

        return await self.app(scope, receive_bounded, send)


def _refusal(request: Request) -> tuple[int, str] | None:
    """Return why a request is refused before anything is read of it: a status and an explanation."""
    try:
        _ = request.url.port
    except ValueError:
        return 400, "This address cannot be read."
    if "\0" in request.scope["path"]:
        return 404, "There is nothing at this address."
    if "%00" in request.url.query or "\0" in request.url.query:
        return 400, "This address holds a character that is not text."
    stated = request.headers.get("content-length", "0")
    if not stated.isdecimal() or len(stated) > 12 or int(stated) > LARGEST_BODY:
        return 413, TOO_LARGE
    return None


def over_tls(request: Request) -> bool:
    """Whether the reader's browser reaches us over TLS, as far as a proxy between says or the operator has set."""
    settings: Settings = request.app.state.settings
    return settings.https or request.url.scheme == "https"


def cookie_name(request: Request, name: str) -> str:
    """Return a cookie's name. Over TLS, its prefix keeps other hosts of the domain from setting it."""
    return f"__Host-{name}" if over_tls(request) else name


def set_cookie(request: Request, response: Response, name: str, value: str, seconds: int | None = None) -> None:
    """Set a cookie that neither scripts nor other sites' requests see; until the browser ends without ``seconds``."""
    response.set_cookie(
        cookie_name(request, name), value, max_age=seconds, httponly=True, samesite="lax", secure=over_tls(request)
    )


class FormGuard:
    """Gives forms a signed token bound to the visitor's cookie and session, and checks it when a form comes back.

    Parameters
    ----------
    secret : str, optional
        The keys, as :func:`signer` takes them.
    """

    def __init__(self, secret: str = "") -> None:
        self._signer = signer("form", secret)

    def visitor(self, request: Request) -> str:
        """Return what names this visitor: the cookie, or a new name that :meth:`remember` then sets."""
        known = request.cookies.get(cookie_name(request, COOKIE), "")
        if len(known) == 32 and known.isalnum() and known.isascii():
            return known
        if not hasattr(request.state, "visitor"):
            request.state.visitor = secrets.token_hex(16)
        return str(request.state.visitor)

    def token(self, request: Request) -> str:
        """Return the token for a form on this visitor's page."""
        return self._signer.dumps(self._holder(request))

    def _holder(self, request: Request) -> str:
        """Return whom a token belongs to: to sign in or out ends the tokens of before."""
        session = request.cookies.get(cookie_name(request, SESSION_COOKIE), "")
        known = hashed(session)[:16] if session else ""
        return f"{self.visitor(request)}.{known}"

    def remember(self, request: Request, response: Response) -> None:
        """Set the cookie of a visitor who has none yet."""
        if hasattr(request.state, "visitor"):
            set_cookie(request, response, COOKIE, request.state.visitor)

    def rename(self, request: Request, response: Response) -> None:
        """Give the visitor a new name, as a new session begins: whoever knew the old one does not know this."""
        set_cookie(request, response, COOKIE, secrets.token_hex(16))

    async def form(self, request: Request, largest: int = LARGEST_FORM) -> dict[str, str]:
        """Read a form that one of our pages sent.

        Parameters
        ----------
        request : Request
        largest : int
            The most bytes it may have.

        Raises
        ------
        HTTPException
            403 if it came from elsewhere or its token is wrong or old, 400 if it is not text, 413 if it is too large,
            415 if it is no form.
        """
        if not _same_site(request):
            raise HTTPException(403, "This was sent from another site.")
        fields = await _fields(request, largest)
        try:
            signed = self._signer.loads(fields.get("token", ""), max_age=TOKEN_SECONDS)
        except BadSignature:
            signed = None
        if signed is None or not secrets.compare_digest(str(signed).encode(), self._holder(request).encode()):
            raise HTTPException(403, "This page is too old, or your browser keeps no cookies. Reload it and try again.")
        return fields


async def checked_form(request: Request) -> dict[str, str]:
    """Read a form of a few lines, as a dependency of a route."""
    guard: FormGuard = request.app.state.guard
    return await guard.form(request)


async def checked_text(request: Request) -> dict[str, str]:
    """Read a form that holds a longer text, as a dependency of a route."""
    guard: FormGuard = request.app.state.guard
    return await guard.form(request, LARGEST_TEXT)


def hashed(text: str) -> str:
    """Return what is kept of a token, or of a name that is to be told from others but not read."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def signer(purpose: str, secret: str = "") -> URLSafeTimedSerializer:
    """Return what signs for one purpose and checks what was signed.

    Parameters
    ----------
    purpose : str
        What is signed for one purpose does not count for another.
    secret : str
        Keys, separated by commas: the first signs, all of them count when a signature is checked. The key kept in the
        user's data folder when empty.
    """
    keys = [key.strip() for key in secret.split(",") if key.strip()] or [kept_secret()]
    return URLSafeTimedSerializer(keys[::-1], salt=purpose)


def kept_secret() -> str:
    """Return the key kept in the user's data folder, made when there is none yet."""
    path = data_folder() / "secret"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f"secret.{os.getpid()}")
        draft.touch(mode=0o600)
        draft.write_text(secrets.token_urlsafe(32), encoding="ascii")
        try:
            os.link(draft, path)  # whole or not at all, and only by the first of several servers
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return path.read_text(encoding="ascii")


def _same_site(request: Request) -> bool:
    """Whether the browser says that the request comes from a page of this site."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site in ("same-origin", "none")
    origin = request.headers.get("origin")
    if origin is None:
        return True
    settings: Settings = request.app.state.settings
    try:
        return urlsplit(origin).netloc in {request.headers.get("host"), urlsplit(settings.base_url).netloc} - {"", None}
    except ValueError:
        return False


async def _fields(request: Request, largest: int) -> dict[str, str]:
    kind = request.headers.get("content-type", FORM_TYPE).partition(";")[0].strip().lower()
    if kind != FORM_TYPE:
        raise HTTPException(415, "This is not a form.")
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > largest:
            raise HTTPException(413, "This form is too large.")
    try:
        parsed = parse_qs(body.decode("ascii"), max_num_fields=MOST_FIELDS, errors="strict")
    except ValueError:
        raise HTTPException(400, "This form cannot be read.") from None
    fields = {name: values[-1] for name, values in parsed.items()}
    if any("\0" in part for field in fields.items() for part in field):
        raise HTTPException(400, "This form holds a character that is not text.")
    return fields
