"""Registries: how networks, models, data sets, losses, metrics and hooks find their way in without a central list.

A class registers itself under its own name with a decorator:

    @ARCH_REGISTRY.register()
    class BlurFree(Network): ...

Modules are imported by the ending of their file name (`*_arch.py`, `*_model.py`, ...): those of this package, those in
a user's folder (`--plugins DIR`, `plugins: [DIR]` in an options file) and those named by installed packages in the
entry point group `deblurkit.plugins`. A file that fails to import is remembered and named; the others still work.
The modules of a kind are imported when the first of that kind is asked for: who restores needs no losses.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from deblurkit.errors import RegistryError, did_you_mean

T = TypeVar("T", bound=type)

ENTRY_POINT_GROUP = "deblurkit.plugins"


class Registry:
    """Names of one kind of class.

    Args:
        kind: what the entries are, in the plural, as `deblurkit list` spells it ("archs").
        folder: sub-package that holds the built-in ones.
        suffix: ending of the file names that are imported ("_arch").
    """

    def __init__(self, kind: str, folder: str, suffix: str) -> None:
        self.kind = kind
        self.folder = folder
        self.suffix = suffix
        self._classes: dict[str, type] = {}
        self._discovered = False

    def register(self, name: str | None = None) -> Callable[[T], T]:
        """Decorator that enters a class under `name`, by default its own.

        Raises:
            RegistryError: the name is taken; the message names both files.
        """

        def enter(cls: T) -> T:
            key = name or cls.__name__
            known = self._classes.get(key)
            if known is not None and _identity(known) != _identity(cls):
                raise RegistryError(
                    f"{self.kind}: the name {key!r} is registered twice: in {_origin(known)} and in {_origin(cls)}; "
                    "rename one of them"
                )
            self._classes[key] = cls
            return cls

        return enter

    def get(self, name: str) -> type:
        """The class registered as `name`.

        Raises:
            RegistryError: there is none; the message has the nearest names, and the plugin files that failed to import.
        """
        self.discover()
        if name not in self._classes:
            hint = did_you_mean(name, self._classes) or f"; `deblurkit list {self.kind}` shows what there is"
            raise RegistryError(f"there is no {name!r} among the {self.kind}{hint}{_failures_note(self.suffix)}")
        return self._classes[name]

    def names(self) -> list[str]:
        """All registered names, sorted."""
        self.discover()
        return sorted(self._classes, key=str.lower)

    def name_of(self, cls: type) -> str | None:
        """The name under which `cls` is registered, None if it is not."""
        return next((name for name, known in self._classes.items() if known is cls), None)

    def discover(self) -> None:
        """Import the built-in modules of this kind and the installed plugins (which may hold any kind), once.

        Raises:
            RegistryError: a plugin registers a name that is taken.
        """
        if self._discovered:
            return
        self._discovered = True  # first: the modules being imported may ask a registry
        try:
            for path in sorted((Path(__file__).parent / self.folder).glob(f"*{self.suffix}.py")):
                name = f"deblurkit.{self.folder}.{path.stem}"
                _attempt(str(path), functools.partial(importlib.import_module, name))
            _load_installed()
        except RegistryError:
            self._discovered = False  # whoever asks next must hear of the clash too, not work with half the plugins
            raise


ARCH_REGISTRY = Registry("archs", "archs", "_arch")
MODEL_REGISTRY = Registry("models", "models", "_model")
DATASET_REGISTRY = Registry("datasets", "data", "_dataset")
LOSS_REGISTRY = Registry("losses", "losses", "_loss")
METRIC_REGISTRY = Registry("metrics", "metrics", "_metric")
HOOK_REGISTRY = Registry("hooks", "hooks", "_hook")

REGISTRIES: dict[str, Registry] = {
    registry.kind: registry
    for registry in (ARCH_REGISTRY, MODEL_REGISTRY, DATASET_REGISTRY, LOSS_REGISTRY, METRIC_REGISTRY, HOOK_REGISTRY)
}


@dataclass(frozen=True)
class PluginFailure:
    """A module that could not be imported, and why."""

    source: str
    reason: str


#: Modules that failed to import so far, by source.
_failures: dict[str, PluginFailure] = {}
_installed_loaded = False


def plugin_failures() -> list[PluginFailure]:
    """Modules that failed to import so far."""
    return list(_failures.values())


def discover() -> None:
    """Import the built-in modules of all kinds and the installed plugins, once.

    Raises:
        RegistryError: a plugin registers a name that is taken.
    """
    for registry in REGISTRIES.values():
        registry.discover()


def _load_installed() -> None:
    """Import what installed packages name as entry points, once."""
    global _installed_loaded
    if _installed_loaded:
        return
    _installed_loaded = True
    try:
        for entry in sorted(importlib.metadata.entry_points(group=ENTRY_POINT_GROUP), key=lambda e: e.name):
            _attempt(f"entry point {entry.name} = {entry.value}", entry.load)
    except RegistryError:
        _installed_loaded = False
        raise


def load_plugins(folders: Iterable[str | Path]) -> None:
    """Import every `*_arch.py`, `*_model.py`, ... that lies directly in one of `folders`.

    A file that fails to import is warned of by name and does not take the others down.

    Raises:
        RegistryError: a folder does not exist or holds no plugin file, or a name is registered twice.
    """
    for folder in folders:
        root = Path(folder).expanduser()
        if not root.is_dir():
            raise RegistryError(f"plugins: {root} is not a folder")
        found = {registry: set(root.glob(f"*{registry.suffix}.py")) for registry in REGISTRIES.values()}
        paths = sorted(set().union(*found.values()))
        if not paths:
            endings = ", ".join(f"*{registry.suffix}.py" for registry in REGISTRIES.values())
            raise RegistryError(f"plugins: {root} holds no plugin file ({endings})")
        for registry in (registry for registry, own in found.items() if own):
            registry.discover()  # a name of theirs that is taken is told of now, not when it is asked for
        for path in paths:
            _attempt(str(path), functools.partial(_import_file, path.resolve()))


def _import_file(path: Path) -> ModuleType:
    """Import a file under a name of its own, so that two folders may both have a `my_arch.py`."""
    name = f"deblurkit_plugin_{hashlib.sha1(str(path).encode()).hexdigest()[:8]}_{path.stem}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file that can be read")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _attempt(source: str, load: Callable[[], object]) -> None:
    """Load a module; a failure of its own is kept and named, a name clash is the user's to mend at once."""
    try:
        load()
    except RegistryError:
        _forget_unimported()
        raise
    except (Exception, SystemExit) as error:  # whatever a foreign file raises must not take the others down
        from deblurkit.console import warn

        failure = PluginFailure(source, f"{type(error).__name__}: {error}")
        _forget_unimported()
        if _failures.get(source) != failure:  # said once, though several steps of a command load the same folder
            warn(f"{source} failed to import ({failure.reason}); what it registers is not available")
        _failures[source] = failure
    else:
        _failures.pop(source, None)


def _forget_unimported() -> None:
    """Drop classes of a module that registered them and then failed: half a module is not to be used."""
    for registry in REGISTRIES.values():
        for name in [n for n, cls in registry._classes.items() if cls.__module__ not in sys.modules]:
            del registry._classes[name]


def _failures_note(suffix: str) -> str:
    """A hint for unknown names: the plugin that would have registered it may be the one that failed."""
    failed = [f for f in _failures.values() if f.source.endswith(f"{suffix}.py") or f.source.startswith("entry point")]
    return "".join(f"\n  note: {f.source} failed to import: {f.reason}" for f in failed)


def _identity(cls: type) -> tuple[str, str]:
    """The same for a class and for the one that a second import of its file makes."""
    return _origin(cls), cls.__qualname__


def _origin(cls: type) -> str:
    """The file that defines a class."""
    try:
        return str(Path(inspect.getfile(cls)).resolve())
    except (TypeError, OSError):  # defined in a terminal
        return f"{cls.__module__}.{cls.__qualname__}"
