"""Brings files to where MLflow keeps a run's artifacts: through the server in pieces, or by MLflow's own repositories.

Each object on one thread only: the backend's, or that of its artifacts. A file that comes again replaces itself, or,
where nothing else could be in its place, is left as it is: so what was interrupted goes on with the file that it had
come to. What can't be stored, wherever that lies, is rejected and holds up nothing.
"""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Final, final
from urllib.parse import urlsplit

from tracelet.backends._mlflow.api import ServerFaultError, failure_of, is_server
from tracelet.backends._mlflow.mapped import Show, Upload
from tracelet.backends._mlflow.names import path_of
from tracelet.backends._mlflow.rest import RestApi
from tracelet.errors import RejectedError

_SERVICE: Final = "/api/2.0/mlflow-artifacts/artifacts"
_MAX_THUMBNAIL: Final = 256  # Pixels; as MLflow's own.


@final
class Artifacts:
    """The artifacts of one run."""

    def __init__(self, artifact_uri: str, tracking_uri: str, timeout_s: float) -> None:
        """Look where they are kept; nothing is connected to.

        Args:
            artifact_uri: As the run has it.
            tracking_uri: Whose server stands for `mlflow-artifacts:/…`.
            timeout_s: How long the server may be silent.
        """
        self._uri = artifact_uri
        self._tracking_uri = tracking_uri
        self._server: RestApi | None = None
        self._repository: Any = None
        scheme, host, self._root = urlsplit(artifact_uri)[:3]
        if scheme == "mlflow-artifacts" and is_server(tracking_uri):
            base = urlsplit(tracking_uri)._replace(netloc=host).geturl() if host else tracking_uri
            self._server = RestApi(base.rstrip("/"), timeout_s)

    def store(self, upload: Upload) -> None:
        """Store a file, a directory or a text; a picture for the grid of images too.

        Raises:
            RejectedError: The file is gone, or there is no place for it.
            OSError, RetryableError, PermanentError: As everywhere.
        """
        with tempfile.TemporaryDirectory(prefix="tracelet-") as folder:
            source = upload.source
            if isinstance(source, str):
                source = Path(folder, "text")
                source.write_text(str(upload.source), "utf-8", newline="")
            if not os.access(source, os.R_OK):
                raise RejectedError(f"{source} is no longer in the run directory, or can't be read")
            if source.is_dir() or upload.is_final:
                self._store_missing(source, upload)
            elif upload.show is not Show.AS_IMAGE or not self._store_in_grid(source, upload.grid_path, Path(folder)):
                self._put(source, upload.path)

    def _store_missing(self, source: Path, upload: Upload) -> None:
        """Store a directory, or an artifact's file; those files that may be there already are looked for first."""
        files = {upload.path: source}
        if source.is_dir():
            found = sorted(path for path in source.rglob("*") if path.is_file())
            folder = f"{upload.path}/" if upload.path else ""
            files = {f"{folder}{path_of(file.relative_to(source).as_posix())}": file for file in found}
        sizes: dict[PurePosixPath, Mapping[str, int]] = {}
        for path, file in files.items():
            place = PurePosixPath(path)
            if upload.is_final and place.parent not in sizes:
                sizes[place.parent] = self._sizes_bytes(place.parent)
            if sizes.get(place.parent, {}).get(place.name) != file.stat().st_size:
                self._put(file, path)

    def _sizes_bytes(self, folder: PurePosixPath) -> Mapping[str, int]:
        """The sizes of the files that MLflow has in a folder."""
        if self._server is not None:
            return {
                found["path"]: int(found.get("file_size", 0))  # JSON of Protocol Buffers leaves out what is 0.
                for found in self._listed(folder)
                if not found.get("is_dir", False)
            }
        from mlflow.exceptions import MlflowException

        try:
            found = self._get_repository().list_artifacts(None if folder == PurePosixPath(".") else str(folder))
        except MlflowException as error:
            raise failure_of(error) from error
        return {PurePosixPath(one.path).name: one.file_size for one in found if not one.is_dir}

    def _listed(self, folder: PurePosixPath) -> list[dict[str, Any]]:
        assert self._server is not None
        where = {"path": f"{self._root.lstrip('/')}/{folder}".removesuffix("/.")}
        files: list[dict[str, Any]] = self._server.call("GET", _SERVICE, where).get("files", [])
        return files

    def _get_repository(self) -> Any:
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        if self._repository is None:
            self._repository = get_artifact_repository(self._uri, tracking_uri=self._tracking_uri)
        return self._repository

    def _store_in_grid(self, source: Path, path: str, folder: Path) -> bool:
        """Store an image as `MlflowClient.log_image` does; whether that is all there is to keep."""
        made = _as_png_and_thumbnail(source)
        if made is None:
            return False
        png, thumbnail = made
        is_png = source.read_bytes() == png
        for data, suffix in ((png, ".png"), (thumbnail, "+compressed.webp")):
            (folder / "image").write_bytes(data)
            self._put(folder / "image", path + suffix)
        return is_png

    def _put(self, source: Path, path: str) -> None:
        if self._server is not None:
            try:
                self._server.put(f"{_SERVICE}{self._root}/{path}", source)
            except ServerFaultError as error:
                self._reject_where_something_stands(path, error)
                raise
            return
        try:
            self._put_by_mlflow(source, path)
        except (FileExistsError, NotADirectoryError, IsADirectoryError, PermissionError) as error:
            raise RejectedError(f"MLflow's artifacts at {self._uri} can't take {path!r}: {error}") from error

    def _put_by_mlflow(self, source: Path, path: str) -> None:
        from mlflow.exceptions import MlflowException

        place = PurePosixPath(path)
        parent = None if place.parent == PurePosixPath(".") else str(place.parent)
        with tempfile.TemporaryDirectory(prefix="tracelet-") as folder:
            named = Path(folder, place.name)  # A repository takes a file's name from the file.
            named.symlink_to(source)
            try:
                self._get_repository().log_artifact(str(named), parent)
            except MlflowException as error:
                raise failure_of(error) from error

    def _reject_where_something_stands(self, path: str, error: ServerFaultError) -> None:
        """A server that keeps artifacts on a disk answers 500 where `a` is a file and `a/b` comes, or the reverse."""
        place = PurePosixPath(path)
        for level in (*reversed(place.parents[:-1]), place):
            for found in self._listed(level.parent):
                if found["path"] == level.name and found.get("is_dir", False) is (level == place):
                    kind = "directory" if level == place else "file"
                    raise RejectedError(f"MLflow has a {kind} {str(level)!r} where {path!r} should go") from error


def _as_png_and_thumbnail(source: Path) -> tuple[bytes, bytes] | None:
    """An image as its file has it if that is a PNG, else as one, and a small WebP; None where it can't be read."""
    try:
        from PIL import Image
    except ImportError:
        return None
    data = source.read_bytes()
    try:
        with Image.open(io.BytesIO(data)) as picture:
            is_png = picture.format == "PNG"
            small = picture.convert("RGBA" if picture.has_transparency_data else "RGB")
            full = data if is_png else _encoded(small, "PNG")
            small.thumbnail((_MAX_THUMBNAIL, _MAX_THUMBNAIL))
            return full, _encoded(small, "WEBP")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def _encoded(picture: Any, kind: str) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind)
    return buffer.getvalue()
