"""Records, plug-ins, the orchestrator and the experiment."""
