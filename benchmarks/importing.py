"""What `import tracelet` costs, and what it loads.

Each figure is the wall time of a child process that does nothing but import, less that of a bare interpreter: medians
of runs that take turns. The second row is what a training pays when it makes its first experiment. Trackers are
measured beside it where they are installed.
"""

from __future__ import annotations

import importlib.util
import statistics
import subprocess
import sys
import time

from benchmarks.measuring import Row, Target, scaled, show

_REPEATS = 20
_TARGET_MS = 60.0
_BARE = "pass"
_OURS = "import tracelet"
_EXPERIMENT = "import tracelet; tracelet.Experiment('benchmark')"
_PEERS = ("torch.utils.tensorboard", "mlflow", "wandb", "clearml", "neptune")


def main(scale: float = 1.0) -> None:
    """Measure and print."""
    peers = {name: f"import {name}" for name in _PEERS if importlib.util.find_spec(name.partition(".")[0])}
    samples_ms: dict[str, list[float]] = {code: [] for code in (_BARE, _OURS, _EXPERIMENT, *peers.values())}
    for code in samples_ms:
        _run(code)  # Not counted: files come into the page cache, and are compiled.
    for repeat in range(scaled(_REPEATS, scale)):
        for code, found_ms in samples_ms.items():
            # The peers take seconds: a quarter of the repeats will do.
            if repeat % 4 == 0 or code not in peers.values():
                began_s = time.perf_counter()
                _run(code)
                found_ms.append((time.perf_counter() - began_s) * 1e3)
    bare_ms = statistics.median(samples_ms[_BARE])
    cost_ms = {code: statistics.median(found_ms) - bare_ms for code, found_ms in samples_ms.items()}
    foreign = _packages(_OURS) - _packages(_BARE) - set(sys.stdlib_module_names) - {"tracelet"}
    show(
        "Import: milliseconds beyond a bare interpreter",
        [
            Row(_OURS, f"{cost_ms[_OURS]:.1f} ms", target=Target(cost_ms[_OURS], _TARGET_MS, "ms")),
            Row("  packages that it loads, beyond Python's own", ", ".join(sorted(foreign)) or "none"),
            Row("the first Experiment, too", f"{cost_ms[_EXPERIMENT]:.0f} ms"),
            *(
                Row(
                    f"beside {code}",
                    f"{cost_ms[_OURS]:.1f} ms",
                    f"{cost_ms[code]:.0f} ms",
                    f"{cost_ms[code] / cost_ms[_OURS]:.0f}",
                )
                for code in peers.values()
            ),
        ],
    )


def _packages(code: str) -> set[str]:
    loaded = _run(f"{code}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})")
    return set(loaded.split())


def _run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    main()
