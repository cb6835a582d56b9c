"""PostgreSQL by pg8000 and Redis by redis-py: one question, one connection."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from engine.core.action import Deadline
from engine.core.redaction import Secret
from engine.core.services import NoAnswerError
from engine.errors import PermanentError, TemporaryError

_LONGEST = 10.0  # seconds to connect, and for an answer
_PASSING = ("08", "28", "3D", "3F", "42P01", "53", "57")
"""SQLSTATEs (and classes) that are right soon while a platform comes up: connection, password, database, schema or
table not there yet, too many connections, starting or stopping. PostgreSQL's "Error Codes" appendix."""


class SqlAndRedis:
    """Asks PostgreSQL and Redis (port Databases)."""

    def query(
        self, host: str, port: int, database: str, user: str, password: Secret, statement: str, *, deadline: Deadline
    ) -> Sequence[Sequence[Any]]:
        """The rows. TemporaryError when login or table may be there soon, PermanentError for a wrong statement."""
        import pg8000.native

        doing = f"PostgreSQL {user}@{host}:{port}/{database}"
        deadline.check(doing)
        timeout = min(_LONGEST, deadline.remaining())
        with _postgres_errors(doing, timeout):
            connection = pg8000.native.Connection(
                user,
                host=host,
                port=port,
                database=database,
                password=password.reveal(),
                timeout=timeout,
                application_name="runbook",
            )
            try:
                return list(connection.run(statement) or ())
            finally:
                connection.close()

    def ping(self, host: str, port: int, password: Secret | None, *, deadline: Deadline) -> str:
        """The answer to PING: `PONG`. TemporaryError when the password is refused: a new one may be on its way."""
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        doing = f"Redis {host}:{port}"
        deadline.check(doing)
        timeout = min(_LONGEST, deadline.remaining())
        with _redis_errors(doing, timeout):
            client: Any = redis.Redis(
                host=host,
                port=port,
                password=password.reveal() if password else None,
                socket_timeout=timeout,
                socket_connect_timeout=timeout,
                decode_responses=True,
                protocol=2,  # with 3 a missing login is answered by a riddle about HELLO
                retry=Retry(NoBackoff(), 0),  # the executor looks again; three tries of its own cost seconds
            )
            try:
                answer = client.execute_command("PING")
            finally:
                client.close()
        return "PONG" if answer is True else str(answer)


@contextmanager
def _postgres_errors(doing: str, timeout: float) -> Iterator[None]:
    from pg8000.exceptions import DatabaseError, InterfaceError

    try:
        yield
    except DatabaseError as error:
        details = error.args[0] if error.args and isinstance(error.args[0], dict) else {}
        message = f"{doing}: {details.get('M', error)}"
        if str(details.get("C")).startswith(_PASSING):
            raise TemporaryError(message) from error
        raise PermanentError(message) from error
    except InterfaceError as error:
        # pg8000 wraps the socket's error into its own text.
        raise NoAnswerError(*_no_answer(doing, error, timeout)) from error
    except OSError as error:
        raise NoAnswerError(*_no_answer(doing, error, timeout)) from error


@contextmanager
def _redis_errors(doing: str, timeout: float) -> Iterator[None]:
    import redis.exceptions as redis

    try:
        yield
    except (redis.AuthenticationError, redis.BusyLoadingError) as error:
        raise TemporaryError(f"{doing}: {error}") from error
    except (redis.ConnectionError, redis.TimeoutError) as error:
        raise NoAnswerError(*_no_answer(doing, error, timeout)) from error
    except redis.RedisError as error:
        raise PermanentError(f"{doing}: {error}") from error


def _no_answer(doing: str, error: BaseException, timeout: float) -> tuple[str, str]:
    """Message and cause of a NoAnswerError, from the error or what it was made from."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ConnectionRefusedError):
            return f"{doing}: connection refused", "refused"
        if isinstance(cause, ConnectionResetError | BrokenPipeError):
            return f"{doing}: connection reset", "reset"
        if isinstance(cause, TimeoutError):
            return f"{doing}: no answer within {timeout:.0f} s", "timeout"
        cause = cause.__cause__ or cause.__context__
    return f"{doing}: {error}", "unreachable"
