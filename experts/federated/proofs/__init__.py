"""Zero-knowledge proofs that an update which nobody sees has the right shape and a bounded norm.

Start reading at `statement.py` (what is proved), then `setup.py`, `prover.py`, `verifier.py` and
`binding.py` (how a proof is tied to a bank, a round and the sum). docs/federated.md says what a proof
does not show.
"""
