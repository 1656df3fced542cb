"""AMD's GPUs by AMD SMI, through the package `amdsmi`. The figures have the names that NVIDIA's have."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from types import ModuleType
from typing import Any, Final, final

_MIB: Final = 1 << 20


@final
class AmdProbe:
    """A `Probe` of AMD's GPUs."""

    name = "AMD's GPUs"

    def __init__(self, amdsmi: ModuleType) -> None:
        """Start AMD SMI.

        Raises:
            LookupError: There is no GPU of AMD's.
        """
        self._smi = amdsmi
        try:
            amdsmi.amdsmi_init()
            self._devices = dict(enumerate(amdsmi.amdsmi_get_processor_handles()))
        except amdsmi.AmdSmiException as error:  # No driver.
            raise LookupError(str(error)) from error

    def facts(self) -> Iterable[tuple[str, Any]]:
        """Names and sizes."""
        yield "gpu/count", len(self._devices)
        for index, device in self._devices.items():
            with suppress(self._smi.AmdSmiException):
                yield f"gpu/{index}/name", self._smi.amdsmi_get_gpu_asic_info(device)["market_name"]
            with suppress(self._smi.AmdSmiException):
                total = self._smi.amdsmi_get_gpu_vram_usage(device)["vram_total"]
                yield f"gpu/{index}/memory_total_bytes", total * _MIB

    def read(self, now_s: float) -> Iterable[tuple[str, float]]:
        """The devices one after the other; what one can't tell is left out."""
        for index, device in self._devices.items():
            for query in (self._load, self._memory, self._power, self._heat):
                with suppress(self._smi.AmdSmiException):
                    for name, value in query(device):
                        if isinstance(value, (int, float)):  # Else it is the text "N/A".
                            yield f"gpu/{index}/{name}", float(value)

    def close(self) -> None:
        """End AMD SMI."""
        self._smi.amdsmi_shut_down()

    def _load(self, device: Any) -> Iterator[tuple[str, Any]]:
        activity = self._smi.amdsmi_get_gpu_activity(device)
        yield "utilization_percent", activity["gfx_activity"]
        yield "memory_utilization_percent", activity["umc_activity"]

    def _memory(self, device: Any) -> Iterator[tuple[str, Any]]:
        memory = self._smi.amdsmi_get_gpu_vram_usage(device)
        yield "memory_used_bytes", memory["vram_used"] * _MIB
        yield "memory_percent", 100 * memory["vram_used"] / memory["vram_total"]

    def _power(self, device: Any) -> Iterator[tuple[str, Any]]:
        power = self._smi.amdsmi_get_power_info(device)
        values = (power.get(name) for name in ("current_socket_power", "average_socket_power", "socket_power"))
        yield "power_watts", next((value for value in values if isinstance(value, int)), "N/A")

    def _heat(self, device: Any) -> Iterator[tuple[str, Any]]:
        kind, metric = self._smi.AmdSmiTemperatureType.HOTSPOT, self._smi.AmdSmiTemperatureMetric.CURRENT
        yield "temperature_celsius", self._smi.amdsmi_get_temp_metric(device, kind, metric)
