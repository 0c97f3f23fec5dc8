"""The call that operates on a large object."""

from tests.oracle_emulator import answers, lobs
from tests.oracle_emulator.errors import OracleError
from tests.oracle_emulator.packets import Disconnect
from tests.oracle_emulator.session import Session
from tests.oracle_emulator.wire import Reader, Writer

_LENGTH, _READ, _TRIM, _WRITE, _CREATE, _CHUNK_SIZE, _IS_OPEN = 0x01, 0x02, 0x20, 0x40, 0x110, 0x4000, 0x11000


def operate(session: Session, reader: Reader, writer: Writer) -> None:
    """Creates, reads, writes, measures or truncates a large object."""
    reader.byte()
    length = reader.number()
    reader.skip("bnnnbbb")
    operation = reader.number()
    reader.skip("bb")
    start, kind = reader.number(), reader.number()
    has_amount = bool(reader.byte())
    reader.skip("bbbbbb")
    locator = reader.raw(length)
    if operation == _CREATE:
        reader.number()
        writer.byte(answers.PARAMETERS).raw(session.lobs.create(kind)).number(answers.AL32UTF8).byte(0)
        answers.end(session, writer)
        return
    data = session.lobs.find(locator)
    if data is None:
        raise OracleError(22922, "nonexistent LOB value")
    if operation == _WRITE:
        _write(reader, data, (start - 1) * lobs.unit(locator))
    amount = reader.number() if has_amount else 0
    amount = _measure(writer, operation, locator, data, start, amount)
    writer.byte(answers.PARAMETERS).raw(locator)
    if has_amount:
        writer.number(amount)
    if operation == _IS_OPEN:
        writer.byte(0)
    answers.end(session, writer)


def free(session: Session, reader: Reader) -> None:
    """Frees the large objects of these locators."""
    reader.byte()
    total = reader.number()
    reader.skip("bnnnbbbnbnnnb")
    reader.skip("bnbnbn")
    for _ in range(total // lobs.LENGTH):
        session.lobs.free(reader.raw(lobs.LENGTH))


def _write(reader: Reader, data: bytearray, position: int) -> None:
    if (message := reader.byte()) != answers.LOB_DATA:
        raise Disconnect(f"message {message} instead of a large object's data")
    chunk = reader.value() or b""
    data[position : position + len(chunk)] = chunk


def _measure(writer: Writer, operation: int, locator: bytes, data: bytearray, start: int, amount: int) -> int:
    """The amount to answer: of the data read, or as requested."""
    unit = lobs.unit(locator)
    if operation == _READ:
        position = (start - 1) * unit
        part = bytes(data[position : position + amount * unit])
        if part:
            writer.byte(answers.LOB_DATA).value(part)
        return len(part) // unit
    if operation == _LENGTH:
        return len(data) // unit
    if operation == _CHUNK_SIZE:
        return lobs.CHUNK
    if operation == _TRIM:
        del data[amount * unit :]
    return amount
