"""The load test of serving: S-LoRA's workload against the engine, and against PEFT on the same trace."""
