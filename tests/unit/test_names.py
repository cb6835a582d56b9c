"""Names are judged before anybody is asked, and what was probably meant is said."""

from __future__ import annotations

import pytest

from engine.core.names import folder, namespace, service


@pytest.mark.parametrize("text", ["shop", "a", "a-1", "x" * 63])
def test_namespaces(text: str) -> None:
    assert namespace(text) == text


@pytest.mark.parametrize(
    ("text", "near"),
    [("Shop_EU", "shop-eu"), ("a.b", "a-b"), ("-a", "a"), ("", ""), ("x" * 64, "x" * 63), ("a/b", "a-b"), ("a\n", "a")],
)
def test_what_is_no_namespace(text: str, near: str) -> None:
    with pytest.raises(ValueError, match=f'did you mean "{near}"' if near else "should be") as caught:
        namespace(text)
    assert str(caught.value).startswith('should be lower-case letters, digits and "-", at most 63, not ')


@pytest.mark.parametrize("text", ["shop/database:5432", ""])
def test_services(text: str) -> None:
    assert service(text) == text


@pytest.mark.parametrize(
    ("text", "near"),
    [
        ("shop:database/5432", "shop/database:5432"),
        ("shop/database/5432", "shop/database:5432"),
        ("database.shop:5432", "shop/database:5432"),
        ("http://database.shop.svc.cluster.local:5432/", "shop/database:5432"),
        ("database:5432", ""),
        ("shop/database", ""),
        ("shop/database:http", ""),
        ("shop/database:0", ""),
        ("shop/database:65536", ""),
        ("--help/x:1", ""),
        ("shop/a/b:1", ""),
    ],
)
def test_what_is_no_service(text: str, near: str) -> None:
    with pytest.raises(ValueError, match="should be namespace/name:port, not ") as caught:
        service(text)
    assert ("did you mean" in str(caught.value)) is bool(near)
    assert near in str(caught.value)


@pytest.mark.parametrize(("text", "kept"), [("", ""), ("/", ""), ("a", "a/"), ("a/b/", "a/b/"), ("a b/c", "a b/c/")])
def test_folders(text: str, kept: str) -> None:
    assert folder(text) == kept


@pytest.mark.parametrize("text", ["../a", "a/../b", "a//b", "/a", "a\\b", "a\nb", "a/./b", "a\0b", "{x}"])
def test_what_is_no_folder(text: str) -> None:
    with pytest.raises(ValueError, match="should be a folder like"):
        folder(text)
