# tests/unit/backends/test_neptune_backend.py
import pytest
from unittest.mock import Mock, patch
from tracelet.backends.neptune_backend import NeptuneBackend
from tracelet.core.orchestrator import MetricData, MetricType

class TestNeptuneBackend:
    @patch('tracelet.backends.neptune_backend.require')
    def test_initialize(self, mock_require):
        """Test Neptune backend initialization."""
        mock_neptune = Mock()
        mock_require.return_value = mock_neptune

        backend = NeptuneBackend()
        config = {
            "project": "workspace/test-project",
            "api_token": "test-token"
        }

        backend.initialize(config)

        mock_neptune.init_run.assert_called_once_with(
            project="workspace/test-project",
            api_token="test-token",
            name=None
        )

    def test_handle_scalar_metric(self):
        """Test handling scalar metrics."""
        backend = NeptuneBackend()
        backend._run = Mock()
        backend._active = True

        metric = MetricData(
            name="accuracy",
            value=0.95,
            type=MetricType.SCALAR,
            iteration=100
        )

        backend.handle_metric(metric)

        backend._run["accuracy"].append.assert_called_once_with(0.95, step=100)
