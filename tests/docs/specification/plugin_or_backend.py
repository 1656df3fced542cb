# All backends are plugins, but not all plugins are backends
class MLflowBackend(BackendPlugin):  # This IS a plugin
    @classmethod
    def get_metadata(cls) -> PluginMetadata:
        return PluginMetadata(
            name="mlflow",
            type=PluginType.BACKEND,  # This makes it a backend-type plugin
            # ...
        )

class SystemCollector(PluginBase):  # This is also a plugin
    @classmethod
    def get_metadata(cls) -> PluginMetadata:
        return PluginMetadata(
            name="system",
            type=PluginType.COLLECTOR,  # This makes it a collector-type plugin
            # ...
        )
