# tests/unit/test_neptune_backend.py
import pytest
from unittest.mock import Mock, patch
from tracelet.backends.neptune_backend import NeptuneBackend

@pytest.fixture
def mock_neptune():
    with patch('tracelet.backends.neptune_backend.require') as mock_require:
        mock_neptune = Mock()
        mock_require.return_value = mock_neptune
        yield mock_neptune

class TestNeptuneBackend:
    def test_initialization(self, mock_neptune):
        backend = NeptuneBackend()
        config = {"project": "test/project", "api_token": "token"}

        backend.initialize(config)

        mock_neptune.init_run.assert_called_once()

    def test_metric_handling(self, mock_neptune):
        backend = NeptuneBackend()
        backend._run = Mock()
        backend._active = True

        from tracelet.core.orchestrator import MetricData, MetricType
        metric = MetricData("test_metric", 1.0, MetricType.SCALAR)

        backend.handle_metric(metric)

        backend._run["test_metric"].append.assert_called_once_with(1.0, step=None)
