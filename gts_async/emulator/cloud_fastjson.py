"""How the Java server reads a request: fastjson 1.2.83 and its coercions, Spring's words where it refuses.

What was measured: the coercions, their errors and `Integer.valueOf`, all by running them.
"""

import json
import re
from collections.abc import Mapping

import attrs

from gts_async.emulator.cloud_answers import Refusal, java_json, without_nulls
from gts_async.emulator.cloud_gozero import Number
from gts_async.wire import Request

TEXTS = (
    "gpuType", "ckptPath", "ckptVol", "modelPath", "modelVol", "imagePath", "hfUrl", "datasetPath", "jobType", "cpodId",
    "runCommand", "callbackUrl", "datasetName", "pretrainedModelName", "pretrainedModelPath",
)  # fmt: skip
INTEGERS = ("gpuNumber", "stopType", "stopTime", "workStatus", "obtainStatus", "deleted")

_PACKAGE = "nascentcore.ai.modules.system.rest.UserJobController"
_SIGNATURE = f"public org.springframework.http.ResponseEntity<java.lang.Object> {_PACKAGE}"


@attrs.frozen
class UserJob:
    """The bean that a create becomes (`UserJob.java`): the columns that were given, and the document itself."""

    columns: Mapping[str, str | int]
    document: Mapping[str, object]


def read_object(request: Request, method: str) -> dict[str, object]:
    """Read the JSON object that the controller's `method` gets. Raises Refusal.

    Bodies of any other content type are refused: fastjson's is the only message converter (`ConfigurerAdapter.java`).
    """
    document = _document(request, f"{method}(java.lang.String)")
    if document is None:
        raise Refusal(None)  # the NullPointerException of the next line has no message
    if not isinstance(document, dict):
        raise Refusal("can not cast to JSONObject.")
    return document


def read_numbers(request: Request, method: str) -> list[int]:
    """Read the JSON array of numbers that the controller's `method` gets. Raises Refusal, whose words are inferred."""
    document = _document(request, f"{method}(java.util.Set<java.lang.Long>)")
    if not isinstance(document, list):
        raise Refusal("JSON parse error: syntax error, expect [")
    return [number for item in document if (number := _long_of(item)) is not None]


def _long_of(item: object) -> int | None:
    if item is None or item == "":
        return None
    if not isinstance(item, str) or not re.fullmatch(r"-?\d{1,18}", item):
        raise Refusal(f"JSON parse error: can not cast to long, value : {java_json(plain(item))}")
    return int(item)


def _document(request: Request, signature: str) -> object:
    kind = request.header("content-type") or "application/octet-stream"
    if kind.partition(";")[0].strip().lower() != "application/json":
        raise Refusal(f"Content type '{kind}' not supported")
    body = request.body if isinstance(request.body, bytes) else b""
    if not body:
        raise Refusal(f"Required request body is missing: {_SIGNATURE}.{signature}")
    return _parsed(body.decode("utf-8", "replace"))


def _parsed(body: str) -> object:
    try:
        return json.loads(body, parse_int=Number, parse_float=Number)
    except (ValueError, RecursionError):
        raise Refusal(
            "JSON parse error: syntax error; nested exception is com.alibaba.fastjson.JSONException: syntax error"
        ) from None


def text_of(value: object) -> str | None:
    """Give what fastjson makes of a value where a String is wanted: anything is taken, null stays null."""
    if value is None:
        return None
    if isinstance(value, str):
        return str(value)
    return java_json(plain(value))


def integer_of(value: object, field: str) -> int | None:
    """Give what fastjson makes of a value where an Integer is wanted: fractions are cut off. Raises Refusal."""
    if value is None or value in ("", "null", "NULL"):
        return None
    if isinstance(value, bool):
        return int(value)
    number = _whole(value)
    if number is None or not -(1 << 31) <= number < 1 << 31:
        raise Refusal(f"parseInt error, field : {field}")
    return number


def _whole(value: object) -> int | None:
    if isinstance(value, Number):
        return int(float(value)) if abs(float(value)) < 1e15 else None
    if not isinstance(value, str):
        return None
    return _parsed_int(re.sub(r"\.0*$", "", value.replace(",", "")))


def _parsed_int(digits: str) -> int | None:
    """Java's ``Integer.parseInt``; digits of any script will do."""
    if not re.fullmatch(r"[+-]?\d{1,99}", digits):
        return None
    number = int(digits)
    return number if -(1 << 31) <= number < 1 << 31 else None


def value_of(text: str | None) -> int:
    """Give Java's ``Integer.valueOf(text)``. Raises Refusal with the words of its NumberFormatException."""
    if text is None:
        raise Refusal("Cannot parse null string")
    number = _parsed_int(text)
    if number is None:
        raise Refusal(f'For input string: "{text}"')
    return number


def user_job(document: Mapping[str, object]) -> UserJob:
    """Read a create: unknown keys are passed over, case, ``_`` and ``-`` in names do not matter. Raises Refusal."""
    given = {_folded(key): value for key, value in document.items()}
    texts = {name: text_of(given.get(_folded(name))) for name in TEXTS}
    integers = {name: integer_of(given.get(_folded(name)), name) for name in INTEGERS}
    return UserJob({name: value for name, value in (texts | integers).items() if value is not None}, document)


def _folded(name: str) -> str:
    return name.replace("_", "").replace("-", "").lower()


def plain(value: object) -> object:
    """Give `value` with its numbers as numbers, ready to be written as JSON again."""
    if isinstance(value, Number):
        return int(value) if re.fullmatch(r"-?\d{1,99}", value) else float(value)
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value


def pretty(document: Mapping[str, object]) -> str:
    """Give the document as fastjson's PrettyFormat keeps it: tabs, no space after colons, no keys that are null."""
    return json.dumps(without_nulls(plain(document)), ensure_ascii=False, indent="\t", separators=(",", ":"))
