"""`tracelet archive` and `tracelet unarchive`: runs as one file, and back. On the main thread."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tracelet.cli._options import DirOption, JsonOption, ProjectOption, open_run, runs_directory
from tracelet.cli._render import clean, plural, print_json, quantity, stdout
from tracelet.cli.prune import byte_count


def archive(
    references: Annotated[
        list[str], typer.Argument(metavar="RUN", help="Ids, beginnings of ids, names, paths, or `latest`.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Ends in .tar, .tar.gz, .tar.zst or .zip.")
    ],
    delete: Annotated[bool, typer.Option("--delete", help="Delete the runs when the file has been read back.")] = False,
    dir: DirOption = None,
    project: ProjectOption = None,
    json: JsonOption = False,
) -> None:
    """Write runs to one file, with all that they keep."""
    from tracelet.core.archiving import archive_runs

    runs = {run.path: run for run in (open_run(reference, dir, project) for reference in references)}
    contents = archive_runs(list(runs), output, delete=delete)
    if json:
        print_json({"output": output, "runs": [run.id for run in runs.values()], "size_bytes": contents.size_bytes,
                    "files": len(contents.files), "deleted": delete})  # fmt: skip
        return
    stdout().print(
        f"Archived {plural(len(runs), 'run')}, {plural(len(contents.files), 'file')} of "
        f"{quantity('size_bytes', contents.size_bytes)}: {clean(output)} of "
        f"{quantity('size_bytes', output.stat().st_size)}{'; the runs are deleted' if delete else ''}.",
        soft_wrap=True,
    )


def unarchive(
    archives: Annotated[list[Path], typer.Argument(metavar="FILE", help="What `tracelet archive` wrote.")],
    dir: DirOption = None,
    max_size: Annotated[
        str, typer.Option("--max-size", metavar="SIZE", help="Refuse a file that holds more.")
    ] = "1TiB",
    json: JsonOption = False,
) -> None:
    """Unpack archived runs. Each file is checked against its digest; nothing is overwritten."""
    from tracelet.core.archiving import unarchive as unpack

    limit_bytes = byte_count(max_size, "--max-size")
    runs = [run for archive in archives for run in unpack(archive, runs_directory(dir), limit_bytes)]
    if json:
        print_json([{"run": run.name, "path": run} for run in runs])
        return
    for run in runs:
        stdout().print(f"Unpacked: {clean(run)}", soft_wrap=True)
