"""What an error may repeat of a server's words."""

import pytest

from gts_async._errors import plain, redacted

HIDDEN = {
    "https://h/p?Signature=abc next": "https://h/p?<redacted> next",
    r"https:\/\/h\/p?a=b\u0026c=d": r"https:\/\/h\/p?<redacted>",
    "Expires=1&OSSAccessKeyId=LTAI5t&Signature=a%2Fb%3D": ("Expires=1&OSSAccessKeyId=<redacted>&Signature=<redacted>"),
    "/p?X-Amz-Credential=AKIA%2F1&X-Amz-Signature=0f&x-amz-security-token=F==": (
        "/p?X-Amz-Credential=<redacted>&X-Amz-Signature=<redacted>&x-amz-security-token=<redacted>"
    ),
    "x-oss-signature=0f x-oss-credential=LTAI/1": "x-oss-signature=<redacted> x-oss-credential=<redacted>",
    "GoogleAccessId=me&X-Goog-Signature=0f": "GoogleAccessId=<redacted>&X-Goog-Signature=<redacted>",
    "next=https%3A%2F%2Fh%2Fp%3FSignature%3Dab%252F": "next=https%3A%2F%2Fh%2Fp%3FSignature%3D<redacted>",
    '{"signature": "abc", "AccessKeyId":"LTAI"}': '{"signature": "<redacted>", "AccessKeyId":"<redacted>"}',
    "<AWSAccessKeyId>AKIA</AWSAccessKeyId>": "<AWSAccessKeyId><redacted></AWSAccessKeyId>",
    "<SignatureProvided>a+/=</SignatureProvided>": "<SignatureProvided><redacted></SignatureProvided>",
    "authorization: Bearer eyJhbGciOiJIUzI1NiJ9.e30.x-_y": "authorization: Bearer <redacted>",
    "b'Bearer aaaabbbbccccdddd'": "b'Bearer <redacted>'",
    "?a=bearer%20aaaabbbbccccdddd&b=c": "?a=bearer%20<redacted>&b=c",
}
LEFT = [
    "the Bearer token is missing",
    'WWW-Authenticate: Bearer realm="sxwl"',
    "The request signature we calculated does not match the signature you provided.",
    "signature: expired",
    "no credentials; credential is not set",
    "https://h/p and http://h/p/signature/",
    "security token expired",
    '{"signature": 7}',
]


@pytest.mark.parametrize(("said", "hidden"), HIDDEN.items())
def test_what_gives_a_secret_away_is_hidden(said, hidden):
    assert redacted(said) == hidden
    assert plain(said) == hidden


@pytest.mark.parametrize("said", LEFT)
def test_what_only_speaks_of_secrets_is_left_as_it_is(said):
    assert redacted(said) == said


def test_a_text_is_cut_after_its_secrets_are_hidden():
    said = "x" * 89 + " Bearer " + "a" * 100
    assert plain(said, 100) == "x" * 89 + " Bearer <re… (197 characters)"


def test_control_characters_are_spelled_out():
    assert plain("a\x1b[2J\n\u202eb\x00") == "a\\x1b[2J\n\\x202eb\\x00"
