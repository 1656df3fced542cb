# tracelet/collectors/docker_collector.py
import time
from typing import Any, Dict, List
from tracelet.core.plugins import PluginBase, PluginMetadata, PluginType
from tracelet.core.orchestrator import MetricData, MetricType

class DockerCollector(PluginBase):
    """Collects Docker container metrics."""

    def __init__(self):
        self._docker_client = None
        self._container_id = None
        self._collection_interval = 30

    @classmethod
    def get_metadata(cls) -> PluginMetadata:
        return PluginMetadata(
            name="docker",
            version="1.0.0",
            type=PluginType.COLLECTOR,
            description="Docker container metrics collector",
            dependencies=["docker"],
            capabilities={"system_metrics", "resource_monitoring"}
        )

    def initialize(self, config: Dict[str, Any]):
        """Initialize Docker collector."""
        from docker import DockerClient

        self._config = config
        self._collection_interval = config.get("interval", 30)
        self._docker_client = DockerClient.from_env()

        # Auto-detect current container
        self._container_id = self._detect_current_container()

    def start(self):
        """Start the collector."""
        self._active = True

    def stop(self):
        """Stop the collector."""
        self._active = False

    def get_status(self) -> Dict[str, Any]:
        return {
            "active": self._active,
            "container_id": self._container_id,
            "interval": self._collection_interval
        }

    def collect(self) -> List[MetricData]:
        """Collect Docker container metrics."""
        if not self._active or not self._container_id:
            return []

        try:
            container = self._docker_client.containers.get(self._container_id)
            stats = container.stats(stream=False)

            metrics = []
            timestamp = time.time()

            # CPU metrics
            cpu_percent = self._calculate_cpu_percent(stats)
            metrics.append(MetricData(
                name="docker/cpu_percent",
                value=cpu_percent,
                type=MetricType.SYSTEM,
                timestamp=timestamp,
                source="docker_collector"
            ))

            # Memory metrics
            memory_usage = stats['memory_stats']['usage']
            memory_limit = stats['memory_stats']['limit']
            memory_percent = (memory_usage / memory_limit) * 100

            metrics.append(MetricData(
                name="docker/memory_percent",
                value=memory_percent,
                type=MetricType.SYSTEM,
                timestamp=timestamp,
                source="docker_collector"
            ))

            return metrics

        except Exception as e:
            # Log error and return empty list
            return []

    def _detect_current_container(self) -> str:
        """Auto-detect current container ID."""
        try:
            with open('/proc/self/cgroup', 'r') as f:
                for line in f:
                    if 'docker' in line:
                        return line.split('/')[-1].strip()
        except FileNotFoundError:
            pass
        return None

    def _calculate_cpu_percent(self, stats: Dict) -> float:
        """Calculate CPU percentage from Docker stats."""
        cpu_delta = stats['cpu_stats']['cpu_usage']['total_usage'] - \
                   stats['precpu_stats']['cpu_usage']['total_usage']
        system_delta = stats['cpu_stats']['system_cpu_usage'] - \
                      stats['precpu_stats']['system_cpu_usage']

        if system_delta > 0:
            return (cpu_delta / system_delta) * len(stats['cpu_stats']['cpu_usage']['percpu_usage']) * 100
        return 0.0
