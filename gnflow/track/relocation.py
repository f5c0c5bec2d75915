"""Repair a store whose project was moved or copied: MLflow's database holds the absolute address of every artifact."""

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

from gnflow.locks import lock_file
from gnflow.track import location

# Every place in which MLflow's database says where artifacts are.
COLUMNS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
    ("trace_tags", "value"),
)
PATIENCE = 5.0  # seconds to wait for another writer


def settle(database: Path) -> bool:
    """Change addresses below former places of the store to where its artifacts are now. Return whether any changed."""
    here = location.find_artifacts(database)
    with closing(_connect(database)) as connection:
        if not _find_former(connection, here):
            return False
    with lock_file(database.with_name(f".{database.name}.lock")), closing(_connect(database)) as connection:
        former = _find_former(connection, here)
        for root in former:
            _rebase(connection, root, here.as_uri())
    return bool(former)


def rebase(database: Path, old: str, new: str) -> None:
    """Replace the beginning of every address that is `old` or below it."""
    with closing(_connect(database)) as connection:
        _rebase(connection, old, new)


def _connect(database: Path) -> sqlite3.Connection:
    return sqlite3.connect(database, timeout=PATIENCE)


def _find_former(connection: sqlite3.Connection, here: Path) -> list[str]:
    """Find the addresses of directories `artifacts` that this store used before it was moved here."""
    if "experiments" not in _list_tables(connection):  # MLflow will make the tables
        return []
    roots = {
        root
        for (address,) in connection.execute("SELECT DISTINCT artifact_location FROM experiments")
        if (root := _find_root(address, here.name)) is not None
    }
    return sorted(root for root in roots - {here.as_uri()} if _has_moved_here(connection, root, here))


def _find_root(address: str | None, name: str) -> str | None:
    """Return a local address up to a folder `name` that is at its end or before the number of an experiment."""
    for candidate in (address or "", (address or "").rpartition("/")[0]):
        if candidate.startswith("file:///") and candidate.endswith(f"/{name}"):
            return candidate
    return None


def _has_moved_here(connection: sqlite3.Connection, root: str, here: Path) -> bool:
    """Return whether artifacts of its runs are here or, if there are none, whether its former folder is gone."""
    there = Path(unquote(urlsplit(root).path))
    if there.exists() and here.exists() and there.samefile(here):
        return False
    addresses = connection.execute(
        "SELECT artifact_uri FROM runs WHERE substr(artifact_uri, 1, ?) = ?", _make_prefix(root)
    )
    if any((here / unquote(address[len(root) + 1 :])).exists() for (address,) in addresses):
        return True
    return not there.parent.exists() and there.parent.name == here.parent.name


def _rebase(connection: sqlite3.Connection, old: str, new: str) -> None:
    known = {(table, column) for table in _list_tables(connection) for column in _list_columns(connection, table)}
    with connection:
        for table, column in COLUMNS:
            if (table, column) in known:
                connection.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
                    f"WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                    (new, len(old) + 1, old, *_make_prefix(old)),
                )


def _make_prefix(root: str) -> tuple[int, str]:
    return len(root) + 1, f"{root}/"


def _list_tables(connection: sqlite3.Connection) -> Iterable[str]:
    return [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]


def _list_columns(connection: sqlite3.Connection, table: str) -> Iterable[str]:
    return [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
