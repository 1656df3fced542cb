"""The importer of the plug-in guide works as it is printed."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path

from tracelet.importers.writing import import_run
from tracelet.journal.load import Run
from tracelet.settings import TraceletSettings

GUIDE = Path(__file__).parents[2] / "docs" / "plugin-guide.md"


def test_importer_of_the_guide_brings_runs_once(tmp_path):
    code = re.search(r'```python title="src/tracelet_acme/importer.py"\n(.*?)```', GUIDE.read_text(), re.DOTALL)
    (tmp_path / "importer.py").write_text(code[1])
    importer = runpy.run_path("importer.py")["AcmeImporter"]()
    points = [{"kind": "number", "name": "loss", "step": step, "value": step / 2, "time_s": 1.5} for step in range(3)]
    other = [{"kind": "parameter", "name": "lr", "value": 0.1}, {"kind": "smell"}]
    (tmp_path / "one.acme").write_text("\n".join(map(json.dumps, points + other)))
    importer.initialize({})
    results = []
    for _ in range(2):
        (run,) = importer.runs(str(tmp_path))
        results.append(import_run(run, "acme", tmp_path / "runs", None, TraceletSettings.load()))
    run = Run(results[0].path)
    assert (run.name, run.params, run.series("loss").values.tolist()) == ("one", {"lr": 0.1}, [0.0, 0.5, 1.0])
    assert [one.what for one in results[0].omitted] == ["records of the kind 'smell'"]
    assert (results[1].points, results[1].records) == (0, 0)
