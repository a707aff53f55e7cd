import pickle
import traceback

import pytest

from gts_async import AsyncSession, InvalidArgument, WrongType
from gts_async._net.secret import Credential, Secret, bearer


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
