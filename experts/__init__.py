"""What one expert is (a LoRA adapter for one task), the base it sits on, and how it is trained.

Imports none of the other FinLoRA packages.
"""

import logging

# When it is imported, bitsandbytes advises installing a kernel for processors with AVX512-BF16, which
# `base_model` keeps switched off.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
