"""Which code a file may name by a class path: that of geoeq, that which the caller trusts, and that already running."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection
from typing import TypeAlias

from geoeq.errors import GeoeqError

__all__ = ["Trust", "check_trusted", "import_from_current_folder", "module_of"]

#: True for all code, False for none outside geoeq, or names of modules; a package includes the modules in it.
Trust: TypeAlias = bool | str | Collection[str]


def module_of(class_path: str) -> str:
    """Return the module of a class path, whose last part follows a dot or a colon."""
    return class_path.rpartition(":" if ":" in class_path else ".")[0]


def check_trusted(class_path: str, trust: Trust, error: type[GeoeqError], subject: str) -> None:
    """Refuse a class path of a file unless importing it runs no code, or code that is trusted; nothing is imported.

    Modules of geoeq are allowed, those that the caller trusts, and those that are imported already, except
    ``__main__``. A module ``package.__main__`` is a program, which would run, and is always refused.

    Args:
        class_path: dotted path in the file.
        trust: modules that the caller trusts.
        error: class of the exception.
        subject: what names the class path, for the message.

    Raises:
        GeoeqError: the class path is not allowed (``error``).
    """
    module = module_of(class_path)
    if "__main__" in module.split(".")[1:]:
        raise error(f"{subject} is in '{module}', which is a program and not a module with classes.")
    named = [trust] if isinstance(trust, str) else [] if isinstance(trust, bool) else trust
    if trust is True or any(f"{module}.".startswith(f"{name}.") for name in ["geoeq", *named]):
        return
    if not module or (module in sys.modules and module != "__main__"):  # without a module, nothing can be imported
        return
    raise error(
        f"{subject} is not part of geoeq, and its code would be executed. If you trust it, allow it with "
        f"trust='{module}', or --trust {module} on the command line."
    )


def import_from_current_folder() -> None:
    """Let Python find the user's own modules in the current folder, after all installed ones.

    Only a command whose arguments name such a module calls this: the current folder may be a stranger's.
    """
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
