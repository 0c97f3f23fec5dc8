"""Settings of a session that Oracle refuses: ALTER SESSION SET.

Their names and values are those of Database SQL Language Reference 19c, ALTER SESSION, and of Database Reference; the
linguistic sorts are those of Database Globalization Support Guide, appendix A.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from zoneinfo import available_timezones

from tests.oracle_emulator.errors import OracleError
from tests.oracle_emulator.tokens import Token

_NAMES = re.compile(
    r"""NLS_\w+|TIME_ZONE|CURRENT_SCHEMA|ISOLATION_LEVEL|CONSTRAINTS?|CONTAINER|EDITION|DEFAULT_COLLATION|INSTANCE|EVENTS
    |ERROR_ON_OVERLAP_TIME|FLAGGER|ROW|SYNC_WITH_PRIMARY|STANDBY_MAX_DATA_DELAY|USE_(?:PRIVATE|STORED)_OUTLINES|_\w+
    |CURSOR_\w+|OPTIMIZER_\w+|PLSQL_\w+|PLSCOPE_\w+|PARALLEL_\w+|QUERY_REWRITE_\w+|COMMIT_(?:LOGGING|WAIT|WRITE)
    |RESULT_CACHE_\w+|RESUMABLE_TIMEOUT|SORT_AREA_\w+|HASH_AREA_SIZE|WORKAREA_SIZE_POLICY|SQL_TRACE|SQLTUNE_CATEGORY
    |STAR_TRANSFORMATION_ENABLED|STATISTICS_LEVEL|TIMED_\w+|TRACEFILE_IDENTIFIER|MAX_DUMP_FILE_SIZE|DDL_LOCK_TIMEOUT
    |SESSION_CACHED_CURSORS|SKIP_UNUSABLE_INDEXES|DEFERRED_SEGMENT_CREATION|DB_FILE_MULTIBLOCK_READ_COUNT|GLOBAL_NAMES
    |LOG_ARCHIVE_\w+|OBJECT_CACHE_\w+|REMOTE_DEPENDENCIES_MODE|RECYCLEBIN|INMEMORY_\w+|HEAT_MAP|APPROX_\w+""",
    re.VERBOSE,
)
_SORTS = frozenset(
    """ARABIC ARABIC_MATCH ARABIC_ABJ_SORT ARABIC_ABJ_MATCH ASCII7 AZERBAIJANI BENGALI BIG5 BINARY BULGARIAN CATALAN
    FRENCH CROATIAN CZECH CZECH_PUNCTUATION DANISH DUTCH EBCDIC EEC_EURO EEC_EUROPA3 ESTONIAN FINNISH GBK GENERIC_M
    GERMAN GERMAN_DIN GREEK HEBREW HKSCS HUNGARIAN ICELANDIC INDONESIAN ITALIAN JAPANESE LATIN LATVIAN LITHUANIAN MALAY
    NORWEGIAN POLISH PUNCTUATION ROMANIAN RUSSIAN SLOVAK SLOVENIAN SPANISH SWEDISH SWISS THAI_DICTIONARY
    THAI_TELEPHONE TURKISH UKRAINIAN UNICODE_BINARY VIETNAMESE WEST_EUROPEAN XAZERBAIJANI XCATALAN XCROATIAN XCZECH
    XCZECH_PUNCTUATION XDANISH XDUTCH XFRENCH XGERMAN XGERMAN_DIN XHUNGARIAN XPUNCTUATION XSLOVAK XSLOVENIAN XSPANISH
    XSWISS XTURKISH XWEST_EUROPEAN CANADIAN_M DANISH_M FRENCH_M JAPANESE_M KOREAN_M SCHINESE_PINYIN_M SCHINESE_RADICAL_M
    SCHINESE_STROKE_M SPANISH_M TCHINESE_RADICAL_M TCHINESE_STROKE_M THAI_M""".split()  # noqa: SIM905 (not read as strings)
)
_SORT = re.compile(r"UCA\d{4}_\w+")
_FORMAT = re.compile(
    r"""SYYYY|Y,YYY|YYYY|YYY|YY|Y|RRRR|RR|IYYY|IYY|IY|I|SCC|CC|MONTH|MON|MM|DAY|DDD|DD|DY|DL|DS|D|HH24|HH12|HH|MI|SSSSS|SS
    |XFF\d?|FF\d?|X|TZH|TZM|TZR|TZD|TS|AM|PM|A\.M\.|P\.M\.|AD|BC|A\.D\.|B\.C\.|WW|W|IW|Q|J|FM|FX|RM|E{1,2}|"[^"]*"|[-/,.;:\s]""",
    re.VERBOSE | re.IGNORECASE,
)
_OFFSET = re.compile(r"([+-]?)(\d+):(\d+)")


def _sort(value: str) -> None:
    name = re.sub("_(?:CI|AI)$", "", value.upper())
    if name not in _SORTS and not _SORT.fullmatch(name):
        raise OracleError(12705, "Cannot access NLS data files or invalid environment specified")


def _comparison(value: str) -> None:
    if value.upper() not in {"BINARY", "LINGUISTIC", "ANSI"}:
        raise OracleError(12705, "Cannot access NLS data files or invalid environment specified")


def _date_format(value: str) -> None:
    if _FORMAT.sub("", value):
        raise OracleError(1821, "date format not recognized")


def _time_zone(value: str) -> None:
    if offset := _OFFSET.fullmatch(value.strip()):
        hours = int(offset[1] + offset[2])
        if not -15 <= hours <= 15:
            raise OracleError(1874, "time zone hour must be between -15 and 15")
        if int(offset[3]) > 59:
            raise OracleError(1875, "time zone minute must be between -59 and 59")
    elif value.upper() not in {"LOCAL", "DBTIMEZONE", *map(str.upper, available_timezones())}:
        raise OracleError(1882, "timezone region not found")


_VALUES: Mapping[str, Callable[[str], None]] = {
    "NLS_SORT": _sort,
    "NLS_COMP": _comparison,
    "NLS_DATE_FORMAT": _date_format,
    "NLS_TIMESTAMP_FORMAT": _date_format,
    "NLS_TIMESTAMP_TZ_FORMAT": _date_format,
    "TIME_ZONE": _time_zone,
}


def refuse_setting(words: Sequence[Token]) -> None:
    """Raises OracleError if Oracle would refuse this ALTER SESSION. `words` are its tokens without spaces."""
    verb = words[2].upper if words[2:] else ""
    if verb not in {"SET", "ENABLE", "DISABLE", "FORCE", "ADVISE", "CLOSE", "SYNC"}:
        raise OracleError(922, "missing or invalid option")
    equals = [position for position, word in enumerate(words) if word.text == "="]
    if verb != "SET" or (words[3:] and words[3].upper in {"ROW", "CONSTRAINT", "CONSTRAINTS", "EVENTS"}):
        return
    if not equals:
        raise OracleError(2248, "invalid option for ALTER SESSION")
    for position in equals:
        name = words[position - 1].upper
        if not _NAMES.fullmatch(name):
            raise OracleError(2248, "invalid option for ALTER SESSION")
        value = words[position + 1].text if words[position + 1 :] else ""
        if check := _VALUES.get(name):
            check(value.strip("'\""))
