"""Credentials that a run meets on every way reach neither its directory nor what any backend stores."""

from __future__ import annotations

import base64
import json
import os
import random
import string
import subprocess
import sys
import textwrap
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tracelet import Experiment, TraceletSettings, load_run
from tracelet.errors import RejectedError
from tracelet.testing import MemoryBackend
from tracelet.utils.redaction import HIDDEN

ALNUM = string.ascii_letters + string.digits
SEED = 20261125

# How a token begins, and how long the rest of it is; put together below, so that no scanner takes this for a leak.
SHAPES = {
    "github": ("ghp_", 36), "github_fine": ("github_pat_", 60), "gitlab": ("glpat-", 20), "hf": ("hf_", 34),
    "openai": ("sk-proj-", 48), "anthropic": ("sk-ant-api03-", 80), "google": ("AIza", 35), "slack": ("xoxb-", 40),
    "stripe": ("sk_live_", 24), "npm": ("npm_", 36), "pypi": ("pypi-Ag", 60), "wandb": ("wandb_v1_", 40),
    "vault": ("hvs.", 40), "groq": ("gsk_", 40), "docker": ("dckr_pat_", 27), "replicate": ("r8_", 37),
    "grafana": ("glsa_", 40), "nvidia": ("nvapi-", 50), "linear": ("lin_api_", 40),
    "jwt": ("eyJhbGciOiJIUzI1NiJ9.", 60),
}  # fmt: skip
PLAIN = [
    "config_password", "config_nested", "config_list", "config_token", "argument_option", "argument_equals",
    "argument_hydra", "argument_url", "env_aws", "env_hf", "env_mlflow", "remote_user", "remote_query", "diff_line",
    "untracked_file", "console_out", "console_err", "console_url", "error_text", "error_url", "tag", "metadata",
    "clearml_secret", "header", "connection", "description",
]  # fmt: skip


def planted() -> dict[str, str]:
    rng = random.Random(SEED)

    def drawn(count: int, alphabet: str = ALNUM) -> str:
        return "".join(rng.choice(alphabet) for _ in range(count - 2)) + "a7"

    found = {name: prefix + drawn(count) for name, (prefix, count) in SHAPES.items()}
    found |= {name: drawn(24) for name in PLAIN}
    found["aws"] = "AKIA" + drawn(16, string.ascii_uppercase + string.digits).upper()
    found["env_wandb"] = drawn(40, "0123456789abcdef")
    found["pem"] = drawn(64)
    address = json.dumps({"api_address": "https://app.neptune.ai", "api_url": "https://app.neptune.ai"})
    found["neptune"] = base64.b64encode((address[:-1] + f', "api_key": "{drawn(36)}"}}').encode()).decode()
    return found


TRAINING = """
    import json, os, sys
    from pathlib import Path
    from tracelet import Experiment, MetricData, MetricType, TraceletSettings

    s = json.loads(Path(os.environ["PLANTED"]).read_text())
    plugins = {
        "wandb": {"mode": "offline", "api_key": s["env_wandb"]}, "neptune": {"api_token": s["neptune"]},
        "clearml": {"mode": "offline", "access_key": "me", "secret_key": s["clearml_secret"]},
        "mlflow": {"tracking_uri": "sqlite:///mlflow.db"},
    }
    config = {
        "password": s["config_password"], "hub": {"auth": {"deep": s["config_nested"]}}, "hub_token": s["config_token"],
        "servers": [{"secret": s["config_list"]}], "note": f"{s['github']} and {s['gitlab']}", "aws": s["aws"],
        "command": f"x --token {s['openai']}", "url": f"https://h/?key=1&access_token={s['slack']}",
        "keep": "kept-value",
        "key": f"-----BEGIN PRIVATE " f"KEY-----\\n{s['pem']}\\n-----END PRIVATE KEY-----",
        "dsn": f"Server=db;Password={s['connection']};Encrypt=yes",
    }
    settings = TraceletSettings(plugins=plugins, stop_timeout_s=200, delivery="process")
    backends, collectors = ["mlflow", "wandb", "clearml", "neptune", "jsonl"], ["environment", "git"]
    experiment = Experiment("e", backends, config=config, collectors=collectors, settings=settings)
    experiment.start()
    print(experiment.run_dir, file=sys.__stdout__, flush=True)
    experiment.set_tags({"api_key": s["tag"], "note": s["hf"]})
    experiment.set_tags([s["npm"]])
    experiment.set_description(f"with {s['google']} and password: {s['description']}")
    for name in ("anthropic", "stripe", "pypi", "jwt", "github_fine", "grafana", "nvidia", "linear"):
        experiment.log_text(f"text/{name}", f"It is {s[name]}, and kept-value.")
    experiment.log_text("header", f"Authorization: Bearer {s['header']}")
    experiment.log_table("table", columns=["a"], rows=[[s["vault"]], ["kept-value"]])
    details = {"token": s["metadata"], "x": s["groq"]}
    experiment.emit_metric(MetricData("m", 1.0, MetricType.SCALAR, 1, metadata=details))
    experiment.emit_metric(MetricData("odd", s["docker"], MetricType.SCALAR, 1))
    experiment.log_metric("replicate", s["replicate"], 1)
    for step in range(5):
        experiment.log_metric("loss", 1.0, step)
    print(f"password={s['console_out']}", flush=True)
    print(f"'token': '{s['console_err']}' {s['wandb']}", file=sys.stderr, flush=True)
    print(f"get https://me:{s['console_url']}@host/x", flush=True)
    raise RuntimeError(f"token={s['error_text']} is wrong for https://me:{s['error_url']}@host")
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The directory that everything was stored in, and the run in it; the project's own files are not in it."""
    place, secrets = tmp_path_factory.mktemp("secrets"), planted()
    project, stored = place / "project", place / "stored"
    project.mkdir()
    stored.mkdir()
    (place / "planted.json").write_text(json.dumps(secrets))

    def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, check=False, cwd=project, env={**os.environ, **environment}, capture_output=True, text=True
        )

    (project / "train.py").write_text(textwrap.dedent(TRAINING))
    (project / "settings.py").write_text("DEBUG = True\n")
    identity = ["-c", "user.name=me", "-c", "user.email=me@example.org"]
    for command in (["init", "-q"], ["add", "."], [*identity, "commit", "-q", "-m", "first"]):
        assert run("git", *command).returncode == 0
    run("git", "remote", "add", "origin", f"https://me:{secrets['remote_user']}@example.org/a.git")
    run("git", "remote", "add", "other", f"https://example.org/b.git?access_token={secrets['remote_query']}")
    (project / "settings.py").write_text(f'DEBUG = True\nDB_PASSWORD = "{secrets["diff_line"]}"\n')
    (project / "local.env").write_text(f"export API_KEY={secrets['untracked_file']}\n")
    done = run(
        sys.executable, "train.py", "--api-key", secrets["argument_option"], f"--token={secrets['argument_equals']}",
        f"+db.password={secrets['argument_hydra']}", f"https://me:{secrets['argument_url']}@host/x",
        PLANTED=str(place / "planted.json"), TRACELET_DIR=str(stored / "runs"), WANDB_DIR=str(stored),
        CLEARML_CACHE_DIR=str(stored / "clearml"), WANDB_API_KEY=secrets["env_wandb"], WANDB_MODE="offline",
        AWS_SECRET_ACCESS_KEY=secrets["env_aws"], HF_TOKEN=secrets["env_hf"], NEPTUNE_API_TOKEN=secrets["neptune"],
        MLFLOW_TRACKING_PASSWORD=secrets["env_mlflow"], PYTHONPATH=str(Path(__file__).parents[2]),
        TRACELET_BACKEND="", HOME=str(stored / "home"),
    )  # fmt: skip
    assert "RuntimeError: token=" in done.stderr, done.stderr
    for name in (".neptune", "mlflow.db", "mlruns", "mlartifacts", "wandb"):
        if (project / name).exists():
            (project / name).rename(stored / f"of-project-{name.strip('.')}")
    return stored, Path(done.stdout.splitlines()[0])


def contents(root: Path) -> Iterator[tuple[Path, bytes]]:
    for path in sorted(root.rglob("*")):
        if path.is_file() and not path.is_symlink():
            yield path, path.read_bytes()
            if zipfile.is_zipfile(path):
                with zipfile.ZipFile(path) as archive:
                    yield from ((path / name, archive.read(name)) for name in archive.namelist())


def test_none_of_the_planted_secrets_is_stored_anywhere(trained: tuple[Path, Path]):
    stored, run = trained
    secrets = planted()
    assert len(secrets) >= 50
    assert len(set(secrets.values())) == len(secrets)
    leaks = [
        (name, str(path.relative_to(stored)))
        for path, data in contents(stored)
        for name, secret in secrets.items()
        if secret.encode() in data
    ]
    assert [] == leaks
    assert run.is_relative_to(stored)


@pytest.mark.parametrize(
    "place",
    ["runs/**/*.log", "runs/**/records.jsonl", "of-project-mlflow.db", "**/*.wandb", "of-project-neptune/**/*.log",
     "runs/**/clearml/offline-*/task.json"],
)  # fmt: skip
def test_what_is_no_secret_is_stored_and_marks_stand_for_the_others(trained: tuple[Path, Path], place: str):
    found = b"".join(path.read_bytes() for path in trained[0].glob(place))
    assert b"kept-value" in found
    assert HIDDEN.encode() in found or b"\\u003chidden" in found


def test_the_facts_of_the_run_are_there_without_them(trained: tuple[Path, Path]):
    run = load_run(trained[1])
    assert HIDDEN in str(run.params["env/command"])
    assert "RuntimeError" in str(run.error)
    assert HIDDEN in str(run.error)
    assert {HIDDEN, f"{HIDDEN} and {HIDDEN}"} <= {run.params["password"], run.params["note"]}
    assert "example.org/a.git" in json.dumps(run.params)


def test_errors_of_a_backend_are_kept_without_them():
    backend, secret = MemoryBackend(), "s" + "3cr3t" * 5
    backend.reject(lambda record: record.name == "bad")
    keep = backend.handle_batch

    def handle(records):
        try:
            keep(records)
        except RejectedError as error:
            raise RejectedError(f"https://me:{secret}@host refuses, token={secret}") from error

    backend.handle_batch = handle
    backend.fail(ConnectionError(f"no route to https://me:{secret}@host"), times=1)
    settings = TraceletSettings(delivery="thread", collectors=[])
    with Experiment("e", backend=backend, settings=settings) as experiment:
        experiment.log_metric("bad", 1.0, 0)
    files = dict(contents(experiment.run_dir))
    assert [] == [path for path, data in files.items() if secret.encode() in data]
    rejected = (experiment.run_dir / "delivery" / "memory" / "rejected.jsonl").read_text()
    assert f"https://{HIDDEN}@host refuses" in rejected


def test_the_names_patterns_and_exceptions_of_the_settings_are_heeded():
    settings = TraceletSettings(
        delivery="thread", collectors=[],
        redact_names=["employee"], redact_patterns=[r"ACME-\d+"], redact_keep=["auth_token"],
    )  # fmt: skip
    config = {"employee": 7, "id": "ACME-12", "auth_token": "stays"}
    with Experiment("e", config=config, settings=settings) as experiment:
        experiment.log_text("note", "of ACME-13")
    run = load_run(experiment.run_dir)
    assert {"employee": HIDDEN, "id": HIDDEN, "auth_token": "stays"} == run.params
    assert [(None, f"of {HIDDEN}")] == [(None, text) for _, text in run.texts("note")]


def test_they_are_heeded_in_what_collectors_write_too(tmp_path):
    program = tmp_path / "train.py"
    program.write_text("""
from tracelet import Experiment, TraceletSettings

settings = TraceletSettings(
    collectors=["git", "environment"], plugins={"environment": {"console": "always"}},
    redact_patterns=["ACME-[0-9]+"], redact_names=["employee"],
)
with Experiment("e", settings=settings) as experiment:
    print("printed ACME-77 by employee=1234567890", flush=True)
""")
    subprocess.run(["git", "init", "--quiet", "."], cwd=tmp_path, check=True)
    (tmp_path / "notes.txt").write_text("a change of ACME-42\n")
    command = [sys.executable, os.fspath(program), "--employee", "ACME-99"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=120)
    recorded = load_run(dir=tmp_path / "tracelet_runs")
    stored = b"".join(path.read_bytes() for path in recorded.path.rglob("*") if path.is_file())
    assert b"notes.txt" in stored  # The patch is there,
    assert b"printed " in stored  # and the output.
    assert [] == [word for word in (b"ACME-77", b"ACME-42", b"ACME-99", b"1234567890") if word in stored]
    assert [] == [path.name for path in recorded.path.iterdir() if path.name.startswith(".")]
