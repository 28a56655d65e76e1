"""Names that a package hands on, imported when they are first asked for.

A package's ``__init__`` lists under ``TYPE_CHECKING`` what it exports, for readers and type checkers, and calls
:func:`exports` with the same names, so that importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def exports(package: str, home: Mapping[str, Sequence[str]]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` of a package.

    Args:
        package: its name.
        home: module -> the names that it holds; a module ``m`` without names is handed on itself, as ``m``'s last part.
    """
    places = {name: (module, name) for module, names in home.items() for name in names}
    places |= {module.rpartition(".")[2]: (module, "") for module, names in home.items() if not names}

    def get(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module '{package}' has no attribute '{name}'")
        module, attribute = places[name]
        found = importlib.import_module(module)
        return getattr(found, attribute) if attribute else found

    return get, lambda: sorted(places)
