"""Which build of the program this is."""

from types import FunctionType


def is_compiled() -> bool:
    """Whether mypyc has compiled the modules that each delivery passes."""
    return not isinstance(is_compiled, FunctionType)


BUILD = "compiled" if is_compiled() else "pure Python"
