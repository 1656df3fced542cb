"""Makes the database of one of MLflow's own stores ready: `sqlite:///…`, `postgresql://…`. On the backend's thread.

Guarantee: a database of SQLite is there with all of its tables, or not at all, wherever a kill comes.
"""

from __future__ import annotations

import logging
import os
import tempfile
from pathlib import Path
from typing import Any

from tracelet.backends._mlflow.api import FEATURE
from tracelet.utils.imports import require

logger = logging.getLogger(__name__)


def prepare(uri: str) -> None:
    """Connect once, since MLflow's store would try for 100 s, and make the tables where there are none.

    Raises:
        SQLAlchemyError, MlflowException: It can't be reached, or is of another version of MLflow's.
    """
    from sqlalchemy import make_url

    url = make_url(uri)
    if url.get_backend_name() == "sqlite" and url.database and url.database != ":memory:":
        path = Path(url.database)
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            _make(url, path)
    _make_tables(url)


def _make(url: Any, path: Path) -> None:
    """Make a new database of SQLite elsewhere, and put it into its place when it is whole.

    MLflow makes its tables in some fifty steps. A kill amid them left a file that no version of MLflow opened again.
    """
    with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as folder:
        made = Path(folder, path.name)
        _make_tables(url.set(database=str(made)))
        try:
            os.link(made, path)
        except OSError as error:  # Another process was faster, or this filesystem has no links: then it is made there.
            logger.debug("the database %s is not put into its place: %s", path, error)


def _make_tables(url: Any) -> None:
    """Make the tables under the lock that a server of MLflow's takes: two processes at once made half of them each."""
    from sqlalchemy import create_engine

    engine = create_engine(url)
    try:
        engine.connect().close()
        require("mlflow.store.db.utils", FEATURE)._safe_initialize_tables(engine)  # noqa: SLF001  the server's own way
    finally:
        engine.dispose()
