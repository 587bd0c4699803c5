"""What one expert is (a LoRA adapter for one task), the base it sits on, and how it is trained.

Imports none of the other FinLoRA packages.
"""
