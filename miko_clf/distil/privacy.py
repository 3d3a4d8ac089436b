"""Names and addresses of people in a text, replaced by placeholders before it leaves."""

import ipaddress
import re
from urllib.parse import urlsplit

_PLACES = (
    (re.compile(r"(?:https?://|www\.)\S+", re.IGNORECASE), "<url>"),
    (re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+"), "<email>"),
    (re.compile(r"(?<![\w@])@\w{2,}"), "<user>"),
    (re.compile(r"(?<![\w.])\+?\d[\d ()./-]{7,}\d(?!\w)"), "<phone>"),
)
_DIGITS = range(9, 16)  # of a telephone number; fewer are a date, more an identifier


def mask(text: str) -> str:
    """Return the text with addresses, @names and telephone numbers as placeholders."""
    for pattern, placeholder in _PLACES:
        if placeholder == "<phone>":
            text = pattern.sub(_phone, text)
        else:
            text = pattern.sub(placeholder, text)
    return text


def is_near(server: str) -> bool:
    """Say whether a server stands on this machine or in a private network."""
    host = urlsplit(server).hostname or ""
    if server.startswith("local:") or host == "localhost" or host.endswith(".local"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return "." not in host and bool(host)  # a bare name, as inside a cluster
    return address.is_private or address.is_loopback


def _phone(found: re.Match[str]) -> str:
    digits = sum(char.isdigit() for char in found.group())
    return "<phone>" if digits in _DIGITS else found.group()
