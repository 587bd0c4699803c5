"""Many experts and mixtures served at once: registry, expert pool, engine and HTTP API."""
