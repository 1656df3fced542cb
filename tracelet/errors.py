"""Every error that Tracelet raises on purpose.

    TraceletError
    ├── UsageError                      the caller's mistake: raised at the call, names the value and the remedy
    │   ├── InvalidNameError            a name that is no string                                   (TypeError)
    │   ├── ExperimentStateError        logging before `start()` or after `stop()`
    │   ├── SettingsError               an unknown setting, or a value that does not fit           (ValueError)
    │   ├── RunNotFoundError            no run, or more than one, answers to a reference           (LookupError)
    │   ├── RunExistsError              `resume="never"` and the run is there
    │   └── ArtifactNotFoundError       no artifact answers to a reference                         (LookupError)
    ├── PluginError                     a plug-in cannot be used
    │   ├── PluginNotFoundError         no plug-in of that name is installed                       (LookupError)
    │   ├── MissingDependencyError      a package is missing; the text has the `pip install` line  (ImportError)
    │   └── PluginContractError         a plug-in lacks what its kind must have                    (TypeError)
    ├── DeliveryError                   raised BY a backend, on its worker's thread; never reaches the training loop
    │   ├── RetryableError              the service is away: the same batch comes again later
    │   ├── RejectedError               the service refuses these records: the batch is halved to find the bad one
    │   ├── PermanentError              nothing will help before the user acts (a wrong key): delivery stops trying
    │   └── PartialDeliveryError        the first n records arrived, then something of the above happened
    └── JournalError                    a file on the disk is not what it should be
        ├── CorruptJournalError         it is damaged, or no file of ours
        └── UnsupportedVersionError     a newer Tracelet wrote it; the file is left untouched

A log call raises `UsageError` and nothing else: a full disk, a dead backend or a strange value never stops a training.
"""

from __future__ import annotations


class TraceletError(Exception):
    """The base of every error that Tracelet raises on purpose."""


class UsageError(TraceletError):
    """The caller's mistake. Raised at the call."""


class InvalidNameError(UsageError, TypeError):
    """A metric, parameter or tag was given a name that is no string."""


class ExperimentStateError(UsageError):
    """The experiment is not in the state that the call needs: not started yet, or stopped already."""


class SettingsError(UsageError, ValueError):
    """A setting is unknown or misspelt, or its value does not fit."""


class RunNotFoundError(UsageError, LookupError):
    """No run answers to the reference, or more than one does."""


class RunExistsError(UsageError):
    """The run id is taken, and the caller asked for a new run."""


class ArtifactNotFoundError(UsageError, LookupError):
    """The run has no such artifact, or no such version or alias of it."""


class PluginError(TraceletError):
    """A plug-in cannot be used."""


class PluginNotFoundError(PluginError, LookupError):
    """No plug-in of that name is registered or installed."""


class MissingDependencyError(PluginError, ImportError):
    """A Python package that the feature needs is not installed. The text has the `pip install` line."""


class PluginContractError(PluginError, TypeError):
    """A plug-in lacks a method that its kind must have, or its metadata is wrong."""


class DeliveryError(TraceletError):
    """Raised by a backend on its worker's thread, to say what delivery should do next."""


class RetryableError(DeliveryError):
    """The service is away, slow or busy. The same records are sent again later, without limit while the run lives."""


class RejectedError(DeliveryError):
    """The service refuses what it was sent, and would refuse it again.

    The batch is halved until the bad record stands alone; that one is kept in `rejected.jsonl`, and the rest goes on.
    """


class PermanentError(DeliveryError):
    """Nothing will help before the user acts: a wrong key, a project that does not exist.

    Delivery to this backend ends, says so once, and goes on at the next start or with `tracelet sync`.
    """


class PartialDeliveryError(DeliveryError):
    """A batch failed part of the way: the first `delivered` records arrived and are not sent again.

    Raise it `from` the error that stopped the batch; that one decides what happens to the rest.

    Args:
        delivered: How many records of the batch have arrived.
    """

    def __init__(self, delivered: int) -> None:
        super().__init__(delivered)
        self.delivered = delivered

    def __str__(self) -> str:
        return f"the batch failed after {self.delivered} records"


class JournalError(TraceletError):
    """A file of a run directory is not what it should be."""


class CorruptJournalError(JournalError):
    """The file is damaged beyond what can be skipped, or is no file of ours."""


class UnsupportedVersionError(JournalError):
    """A newer Tracelet wrote this file. It is left untouched; upgrade Tracelet to read it."""
