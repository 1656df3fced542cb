"""Values of JAX that a device may still be computing: kept so that they can be read later, without waiting for it.

`is_array` and `keep` are called on the thread that logs, `Kept` on any thread, later. Guarantee: what is ready is read
at once; for the rest a small computation is launched, and nothing is waited for. What is kept outlives the array, which
a later step may have been given to overwrite (donation). JAX is not imported before a value of its own is there.

The numbers of one call leave in one packed array, as words of 32 bits so that each keeps its own type: 7 µs for eight
of them, where a copy of each takes 5. Nothing is computed with an array of which another process has a part, for all
would have to take part: where it is the same everywhere, this process's copy counts, else its description.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, final

from tracelet.errors import UsageError

if TYPE_CHECKING:
    import jax

_TRACER: Final = (
    "inside of jit, grad, vmap or scan this is no number yet, but a tracer. Return it from the function and log it "
    "outside, or let it leave with the function's results: by TraceletTrainState, `tracked` or `capture` of "
    "tracelet.frameworks.jax_framework"
)


def is_array(value: Any) -> bool:
    """Whether the value is an array of JAX, or a key.

    Raises:
        UsageError: It is a tracer.
    """
    if str(getattr(type(value), "__module__", None)).partition(".")[0] not in ("jaxlib", "jax"):
        return False
    import jax

    if isinstance(value, jax.core.Tracer):
        raise UsageError(_TRACER)
    return isinstance(value, jax.Array)


def keep(values: Sequence[Any]) -> Kept:
    """Keep arrays, each of which `is_array`."""
    kept = Kept()
    numbers: dict[int, jax.Array] = {}
    for place, value in enumerate(values):
        try:
            here = _of_this_process(value)
            if isinstance(here, str) or is_ready(here):
                kept.add([place], Read(here))
            elif here.size == 1 and code_of(here.dtype) is not None:
                numbers[place] = here
            else:
                kept.add([place], Copied(here))
        except RuntimeError as error:  # It was given away to be overwritten, or its computation has failed.
            kept.add([place], Read(error))
    if numbers:
        kept.add_packed(numbers)
    return kept


@final
class Kept:
    """Values as they were when they were kept, in that order."""

    def __init__(self) -> None:
        """Keep nothing yet."""
        self._parts: list[tuple[Sequence[int], Read | Copied | Packed]] = []

    def add(self, places: Sequence[int], part: Read | Copied | Packed) -> None:
        """Add the values of these places."""
        self._parts.append((places, part))

    def add_packed(self, numbers: Mapping[int, jax.Array]) -> None:
        """Add numbers, all in one where one device, or the same ones, have them all."""
        try:
            self.add(list(numbers), Packed(list(numbers.values())))
        except ValueError:
            for place, number in numbers.items():
                self.add([place], Packed([number]))

    @property
    def size_bytes(self) -> int:
        """What is held on devices for it."""
        return sum(part.size_bytes for _, part in self._parts)

    def is_ready(self) -> bool:
        """Whether `result` returns at once."""
        return all(part.is_ready() for _, part in self._parts)

    def result(self) -> list[Any]:
        """Each one as a number; of several elements, as a NumPy array; what has failed, as its error."""
        found = {place: value for places, part in self._parts for place, value in zip(places, part.read(), strict=True)}
        return [found[place] for place in range(len(found))]


@final
class Read:
    """What was there already."""

    size_bytes = 0

    def __init__(self, value: jax.Array | str | Exception) -> None:
        """Read it."""
        self._value = value if isinstance(value, (str, Exception)) else read(value)

    def is_ready(self) -> bool:
        """As `Kept`."""
        return True

    def read(self) -> list[Any]:
        """As `Kept.result`."""
        return [self._value]


@final
class Copied:
    """A copy of an array."""

    def __init__(self, value: jax.Array) -> None:
        """Launch it."""
        self._copy = _computations()["copy"](value)
        self.size_bytes = int(self._copy.nbytes)

    def is_ready(self) -> bool:
        """As `Kept`."""
        return is_ready(self._copy)

    def read(self) -> list[Any]:
        """As `Kept.result`."""
        return [read(self._copy)]


@final
class Packed:
    """Numbers in one array."""

    def __init__(self, numbers: Sequence[jax.Array]) -> None:
        """Launch the packing.

        Raises:
            ValueError: They are on different devices.
        """
        self._numbers = numbers
        self._codes = "<" + "".join([code_of(number.dtype) or "" for number in numbers])
        self._words = _computations()["pack"](numbers)
        self.size_bytes = struct.calcsize(self._codes)

    def is_ready(self) -> bool:
        """As `Kept`."""
        return is_ready(self._words)

    def read(self) -> list[Any]:
        """As `Kept.result`."""
        import numpy as np

        try:
            return list(struct.unpack(self._codes, np.asarray(self._words).tobytes()))
        except RuntimeError:  # Of several, one has failed; the others may still be there.
            return [read(number) for number in self._numbers]


def is_ready(value: Any) -> bool:
    """Whether the array has been computed."""
    return bool(value.is_ready())  # A method that JAX's types leave out.


def read(value: jax.Array) -> Any:
    """An array's number or elements; if there are none, the error. Waits for it."""
    import numpy as np

    try:
        return value.item() if value.size == 1 else np.asarray(value)
    except RuntimeError as error:
        return error


def _of_this_process(value: jax.Array) -> jax.Array | str:
    import jax
    import jax.numpy as jnp

    if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        value = jax.random.key_data(value)
    if len(value.sharding.device_set) > 1 and value.is_fully_replicated and value.addressable_shards:
        return value.addressable_data(0)
    return value if value.is_fully_addressable else _described(value)


def _described(value: jax.Array) -> str:
    return f"<{value.dtype}{list(value.shape)}, parts of which are in other processes: {value.sharding}>"


# -- words of 32 bits --------------------------------------------------------------------------------------------------


@functools.cache
def code_of(dtype: Any) -> str | None:
    """The type under which a number of this type is packed, as `struct` names it; None for what is no real number."""
    import jax.numpy as jnp

    if jnp.issubdtype(dtype, jnp.floating):
        return "d" if jnp.dtype(dtype).itemsize == 8 else "f"
    if jnp.issubdtype(dtype, jnp.signedinteger):
        return "q" if jnp.dtype(dtype).itemsize == 8 else "i"
    if jnp.issubdtype(dtype, jnp.unsignedinteger):
        return "Q" if jnp.dtype(dtype).itemsize == 8 else "I"
    return "I" if jnp.issubdtype(dtype, jnp.bool_) else None


def to_words(number: Any) -> Any:
    """A number, of shape () or one element, as uint32 of shape (1,) or (2,). Called inside a computation."""
    import jax
    import jax.numpy as jnp

    code = code_of(number.dtype)
    wide = {"f": "float32", "i": "int32", "I": "uint32"}.get(code or "", number.dtype)
    return jax.lax.bitcast_convert_type(jnp.reshape(number, ()).astype(wide), jnp.uint32).reshape(-1)


@functools.cache  # Compiled once a process for each set of types.
def _computations() -> Mapping[str, Callable[[Any], Any]]:
    import jax
    import jax.numpy as jnp

    def pack(numbers: Sequence[Any]) -> Any:
        return jnp.concatenate([to_words(number) for number in numbers])

    return {"copy": jax.jit(jnp.copy), "pack": jax.jit(pack)}
