"""What S3 or the way to it can answer, as the engine's errors. Translated here, once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from xml.etree.ElementTree import ParseError

from engine.core.services import NoAnswerError
from engine.errors import PermanentError, RunbookError, TemporaryError

_TRANSIENT = {"SlowDown", "Throttling", "RequestTimeout", "ServiceUnavailable", "InternalError", "OperationAborted"}


@contextmanager
def s3_errors(doing: str, *, unreachable: type[RunbookError]) -> Iterator[None]:
    """Translate botocore's errors; `unreachable` is what no answer means here."""
    from boto3.exceptions import S3UploadFailedError
    from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, NoCredentialsError
    from botocore.exceptions import ConnectionError as BotoConnectionError
    from botocore.parsers import ResponseParserError

    try:
        yield
    except NoCredentialsError as error:
        raise PermanentError(f"s3: cannot {doing}: no credentials were found") from error
    except (HTTPClientError, BotoConnectionError, NoAnswerError) as error:
        raise unreachable(f"s3: cannot {doing}: {error}") from error
    except (ParseError, ResponseParserError) as error:  # a proxy, a captive portal, another program on the port
        raise unreachable(f"s3: cannot {doing}: what answered does not speak S3") from error
    except ClientError as error:
        raise _answered(doing, error) from error
    except S3UploadFailedError as error:
        if isinstance(error.__context__, ClientError):
            raise _answered(doing, error.__context__) from error
        raise PermanentError(f"s3: cannot {doing}: {error}") from error
    except BotoCoreError as error:
        raise PermanentError(f"s3: cannot {doing}: {error}") from error


def _answered(doing: str, error: Any) -> RunbookError:
    """What an error answer of the service means."""
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    kind = TemporaryError if status >= 500 or code_of(error) in _TRANSIENT else PermanentError
    return kind(f"s3: cannot {doing}: {code_of(error)} ({error.response.get('Error', {}).get('Message', '')})")


def code_of(error: Any) -> str:
    """The service's own name for an error answer: `NoSuchKey`, or the HTTP status where it gave none."""
    return str(error.response.get("Error", {}).get("Code", ""))
