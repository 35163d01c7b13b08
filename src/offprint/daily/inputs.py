"""What readers type: made uniform, and refused with a sentence that says what is wanted."""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import urlsplit

from offprint.daily.importing import entries

LONGEST_NAME = 80
LONGEST_HANDLE = 40
LONGEST_COMMENT = 4000
MOST_MARKS = 4
"""Accents on one letter: no script needs more, and piles of them spill over the lines around."""

RESERVED = frozenset(
    ["abuse", "admin", "administrator", "anonymous", "everyone", "help", "moderator", "nobody", "offprint", "official"]
) | {"postmaster", "root", "security", "staff", "support", "system"}
# Overrides, embeddings and isolates, with which text can be made to look like other text.
DIRECTIONS = dict.fromkeys((*range(0x202A, 0x202F), *range(0x2066, 0x206A)))

LONGEST_ADDRESS = 254
LONGEST_LOCAL_PART = 64
_LOCAL_PART = re.compile(r"[a-z0-9!#$%&'*+/=?^_`{|}~-]+(\.[a-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_DOMAIN = re.compile(r"([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?|localhost")
_HANDLE = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_BEFORE_ID = re.compile(
    r"(https?://)?((www\.|export\.)?arxiv\.org/(abs|pdf|html|format|src)/|(www\.)?huggingface\.co/papers/"
    r"|(dx\.)?doi\.org/10\.48550/)|10\.48550/",
    re.IGNORECASE,
)
_AFTER_ID = re.compile(r"(\.pdf)?/?([?#].*)?(\s*\[[\w.-]+\])?$", re.IGNORECASE)


class FieldError(ValueError):
    """What a reader typed or chose cannot be taken.

    Parameters
    ----------
    field : str
        The name of the form's field.
    message : str
        What is wanted, for the reader.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


def email_address(text: str) -> str:
    """Return a mail address as it is stored and written to: in lower case, its domain in ASCII.

    Raises
    ------
    ValueError
        If mail cannot be sent there. Quoted names, comments and spaces are refused, so that none can add a header or a
        recipient.

    Examples
    --------
    >>> email_address(" Ada@Example.ORG "), email_address("ada@bücher.example")
    ('ada@example.org', 'ada@xn--bcher-kva.example')
    """
    name, at, domain = text.strip(" ").lower().rpartition("@")
    try:
        domain = domain.encode("idna").decode("ascii")
    except UnicodeError:
        domain = ""
    address = f"{name}@{domain}"
    valid = at and _LOCAL_PART.fullmatch(name) and _DOMAIN.fullmatch(domain)
    if not valid or len(name) > LONGEST_LOCAL_PART or len(address) > LONGEST_ADDRESS:
        raise ValueError("This is not a mail address. One looks like ada@example.org.")
    return address


def display_name(text: str) -> str:
    """Return a name to show: composed, its spaces single.

    Raises
    ------
    ValueError
        If it is empty, too long, without a letter or digit, or holds what cannot be seen.

    Examples
    --------
    >>> display_name("  Zoë   Example ")
    'Zoë Example'
    """
    name = " ".join(unicodedata.normalize("NFC", text).split(" ")).strip()
    name = re.sub(" {2,}", " ", name)
    if not 1 <= len(name) <= LONGEST_NAME:
        raise ValueError(f"A name has 1 to {LONGEST_NAME} characters.")
    if any(unicodedata.category(character) in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"} for character in name):
        raise ValueError("A name holds no control characters.")
    if not any(character.isalnum() for character in name) or _piled(name):
        raise ValueError("A name holds a letter or a digit, and no piles of accents.")
    return name


def handle(text: str) -> str:
    """Return a handle: the name in addresses.

    Raises
    ------
    ValueError
        If it is reserved, too short, too long, or holds anything but letters of ASCII, digits and single dashes.

    Examples
    --------
    >>> handle("Ada-L")
    'ada-l'
    """
    wanted = text.strip(" ").lower()
    if not 3 <= len(wanted) <= LONGEST_HANDLE or not _HANDLE.fullmatch(wanted):
        raise ValueError(f"A handle has 3 to {LONGEST_HANDLE} letters (a to z), digits, and single dashes between.")
    if wanted in RESERVED:
        raise ValueError("This handle is reserved.")
    return wanted


def comment_body(text: str) -> str:
    """Return a comment with uniform line ends, without characters that reverse what stands around them.

    Raises
    ------
    ValueError
        If it is empty or too long.
    """
    body = text.replace("\r\n", "\n").replace("\r", "\n").translate(DIRECTIONS)
    body = "".join(character for character in body if character in "\n\t" or unicodedata.category(character) != "Cc")
    body = unicodedata.normalize("NFC", body).strip()
    if not body:
        raise ValueError("A comment says something.")
    if len(body) > LONGEST_COMMENT:
        raise ValueError(f"A comment has at most {LONGEST_COMMENT:,} characters; this one has {len(body):,}.")
    if _piled(body):
        raise ValueError("A comment holds no piles of accents.")
    return body


def arxiv_id(text: str) -> str:
    """Return the arXiv id in what was typed or pasted, without its version.

    Raises
    ------
    ValueError
        If there is none.

    Examples
    --------
    >>> arxiv_id("https://arxiv.org/pdf/2310.02987v2"), arxiv_id("arXiv:math.GT/0309136")
    ('2310.02987', 'math/0309136')
    """
    typed = text.strip()[:300]
    start = _BEFORE_ID.match(typed)
    typed = _AFTER_ID.sub("", typed[start.end() :] if start else typed, count=1)
    try:
        return entries.arxiv_id(re.sub(r"^(arxiv)[:.]\s*", "", typed, flags=re.IGNORECASE))
    except ValueError:
        message = "An arXiv id looks like 2310.02987 or math/0309136; its address on arxiv.org will do as well."
        raise ValueError(message) from None


def local_path(text: str) -> str:
    r"""Return a path of this site to go to, or ``/`` where the text could lead elsewhere.

    Examples
    --------
    >>> local_path("/papers/alpha?x=1#measured"), local_path("//evil.example"), local_path("/\\evil.example")
    ('/papers/alpha?x=1#measured', '/', '/')
    """
    # Browsers drop tabs and line ends from addresses and read a backslash as a slash.
    plain = len(text) <= 500 and text.isascii() and text.isprintable() and not set(text) & set('\\ "<>^`{|}')
    if not plain or not text.startswith("/") or text.startswith("//"):
        return "/"
    try:
        parts = urlsplit(text)
    except ValueError:
        return "/"
    return "/" if parts.scheme or parts.netloc else text


def _piled(text: str) -> bool:
    """Whether a letter carries more marks than any script needs."""
    run = 0
    for character in text:
        run = run + 1 if unicodedata.combining(character) else 0
        if run > MOST_MARKS:
            return True
    return False
