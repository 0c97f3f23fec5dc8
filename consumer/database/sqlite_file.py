"""The file of an SQLite database: its path, and the reason why it cannot be opened."""

import os
import sqlite3
from pathlib import Path

import sqlalchemy as sa


def path_of(url: sa.URL) -> Path | None:
    """The absolute path in a URL. None for Oracle, and for a URI of SQLite's own (`file:…?uri=true`)."""
    if url.get_backend_name() != "sqlite" or not url.database or "uri" in url.query:
        return None
    return Path(os.path.abspath(url.database))  # noqa: PTH100 (`resolve` would follow links, as SQLite does later)


def trouble_with(path: Path) -> str | None:
    """The reason why a file cannot be opened, and what to do; None if no reason is found."""
    if (trouble := trouble_making(path)) is not None:
        return trouble
    if not path.exists():
        return "there is no such file: correct DATABASE_URL, or make it with kafka-webhooks migrate"
    if not os.access(path, os.R_OK | os.W_OK):
        return "this user may not read and write it: change its owner or its mode"
    return None


def trouble_making(path: Path) -> str | None:
    """The reason why a file can neither be made nor be opened, and what to do; None if no reason is found."""
    folder = path.parent
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except PermissionError:
        return f"this user may not enter {folder}, or a directory above it: change its owner or its mode"
    except OSError as error:  # the name is too long, say
        return f"{error.strerror}: correct DATABASE_URL"
    if path.is_dir():
        return "it is a directory: name a file in DATABASE_URL"
    if not folder.is_dir():
        return f"there is no directory {folder}: make it, or correct DATABASE_URL"
    if not os.access(folder, os.W_OK):
        return f"this user may not write to {folder}, where SQLite keeps files beside it: change its owner or its mode"
    return None


def explained(error: sqlite3.Error, path: Path | str) -> sqlite3.Error:
    """An error of opening a file, with the path and advice added to its text."""
    trouble = trouble_with(path) if isinstance(path, Path) else None
    told = type(error)(f"{path} cannot be opened: {trouble or _ADVICE.get(error.sqlite_errorname, error)}")
    told.sqlite_errorname, told.sqlite_errorcode = error.sqlite_errorname, error.sqlite_errorcode
    return told


_ADVICE = {
    "SQLITE_NOTADB": "it is not an SQLite database: correct DATABASE_URL",
}
