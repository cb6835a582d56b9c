"""What a file of SQL may hold when it is to be one transaction."""

from __future__ import annotations

import pytest

from engine.core.sql_script import mistakes

GOOD = {
    "plain": "CREATE TABLE a (x int);\nINSERT INTO a VALUES (1);",
    "last semicolon left out": "SELECT 1",
    "words in a comment": "-- COMMIT;\n/* ; ROLLBACK; /* nested; BEGIN */ ; END; */ SELECT 1;",
    "words in strings": "SELECT '; COMMIT; it''s', E'\\'; COMMIT; \\\\', \"; ROLLBACK;\" FROM t;",
    "a body in dollars": "CREATE FUNCTION f() RETURNS void LANGUAGE sql AS $body$\nBEGIN\n  COMMIT; $$;\n$body$;",
    "dollars in a name": "SELECT a$b$; SELECT c$b$;",
    "a body in SQL": "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; END; SELECT 1;",
    "actions of a rule": "CREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2);",
    "a prepared statement": "PREPARE q AS SELECT 1;",
    "a column called end": 'SELECT "end", begin FROM t;',
    "a view refreshed beside its readers": "REFRESH MATERIALIZED VIEW CONCURRENTLY v;",
    "copied by the server": "COPY t FROM '/x';",
    "a parameter": "SELECT $1$2;",
}
BAD = {
    "COMMIT;": (1, 1, "COMMIT is not allowed"),
    "SELECT 1;\n  commit ;": (2, 3, "COMMIT is not allowed"),
    "x; ROLLBACK; y": (1, 4, "ROLLBACK is not allowed"),
    "SELECT 1;/* c */END": (1, 17, "END is not allowed"),
    "SELECT 1;;BEGIN": (1, 11, "BEGIN is not allowed"),
    "START -- now\n TRANSACTION": (1, 1, "START TRANSACTION is not allowed"),
    "SAVEPOINT a;": (1, 1, "SAVEPOINT is not allowed"),
    "PREPARE TRANSACTION 'x'": (1, 1, "PREPARE TRANSACTION is not allowed"),
    "SELECT $$a$$; ABORT": (1, 15, "ABORT is not allowed"),
    "SELECT 'é'; COMMIT": (1, 13, "COMMIT is not allowed"),
    "CREATE UNIQUE INDEX CONCURRENTLY i ON t (x);": (1, 1, "cannot run in a transaction"),
    "REINDEX (VERBOSE) TABLE CONCURRENTLY t": (1, 1, "cannot run in a transaction"),
    "SELECT 1; VACUUM t;": (1, 11, "VACUUM cannot run in a transaction"),
    "CREATE DATABASE d": (1, 1, "CREATE DATABASE cannot run"),
    "COPY t FROM STDIN;": (1, 1, "write INSERT"),
    "\\i other.sql": (1, 1, "a command of psql"),
    "SELECT 1;\nSELECT 'open": (2, 8, "the quoted text that begins here never ends"),
    "/* open": (1, 1, "the comment that begins here never ends"),
    "SELECT $a$ open $b$": (1, 8, "the dollar-quoted text that begins here never ends"),
    "-- nothing": (1, 1, "holds no statement"),
    "": (1, 1, "holds no statement"),
}


@pytest.mark.parametrize("text", GOOD.values(), ids=GOOD)
def test_one_transaction(text):
    assert mistakes(text) == []


@pytest.mark.parametrize("text", BAD)
def test_refused_with_its_place(text):
    (found,) = mistakes(text)
    line, column, message = BAD[text]
    assert (found.line, found.column) == (line, column)
    assert message in found.message


def test_all_at_once():
    assert [(m.line, m.width) for m in mistakes("BEGIN;\nSELECT 1;\nCOMMIT;")] == [(1, 5), (3, 6)]
