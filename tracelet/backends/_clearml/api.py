"""ClearML's REST API, for one thread: one request, and its errors in Tracelet's words.

ClearML's own `Session` was weighed for this. It tries again by itself, without an end where the server is in
maintenance or a certificate is wrong; it gives a refused connection and a refused key as the same error; and it keeps
the API's version, the offline mode and its configuration in class variables that the user's own `Task` reads.
The API is versioned and documented, so it is the firmer ground.

Guarantee: a call either was answered by the server with success, or raises: `RetryableError` or an `OSError` (the
server is away or busy), `ApiError` (it refuses what it was sent), `PermanentError` (it refuses the user).
"""

from __future__ import annotations

import io
import json
import socket
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, final

from tracelet.backends._clearml.form import CONTENT_TYPE, Form
from tracelet.backends._clearml.settings import Connection
from tracelet.errors import PermanentError, RejectedError, RetryableError
from tracelet.utils.imports import require

VERSION: Final = "2.13"  # Of the API, which the servers of 1.0 (2021) and later have.
_TIMEOUT_S: Final = (10.0, 60.0)  # To connect, and between two bytes of an answer.
_MAX_BODY_BYTES: Final = 8_000_000  # ClearML's own client cuts its requests at 15 MiB.
_BUSY: Final = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS}


@final
class ApiError(RejectedError):
    """The server refuses the request.

    Attributes:
        subcode: ClearML's number for the reason, within those of HTTP 400.
    """

    def __init__(self, message: str, subcode: int) -> None:
        super().__init__(message)
        self.subcode = subcode


@final
class ClearMLApi:
    """A login at one server."""

    def __init__(self, connection: Connection) -> None:
        """Nothing is sent yet."""
        requests = require("requests", "The ClearML backend")
        self.connection = connection
        self.worker = socket.gethostname()
        errors = requests.exceptions
        self._unusable = (errors.MissingSchema, errors.InvalidSchema, errors.InvalidURL)
        self._http = requests.Session()
        self._http.verify = connection.verify
        self._http.headers["X-ClearML-Worker"] = self.worker
        self._http.headers["X-ClearML-Client"] = "tracelet"
        self._token = connection.token
        self._is_closed = False

    def call(self, endpoint: str, body: Mapping[str, Any], version: str = VERSION) -> dict[str, Any]:
        """`tasks.create`, say.

        Args:
            endpoint: Service and action.
            body: JSON-like.
            version: The oldest of the API that has the action.

        Returns:
            The `data` of the answer.
        """
        return self._post(f"v{version}/{endpoint}", json.dumps(body, allow_nan=False), "application/json")

    def add_events(self, events: Sequence[Mapping[str, Any]]) -> None:
        """`events.add_batch`, in pieces that the server takes."""
        lines: list[str] = []
        size_bytes = 0
        for line in [json.dumps(event, allow_nan=False) for event in events]:  # ASCII.
            if lines and size_bytes + len(line) > _MAX_BODY_BYTES:
                self._add_lines(lines)
                lines, size_bytes = [], 0
            lines.append(line)
            size_bytes += len(line) + 1
        if lines:
            self._add_lines(lines)

    def upload(self, key: str, source: Path | bytes) -> str:
        """Put a file on the files server. The same key again replaces it.

        Args:
            key: Where to: ASCII, without anything that a URL quotes.
            source: The file, which is not read into memory as a whole, or the bytes.

        Returns:
            Its URL.
        """
        host = self.connection.files_host
        with io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb") as file:
            self._request(f"{host}/", lambda: Form(key, file), {"Content-Type": CONTENT_TYPE})
        return f"{host}/{key}"

    def close(self) -> None:
        """Close the connections, from any thread. A request that is under way may end; none comes after it."""
        self._is_closed = True
        self._http.close()

    def _add_lines(self, lines: Sequence[str]) -> None:
        answer = self._post(f"v{VERSION}/events.add_batch", "\n".join(lines), "application/json-lines")
        if answer.get("errors"):
            raise ApiError(f"ClearML did not take {answer['errors']} events: {answer.get('errors_info')}", 0)

    def _post(self, path: str, body: str, content_type: str) -> dict[str, Any]:
        url = f"{self.connection.api_host}/{path}"
        answer = self._request(url, lambda: body, {"Content-Type": content_type})
        return dict(answer.json()["data"] or {})

    def _request(self, url: str, make_body: Callable[[], Any], headers: Mapping[str, str]) -> Any:
        has_new_token = not self._token
        if has_new_token:
            self._log_in()
        answer = self._send(url, data=make_body(), headers=headers, auth=_bearer(self._token))
        if answer.status_code == HTTPStatus.UNAUTHORIZED and not has_new_token:  # The token has run out.
            self._log_in()
            answer = self._send(url, data=make_body(), headers=headers, auth=_bearer(self._token))
        self._check(answer, url)
        return answer

    def _log_in(self) -> None:
        self._token = ""
        keys = (self.connection.access_key, self.connection.secret_key)
        url = f"{self.connection.api_host}/auth.login"
        answer = self._send(url, auth=keys if all(keys) else _bearer(self.connection.token))
        self._check(answer, url)
        self._token = answer.json()["data"]["token"]

    def _send(self, url: str, **arguments: Any) -> Any:
        if self._is_closed:  # By now another process may deliver, and may have ended the task.
            raise RetryableError("the delivery to ClearML was stopped")
        try:
            return self._http.post(url, timeout=_TIMEOUT_S, **arguments)
        except self._unusable as error:
            raise PermanentError(f"the address of the ClearML server is wrong: {error}") from error

    def _check(self, answer: Any, url: str) -> None:
        code = answer.status_code
        if code == HTTPStatus.OK:
            return
        try:
            meta = answer.json()["meta"]
            reason, subcode = str(meta["result_msg"]), int(meta.get("result_subcode") or 0)
        except (ValueError, LookupError, TypeError):  # The page of a proxy.
            reason, subcode = str(answer.reason), 0
        message = f"ClearML answers {code} to {url}: {reason}"
        if code >= HTTPStatus.INTERNAL_SERVER_ERROR or code in _BUSY:
            raise RetryableError(message)
        if code in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
            raise PermanentError(f"{message}. Check the access key and the secret key ('clearml-init')")
        raise ApiError(message, subcode)


def _bearer(token: str) -> Callable[[Any], Any]:
    """Authorises a request. As a function, since `requests` puts an entry of `~/.netrc` in the place of a header."""

    def authorize(request: Any) -> Any:
        request.headers["Authorization"] = f"Bearer {token}"
        return request

    return authorize
