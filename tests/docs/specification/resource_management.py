class ResourceManagedPlugin(PluginBase):
    def __enter__(self):
        self.start()
        return self

    def __exit__(self, exc_type, exc_val, exc_tb):
        self.stop()

    def stop(self):
        """Ensure all resources are cleaned up."""
        try:
            # Cleanup network connections
            if hasattr(self, '_client'):
                self._client.close()

            # Stop background threads
            if hasattr(self, '_threads'):
                for thread in self._threads:
                    thread.join(timeout=5.0)

        except Exception as e:
            logger.error(f"Error during cleanup: {e}")
        finally:
            self._active = False
