"""NVIDIA's GPUs by NVML, through `pynvml` of nvidia-ml-py.

What a device does not have (a passively cooled one, a slice of one) is asked once and not again. A library that is not
there, or a driver that is not loaded, means that there are no such GPUs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Final, final

_MILLIWATTS: Final = 1000.0
_REASONS: Final = {  # Bits of NVML's mask; idle and clocks that the user set are no reasons to worry.
    0x4: "power_cap",
    0x8: "hardware_slowdown",
    0x20: "software_thermal",
    0x40: "hardware_thermal",
    0x80: "power_brake",
}


@final
@dataclass(slots=True)
class _Device:
    """A GPU.

    Attributes:
        index: As NVML counts, and `nvidia-smi` shows.
        handle: NVML's.
        missing: What it does not have.
        reasons: Why it has been slowed down so far: from then on each is a series.
    """

    index: int
    handle: Any
    missing: set[str] = field(default_factory=set)
    reasons: int = 0


@final
class NvidiaProbe:
    """A `Probe` of the GPUs that this process may use."""

    name = "NVIDIA's GPUs"

    def __init__(self, pynvml: ModuleType, own_pids: Callable[[], Iterable[int]]) -> None:
        """Start NVML.

        Args:
            pynvml: The module.
            own_pids: Gives this process and those below it: memory is told for them.

        Raises:
            LookupError: There is no GPU of NVIDIA's.
        """
        self._nvml = pynvml
        self._own_pids = own_pids
        absent = (pynvml.NVMLError_LibraryNotFound, pynvml.NVMLError_DriverNotLoaded)
        try:
            pynvml.nvmlInit()
        except absent as error:
            raise LookupError(str(error)) from error
        indices = range(pynvml.nvmlDeviceGetCount())
        devices = (_Device(index, pynvml.nvmlDeviceGetHandleByIndex(index)) for index in indices)
        self._devices = list(self._visible(devices))

    def facts(self) -> Iterable[tuple[str, Any]]:
        """Names, sizes, versions."""
        nvml = self._nvml
        yield "gpu/count", len(self._devices)
        with suppress(nvml.NVMLError):
            yield "gpu/driver", nvml.nvmlSystemGetDriverVersion()
        with suppress(nvml.NVMLError):
            version = nvml.nvmlSystemGetCudaDriverVersion()
            yield "gpu/driver_cuda", f"{version // 1000}.{version % 1000 // 10}"
        for device in self._devices:
            with suppress(nvml.NVMLError):
                yield f"gpu/{device.index}/name", nvml.nvmlDeviceGetName(device.handle)
            with suppress(nvml.NVMLError):
                yield f"gpu/{device.index}/memory_total_bytes", nvml.nvmlDeviceGetMemoryInfo(device.handle).total
            with suppress(nvml.NVMLError):
                limit = nvml.nvmlDeviceGetEnforcedPowerLimit(device.handle)
                yield f"gpu/{device.index}/power_limit_watts", limit / _MILLIWATTS

    def read(self, now_s: float) -> Iterable[tuple[str, float]]:
        """The devices one after the other; an error of one leaves the others alone, and is raised at the end."""
        failure: Exception | None = None
        for device in self._devices:
            for query in (self._load, self._memory, self._power, self._heat, self._clocks, self._brakes, self._own):
                try:
                    if query.__name__ not in device.missing:
                        yield from ((f"gpu/{device.index}/{name}", value) for name, value in query(device))
                except (self._nvml.NVMLError_NotSupported, self._nvml.NVMLError_FunctionNotFound):
                    device.missing.add(query.__name__)
                except self._nvml.NVMLError as error:
                    failure = error
        if failure is not None:
            raise failure

    def close(self) -> None:
        """End NVML; the library counts who has started it."""
        self._nvml.nvmlShutdown()

    # -- what a device is asked ----------------------------------------------------------------------------------------

    def _load(self, device: _Device) -> Iterator[tuple[str, float]]:
        rates = self._nvml.nvmlDeviceGetUtilizationRates(device.handle)
        yield "utilization_percent", rates.gpu
        yield "memory_utilization_percent", rates.memory  # The share of time in which memory was read or written.

    def _memory(self, device: _Device) -> Iterator[tuple[str, float]]:
        memory = self._nvml.nvmlDeviceGetMemoryInfo(device.handle)
        yield "memory_used_bytes", memory.used
        yield "memory_percent", 100 * memory.used / memory.total

    def _power(self, device: _Device) -> Iterator[tuple[str, float]]:
        yield "power_watts", self._nvml.nvmlDeviceGetPowerUsage(device.handle) / _MILLIWATTS

    def _heat(self, device: _Device) -> Iterator[tuple[str, float]]:
        temperature = self._nvml.nvmlDeviceGetTemperature(device.handle, self._nvml.NVML_TEMPERATURE_GPU)
        yield "temperature_celsius", temperature

    def _clocks(self, device: _Device) -> Iterator[tuple[str, float]]:
        yield "sm_clock_mhz", self._nvml.nvmlDeviceGetClockInfo(device.handle, self._nvml.NVML_CLOCK_SM)
        yield "memory_clock_mhz", self._nvml.nvmlDeviceGetClockInfo(device.handle, self._nvml.NVML_CLOCK_MEM)

    def _brakes(self, device: _Device) -> Iterator[tuple[str, float]]:
        try:
            mask = self._nvml.nvmlDeviceGetCurrentClocksEventReasons(device.handle)
        except self._nvml.NVMLError_FunctionNotFound:  # A driver before 535 has the same under the former name.
            mask = self._nvml.nvmlDeviceGetCurrentClocksThrottleReasons(device.handle)
        device.reasons |= mask
        yield "throttled", float(any(mask & bit for bit in _REASONS))
        for bit, reason in _REASONS.items():
            if device.reasons & bit:
                yield f"throttled/{reason}", float(bool(mask & bit))

    def _own(self, device: _Device) -> Iterator[tuple[str, float]]:
        own = set(self._own_pids())
        users = self._nvml.nvmlDeviceGetComputeRunningProcesses(device.handle)
        used = [user.usedGpuMemory for user in users if user.pid in own and user.usedGpuMemory is not None]
        if used or any(user.pid in own for user in users):
            yield "process_memory_bytes", sum(used)
        yield "processes", len(users)

    # -- which devices -------------------------------------------------------------------------------------------------

    def _visible(self, devices: Iterable[_Device]) -> Iterator[_Device]:
        """Those in `CUDA_VISIBLE_DEVICES`: numbers or the beginnings of UUIDs. On a shared machine others' stay out.

        The numbers are NVML's where CUDA counts by the bus, as `CUDA_DEVICE_ORDER` tells it to on such machines.
        """
        given = os.environ.get("CUDA_VISIBLE_DEVICES")
        chosen = [] if given is None else [word.strip() for word in given.split(",")]
        for device in devices:
            uuid = ""
            with suppress(self._nvml.NVMLError):
                uuid = self._nvml.nvmlDeviceGetUUID(device.handle)
            if given is None or any(word and (word == str(device.index) or uuid.startswith(word)) for word in chosen):
                yield device
