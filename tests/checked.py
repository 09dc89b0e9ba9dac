"""The type checker of the tests: beartype, to which a whole number is a float, as PEP 484 has it."""

import inspect

import beartype

check = beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))


def unchecked(called):
    """A function or a dataclass that can be called with what the type checker would refuse, as users may call it."""
    if not isinstance(called, type):
        return inspect.unwrap(called)

    def made(*arguments, **more):
        it = object.__new__(called)
        inspect.unwrap(called.__init__)(it, *arguments, **more)
        return it

    return made
