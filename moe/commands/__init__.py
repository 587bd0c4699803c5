"""The commands of `finlora`: a function is a command, its signature the flags, its docstring the help.

Commands only translate what the user typed into calls of the library. They import it inside the functions, so
that `--help` answers at once instead of waiting seconds for torch.
"""
