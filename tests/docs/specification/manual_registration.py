# Register plugins manually in your application
from tracelet.core.experiment import Experiment
from tracelet.backends.neptune_backend import NeptuneBackend
from tracelet.frameworks.jax_framework import JAXFramework

# Create experiment with custom plugins
exp = Experiment(name="custom_experiment")

# Add custom backend
neptune_backend = NeptuneBackend()
exp._plugin_manager.register_plugin(neptune_backend)

# Add framework integration
jax_framework = JAXFramework()
exp._plugin_manager.register_plugin(jax_framework)

exp.start()
