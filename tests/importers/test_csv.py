from __future__ import annotations

import pytest

from tracelet.errors import SettingsError, UsageError
from tracelet.journal.load import Run


def test_metrics_of_lightning_with_their_hyperparameters(bring, tmp_path):
    from lightning.pytorch.loggers import CSVLogger

    logger = CSVLogger(str(tmp_path), name="model", version=0)
    logger.log_hyperparams({"lr": 0.1, "inner": {"depth": 3}})
    for step in range(3):
        logger.log_metrics({"train_loss": 1 / (step + 1)}, step)
    logger.log_metrics({"val_loss": float("inf")}, 2)
    logger.finalize("success")
    (result,) = bring("csv", logger.log_dir)
    run = Run(result.path)
    assert run.name == "version_0"
    assert run.series("train_loss").steps.tolist() == [0, 1, 2]
    assert run.series("train_loss").values.tolist() == [1.0, 0.5, 1 / 3]
    assert run.series("val_loss").values.tolist() == [float("inf")]
    assert run.params == {"lr": 0.1, "inner/depth": 3}


def test_table_of_points_as_export_writes_it_comes_back_equal(bring, tmp_path):
    from typer.testing import CliRunner

    from tracelet import Experiment
    from tracelet.cli import make_app

    with Experiment("e", dir=tmp_path / "runs") as experiment:
        for step in (-1, 0, 5):
            experiment.log_metrics({"a": step / 3, "b": float("nan")}, step)
    done = CliRunner().invoke(make_app(), ["export", str(experiment.run_dir), "--format", "csv", "-o", "out.csv"])
    assert done.exit_code == 0, done.output
    run, original = Run(bring("csv", "out.csv")[0].path), Run(experiment.run_dir)
    assert run.series("a").values.tolist() == original.series("a").values.tolist()
    assert run.series("a").steps.tolist() == [-1, 0, 5]
    assert run.series("a").times_s.tolist() == pytest.approx(original.series("a").times_s.tolist(), abs=1e-6)
    assert len(run.series("b")) == 3


def test_columns_can_be_named(bring, tmp_path):
    (tmp_path / "t.csv").write_text(
        "when;at;x;y;junk\n2023-11-14T22:13:20Z;10;1;2;3\n1700000001;11.0;;word;4\n;no;1;1;1\n"
    )
    (result,) = bring("csv", "t.csv", step="at", time="when", separator=";", columns="x,y")
    run = Run(result.path)
    assert (run.series("x").steps.tolist(), run.series("x").times_s.tolist()) == ([10], [1_700_000_000.0])
    assert run.texts("y") == [(11, "word")]
    assert "junk" not in run.names()
    assert [(one.what, count) for one, count in result.omitted.items()] == [("a row", 1)]


def test_column_that_is_not_there_and_empty_file_are_refused(bring, tmp_path):
    (tmp_path / "t.csv").write_text("step,x\n0,1\n")
    with pytest.raises(SettingsError, match=r"has no column 'stp'\. It has: step, x"):
        bring("csv", "t.csv", step="stp")
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(UsageError, match="is empty"):
        bring("csv", "empty.csv")
