"""Upload forms: what is read from the bytes, and what the service says of forms that it cannot use."""

import pytest
from hypothesis import given, strategies as st

from gts_async.emulator.engine_bodies import Rejected
from gts_async.emulator.engine_forms import UploadedFile, parse_options, read_form, read_upload
from gts_async.wire import Multipart, Request

MULTIPART = "multipart/form-data; boundary=B"
UNPARSABLE = {"detail": "There was an error parsing the body"}


def form(*parts: tuple[str, bytes], end: bytes = b"--B--\r\n") -> bytes:
    lines = [f"--B\r\nContent-Disposition: form-data; {head}\r\n\r\n".encode() + body + b"\r\n" for head, body in parts]
    return b"".join(lines) + end


def request(body: bytes, content_type: str | None = MULTIPART) -> Request:
    headers = (("content-type", content_type),) if content_type is not None else ()
    return Request("POST", "/api/upfiles/", headers=headers, body=body)


ID = ('name="task_id"', b"t")
FILE = ('name="files"; filename="f"', b"x")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (form(ID, FILE), [("task_id", "t"), ("files", UploadedFile("f", b"x"))]),
        (b"\r\n\r\n" + form(ID), [("task_id", "t")]),
        (form(('name="files"; filename="f"', b"")), [("files", UploadedFile("f", b""))]),
        (form(('name="files"; filename="f"', b"a\r\n--Bx\n")), [("files", UploadedFile("f", b"a\r\n--Bx\n"))]),
        (form(ID, end=b"--B\r\nContent-Disp"), [("task_id", "t")]),
        (form(ID, end=b'--B\r\nContent-Disposition: form-data; name="files"\r\n\r\nbreaks off'), [("task_id", "t")]),
        (form(ID) + b"whatever follows", [("task_id", "t")]),
        (b"--B\r", []),
        (b"", []),
    ],
)
def test_complete_parts_are_read_in_order(body: bytes, expected: list[tuple[str, str | UploadedFile]]) -> None:
    assert read_form(request(body)) == expected


@pytest.mark.parametrize(
    ("parameter", "name"),
    [
        ('filename="数据.json"', "数据.json"),
        ('filename="a%20b%22.json"', "a%20b%22.json"),
        (r'filename="q\"uote.json"', 'q"uote.json'),
        (r'filename="C:\dir\win.json"', "win.json"),
        (r'filename="\\\\host\share\unc.json"', "unc.json"),
        ("filename=plain.json; filename*=utf-8''other.json", "plain.json"),
        ('FILENAME="upper.json"', "upper.json"),
        ('filename=""', ""),
    ],
)
def test_file_names_are_kept_as_sent(parameter: str, name: str) -> None:
    _, files = read_upload(request(form(ID, (f'name="files"; {parameter}', b"x"))))
    assert files == [UploadedFile(name, b"x")]


def test_names_that_are_not_utf8_are_read_as_latin1() -> None:
    body = form(ID, FILE).replace(b'filename="f"', b'filename="caf\xe9"')
    assert read_upload(request(body))[1] == [UploadedFile("café", b"x")]


@pytest.mark.parametrize(
    ("content_type", "body", "status", "detail"),
    [
        ("multipart/form-data", b"x", 400, "Missing boundary in multipart."),
        (MULTIPART, b"x", 400, UNPARSABLE["detail"]),
        (MULTIPART, b"--B--\r\n", 400, UNPARSABLE["detail"]),
        (MULTIPART, b"--B\r\nContent Disposition: x\r\n\r\n", 400, UNPARSABLE["detail"]),
        (MULTIPART, b"--B\r\n: x\r\n\r\n", 400, UNPARSABLE["detail"]),
        (MULTIPART, b"--B\r\nA: x\rB", 400, UNPARSABLE["detail"]),
        (
            MULTIPART,
            b"--B\r\nContent-Disposition: form-data\r\n\r\nx\r\n--B--",
            400,
            'The Content-Disposition header field "name" must be provided.',
        ),
    ],
)
def test_broken_forms_are_a_400(content_type: str, body: bytes, status: int, detail: str) -> None:
    with pytest.raises(Rejected) as caught:
        read_upload(request(body, content_type))
    assert caught.value.answer.status == status
    assert detail.replace('"', '\\"') in caught.value.answer.text


NOT_FILE = '"msg":"Expected UploadFile, received: <class \'str\'>","type":"value_error"}'
NO_FILES = '{"loc":["body","files"],"msg":"field required","type":"value_error.missing"}'
NO_ID = '{"loc":["body","task_id"],"msg":"field required","type":"value_error.missing"}'


@pytest.mark.parametrize(
    ("content_type", "body", "faults"),
    [
        (MULTIPART, b"--B\r\nnonsense", [NO_FILES, NO_ID]),
        (None, form(ID, FILE), [NO_FILES, NO_ID]),
        ("application/json", b'{"task_id":"t"}', [NO_FILES, NO_ID]),
        ("application/x-www-form-urlencoded", b"task_id=t", [NO_FILES]),
        ("application/x-www-form-urlencoded", b"task_id=+%74;files=x&files", [
            '{"loc":["body","files",0],' + NOT_FILE, '{"loc":["body","files",1],' + NOT_FILE]),
        (MULTIPART, form(FILE), [NO_ID]),
        (MULTIPART, form(FILE, ('name="task_id"', b"")), [NO_ID]),
        (MULTIPART, form(FILE, ID, ('name="task_id"', b"")), [NO_ID]),
        (MULTIPART, form(FILE, ('name="task_id"; filename="t"', b"t")), [
            '{"loc":["body","task_id"],"msg":"str type expected","type":"type_error.str"}']),
        (MULTIPART, form(ID, ('name="files"', b"x"), FILE), ['{"loc":["body","files",0],' + NOT_FILE]),
    ],
)  # fmt: skip
def test_forms_without_files_or_task_are_a_422(content_type: str | None, body: bytes, faults: list[str]) -> None:
    with pytest.raises(Rejected) as caught:
        read_upload(request(body, content_type))
    assert caught.value.answer.status == 422
    assert caught.value.answer.text == f'{{"detail":[{",".join(faults)}]}}'


def test_the_last_task_id_counts() -> None:
    assert read_upload(request(form(('name="task_id"', b"first"), FILE, ID)))[0] == "t"


@pytest.mark.parametrize(
    ("header", "value", "options"),
    [
        (b"Text/Plain ", b"text/plain", {}),
        (b'a; b="c;d"; E=f', b"a", {b"b": b"c;d", b"e": b"f"}),
        (b"a; b", b"a", {}),
        (rb'a; b="c\\d"', b"a", {b"b": rb"c\d"}),
    ],
)
def test_options_are_split_from_their_header(header: bytes, value: bytes, options: dict[bytes, bytes]) -> None:
    assert parse_options(header) == (value, options)


def test_a_form_that_is_not_encoded_yet_is_a_mistake_of_the_caller() -> None:
    waiting = Request("POST", "/api/upfiles/", headers=(("content-type", MULTIPART),), body=Multipart((), ()))
    with pytest.raises(TypeError, match="encode the Multipart"):
        read_form(waiting)


@given(st.binary(), st.binary(max_size=40))
def test_contents_survive_any_bytes_without_the_boundary(content: bytes, tail: bytes) -> None:
    body = content.replace(b"--B", b"") + b"\r\n" + tail.replace(b"--B", b"")
    assert read_upload(request(form(ID, ('name="files"; filename="f"', body))))[1] == [UploadedFile("f", body)]


@given(st.binary(max_size=200), st.binary(max_size=50))
def test_no_bytes_break_the_reader(before: bytes, after: bytes) -> None:
    statuses = {400}
    try:
        read_form(request(b"--B\r\n" + before + b"\r\n--B" + after))
    except Rejected as rejected:
        statuses.add(rejected.answer.status)
    assert statuses == {400}
