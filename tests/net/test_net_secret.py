import html
import json
import pickle
import time
import traceback
from urllib.parse import quote

import pytest

from gts_async import AsyncSession, InvalidArgument, WrongType
from gts_async._net.secret import Credential, Secret, bearer, signed


@pytest.mark.parametrize("given", ["abc.def", " abc.def\n", "Bearer abc.def", "Bearer  abc.def "])
def test_a_token_is_normalised(given):
    assert bearer(given).reveal() == "Bearer abc.def"


@pytest.mark.parametrize("given", ["", "  ", "Bearer ", "TOP SECRET", "TOP\nSECRET", "TOP\x00SECRET", "TOPSECRET€"])
def test_a_token_that_cannot_be_sent_is_refused_without_being_shown(given):
    with pytest.raises(InvalidArgument) as caught:
        AsyncSession(cloud="https://cloud.test/api", token=given)
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    assert caught.value.argument == "token"
    assert "SECRET" not in shown


def test_a_token_of_the_wrong_type_is_refused():
    with pytest.raises(WrongType, match="token"):
        AsyncSession(token=7)


def test_a_secret_shows_itself_to_nobody_but_reveal():
    secret = Secret("hidden")
    assert "hidden" not in repr(secret) + str(secret) + f"{secret}"
    with pytest.raises(TypeError):
        vars(secret)
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    assert secret.reveal() == "hidden"


KEY = "Ab3+/=<&'\"\\~.zZ"

SPELLED = {
    "as it is": KEY,
    "in JSON": json.dumps(KEY)[1:-1],
    "in JSON that is in JSON": json.dumps(json.dumps(KEY)[1:-1])[1:-1],
    "in JSON with slashes escaped": json.dumps(KEY)[1:-1].replace("/", r"\/"),
    "in JSON as Go writes it": json.dumps(KEY)[1:-1].replace("<", r"\u003c").replace("&", r"\u0026"),
    "in HTML": html.escape(KEY),
    "in HTML that is in HTML": html.escape(html.escape(KEY)),
    "in HTML by numbers": KEY.replace("'", "&#39;").replace("+", "&#x2B;"),
    "in a URL": quote(KEY, safe=""),
    "in a URL, in part": quote(KEY, safe="/+"),
    "in a URL that is in a URL": quote(quote(KEY, safe=""), safe=""),
    "as Python shows it": repr(KEY.encode())[2:-1],
}


@pytest.mark.parametrize("spelled", SPELLED.values(), ids=SPELLED)
def test_a_secret_is_hidden_however_it_is_spelled(spelled):
    secret = Secret(f"Bearer {KEY}", [KEY])
    assert secret.hide(f'{{"a": "{spelled}", "Ab3": "zZ"}}') == '{"a": "<redacted>", "Ab3": "zZ"}'
    assert secret.hide(f"é {spelled}{spelled}".encode()) == "é <redacted><redacted>".encode()


def test_what_holds_no_secret_is_left_as_it_is():
    said = "\ud800 Ab3 zZ \\ %41"
    assert Secret(KEY).hide(said) == said
    assert bearer("status").hide(b'{"status": 1}') == b'{"status": 1}'


def test_of_a_signed_url_the_values_of_its_query_are_hidden():
    url = signed("https://b.test/data.zip?Expires=1706000000&Signature=a%2Fbcdefg%3D&x=1&abcdefgh#y=long-enough")
    said = "Signature a/bcdefg= a%2Fbcdefg%3D a%252Fbcdefg%253D abcdefgh 1706000000 Expires x=1 long-enough data.zip"
    hidden = "Signature <redacted> <redacted> <redacted> <redacted> <redacted> Expires x=1 long-enough data.zip"
    assert url.hide(said) == hidden
    assert url.reveal().endswith("#y=long-enough")


@pytest.mark.parametrize("said", [b"\\", b"%25", b"&amp;", b"Ab3\\\\\\"])
def test_nobody_can_keep_us_busy_with_what_must_be_looked_through(said):
    whole = said * (1 << 18)
    began = time.process_time()
    assert Secret(KEY, [KEY, "+Ab3", "\\Ab3+"]).hide(whole) == whole
    assert time.process_time() - began < 5


async def test_a_callable_is_asked_once_and_once_more_when_its_token_was_refused():
    tokens = iter(["one", "two", "three"])

    async def ask():
        return next(tokens)

    credential = Credential(ask)
    first = await credential.authorization()
    assert (first.reveal(), await credential.authorization()) == ("Bearer one", first)
    second = await credential.authorization(refused=first)
    assert second.reveal() == "Bearer two"
    assert await credential.authorization() is second
    # A call that was refused with the old token meets the new one.
    assert await credential.authorization(refused=first) is second
