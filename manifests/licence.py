"""Licences of data: SPDX expressions such as `CC-BY-4.0`, and URLs of licences that have no SPDX name."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression
from packaging.licenses._spdx import LICENSES

from oxcart.shards.choices import nearest
from oxcart.shards.errors import ConfigError

_NOISE = re.compile(r"\b(?:the|license|licence|version|v(?=\d))\b|\(.*?\)|[\s_,-]+", re.IGNORECASE)


def check_licence(text: str) -> str:
    """The canonical form of a licence: `cc-by-4.0` becomes `CC-BY-4.0`, and a URL stays as it is.

    Raises:
        ConfigError: the text is neither an SPDX licence expression nor an http or https URL.
    """
    if not isinstance(text, str):  # of a caller in Python, or of a file
        raise ConfigError(f"licence: expected a text such as CC-BY-4.0, got {text!r}"[:200])
    try:
        return str(canonicalize_license_expression(text))
    except InvalidLicenseExpression:
        if _is_url(text):
            return text
    words = "-".join(filter(None, _NOISE.split(text.lower())))
    near = nearest(words, [one for one in LICENSES if one[:3] == words[:3]])
    hint = f"; did you mean {LICENSES[near]['id']}?" if near else ""
    raise ConfigError(
        f"licence: expected an SPDX licence expression such as CC-BY-4.0, or a URL; got {text!r}{hint}"
    )


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and bool(parts.hostname) and not re.search(r"\s", text)
