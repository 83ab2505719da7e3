"""Import all of a package beforehand, so that what is measured imports nothing. I/O."""

from contextlib import suppress
from importlib import import_module
from pkgutil import walk_packages


def import_all(package: str) -> None:
    """Import every module, but not mydocs' local server, which is not measured."""
    names = [module.name for module in walk_packages(import_module(package).__path__, f"{package}.")]
    for name in (*names, "anyio._backends._asyncio"):
        if "localserver" not in name and not name.endswith("__main__"):
            with suppress(ImportError):  # of an extra that is not installed, or of a tool without anyio
                import_module(name)
