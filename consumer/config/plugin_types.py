"""The type of WEBHOOK_AUTH_PLUGINS: imports the plug-ins of `requests.auth` that the operator allows."""

import re
from importlib import import_module
from typing import Annotated, Any

from pydantic import PlainValidator

from consumer.crypto.credentials import PluginFactory, Plugins

_PLUGIN = re.compile(r"([a-z][a-z0-9_-]{0,49})=([A-Za-z_][\w.]*):([A-Za-z_]\w*)")


def plugins_of(text: str) -> Plugins:
    """Import plug-ins, written `sigv4=requests_aws4auth:AWS4Auth,…`: names and factories.

    ValueError, which says what to do, if a plug-in cannot be used.
    """
    found: dict[str, PluginFactory] = {}
    for word in filter(None, map(str.strip, text.split(","))):
        match = _PLUGIN.fullmatch(word)
        if match is None:
            raise ValueError(f"{word!r:.100} is not written name=module:class")
        name, module, attribute = match.groups()
        try:
            factory = getattr(import_module(module), attribute)
        except ImportError as error:
            raise ValueError(f"{name}: {error}; install it where this process runs") from None
        except AttributeError:
            raise ValueError(f"{name}: the module {module} has no {attribute}") from None
        if not callable(factory):
            raise ValueError(f"{name}: {module}:{attribute} is no class or function")  # noqa: TRY004 (pydantic's)
        found[name] = factory
    return tuple(found.items())


def _plugins(value: Any) -> Any:
    return plugins_of(value) if isinstance(value, str) else value


AuthPlugins = Annotated[Plugins, PlainValidator(_plugins)]
