"""Tokens of a console under test, without a file."""

from collections.abc import Mapping
from hashlib import sha256

from consumer.api.tokens import Caller, TokenFile


class Tokens(TokenFile):
    """The callers by the text of their token. None: no token is required."""

    def __init__(self, callers: Mapping[str, Caller]) -> None:
        super().__init__(None)
        self._single = self._tokens = {sha256(text.encode()).digest(): caller for text, caller in callers.items()}
