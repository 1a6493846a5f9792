"""Refuses what another site has a browser send (cross-site request forgery): a token in the form beside a cookie."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from urllib.parse import urlsplit

__all__ = ["COOKIE", "FormTokens"]

#: The cookie's name. It is SameSite=Strict and HttpOnly, and ends with the browser.
COOKIE = "hins_form"
_BYTES = 32


class FormTokens:
    """Tokens of forms, each bound to the cookie of the browser that was given it, by a secret of this process."""

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(_BYTES)

    def cookie(self, given: str) -> str:
        """Return the value of the cookie: the one that a browser has, or a new one."""
        return given if len(given) == 2 * _BYTES and given.isalnum() else secrets.token_hex(_BYTES)

    def token(self, cookie: str) -> str:
        """Return the token for forms of a browser with that cookie."""
        return hmac.new(self._secret, cookie.encode(), hashlib.sha256).hexdigest()

    def refusal(self, headers: Mapping[str, str], cookie: str, token: str) -> str:
        """Return why a form is refused, or "".

        Args:
            headers: of the request, with names in lower case.
            cookie: its cookie, "" for none.
            token: what its form has, "" for none.
        """
        site = headers.get("sec-fetch-site", "same-origin")
        origin = headers.get("origin", "")
        if site not in ("same-origin", "none") or (origin and urlsplit(origin).netloc != headers.get("host")):
            return "It comes from a page of another site."
        good = hmac.compare_digest(self.token(cookie).encode(), token.encode("utf-8", "replace"))
        if not cookie or not good:
            return "It is not from this page, or this page is from before a restart: load the page again."
        return ""
