"""How fast mixtures prefill, decode and train beside PEFT and beside one adapter, and what bounds them."""
