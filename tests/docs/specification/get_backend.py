# tracelet/backends/__init__.py
from .neptune_backend import NeptuneBackend

def get_backend(name: str):
    """Get backend plugin by name."""
    backends = {
        "neptune": NeptuneBackend,
        # ... other backends
    }
    return backends.get(name)
