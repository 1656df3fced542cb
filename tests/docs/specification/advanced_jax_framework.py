class AdvancedJAXFramework(JAXFramework):
    """Advanced JAX integration with training loop detection."""

    def _patch_jax_logging(self):
        """Enhanced patching with training loop detection."""
        super()._patch_jax_logging()

        # Patch common JAX training patterns
        self._patch_optax_optimizers()
        self._patch_flax_training()

    def _patch_optax_optimizers(self):
        """Patch Optax optimizers to capture optimization metrics."""
        try:
            import optax

            # Store original update function
            original_update = optax.GradientTransformation.update

            def wrapped_update(tx_self, updates, state, params=None):
                result = original_update(tx_self, updates, state, params)

                # Capture gradient norms
                if updates:
                    grad_norm = jnp.sqrt(sum(jnp.sum(jnp.square(g)) for g in jax.tree_leaves(updates)))

                    norm_metric = MetricData(
                        name="gradient_norm",
                        value=float(grad_norm),
                        type=MetricType.SCALAR,
                        source=self.get_source_id()
                    )
                    self.emit_metric(norm_metric)

                return result

            optax.GradientTransformation.update = wrapped_update

        except ImportError:
            pass
