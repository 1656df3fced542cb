from pydantic import BaseModel, validator

class NeptuneConfig(BaseModel):
    project: str
    api_token: str
    mode: str = "async"

    @validator('project')
    def validate_project_format(cls, v):
        if '/' not in v:
            raise ValueError('Project must be in format "workspace/project"')
        return v

    @validator('mode')
    def validate_mode(cls, v):
        if v not in ['async', 'sync', 'offline']:
            raise ValueError('Mode must be one of: async, sync, offline')
        return v

class NeptuneBackend(BackendPlugin):
    def initialize(self, config: Dict[str, Any]):
        # Validate configuration
        validated_config = NeptuneConfig(**config)

        # Use validated config
        self._setup_neptune(validated_config)
