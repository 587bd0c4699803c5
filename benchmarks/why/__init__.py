"""Why a mixture does what it does: geometry of its experts, what its router does, where methods differ."""
