"""Keeps the way in which Python ends after Ctrl-C. Called on the main thread, when the interpreter is ending."""

from __future__ import annotations


def keep_interrupted(error: BaseException | None) -> None:
    """Have Python end by SIGINT still, if `error`, which ends the program, is a KeyboardInterrupt.

    CPython notes an interrupt that nobody has caught, and forgets it when a text is executed as code afterwards
    (`run_eval_code_obj` in `pythonrun.c`): the dataclasses and named tuples of a module that is imported while the run
    ends do that, on whatever thread. The exit code would be 1, and a shell would go on with its loop.
    """
    if isinstance(error, KeyboardInterrupt):
        try:
            exec("raise KeyboardInterrupt")  # noqa: S102  the one way to have it noted again
        except KeyboardInterrupt:
            return
