"""What keeps the site safe: headers on every answer, and proof that a form was sent from a page of ours."""

from __future__ import annotations

import os
import secrets
from urllib.parse import parse_qs, urlsplit

from itsdangerous import BadSignature, URLSafeTimedSerializer
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from offprint.daily.settings import data_folder

COOKIE = "offprint_visitor"
TOKEN_SECONDS = 7 * 24 * 3600
LARGEST_FORM = 8192

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    # Not no-referrer: browsers would then send "Origin: null" with our own forms.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


class SecurityHeaders:
    """Adds the headers to every answer that does not set them itself."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and add the headers on the way back."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self.app(scope, receive, send_with_headers if scope["type"] == "http" else send)


class FormGuard:
    """Gives forms a signed token bound to the visitor's cookie, and checks both when a form comes back.

    Parameters
    ----------
    secret : str, optional
        The keys, as :func:`signer` takes them.
    """

    def __init__(self, secret: str = "") -> None:
        self._signer = signer("form", secret)

    def visitor(self, request: Request) -> str:
        """Return what names this visitor: the cookie, or a new name that :meth:`remember` then sets."""
        known = request.cookies.get(COOKIE, "")
        if len(known) == 32 and known.isalnum():
            return known
        if not hasattr(request.state, "visitor"):
            request.state.visitor = secrets.token_hex(16)
        return str(request.state.visitor)

    def token(self, request: Request) -> str:
        """Return the token for a form on this visitor's page."""
        return self._signer.dumps(self.visitor(request))

    def remember(self, request: Request, response: Response) -> None:
        """Set the cookie of a visitor who has none yet."""
        if hasattr(request.state, "visitor"):
            secure = request.url.scheme == "https"
            response.set_cookie(COOKIE, request.state.visitor, httponly=True, samesite="lax", secure=secure)

    async def form(self, request: Request) -> dict[str, str]:
        """Read a form that one of our pages sent.

        Raises
        ------
        HTTPException
            403 if it came from elsewhere or its token is wrong or old, 413 if it is too large.
        """
        if not _same_site(request):
            raise HTTPException(403, "This was sent from another site.")
        fields = await _fields(request)
        try:
            signed = self._signer.loads(fields.get("token", ""), max_age=TOKEN_SECONDS)
        except BadSignature:
            signed = None
        visitor = request.cookies.get(COOKIE, "").encode()
        if signed is None or not secrets.compare_digest(str(signed).encode(), visitor):
            raise HTTPException(403, "This page is too old, or your browser keeps no cookies. Reload it and try again.")
        return fields


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
    return origin is None or urlsplit(origin).netloc == request.headers.get("host")


async def _fields(request: Request) -> dict[str, str]:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST_FORM:
            raise HTTPException(413, "This form is too large.")
    try:
        parsed = parse_qs(body.decode("ascii"), max_num_fields=20)
    except ValueError:
        raise HTTPException(400, "This is not a form.") from None
    return {name: values[-1] for name, values in parsed.items()}
