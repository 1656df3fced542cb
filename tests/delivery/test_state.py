from __future__ import annotations

from pathlib import Path

import pytest

from tracelet.delivery.state import STATE_FILE, RemoteState


def test_values_are_there_after_a_restart(tmp_path: Path):
    RemoteState(tmp_path / "mlflow").update({"run_id": "r1", "names": {"a": "b"}})
    RemoteState(tmp_path / "mlflow").update({"url": "http://x"})
    state = RemoteState(tmp_path / "mlflow")
    assert ("r1", {"a": "b"}, "http://x", None) == (state["run_id"], state["names"], state["url"], state["other"])
    assert 0o600 == (tmp_path / "mlflow" / STATE_FILE).stat().st_mode & 0o777


@pytest.mark.parametrize("text", ["", '{"run_id": ', "[1]", "\x00"])
def test_a_damaged_file_is_begun_anew(tmp_path: Path, text: str):
    (tmp_path / STATE_FILE).write_text(text)
    state = RemoteState(tmp_path)
    assert state["run_id"] is None
    state.update({"run_id": "r2"})
    assert "r2" == RemoteState(tmp_path)["run_id"]


def test_a_disk_that_does_not_take_it_is_said_and_tried_again(tmp_path: Path):
    (tmp_path / "file").touch()
    state = RemoteState(tmp_path / "file" / "mlflow")
    for _ in range(2):
        with pytest.raises(OSError, match=r"Not a directory|File exists"):
            state.update({"run_id": "r1"})
    assert state["run_id"] is None
