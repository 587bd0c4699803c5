"""What federated training keeps of a task under privacy, and what it costs.

Run it with `python -m finlora.benchmarks.federated.run FOLDER`. Start reading at `plan.py` (which trainings
there are), then `cell.py` (one of them) and `report.py`.
"""
