"""Connections from arguments, environment and files; and secrets that stay secret."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
import traceback
from pathlib import Path

import pytest

from pipeline.config import Connection, Secret, is_loopback, read_connection, read_connections, read_proxy
from pipeline.errors import UsageError

CANARY = "sk_canary_7f3a"
KEY = {"EXTEND_API_KEY": CANARY}


def test_a_secret_shows_itself_only_on_purpose() -> None:
    secret = Secret(CANARY)
    shown = [str(secret), repr(secret), f"{secret}", f"{secret:>40}", f"{secret!r}", repr([secret])]
    shown.append(repr(Connection("https://x.test", secret)))
    assert not [text for text in shown if CANARY in text]
    assert secret.reveal() == CANARY
    assert secret.redact(f"bad key {CANARY}!") == "bad key [secret]!"


def test_a_secret_is_equal_by_value_and_survives_copies() -> None:
    secret = Secret(CANARY)
    assert secret == Secret(CANARY)
    assert hash(secret) == hash(Secret(CANARY))
    assert secret != Secret("other")
    assert secret != CANARY
    assert copy.deepcopy(secret) is secret
    assert dataclasses.asdict(Connection("https://x.test", secret))["api_key"] is secret


def test_a_secret_cannot_be_serialized() -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError, match="cannot be pickled"):
            pickle.dumps(Secret(CANARY), protocol)
    with pytest.raises(TypeError):
        json.dumps(Secret(CANARY))
    assert not hasattr(Secret(CANARY), "__dict__")


@pytest.mark.parametrize(
    ("arguments", "env", "expected"),
    [
        ({}, {}, "https://api.extend.ai"),
        ({}, {"EXTEND_REGION": "eu"}, "https://api.eu1.extend.ai"),
        ({}, {"EXTEND_REGION": ""}, "https://api.extend.ai"),
        ({"region": "us2"}, {"EXTEND_REGION": "eu"}, "https://api.us2.extend.app"),
        ({"region": "us2"}, {"EXTEND_BASE_URL": "https://env.test"}, "https://api.us2.extend.app"),
        ({}, {"EXTEND_BASE_URL": "https://env.test/", "EXTEND_REGION": "eu"}, "https://env.test"),
        ({"base_url": "https://arg.test/api/v1/"}, {"EXTEND_BASE_URL": "https://env.test"}, "https://arg.test/api/v1"),
        ({"base_url": "https://arg.test", "region": "eu"}, {}, "https://arg.test"),
        ({"base_url": " http://127.0.0.1:8080/ "}, {}, "http://127.0.0.1:8080"),
        ({"base_url": "http://127.9.9.9"}, {}, "http://127.9.9.9"),
        ({"base_url": "http://[::1]:80"}, {}, "http://[::1]:80"),
        ({"base_url": "http://localhost:1"}, {}, "http://localhost:1"),
        ({"base_url": "http://intra.test", "allow_http": True}, {}, "http://intra.test"),
    ],
)
def test_arguments_go_before_the_environment(arguments: dict, env: dict, expected: str) -> None:
    assert read_connection(**arguments, env=KEY | env).base_url == expected


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("ftp://x.test", "https://"),
        ("api.extend.ai", "https://"),
        ("", "https://"),
        ("https://", "host"),
        ("https://user:pa55@x.test", "password"),
        ("https://pa55@x.test", "password"),
        ("https://x.test?pa55=1", "query"),
        ("https://x.test?", "query"),
        ("https://x.test#pa55", "fragment"),
        ("https://x.test/../pa55", "path"),
        ("https://x.test/a b", "path"),
        ("https://x.test\\@pa55.test", "password"),
        ("https://x.test\\pa55.test", "host"),
        ("https://x.test:99999", "URL"),
        ("https://x.test:0", "host"),
        ("https://[::1", "URL"),
        ("https://x_.test_", "host"),
        ("http://x.test", "unencrypted"),
        ("http://127.0.0.1.x.test", "unencrypted"),
        ("http://localhost.x.test", "unencrypted"),
        ("http://10.0.0.1", "unencrypted"),
    ],
)
def test_a_wrong_base_url_is_refused_and_not_shown(url: str, says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        read_connection(base_url=url, env=KEY)
    assert "--base-url" in str(caught.value)
    assert "pa55" not in "".join(traceback.format_exception(caught.value))


def test_a_wrong_base_url_in_the_environment_names_its_variable() -> None:
    with pytest.raises(UsageError, match=r"^EXTEND_BASE_URL: plain http"):
        read_connection(env=KEY | {"EXTEND_BASE_URL": "http://x.test"})


def test_loopback_is_only_this_machine() -> None:
    assert [is_loopback(host) for host in ("127.0.0.1", "127.255.0.3", "::1", "localhost")] == [True] * 4
    assert [is_loopback(host) for host in ("0.0.0.0", "::", "128.0.0.1", "127.1", "localhost.", "")] == [False] * 6


def test_an_unknown_region_names_the_choices() -> None:
    with pytest.raises(UsageError, match=r"--region: 'mars' is no region; choose one of us, us2, eu"):
        read_connection(region="mars", env=KEY)


def test_a_missing_key_says_what_to_type() -> None:
    with pytest.raises(UsageError, match=r"`export EXTEND_API_KEY=…`.*`pipeline demo`"):
        read_connection(env={"EXTEND_API_KEY": ""})


def test_the_key_comes_from_a_file_or_the_environment(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"\xef\xbb\xbf  from_file\r\n")
    assert read_connection(key_file=path, env=KEY).api_key.reveal() == "from_file"
    assert read_connection(env={"EXTEND_API_KEY_FILE": str(path)}).api_key.reveal() == "from_file"
    assert read_connection(env=KEY | {"EXTEND_API_KEY_FILE": str(path)}).api_key.reveal() == CANARY
    assert read_connection(env={"EXTEND_API_KEY": f"\t{CANARY} \n"}).api_key.reveal() == CANARY


@pytest.mark.parametrize(
    "key", [f"{CANARY}\r\nX-Evil: 1", f"{CANARY} x", f"{CANARY}\0", f"{CANARY}é", f"Bearer {CANARY}", "   "]
)
def test_a_malformed_key_is_refused_and_not_shown(key: str, tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text(key)
    for arguments, env in (({}, {"EXTEND_API_KEY": key}), ({"key_file": path}, {})):
        with pytest.raises(UsageError) as caught:
            read_connection(**arguments, env=env)
        assert CANARY not in "".join(traceback.format_exception(caught.value))


def test_a_key_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--key-file: .*nowhere cannot be read \(No such file"):
        read_connection(key_file=tmp_path / "nowhere", env={})
    with pytest.raises(UsageError, match=r"cannot be read \(Is a directory"):
        read_connection(key_file=tmp_path, env={})
    (tmp_path / "big").write_text("k" * 9000)
    with pytest.raises(UsageError, match="too long"):
        read_connection(key_file=tmp_path / "big", env={})
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00k")
    with pytest.raises(UsageError, match="not shown"):
        read_connection(key_file=tmp_path / "binary", env={})


def test_the_workspace_is_checked() -> None:
    assert read_connection(env=KEY).workspace_id is None
    assert read_connection(env=KEY | {"EXTEND_WORKSPACE_ID": ""}).workspace_id is None
    assert read_connection(workspace="ws_a", env=KEY | {"EXTEND_WORKSPACE_ID": "ws_b"}).workspace_id == "ws_a"
    assert read_connection(env=KEY | {"EXTEND_WORKSPACE_ID": "ws_b-1"}).workspace_id == "ws_b-1"
    for wrong in ("", "ws_", "w_1", "ws_a\r\nb", "ws_é", CANARY):
        with pytest.raises(UsageError, match="--workspace") as caught:
            read_connection(workspace=wrong, env=KEY)
        assert CANARY not in str(caught.value)


def test_a_proxy_is_used_for_https_to_other_machines_only(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "https_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", "http://me:pa55@proxy.test:3128")
    assert read_proxy("https://api.extend.ai") == "http://me:pa55@proxy.test:3128"
    assert read_proxy("https://localhost:1") is None
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.test")
    assert read_proxy("http://intra.test") is None
    monkeypatch.setenv("NO_PROXY", "extend.ai")
    assert read_proxy("https://api.extend.ai") is None
    monkeypatch.setenv("HTTPS_PROXY", "socks5://me:pa55@proxy.test")
    with pytest.raises(UsageError) as caught:
        read_proxy("https://other.test")
    assert "pa55" not in str(caught.value)


# Several workspaces


def connections(workspaces: list[str], **env: str) -> list[tuple[str | None, str]]:
    return [(each.workspace_id, each.api_key.reveal()) for each in read_connections(workspaces=workspaces, env=env)]


def test_one_key_serves_every_workspace_that_is_named_once_each_in_that_order() -> None:
    assert connections(["ws_b", "ws_a", "ws_b"], EXTEND_API_KEY="k") == [("ws_b", "k"), ("ws_a", "k")]


def test_without_a_workspace_there_is_one_connection_as_for_fetch() -> None:
    assert connections([], EXTEND_API_KEY="k") == [(None, "k")]
    assert connections([], EXTEND_API_KEY="k", EXTEND_WORKSPACE_ID="ws_a") == [("ws_a", "k")]


def test_several_keys_are_those_of_their_workspaces_and_the_one_key_is_for_the_others() -> None:
    keys = "ws_a=k1  ws_b=k2=\n"
    assert connections([], EXTEND_API_KEYS=keys) == [("ws_a", "k1"), ("ws_b", "k2=")]
    assert connections(["ws_b"], EXTEND_API_KEYS=keys) == [("ws_b", "k2=")]
    assert connections(["ws_b", "ws_c"], EXTEND_API_KEYS=keys, EXTEND_API_KEY="k") == [("ws_b", "k2="), ("ws_c", "k")]
    with pytest.raises(UsageError, match="no API key"):
        connections(["ws_c"], EXTEND_API_KEYS=keys)


@pytest.mark.parametrize("keys", ["canary", "ws_a=k canary=x", "ws_a=k ws_a=canary", "ws_a= ", "ws_a/b=canary"])
def test_keys_that_are_not_pairs_are_refused_without_being_shown(keys: str) -> None:
    with pytest.raises(UsageError, match="EXTEND_API_KEYS") as caught:
        connections([], EXTEND_API_KEYS=keys)
    assert "canary" not in str(caught.value)
