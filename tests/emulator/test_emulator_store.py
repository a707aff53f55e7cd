"""The object store, judged by the rules of Aliyun's V1 signature and of HTTP ranges."""

import base64
import hashlib
import hmac
from urllib.parse import parse_qsl, urlsplit
from xml.etree import ElementTree

import attrs
import fastcrc
import pytest

from gts_async.emulator.scripted_jobs import BytesBlob
from gts_async.emulator.store import Grant, ObjectStore
from gts_async.wire import Answer, Request

NOW = 1_703_203_200.0
SECRET = b"a secret of the store"
CONTENT = bytes(range(256)) * 4
BLOB = BytesBlob(CONTENT)
KEY = "ai828f15e-60a3/data.zip"
WHOLE = "https://sxwl-ai.oss-cn-beijing.aliyuncs.com"


def store(base_url=WHOLE, **options):
    made = ObjectStore(SECRET, base_url, **options)
    made.put(KEY, BLOB, NOW)
    return made


def get(url, *, method="GET", **headers):
    parts = urlsplit(url)
    named = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    return Request(method, parts.path, tuple(parse_qsl(parts.query)), named)


def code(answer):
    return ElementTree.fromstring(answer.body).findtext("Code")


def error_number(answer):
    return ElementTree.fromstring(answer.body).findtext("EC")


def test_a_url_is_signed_byte_for_byte_as_aliyun_signs():
    expires = int(NOW) + 2_592_000
    words = f"GET\n\n\n{expires}\n/sxwl-ai/{KEY}".encode()
    signature = base64.b64encode(hmac.new(SECRET, words, hashlib.sha1).digest()).decode()
    escaped = signature.replace("+", "%2B").replace("/", "%2F").replace("=", "%3D")
    query = f"Expires={expires}&OSSAccessKeyId=LTAI5tGtsAsyncEmulator00&Signature={escaped}"
    assert store().signed_url(KEY, NOW) == f"{WHOLE}/ai828f15e-60a3%2Fdata.zip?{query}"


def test_the_same_moment_gives_the_same_url_and_another_one_another():
    kept = store()
    assert kept.signed_url(KEY, NOW) == kept.signed_url(KEY, NOW + 0.5)
    assert kept.signed_url(KEY, NOW) != kept.signed_url(KEY, NOW + 1)


@pytest.mark.parametrize("base_url", [WHOLE, f"{WHOLE}/", "http://127.0.0.1:8000/oss", "http://127.0.0.1:8000"])
def test_a_signed_url_gets_the_object(base_url):
    kept = store(base_url)
    answer = kept.answer(get(kept.signed_url(KEY, NOW)), NOW)
    assert (answer.status, answer.body) == (200, CONTENT)
    assert answer.header("content-length") == "1024"
    assert answer.header("content-type") == "application/zip"
    assert answer.header("accept-ranges") == "bytes"
    assert answer.header("etag") == f'"{hashlib.md5(CONTENT).hexdigest().upper()}"'
    assert answer.header("last-modified") == "Fri, 22 Dec 2023 00:00:00 GMT"
    assert answer.header("content-range") is None


@pytest.mark.parametrize("asked", [{}, {"range": "bytes=100-199"}])
def test_the_crc_64_is_the_whole_object_s_as_aliyun_computes_it(asked):
    """ECMA-182, reflected: "123456789" has 0x995DC9BBDF1939FA."""
    kept = store()
    kept.put("digits", BytesBlob(b"123456789"))
    answer = kept.answer(get(kept.signed_url(KEY, NOW), **asked), NOW)
    assert answer.header("x-oss-hash-crc64ecma") == str(fastcrc.crc64.xz(CONTENT))
    answer = kept.answer(get(kept.signed_url("digits", NOW)), NOW)
    assert answer.header("x-oss-hash-crc64ecma") == str(0x995DC9BBDF1939FA)


def test_a_blob_that_knows_no_crc_is_handed_out_without():
    @attrs.frozen
    class Other:
        size: int = 3
        etag: str = '"1"'

        def read(self, start, stop):
            return b"abc"[start:stop]

    kept = store()
    kept.put("other", Other())
    answer = kept.answer(get(kept.signed_url("other", NOW)), NOW)
    assert (answer.body, answer.header("x-oss-hash-crc64ecma")) == (b"abc", None)


def test_a_grant_names_the_bytes_without_reading_them():
    kept = store()
    granted = kept.grant(get(kept.signed_url(KEY, NOW), range="bytes=100-199"), NOW)
    assert isinstance(granted, Grant)
    assert (granted.status, granted.start, granted.stop, granted.blob) == (206, 100, 200, BLOB)
    assert dict(granted.headers)["content-range"] == "bytes 100-199/1024"


@pytest.mark.parametrize("lifetime", [60, 2_592_000])
def test_a_url_dies_with_its_lifetime(lifetime):
    kept = store(lifetime=lifetime)
    request = get(kept.signed_url(KEY, NOW))
    assert kept.answer(request, NOW + lifetime).status == 200
    answer = kept.answer(request, NOW + lifetime + 1)
    assert (answer.status, code(answer), error_number(answer)) == (403, "AccessDenied", "0002-00000069")
    assert answer.header("content-type") == "application/xml"
    assert "Request has expired." in answer.text


def test_an_authorization_header_beside_the_signature_is_refused():
    kept = store()
    answer = kept.answer(get(kept.signed_url(KEY, NOW), authorization="Bearer token"), NOW)
    assert (answer.status, code(answer), error_number(answer)) == (400, "InvalidArgument", "0002-00000039")
    assert answer.header("x-oss-ec") == "0002-00000039"


@pytest.mark.parametrize(
    "headers",
    [
        {"content_type": "application/json"},
        {"content_md5": "1B2M2Y8AsgTpgAmY7PhCfg=="},
        {"x_oss_process": "image/resize,w_100"},
        {"x_oss_range_behavior": "standard"},
    ],
)
def test_headers_that_are_signed_break_a_signature_without_them(headers):
    kept = store()
    answer = kept.answer(get(kept.signed_url(KEY, NOW), **headers), NOW)
    assert (answer.status, code(answer)) == (403, "SignatureDoesNotMatch")


@pytest.mark.parametrize("headers", [{"user_agent": "x"}, {"accept": "*/*"}, {"accept_encoding": "identity"}])
def test_other_headers_do_not_matter(headers):
    kept = store()
    assert kept.answer(get(kept.signed_url(KEY, NOW), **headers), NOW).status == 200


def test_a_head_does_not_have_the_signature_of_a_get_and_no_body_either():
    kept = store()
    answer = kept.answer(get(kept.signed_url(KEY, NOW), method="HEAD"), NOW)
    assert (answer.status, answer.body) == (403, b"")


@pytest.mark.parametrize(
    ("change", "status", "expected"),
    [
        (lambda url: url.replace("Signature=", "Signature=x"), 403, "SignatureDoesNotMatch"),
        (lambda url: url.replace("%2Fdata", "%2Fother"), 403, "SignatureDoesNotMatch"),
        (lambda url: url.replace("Expires=17", "Expires=27"), 403, "SignatureDoesNotMatch"),
        (lambda url: f"{url}&response-content-type=text%2Fplain", 403, "SignatureDoesNotMatch"),
        (lambda url: url.replace("Expires=17", "Expires=abc"), 403, "AccessDenied"),
        (lambda url: url.replace("LTAI", "NONE"), 403, "InvalidAccessKeyId"),
        (lambda url: url.partition("&Signature")[0], 403, "AccessDenied"),
        (lambda url: url.partition("?")[0], 403, "AccessDenied"),
    ],
)
def test_a_changed_url_is_refused(change, status, expected):
    kept = store()
    answer = kept.answer(get(change(kept.signed_url(KEY, NOW))), NOW)
    assert (answer.status, code(answer)) == (status, expected)


@pytest.mark.parametrize("change", [lambda url: f"{url}&unknown=1", lambda url: url.replace("%2Fdata", "/data")])
def test_what_is_not_signed_may_change(change):
    kept = store()
    assert kept.answer(get(change(kept.signed_url(KEY, NOW))), NOW).status == 200


def test_an_unknown_key_is_not_found():
    kept = store()
    answer = kept.answer(get(kept.signed_url("nothing/data.zip", NOW)), NOW)
    assert (answer.status, code(answer)) == (404, "NoSuchKey")
    assert "<Key>nothing/data.zip</Key>" in answer.text


def test_a_replaced_object_has_another_etag():
    kept = store()
    url = kept.signed_url(KEY, NOW)
    before = kept.answer(get(url), NOW)
    kept.put(KEY, BytesBlob(b"other"), NOW + 60)
    after = kept.answer(get(url), NOW + 60)
    assert after.body == b"other"
    assert after.header("etag") != before.header("etag")
    assert after.header("last-modified") == "Fri, 22 Dec 2023 00:01:00 GMT"


@pytest.mark.parametrize(
    ("wanted", "status", "start", "stop"),
    [
        ("bytes=0-0", 206, 0, 1),
        ("bytes=100-199", 206, 100, 200),
        ("bytes=1000-", 206, 1000, 1024),
        ("bytes=-24", 206, 1000, 1024),
        ("bytes=-5000", 206, 0, 1024),
        ("bytes=1000-5000", 206, 1000, 1024),
        ("bytes=0-", 206, 0, 1024),
        ("byte=0-9", 200, 0, 1024),
        ("bytes=9-0", 200, 0, 1024),
        ("bytes=-", 200, 0, 1024),
        ("bytes=a-b", 200, 0, 1024),
    ],
)
def test_ranges(wanted, status, start, stop):
    kept = store()
    answer = kept.answer(get(kept.signed_url(KEY, NOW), range=wanted), NOW)
    assert (answer.status, answer.body) == (status, CONTENT[start:stop])
    assert answer.header("content-length") == str(stop - start)
    expected = f"bytes {start}-{stop - 1}/1024" if status == 206 else None
    assert answer.header("content-range") == expected


@pytest.mark.parametrize("wanted", ["bytes=1024-", "bytes=5000-6000", "bytes=-0", "bytes=0-1,5-6"])
def test_a_range_that_is_not_there_is_416(wanted):
    kept = store()
    answer = kept.answer(get(kept.signed_url(KEY, NOW), range=wanted), NOW)
    assert (answer.status, code(answer)) == (416, "InvalidRange")
    assert answer.header("content-range") == "bytes */1024"


@pytest.mark.parametrize(
    ("wanted", "status"),
    [("bytes=0-1023", 206), ("bytes=-1024", 206), ("bytes=0-1024", 200), ("bytes=1024-", 200), ("bytes=-1025", 200)],
)
def test_by_its_own_rules_the_store_sends_everything_for_a_range_beyond_the_object(wanted, status):
    kept = store(has_standard_ranges=False)
    answer = kept.answer(get(kept.signed_url(KEY, NOW), range=wanted), NOW)
    assert (answer.status, answer.body) == (status, CONTENT)


@pytest.mark.parametrize(
    ("condition", "status"),
    [
        (BLOB.etag, 206),
        ("Fri, 22 Dec 2023 00:00:00 GMT", 206),
        ('"ANOTHER"', 200),
        ("Fri, 22 Dec 2023 00:00:01 GMT", 200),
    ],
)
def test_if_range_gives_a_part_only_of_the_same_object(condition, status):
    kept = store()
    answer = kept.answer(get(kept.signed_url(KEY, NOW), range="bytes=1000-", if_range=condition), NOW)
    assert (answer.status, len(answer.body)) == (status, 24 if status == 206 else 1024)


def test_an_empty_object_has_no_ranges():
    kept = store()
    kept.put("empty", BytesBlob(b""))
    url = kept.signed_url("empty", NOW)
    assert kept.answer(get(url), NOW).header("content-length") == "0"
    assert kept.answer(get(url, range="bytes=0-"), NOW).status == 416


def test_a_refusal_is_an_answer_not_a_grant():
    assert isinstance(store().grant(Request("GET", f"/{KEY}"), NOW), Answer)
