"""Writes one process's part of a run.

Threads:
    any thread            `append`, `define`, `write_record`: also signal handlers, `__del__` and forked children.
    tracelet-journal      `tend`, about once a second (see `journal.keeper`).
    the experiment's      `open`, `close`.

Guarantee: what `append` or `write_record` was given is in the kernel's hands when the call returns, so that no death of
the process loses it. They never raise because of the disk and never wait for another thread: the one lock here is only
ever *tried*, and who does not get it writes a line instead. Where the disk takes nothing, some lines are kept for its
return (`journal.waiting`); what is more is counted in `lost`, reported once, and marked in the log with a `gap`.
"""

from __future__ import annotations

import io
import itertools
import logging
import math
import os
import sys
import threading
import time
import uuid
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, final

from tracelet.core.records import MetricType
from tracelet.errors import JournalError
from tracelet.journal import forking
from tracelet.journal.directory import RunDirectory
from tracelet.journal.format import CRC, FORMAT_VERSION, RECORD, RECORD_BYTES, encode_line, log_name
from tracelet.journal.keeper import JournalKeeper
from tracelet.journal.segment import Segment, is_in_place, open_new, temporary_path, write_whole
from tracelet.journal.status import ProcessIdentity
from tracelet.journal.supply import JournalMode, SegmentSupply
from tracelet.journal.waiting import MAX_LINES, WaitingLines
from tracelet.utils.redaction import Redactor
from tracelet.utils.values import EXACT_INT_LIMIT

logger = logging.getLogger(__name__)

WriterRole = Literal["main", "attached", "child"]
"""`main` started the run and tells its status; `attached` joined it from another process; `child` was forked."""

MAX_SERIES: Final = 100_000
"""Series beyond these are written as whole lines: slower, but the table of series stays bounded (about 30 MB)."""

_DISK_BACKOFF_S: Final = 1.0
_OPEN_TIMEOUT_S: Final = 0.1
_DEVICE_ERROR_PAUSE_S: Final = 60.0  # A device that fails for good gets new files once a minute, not every second.


@final
@dataclass(slots=True)
class Series:
    """A series of this writer.

    Attributes:
        key: Its number in this writer's records.
        next_step: Gives the steps of the calls that name none: 0, 1, 2, …
    """

    key: int
    name: str
    type: MetricType
    source: str | None
    next_step: Callable[[], int] = field(default_factory=lambda: itertools.count().__next__)


SeriesId = str | tuple[str, MetricType, str | None]
"""A plain metric goes by its name alone, which is what the fast path looks up."""


@final
class JournalWriter:
    """See the module docstring for threads and guarantees."""

    def __init__(
        self,
        run: RunDirectory,
        *,
        role: WriterRole = "main",
        attempt: int = 1,
        rank: int | None = None,
        delivers: bool = False,
        mode: JournalMode = "auto",
        max_segment_bytes: int = 8 << 20,
        sync_interval_s: float = 1.0,
        heartbeat_s: float = 10.0,
        redactor: Redactor | None = None,
    ) -> None:
        """Nothing touches the disk before `open`, or before the first record."""
        self.run = run
        self.series: dict[SeriesId, Series] = {}
        self.lost = 0  # Records that could not be kept. `+=` holds no call, so CPython can't switch threads in it.
        self._role: WriterRole = role
        self._attempt = attempt
        self._rank = rank
        self._delivers = delivers  # As the setting `deliver_ranks`.
        self._mode: JournalMode = mode
        self._max_segment_bytes = max_segment_bytes
        self._sync_interval_s = sync_interval_s
        self._heartbeat_s = heartbeat_s
        self._redactor = redactor or Redactor()
        self._closed = False
        self._reset(parent=None)
        forking.watch(self)

    def _reset(self, parent: str | None) -> None:
        """A new writer, with files of its own, that are made when they are needed."""
        self.id = uuid.uuid4().hex
        self._parent = parent
        self._log: io.FileIO | None = None
        self._log_bytes = 0  # Its size when the keeper last looked.
        self._segment: Segment | None = None
        self._supply = SegmentSupply(self.run, self.id, self._mode, self._max_segment_bytes)
        self._next_key = itertools.count(1).__next__
        self._growing = threading.Lock()
        self._waiting = WaitingLines()
        self._gap_reported = 0
        self._retry_at_s = 0.0  # While the disk refuses: when to try again, by the monotonic clock.
        self._in_trouble = False
        self._device_error_at_s = -math.inf
        self._keeper: JournalKeeper | None = None
        self._write: Callable[[bytes], int] = _no_segment

    # -- any thread ----------------------------------------------------------------------------------------------------

    def append(self, key: int, step: int, value: float, time_ns: int | None = None) -> None:
        """Write one scalar of a defined series.

        Raises:
            struct.error: `step` or `time_ns` is no integer of 64 bits, or `value` no number.
        """
        record = _pack(value, step, time_ns or _time_ns(), key)
        record += _pack_crc(_crc32(record))
        try:
            self._write(record)
        except (ValueError, OSError):
            self._append_in_new_segment(record)

    def append_all(self, values: Mapping[str, float], step: int, time_ns: int | None = None) -> None:
        """Write scalars of several defined series under one step and time: in the common case in ONE write.

        Raises:
            KeyError: A series is not defined. Nothing has been written then, nor in the cases below.
            TypeError: A value is neither a float nor an integer that a float can hold.
            struct.error: As `append`.
        """
        time_ns, series, parts = time_ns or _time_ns(), self.series, list[bytes]()
        pack, crc32, pack_crc, add = _pack, _crc32, _pack_crc, parts.append  # Local names save a tenth of it.
        for name, value in values.items():
            if type(value) is not float and not (type(value) is int and -EXACT_INT_LIMIT <= value <= EXACT_INT_LIMIT):
                raise TypeError(name)
            record = pack(value, step, time_ns, series[name].key)
            add(record)
            add(pack_crc(crc32(record)))
        records = b"".join(parts)
        try:
            self._write(records)
        except (ValueError, OSError):  # They do not all fit in.
            for start in range(0, len(records), RECORD_BYTES):
                self._append_in_new_segment(records[start : start + RECORD_BYTES])

    def define(self, identity: SeriesId) -> Series | None:
        """The series of this identity, made where it is new.

        Returns:
            None where it can't be put on the disk now, or is one too many: `write_record` takes its records.
        """
        known = self.series.get(identity)
        if known is not None or len(self.series) >= MAX_SERIES:
            return known
        name, kind, source = (identity, MetricType.SCALAR, None) if isinstance(identity, str) else identity
        series = Series(self._next_key(), name, kind, source)
        writer = self.id
        # Its line comes before its first record. Of two threads that define it at once, one key stays without records.
        if not self._write_line(self._series_line(series)):
            return None
        if len(self.series) == MAX_SERIES - 1:
            logger.warning(
                "The run %s has %d series; further ones are kept too, but each record costs some 10 µs more. Is a "
                "changing value part of a metric's name?", self.run.identity.run_id, MAX_SERIES,
            )  # fmt: skip
        series = self.series.setdefault(identity, series)
        if self.id != writer:  # The keeper has gone on in new files meanwhile, and may have missed this one.
            self._write_line(self._series_line(series))
        return series

    def write_record(
        self,
        name: str,
        value: Any,
        kind: MetricType,
        *,
        step: int | None = None,
        time_ns: int | None = None,
        source: str | None = None,
        metadata: Any = None,
    ) -> None:
        """Write one record of any type as a line, without credentials. `value` and `metadata` are JSON-like."""
        name, value, metadata = self._redactor.record(name, value, kind, metadata)
        fields: dict[str, Any] = {"type": kind.value, "name": name, "value": value, "step": step}
        fields["time_ns"] = time_ns or _time_ns()
        if source is not None:
            fields["source"] = source
        if metadata:
            fields["metadata"] = metadata
        self._write_or_keep(self._line("record", fields))

    def position(self) -> tuple[int, int]:
        """(segment, slot): how far the scalars of this writer have come."""
        segment = self._segment
        return (segment.index, segment.slots()) if segment is not None else (0, 0)

    # -- the experiment's thread ---------------------------------------------------------------------------------------

    def open(self) -> None:
        """Make the files now. Without this call the first record does; where it fails, each record tries again."""
        # A signal handler that came into the middle of this waits in vain, so not for long.
        if not self._growing.acquire(timeout=_OPEN_TIMEOUT_S):
            return
        try:
            if not self._closed:
                self._start_keeper()
                self._open_log()
        except (OSError, JournalError) as error:
            self._refused(error)
        finally:
            self._growing.release()

    def close(self) -> None:
        """Write what waits, say that this writer has ended, and give unused space back."""
        if self._closed:
            return
        if self._keeper is not None:
            self._keeper.stop()
            self._retry_at_s = 0.0
            self._write_waiting()
            self._write_line(self._line("close", {"lost": self.lost - self._gap_reported, "time_ns": _time_ns()}))
        held = self._growing.acquire(timeout=_OPEN_TIMEOUT_S)  # So that no other thread is making files meanwhile.
        self._closed, self._write = True, _no_segment
        segment, log, self._log = self._segment, self._log, None
        if held:
            self._growing.release()
        waiting, self._waiting = len(self._waiting), WaitingLines()
        self.lost += waiting
        try:
            if self._keeper is not None:
                self._keeper.close_retired()
            self._supply.discard()
            if segment is not None:
                segment.sync()
                segment.close()
            if log is not None:
                os.fdatasync(log.fileno())
                log.close()
        except OSError as error:
            logger.warning("The run %s: the journal's last bytes may not be on the device: %s", self.run.path, error)

    # -- the keeper's thread -------------------------------------------------------------------------------------------

    def tend(self, heartbeat: bool) -> None:
        """One round of housekeeping.

        Brings the files to the device, prepares the next segment, and notices a disk that came back or files that are
        gone.
        """
        log, segment = self._log, self._segment
        try:
            if log is None:
                if time.monotonic() >= self._retry_at_s:
                    self.open()
            elif not self._is_intact(log, segment):
                self._start_over("somebody removed or cut its files; what they held is gone, what comes is kept")
            else:
                self.run.ensure()
                self._prepare_segment()
                self._write_waiting()
                os.fdatasync(log.fileno())
                if segment is not None:
                    segment.sync()
                if heartbeat:
                    os.utime(log.fileno())
        except JournalError as error:
            self._refused(error)
        except OSError as error:
            if time.monotonic() - self._device_error_at_s >= _DEVICE_ERROR_PAUSE_S:
                self._device_error_at_s = time.monotonic()
                self._start_over(f"the device reported {error}")
        except ValueError:  # Another thread has closed one of the files meanwhile: nothing is left to do for it.
            if not self._closed and log is self._log and segment is self._segment:
                raise

    # -- scalars: a new segment ----------------------------------------------------------------------------------------

    def _append_in_new_segment(self, record: bytes) -> None:
        """The segment is full, there is none yet, or the disk refuses."""
        if self._closed:
            self.lost += 1
        elif time.monotonic() < self._retry_at_s or not self._growing.acquire(blocking=False):
            # The disk is full; or another thread makes the segment right now, or a signal came in the middle of that.
            self._keep_scalar_as_line(record)
        else:
            try:
                self._grow(record)
            except (OSError, JournalError) as error:
                self._refused(error)
                self._keep_scalar_as_line(record)
            finally:
                self._growing.release()

    def _grow(self, record: bytes) -> None:
        """Write `record` into a new segment, or into the one that another thread has just made. With the lock held."""
        if self._closed:
            self.lost += 1
            return
        if self._segment is not None:
            try:
                self._segment.write(record)
                return
            except (ValueError, OSError) as error:
                logger.debug("the segment %d takes no more: %s", self._segment.index, error)
        self._open_log()
        previous, segment = self._segment, self._supply.next()
        segment.write(record)
        self._segment, self._write = segment, segment.write
        if self._keeper is not None:
            if previous is not None:
                self._keeper.retire(previous)
            self._keeper.wake()  # It prepares the next one.

    def _prepare_segment(self) -> None:
        if (self._segment is not None or self._in_trouble) and time.monotonic() >= self._retry_at_s:
            try:
                self._supply.prepare()
            except OSError as error:
                self._refused(error)

    def _start_keeper(self) -> None:
        if self._keeper is None:
            self._keeper = JournalKeeper(self, self._sync_interval_s, self._heartbeat_s)
            try:
                self._keeper.start()
            except RuntimeError as error:  # No more threads, or the interpreter is on its way out.
                logger.warning("The run %s has no heartbeat and is not synced to the device: %s", self.run.path, error)

    def _keep_scalar_as_line(self, record: bytes) -> None:
        if self._waiting.is_full:
            self.lost += 1
            return
        value, step, time_ns, key = RECORD.unpack(record[: RECORD.size])
        self._write_or_keep(self._line("scalar", {"key": key, "value": value, "step": step, "time_ns": time_ns}))

    # -- lines ---------------------------------------------------------------------------------------------------------

    def _line(self, kind: str, fields: dict[str, Any]) -> bytes:
        return encode_line({"kind": kind, "at": self.position(), **fields})

    def _series_line(self, series: Series) -> bytes:
        fields = {"key": series.key, "name": series.name, "type": series.type.value, "source": series.source}
        return self._line("series", fields)

    def _open_log(self) -> None:
        """Make the log where there is none. With the lock held.

        Raises:
            OSError: The place can't be written to.
        """
        if self._log is not None:
            return
        self.run.ensure()
        path = self.run.path / log_name(self.id)
        temporary = temporary_path(path)
        log = open_new(temporary)
        try:
            fields = {"format": FORMAT_VERSION, "run": self.run.identity.uuid, "writer": self.id, "role": self._role}
            fields |= {"parent": self._parent, "attempt": self._attempt, "rank": self._rank, "time_ns": _time_ns()}
            fields |= {"delivers": True} if self._rank and self._delivers else {}
            fields |= {"process": ProcessIdentity.own().fields(), "program": sys.argv[0] if sys.argv else ""}
            first = self._line("writer", fields)
            write_whole(log, first + b"".join(map(self._series_line, tuple(self.series.values()))))
            os.rename(temporary, path)  # Readers see a log only with its first line whole.
        except BaseException:  # Also for Ctrl-C.
            log.close()
            temporary.unlink(missing_ok=True)
            raise
        self._log, self._log_bytes = log, 0

    def _write_line(self, line: bytes) -> bool:
        """Whether the line is on the disk."""
        if time.monotonic() < self._retry_at_s or self._closed:
            return False
        if self._log is None:
            self.open()
        log = self._log
        if log is None:
            return False
        try:
            write_whole(log, line)
        except OSError as error:  # It may have taken half of the line; `decode_lines` finds the next one all the same.
            self._refused(error)
            return False
        except ValueError:  # `_start_over` has closed it meanwhile: the line goes to its successor.
            return False
        return True

    def _write_or_keep(self, line: bytes) -> None:
        writer = self.id
        if not self._waiting and self._write_line(line):
            return
        if self._closed or self._waiting.is_full:
            self.lost += 1
        else:
            self._waiting.add(line, writer)

    def _write_waiting(self) -> None:
        """Write the lines that the disk refused before. When all is well again, say so and mark the gap."""
        while self._waiting:
            if not self._write_line(self._waiting.first(self.id)):
                return
            self._waiting.drop_first()
        if self._in_trouble and self._supply.is_ready and time.monotonic() >= self._retry_at_s:
            lost = self.lost
            if self._write_line(self._line("gap", {"lost": lost - self._gap_reported, "time_ns": _time_ns()})):
                self._gap_reported, self._in_trouble = lost, False
                logger.warning("The run %s is written again; %d records could not be kept", self.run.path, lost)

    # -- trouble -------------------------------------------------------------------------------------------------------

    def _refused(self, error: Exception) -> None:
        """The disk took nothing: leave it alone for a second, and say so on the change of state only."""
        self._retry_at_s = time.monotonic() + _DISK_BACKOFF_S
        if not self._in_trouble:
            self._in_trouble = True
            logger.warning(
                "The run %s cannot be written: %s. The training goes on. Up to %d records wait in memory; more are "
                "counted as lost until it can be written again", self.run.path, error, MAX_LINES,
            )  # fmt: skip

    def _is_intact(self, log: io.FileIO, segment: Segment | None) -> bool:
        known, self._log_bytes = self._log_bytes, os.fstat(log.fileno()).st_size
        return is_in_place(log, self.run.path / log_name(self.id), known) and (segment is None or segment.is_intact())

    def _start_over(self, reason: str) -> None:
        """Go on in new files. The series keep their keys; the new log defines them again. On the keeper's thread."""
        if not self._growing.acquire(blocking=False):
            return  # The next round tries again.
        log, segment, supply = self._log, self._segment, self._supply
        try:
            logger.warning("The run %s goes on in new files: %s", self.run.path, reason)
            self._write, self._segment, self._log = _no_segment, None, None  # First: nothing more goes to the old ones.
            self._parent, self.id = self.id, uuid.uuid4().hex
            self._supply = SegmentSupply(self.run, self.id, self._mode, self._max_segment_bytes)
            self._open_log()
        except (OSError, JournalError) as error:
            self._refused(error)
        finally:
            self._growing.release()
        try:
            supply.discard()
            if segment is not None:
                segment.close()
            if log is not None:
                log.close()
        except OSError as error:
            logger.debug("closing what is gone: %s", error)

    # -- fork ----------------------------------------------------------------------------------------------------------

    def become_child(self) -> None:
        """In a forked child: let go of everything that is the parent's, without a lock, and start anew when needed."""
        log, segment, supply, parent = self._log, self._segment, self._supply, self.id
        self.series.clear()
        self.lost = 0
        self._role = "child"
        self._reset(parent)
        try:
            if log is not None:
                log.close()
            if segment is not None:
                segment.close(trim=False)
            supply.let_go()
        except (OSError, ValueError) as error:
            logger.debug("letting go of the parent's files: %s", error)


def _no_segment(_record: bytes) -> int:
    raise ValueError("there is no segment")


_time_ns = time.time_ns
_crc32 = zlib.crc32
_pack = RECORD.pack
_pack_crc = CRC.pack
