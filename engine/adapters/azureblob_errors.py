"""What Azure Blob storage or the way to it can answer, as the engine's errors. Translated here, once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from engine.core.services import NoAnswerError
from engine.errors import PermanentError, RunbookError, TemporaryError

_TRANSIENT = {"ContainerBeingDeleted", "ServerBusy", "OperationTimedOut", "InternalError"}


@contextmanager
def blob_errors(doing: str, *, unreachable: type[RunbookError]) -> Iterator[None]:
    """Translate azure-core's errors; `unreachable` is what no answer means here."""
    from azure.core.exceptions import (
        AzureError,
        ClientAuthenticationError,
        HttpResponseError,
        ServiceRequestError,
        ServiceResponseError,
    )

    try:
        yield
    except (ServiceRequestError, ServiceResponseError, NoAnswerError) as error:
        raise unreachable(f"azure blob: cannot {doing}: {_first_line(error)}") from error
    except ClientAuthenticationError as error:
        raise PermanentError(
            f"azure blob: cannot {doing}: no credential was accepted ({_first_line(error)})"
        ) from error
    except HttpResponseError as error:
        code, status = str(getattr(error, "error_code", "") or ""), error.status_code or 0
        kind = TemporaryError if status >= 500 or status == 429 or code in _TRANSIENT else PermanentError
        raise kind(f"azure blob: cannot {doing}: {code or status} ({_first_line(error)})") from error
    except AzureError as error:
        raise PermanentError(f"azure blob: cannot {doing}: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    """The service adds request ids and its whole XML below."""
    return (str(error).splitlines() or [type(error).__name__])[0]
