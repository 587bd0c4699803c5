"""A federated run over real processes: Flower's SuperLink and SuperNodes with TLS, and our process beside."""
