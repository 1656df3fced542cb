# Update tracelet/settings.py to include Neptune settings
from pydantic import BaseSettings

class TraceletSettings(BaseSettings):
    # ... existing settings

    # Neptune-specific settings
    neptune_project: Optional[str] = None
    neptune_api_token: Optional[str] = None
    neptune_mode: str = "async"

    class Config:
        env_prefix = "TRACELET_"
