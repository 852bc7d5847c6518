"""What boto3 raises, as something to try again or as one line that says what to do."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from scanloop.errors import ObjectGoneError, StorageError
from scanloop.storage.patience import PassingError

_PASSING_STATUS = frozenset({408, 429, 500, 502, 503, 504})
_PASSING_CODES = frozenset(
    {
        "BadDigest",
        "InternalError",
        "InvalidPart",
        "RequestTimeout",
        "SlowDown",
        "Throttling",
        "XAmzContentSHA256Mismatch",
    }
)
_GONE_CODES = frozenset({"404", "412", "NoSuchKey", "NotFound", "PreconditionFailed"})
_ADVICE = {
    "AccessDenied": "the store does not allow it: check the credentials' rights on this bucket",
    "403": "the store does not allow it: check the credentials and their rights on this bucket",
    "ExpiredToken": "the credentials have expired: sign in again",
    "InvalidAccessKeyId": "the store does not know the access key: check AWS_ACCESS_KEY_ID, or the profile",
    "NoSuchBucket": "there is no such bucket: create it, or correct the address",
    "PermanentRedirect": "the bucket lies in another region: set AWS_DEFAULT_REGION, or the endpoint_url",
    "RequestTimeTooSkewed": "the clock of this machine is wrong: set it",
    "SignatureDoesNotMatch": "the store refuses the secret key: check AWS_SECRET_ACCESS_KEY, or the profile",
}


@contextmanager
def explained(subject: str) -> Iterator[None]:
    """Turn what boto3 raises into `PassingError`, or into one line that says what to do and quotes no request."""
    from botocore.exceptions import (
        BotoCoreError,
        ClientError,
        FlexibleChecksumError,
        HTTPClientError,
        IncompleteReadError,
        NoCredentialsError,
        PartialCredentialsError,
        ResponseStreamingError,
        SSLError,
    )
    from botocore.exceptions import ConnectionError as UnreachableError
    from urllib3.exceptions import HTTPError  # boto3 lets some of these through while a body is read

    try:
        yield
    except ClientError as error:
        _explain_refusal(subject, error)
    except FlexibleChecksumError:
        raise PassingError("the bytes do not have the checksum that the store knows") from None
    except (NoCredentialsError, PartialCredentialsError):
        raise StorageError(
            f"{subject}: no credentials were found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        ) from None
    except SSLError:
        raise StorageError(
            f"{subject}: the server's certificate is not trusted: set AWS_CA_BUNDLE to the certificates of your network"
        ) from None
    except (
        HTTPClientError,
        IncompleteReadError,
        ResponseStreamingError,
        UnreachableError,
        HTTPError,
        OSError,
    ) as error:
        raise PassingError(f"the connection failed ({type(error).__name__})") from None
    except BotoCoreError as error:
        raise StorageError(f"{subject}: {type(error).__name__}: check the address and the AWS configuration") from None


def _explain_refusal(subject: str, error: Any) -> NoReturn:
    code = str(error.response.get("Error", {}).get("Code", ""))
    answer = error.response.get("ResponseMetadata", {})
    status = answer.get("HTTPStatusCode", 0)
    if code in _GONE_CODES:
        raise ObjectGoneError(f"{subject}: it is gone, or another one than was listed: list it again") from None
    if status in _PASSING_STATUS or code in _PASSING_CODES:
        asked = answer.get("HTTPHeaders", {}).get("retry-after", "")
        raise PassingError(f"the store answers {status} {code}".rstrip(), float(asked) if asked.isdigit() else None)
    advice = _ADVICE.get(code, "check the address and the rights on this bucket")
    raise StorageError(f"{subject}: refused ({code or status}): {advice}", code or str(status)) from None
