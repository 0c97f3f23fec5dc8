"""The types of settings that name the operator's code, which they import: plug-ins and callbacks for tokens."""

import re
from collections.abc import Callable
from importlib import import_module
from typing import Annotated, Any

from pydantic import PlainValidator

from consumer.crypto.credentials import PluginFactory, Plugins

TokenOf = Callable[[str | None], tuple[Any, ...]]  # librdkafka's oauth_cb: gives a token and its end in unix seconds
# python-oracledb's access_token: gives an OAuth 2.0 token, or one of IAM and its private key. True: it must be new.
DatabaseTokenOf = Callable[[bool], str | tuple[str, str]]

_PLACE = r"([A-Za-z_][\w.]*):([A-Za-z_]\w*)"
_PLUGIN = re.compile(r"([a-z][a-z0-9_-]{0,49})=" + _PLACE)
_FUNCTION = re.compile(_PLACE)


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
            found[name] = _imported(module, attribute)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    return tuple(found.items())


def _imported(module: str, attribute: str) -> Any:
    try:
        found = getattr(import_module(module), attribute)
    except ImportError as error:
        raise ValueError(f"{error}; install it where this process runs") from None
    except AttributeError:
        raise ValueError(f"the module {module} has no {attribute}") from None
    except Exception as error:  # noqa: BLE001 (the module's own; its text may hold a secret)
        raise ValueError(f"the module {module} cannot be imported: {type(error).__name__}") from None
    if not callable(found):
        raise ValueError(f"{module}:{attribute} is neither a class nor a function")  # noqa: TRY004 (pydantic's)
    return found


def _callback(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    match = _FUNCTION.fullmatch(value)
    if match is None:
        raise ValueError("is not written module:function")
    return _imported(*match.groups())


def _plugins(value: Any) -> Any:
    return plugins_of(value) if isinstance(value, str) else value


OAuthCallback = Annotated[TokenOf, PlainValidator(_callback)]
DatabaseTokens = Annotated[DatabaseTokenOf, PlainValidator(_callback)]
AuthPlugins = Annotated[Plugins, PlainValidator(_plugins)]
