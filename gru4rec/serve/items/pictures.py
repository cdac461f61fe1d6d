"""Pictures that a catalogue names: URLs that a page may show, and files that may be sent.

What a catalogue says is not trusted: whoever writes a shop's feed must reach no other file and no other scheme.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.compute as pc

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".gif", ".webp", ".avif")
"""Of files that are sent. Not .svg: opened by itself, one is a page that can run scripts."""

_URL = r"^(?P<origin>[Hh][Tt][Tt][Pp][Ss]?://[A-Za-z0-9.-]+(?::[0-9]{1,5})?)(?:[/?#][^\s\\]*)?$"
_SCHEME_OR_ROOT = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:|[/\\]")


def is_picture(said: str) -> bool:
    """Tell whether a text is an http or https URL, or a relative path."""
    return re.fullmatch(_URL, said) is not None or _SCHEME_OR_ROOT.match(said) is None


def origins_of(pictures: pa.Array) -> frozenset[str]:
    """Return scheme, host and port of all absolute URLs, in small letters; nothing else can be in them."""
    origins = pc.unique(pc.extract_regex(pictures.drop_null(), _URL).field("origin").drop_null())
    return frozenset(origin.lower() for origin in origins.to_pylist() if origin)


def file_of(said: str, folder: Path) -> Path | None:
    """Return the picture that a relative path names, links followed; None where it is none or lies elsewhere.

    Args:
        said: What the catalogue says, with ``/`` between folders.
        folder: The catalogue's.
    """
    if _SCHEME_OR_ROOT.match(said) or "\\" in said or "\0" in said or ".." in PurePosixPath(said).parts:
        return None
    try:
        path = (folder / said).resolve(strict=True)
    except (OSError, RuntimeError):  # there is no such file, or links go round in circles
        return None
    is_inside = path.is_relative_to(folder.resolve())
    return path if is_inside and path.is_file() and path.suffix.lower() in PICTURE_SUFFIXES else None
