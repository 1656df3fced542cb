# tracelet/frameworks/jax_framework.py
from typing import Any, Dict
from tracelet.core.plugins import PluginBase, PluginMetadata, PluginType
from tracelet.core.orchestrator import MetricData, MetricType, MetricSource

class JAXFramework(PluginBase, MetricSource):
    """JAX framework integration plugin."""

    def __init__(self):
        self._experiment = None
        self._original_functions = {}
        self._patched = False

    @classmethod
    def get_metadata(cls) -> PluginMetadata:
        return PluginMetadata(
            name="jax",
            version="1.0.0",
            type=PluginType.FRAMEWORK,
            description="JAX framework integration",
            dependencies=["jax", "flax"],
            capabilities={"metric_capture", "parameter_logging"}
        )

    def initialize(self, config: Dict[str, Any]):
        """Initialize JAX framework integration."""
        self._config = config

    def start(self):
        """Start JAX integration by patching functions."""
        if not self._patched:
            self._patch_jax_logging()
            self._patched = True

    def stop(self):
        """Stop JAX integration and restore original functions."""
        if self._patched:
            self._restore_original_functions()
            self._patched = False

    def get_status(self) -> Dict[str, Any]:
        return {"patched": self._patched}

    def get_source_id(self) -> str:
        return "jax_framework"

    def emit_metric(self, metric: MetricData):
        """Emit metric to orchestrator."""
        if self._experiment:
            self._experiment.emit_metric(metric)

    def set_experiment(self, experiment):
        """Set the active experiment."""
        self._experiment = experiment

    def _patch_jax_logging(self):
        """Patch JAX/Flax logging functions."""
        try:
            import flax.training.train_state as train_state

            # Store original function
            self._original_functions['apply_gradients'] = train_state.TrainState.apply_gradients

            def wrapped_apply_gradients(train_state_self, **kwargs):
                # Call original function
                result = self._original_functions['apply_gradients'](train_state_self, **kwargs)

                # Capture metrics
                step = int(train_state_self.step) if hasattr(train_state_self, 'step') else None

                # Emit learning rate if available
                if hasattr(train_state_self, 'opt_state') and hasattr(train_state_self.tx, 'learning_rate'):
                    lr_metric = MetricData(
                        name="learning_rate",
                        value=float(train_state_self.tx.learning_rate),
                        type=MetricType.SCALAR,
                        iteration=step,
                        source=self.get_source_id()
                    )
                    self.emit_metric(lr_metric)

                return result

            # Apply patch
            train_state.TrainState.apply_gradients = wrapped_apply_gradients

        except ImportError:
            # JAX/Flax not available
            pass

    def _restore_original_functions(self):
        """Restore original JAX functions."""
        try:
            import flax.training.train_state as train_state
            if 'apply_gradients' in self._original_functions:
                train_state.TrainState.apply_gradients = self._original_functions['apply_gradients']
        except ImportError:
            pass
