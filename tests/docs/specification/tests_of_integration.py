# tests/integration/test_plugin_integration.py
import pytest
from tracelet import Experiment
from tracelet.backends.neptune_backend import NeptuneBackend

@pytest.mark.integration
def test_neptune_integration():
    """Test Neptune backend integration with real Neptune API."""
    # This test requires NEPTUNE_API_TOKEN environment variable

    exp = Experiment(name="integration_test", backend=["neptune"])
    exp.start()

    # Log some metrics
    exp.log_metric("test_accuracy", 0.95, iteration=1)
    exp.log_params({"learning_rate": 0.001, "batch_size": 32})

    exp.stop()

    # Verify metrics were logged to Neptune
    # (Implementation depends on Neptune API for verification)
