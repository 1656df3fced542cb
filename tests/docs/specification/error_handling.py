def handle_metric(self, metric: MetricData):
    """Handle metric with robust error handling."""
    try:
        # Validate metric
        if not self._validate_metric(metric):
            return

        # Process metric
        self._process_metric(metric)

    except Exception as e:
        # Log error but don't crash
        logger.error(f"Failed to handle metric {metric.name}: {e}")

        # Optionally, emit error metric
        error_metric = MetricData(
            name="tracelet/plugin_errors",
            value=1.0,
            type=MetricType.SYSTEM,
            metadata={"plugin": self.get_metadata().name, "error": str(e)}
        )
        self.emit_metric(error_metric)
