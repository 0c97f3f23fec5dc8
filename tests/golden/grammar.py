"""A grammar of Oracle's SQL, as a check beside the emulator: Apache ShardingSphere's, which follows the reference.

It is strict, and takes half a minute of CPU until it has met each construct.
"""

import re

import jpype

from tests.oracle_emulator import java
from tests.oracle_emulator.java import Java, of_java

# The parser is generated for this release of ANTLR and has no other dependency.
_ARTIFACTS = (
    "org.apache.shardingsphere:shardingsphere-parser-sql-oracle:5.5.2",
    "org.antlr:antlr4-runtime:4.10.1",
)
_PARSER = "org.apache.shardingsphere.sql.parser.autogen.OracleStatement"
_ANTLR = "org.antlr.v4.runtime"
# Constructs that Oracle accepts and the grammar does not know, and what is parsed in their place.
_UNKNOWN = {
    r"\sRETURNING\s.*\sINTO\s+:.*": "",
    r" IS JSON\b": " IS NOT NULL",
    r"\bJSON_TABLE\(.*?'\s*\)\s*\)": "dual",
    r"\sSPLIT PARTITION\s.*": " DROP COLUMN a",
    r"\sDROP (?:UNUSED COLUMNS|COLUMNS CONTINUE)(?: CHECKPOINT \d+)?$": " DROP COLUMN a",
}


def fault(sql: str) -> str:
    """The grammar's error for a statement, or an empty text.

    SLL mode is fast but refuses some statements that LL accepts.
    """
    for pattern, known in _UNKNOWN.items():
        sql = re.sub(pattern, known, sql, flags=re.DOTALL)
    java.add(*_ARTIFACTS)
    return _antlr(sql, "SLL") and _antlr(sql, "LL")


def _antlr(sql: str, mode: str) -> str:
    lexer = of_java(f"{_PARSER}Lexer")(of_java(f"{_ANTLR}.CharStreams").fromString(sql))
    tokens = of_java(f"{_ANTLR}.CommonTokenStream")(lexer)
    parser = of_java(f"{_PARSER}Parser")(tokens)
    parser.getInterpreter().setPredictionMode(of_java(f"{_ANTLR}.atn.PredictionMode").valueOf(mode))
    errors: list[str] = []

    def note(_: Java, __: Java, line: int, column: int, text: str, ___: Java) -> None:
        errors.append(f"{line}:{column} {text}")

    no_errors = ("reportAmbiguity", "reportAttemptingFullContext", "reportContextSensitivity")
    events = {"syntaxError": note} | dict.fromkeys(no_errors, _ignore)
    listener = jpype.JProxy(f"{_ANTLR}.ANTLRErrorListener", dict=events)
    for each in (lexer, parser):
        each.removeErrorListeners()
        each.addErrorListener(listener)
    parser.execute()
    if tokens.LA(1) != of_java(f"{_ANTLR}.Token").EOF:
        errors.append("it does not read to the end")
    return errors[0] if errors else ""


def _ignore(*_: object) -> None:
    """For parser events that are not errors."""
