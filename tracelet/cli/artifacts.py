"""`tracelet artifacts`: what a run keeps, and which runs have used it. On the main thread; nothing of it is loaded."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.text import Text

from tracelet.cli._options import DirOption, JsonOption, ProjectOption, RunArgument, open_run
from tracelet.cli._render import (
    Column,
    clean,
    clip,
    parameter,
    plural,
    print_json,
    print_pairs,
    print_table,
    print_title,
    quantity,
    stdout,
    texts,
)
from tracelet.errors import UsageError
from tracelet.journal.artifacts import Artifact
from tracelet.journal.lineage import users_of
from tracelet.journal.load import Run

_SHOWN_FILES: Final = 20
_DIGEST_DIGITS: Final = 12

_Users = Mapping[tuple[str, str], Sequence[str]]


def artifacts(
    run: RunArgument = "latest",
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME[:ALIAS]]", help="One artifact: its versions; or `NAME:best`, `NAME:v3`."),
    ] = None,
    type: Annotated[str | None, typer.Option("--type", metavar="TYPE", help="Only `model`, `dataset`, ….")] = None,
    download: Annotated[
        Path | None, typer.Option("--download", metavar="TO", help="Copy the files into this directory.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there.")] = False,
    lineage: Annotated[bool, typer.Option("--lineage", help="What the run used, and who used what it made.")] = False,
    dir: DirOption = None,
    project: ProjectOption = None,
    json: JsonOption = False,
) -> None:
    """List, show and download the artifacts of a run."""
    found = open_run(run, dir, project)
    chosen, one = _chosen(found, name, type)
    if download is not None:
        if name is None:
            raise UsageError("name the artifact to download: tracelet artifacts RUN NAME --download TO")
        one = one or found.artifact(name)
        place = one.download(download, overwrite=force)
        if not json:
            stdout().print(Text(clean(f"{one.name}:{one.version} is in {os.fspath(place)}")), soft_wrap=True)
            return
    users = users_of(found)
    if json:
        print_json({"artifacts": [_facts(item, users) for item in chosen], "uses": found.used_artifacts()})
        return
    if one is not None:
        _print_one(stdout(), one, users)
    else:
        _print_table(stdout(), chosen, users)
    if lineage:
        _print_lineage(stdout(), found, chosen, users)


def _chosen(run: Run, name: str | None, type: str | None) -> tuple[list[Artifact], Artifact | None]:
    """The artifacts that are meant; and the one of them, where a version or an alias names it."""
    found = run.artifacts(type)
    if name is None:
        return found, None
    versions = [artifact for artifact in found if artifact.name == name]
    if versions:
        return versions, None
    one = run.artifact(name)
    return [one], one


def _facts(artifact: Artifact, users: _Users) -> dict[str, Any]:
    facts = {field.name: getattr(artifact, field.name) for field in dataclasses.fields(artifact)}
    files = {name: {"size_bytes": file.size_bytes, "digest": file.digest} for name, file in artifact.files.items()}
    path = None if artifact.path is None else os.fspath(artifact.path)
    return facts | {"path": path, "files": files, "used_by": list(users.get((artifact.name, artifact.version), ()))}


def _print_table(console: Console, artifacts: Sequence[Artifact], users: _Users) -> None:
    if not artifacts:
        console.print("no artifacts. experiment.log_artifact(path) keeps one")
        return
    used = [users.get((artifact.name, artifact.version), ()) for artifact in artifacts]
    columns = [
        Column("NAME", texts(artifact.name for artifact in artifacts), limit=32),
        Column("VERSION", texts(artifact.version for artifact in artifacts)),
        Column("ALIASES", texts(", ".join(artifact.aliases) for artifact in artifacts), limit=24),
        Column("TYPE", texts(artifact.type for artifact in artifacts), limit=16, rank=1),
        Column("SIZE", texts(map(_size, artifacts)), right=True),
        Column(
            "STEP", texts("" if artifact.step is None else artifact.step for artifact in artifacts), right=True, rank=2
        ),
        Column("DIGEST", texts(_digest(artifact)[:_DIGEST_DIGITS] for artifact in artifacts), rank=4),
        Column("USED BY", texts(", ".join(ids) for ids in used), limit=30, rank=3),
    ]
    print_table(console, columns)


def _print_one(console: Console, artifact: Artifact, users: _Users) -> None:
    used = users.get((artifact.name, artifact.version), ())
    lines = {
        "name": f"{artifact.name}:{artifact.version}",
        "type": artifact.type,
        "aliases": ", ".join(artifact.aliases),
        "step": "" if artifact.step is None else str(artifact.step),
        "size": _size(artifact),
        "digest": artifact.digest or "",
        "where": artifact.reference or ("" if artifact.path is None else os.path.relpath(artifact.path)),
        "used by": ", ".join(used),
        "changed": ", ".join(artifact.changed),
        **{f"metadata {key}": parameter(value) for key, value in artifact.metadata.items()},
    }
    shown = {label: text for label, text in lines.items() if text}
    print_pairs(
        console,
        texts(shown),
        [Text(clean(text)) if label in ("where", "digest") else clip(text, 200) for label, text in shown.items()],
    )
    if artifact.files:
        print_title(console, "Files")
        names = list(artifact.files)[:_SHOWN_FILES]
        print_pairs(
            console, texts(names), [Text(quantity("_bytes", artifact.files[name].size_bytes)) for name in names]
        )
        if len(artifact.files) > _SHOWN_FILES:
            console.print(f"  … {len(artifact.files) - _SHOWN_FILES:,} more: --json", style="dim")


def _print_lineage(console: Console, run: Run, artifacts: Sequence[Artifact], users: _Users) -> None:
    uses = [
        f"{used.get('name')}:{used.get('version')} of "
        + ("this run" if used.get("run_uuid") == run.uuid else f"the run {used.get('run_id')}")
        for used in run.used_artifacts()
    ]
    used_by = [
        f"{artifact.name}:{artifact.version} by the run {user}"
        for artifact in artifacts
        for user in users.get((artifact.name, artifact.version), ())
    ]
    for title, lines in (("Uses", uses), ("Used", used_by)):
        if lines:
            print_title(console, title)
        for line in lines:
            console.print(Text("  ") + clip(line, console.width - 2))


def _size(artifact: Artifact) -> str:
    if artifact.reference is not None:
        return "reference"
    if not artifact.is_kept:
        return "gone"
    files = f" in {plural(len(artifact.files), 'file')}" if len(artifact.files) != 1 else ""
    return quantity("_bytes", artifact.size_bytes or 0) + files


def _digest(artifact: Artifact) -> str:
    return (artifact.digest or "").removeprefix("sha256:")
