# tracelet/backends/neptune_backend.py
from typing import Any, Dict, Optional
from tracelet.core.plugins import BackendPlugin, PluginMetadata, PluginType
from tracelet.core.orchestrator import MetricData, MetricType
from tracelet.utils.imports import require

class NeptuneBackend(BackendPlugin):
    """Neptune.ai backend plugin for experiment tracking."""

    def __init__(self):
        super().__init__()
        self._run = None
        self._project = None

    @classmethod
    def get_metadata(cls) -> PluginMetadata:
        return PluginMetadata(
            name="neptune",
            version="1.0.0",
            type=PluginType.BACKEND,
            description="Neptune.ai experiment tracking backend",
            author="Your Name",
            dependencies=["neptune"],
            capabilities={"metrics", "parameters", "artifacts", "logging"}
        )

    def initialize(self, config: Dict[str, Any]):
        """Initialize Neptune backend with configuration."""
        # Use dynamic import for optional dependency
        neptune = require("neptune", "Neptune backend")

        self._config = config
        project_name = config.get("project", "workspace/project")
        api_token = config.get("api_token")

        # Initialize Neptune
        self._run = neptune.init_run(
            project=project_name,
            api_token=api_token,
            name=config.get("run_name")
        )

    def start(self):
        """Start the backend."""
        self._active = True

    def stop(self):
        """Stop the backend and cleanup."""
        if self._run:
            self._run.stop()
        self._active = False

    def get_status(self) -> Dict[str, Any]:
        """Get backend status."""
        return {
            "active": self._active,
            "run_id": self._run["sys/id"].fetch() if self._run else None
        }

    def handle_metric(self, metric: MetricData):
        """Handle incoming metric data."""
        if not self._run or not self._active:
            return

        if metric.type == MetricType.SCALAR:
            self._run[metric.name].append(metric.value, step=metric.iteration)
        elif metric.type == MetricType.PARAMETER:
            self._run[f"parameters/{metric.name}"] = metric.value
        elif metric.type == MetricType.ARTIFACT:
            self._run[f"artifacts/{metric.name}"].upload(metric.value)
