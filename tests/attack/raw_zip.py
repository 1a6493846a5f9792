"""A writer of ZIP files that lies wherever it is told to: every field of every header can be set."""

from __future__ import annotations

import stat
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, replace

__all__ = ["Entry", "deflated", "write_zip", "zeros"]

_BLOCK = 4 << 20


@dataclass(frozen=True)
class Entry:
    """One entry; a field that is None is set to the truth."""

    name: bytes
    data: bytes
    method: int = 0
    size: int | None = None
    packed_size: int | None = None
    crc: int | None = None
    flags: int = 0x800
    mode: int = stat.S_IFREG | 0o644
    # what the local header says in the place of the directory's name
    local_name: bytes | None = None
    offset: int | None = None


def deflated(entry: Entry) -> Entry:
    """Return an entry compressed, with the truth about its sizes."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(entry.data) + packer.flush()
    return replace(entry, data=packed, method=8, size=len(entry.data), crc=zlib.crc32(entry.data))


def zeros(name: bytes, size: int) -> Entry:
    """Return an entry of `size` zero bytes, a thousandth as long; a block of it is packed once and repeated."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(bytes(_BLOCK)) + packer.flush(zlib.Z_FULL_FLUSH)
    count = size // _BLOCK
    end = zlib.compressobj(9, zlib.DEFLATED, -15).flush()
    return Entry(name, block * count + end, 8, size=count * _BLOCK, crc=0)


def write_zip(entries: Iterable[Entry]) -> bytes:
    """Return the bytes of a ZIP file."""
    body, directory = bytearray(), bytearray()
    count = 0
    for entry in entries:
        size = len(entry.data) if entry.size is None else entry.size
        packed = len(entry.data) if entry.packed_size is None else entry.packed_size
        crc = zlib.crc32(entry.data) if entry.crc is None else entry.crc
        common = (entry.flags, entry.method, 0, 33, crc, packed & 0xFFFFFFFF, size & 0xFFFFFFFF)
        offset = len(body) if entry.offset is None else entry.offset
        local = entry.name if entry.local_name is None else entry.local_name
        body += struct.pack("<4s5H3L2H", b"PK\3\4", 20, *common, len(local), 0) + local + entry.data
        directory += (
            struct.pack(
                "<4s6H3L5H2L",
                b"PK\1\2",
                0x314,
                20,
                *common,
                len(entry.name),
                0,
                0,
                0,
                0,
                (entry.mode & 0xFFFF) << 16,
                offset & 0xFFFFFFFF,
            )
            + entry.name
        )
        count += 1
    total = count & 0xFFFF
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, total, total, len(directory), len(body), 0)
    return bytes(body + directory + end)
