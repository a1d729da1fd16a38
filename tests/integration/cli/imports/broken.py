"""Good files of each format, and ways to break them; all drawn from a `Random`: a seed gives the same file again."""

import io
import zipfile
from collections.abc import Callable
from random import Random
from typing import Final

STUDENTS: Final = range(1, 31)
COURSE: Final = 10
Files = dict[str, bytes]  # by name
Break = Callable[[Random, bytes], bytes]

_LONG: Final = (300, 5_000, 1_100_000)  # characters
_MANY: Final = 5_000  # columns
_ENDS: Final = (b"\n", b"\r\n", b"\r", b"\r\r\n", b"\n\n")
_BOM: Final = "\N{BYTE ORDER MARK}".encode()


def canvas(_: Random) -> Files:
    rows = [f"c{COURSE},s{n},student,sec{n % 3},active,x" for n in STUDENTS]
    users = [f's{n},l{n},"Ána, {n}\nLima",active' for n in STUDENTS]
    return {
        "enrollments.csv": _lines("course_id,user_id,role,section_id,status,notes", *rows),
        "users.csv": _lines("user_id,login_id,full_name,status", *users),
        "sections.csv": _lines("section_id,course_id,name,status", *(f"sec{n},c{COURSE},S,active" for n in range(3))),
    }


def oneroster(_: Random) -> Files:
    rows = [f"e{n},,,c{COURSE},org,s{n},student,false,2020-01-01,2999-12-31" for n in STUDENTS]
    names = "sourcedId,status,dateLastModified,classSourcedId,schoolSourcedId,userSourcedId,role,primary"
    classes = "sourcedId,status,dateLastModified,title,courseSourcedId,classCode"
    return {
        "manifest.csv": _lines("propertyName,value", "oneroster.version,1.2", "file.enrollments,bulk"),
        "enrollments.csv": _lines(f"{names},beginDate,endDate", *rows),
        "classes.csv": _lines(classes, f'c{COURSE},,,"Mathématiques, one",m,M1'),
    }


def plain(random: Random) -> Files:
    rows = [f"s{n},c{COURSE},enroll,2021-01-01T00:00:00Z,x" for n in STUDENTS]
    random.shuffle(rows)
    return {"rows.csv": _lines("student,course,action,issued_at,notes", *rows)}


def _lines(*lines: str) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


def _place(random: Random, data: bytes | bytearray) -> int:
    return random.randrange(len(data) + 1)


def _put(random: Random, data: bytes, what: bytes) -> bytes:
    at = _place(random, data)
    return data[:at] + what + data[at:]


def _in_a_line(random: Random, data: bytes, change: Callable[[bytes], bytes]) -> bytes:
    lines = data.split(b"\n")
    at = random.randrange(len(lines))
    return b"\n".join([*lines[:at], change(lines[at]), *lines[at + 1 :]])


def quotes(random: Random, data: bytes) -> bytes:
    for _ in range(random.choice((1, 2, 2, 2, 3))):
        data = _put(random, data, b'"')
    return data


def swallowed(random: Random, data: bytes) -> bytes:
    """Put quotes around the end of one value, some whole lines, and the beginning of another value."""
    lines = data.split(b"\n")
    first = random.randrange(len(lines) - 2)
    last = random.randrange(first + 1, len(lines) - 1)
    column = random.randrange(lines[first].count(b",") + 1)
    a, b = lines[first].split(b","), lines[last].split(b",")
    column = min(column, len(a) - 1, len(b) - 1)
    a[column], b[column] = b'"' + a[column], b[column] + b'"'
    return b"\n".join([*lines[:first], b",".join(a), *lines[first + 1 : last], b",".join(b), *lines[last + 1 :]])


def nul_bytes(random: Random, data: bytes) -> bytes:
    at, length = _place(random, data), random.choice((1, 1, 3, 60, 200))
    return random.choice((data[:at] + bytes(length) + data[at:], data[:at] + bytes(length) + data[at + length :]))


def other_encoding(random: Random, data: bytes) -> bytes:
    return data.decode().encode(random.choice(("cp1252", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp500")))


def wrong_byte(random: Random, data: bytes) -> bytes:
    return _put(random, data, random.choice((b"\xe9", b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\x80")))


def byte_order_marks(random: Random, data: bytes) -> bytes:
    where = random.choice(("twice", "line", "anywhere"))
    if where == "twice":
        return _BOM * 2 + data
    return _in_a_line(random, data, lambda line: _BOM + line) if where == "line" else _put(random, data, _BOM)


def strange_characters(random: Random, data: bytes) -> bytes:
    what = random.choice("\x0b\x0c\x1c\x1e\x85\u2028\u2029\ufffd\u200b\u00a0\x7f\t\u202e\U000e0001")
    return _put(random, data, what.encode())


def line_ends(random: Random, data: bytes) -> bytes:
    return b"".join(line + random.choice(_ENDS) for line in data.split(b"\n"))


def header_twice(random: Random, data: bytes) -> bytes:
    header, _, rest = data.partition(b"\n")
    columns = header.split(b",")
    columns.insert(random.randrange(len(columns)), random.choice(columns).swapcase())
    return random.choice((b",".join(columns), header + b"\n" + header)) + b"\n" + rest


def header_short(random: Random, data: bytes) -> bytes:
    header, _, rest = data.partition(b"\n")
    columns = header.split(b",")
    del columns[random.randrange(len(columns))]
    return b",".join(columns) + b"\n" + rest


def column_lost(random: Random, data: bytes) -> bytes:
    at = random.randrange(4)
    return b"\n".join(b",".join(v for n, v in enumerate(line.split(b",")) if n != at) for line in data.split(b"\n"))


def huge(random: Random, data: bytes) -> bytes:
    return _put(random, data, random.choice((b"x", b"x,", b"\xc3\xa9", b'"', b"x ")) * random.choice(_LONG))


def thousands_of_columns(random: Random, data: bytes) -> bytes:
    what = random.choice((b"," * _MANY, b"".join(b",col%d" % n for n in range(_MANY))))
    return _in_a_line(random, data, lambda line: line + what)


def separators(random: Random, data: bytes) -> bytes:
    other = random.choice((b";", b"\t", b"|"))
    return (
        _in_a_line(random, data, lambda line: line.replace(b",", other))
        if random.random() < 0.5
        else data.replace(b",", other)
    )


def empty(random: Random, data: bytes) -> bytes:
    return random.choice(
        (b"", b"\n", _BOM, b"\r\n\r\n", b'""', b'"', b",,,\n", data.partition(b"\n")[0], b"\0" * 5_000)
    )


def cut(random: Random, data: bytes) -> bytes:
    return data[: _place(random, data)]


def range_lost(random: Random, data: bytes) -> bytes:
    first, last = sorted((_place(random, data), _place(random, data)))
    return data[:first] + data[last:]


def range_twice(random: Random, data: bytes) -> bytes:
    first, last = sorted((_place(random, data), _place(random, data)))
    return data[:last] + data[first:]


def noise(random: Random, data: bytes) -> bytes:
    return _put(random, data, random.randbytes(random.choice((1, 5, 200))))


# After these somebody's row may be gone without a trace, as if it had never been exported.
TAKING: Final = (cut, range_lost, range_twice, empty, noise)
KEEPING: Final = (
    *(quotes, swallowed, nul_bytes, other_encoding, wrong_byte, byte_order_marks, line_ends),
    *(header_twice, header_short, column_lost, huge, thousands_of_columns, separators, strange_characters),
)


def packed(random: Random, files: Files) -> bytes:
    """Make a zip with odd members, and damage it perhaps."""
    whole = io.BytesIO()
    way = random.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
    with zipfile.ZipFile(whole, "w", way) as archive:
        for name, content in files.items():
            archive.writestr(random.choice(("", "export/", "../", "/", "a/b/")) + name, content)
        for odd in random.sample(
            ("__MACOSX/._x.csv", ".hidden.csv", "read me.txt", "dir.csv/", "é☃.csv", "x/enrollments.csv"), 2
        ):
            archive.writestr(odd, b"\0\0\0")
    data = bytearray(whole.getvalue())
    match random.choice(("whole", "flipped", "flipped", "cut", "noise", "encrypted", "method")):
        case "flipped":
            for _ in range(random.choice((1, 1, 20))):
                data[random.randrange(len(data))] ^= 1 << random.randrange(8)
        case "cut":
            del data[_place(random, data) :]
        case "noise":
            at = _place(random, data)
            data[at:at] = random.randbytes(50)
        case "encrypted":
            _mark(data, 6, 8, 1)
        case "method":
            _mark(data, 8, 10, random.choice((1, 9, 99)))
    return bytes(data)


def _mark(data: bytearray, local: int, central: int, value: int) -> None:
    """Set a field of every member, in its local header and in the directory."""
    for sign, offset in ((b"PK\3\4", local), (b"PK\1\2", central)):
        at = data.find(sign)
        while at >= 0:
            data[at + offset] = value
            at = data.find(sign, at + 4)
