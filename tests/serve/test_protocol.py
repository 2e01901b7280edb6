from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gsth.errors import InputError
from gsth.serve import protocol
from gsth.serve.protocol import File, Hello, Key, Listen

ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


def test_messages_are_what_they_say() -> None:
    assert protocol.parse('{"do": "hello", "visitor": 3, "state": "x"}') == Hello(3, "x")
    assert protocol.parse('{"do": "key", "name": "play"}') == Key("play")
    assert protocol.parse('{"do": "file", "name": "a.wav", "size": 7}') == File("a.wav", 7)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not JSON"),
        ("[" * 50_000, "not JSON"),
        ("[]", "no known kind"),
        ('{"do": "format_disk"}', "no known kind"),
        ('{"do": ["key"]}', "no known kind"),
        ('{"do": "hello"}', "lacks visitor"),
        ('{"do": "hello", "visitor": true}', "visitor is no int"),
        ('{"do": "hello", "visitor": "1"}', "visitor is no int"),
        ('{"do": "key", "name": "../x"}', "no shortcut"),
        ('{"do": "file", "name": "a.wav", "size": 0}', "1 to 64 MiB"),
        ('{"do": "file", "name": "a.wav", "size": 99999999999}', "1 to 64 MiB"),
        ('{"do": "listen", "rate": 1}', "rate is 1"),
        ('{"do": "key", "name": "' + "x" * 70_000 + '"}', "at most"),
    ],
)
def test_what_is_no_message_is_refused(text: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        protocol.parse(text)


@given(st.text(max_size=80) | st.dictionaries(st.sampled_from(["do", "visitor", "name", "size", "rate", "on"]), ANY))
@settings(max_examples=300, deadline=None)
def test_random_messages_are_understood_or_refused(given_message: object) -> None:
    text = given_message if isinstance(given_message, str) else json.dumps(given_message)
    with contextlib.suppress(InputError):
        message = protocol.parse(text)
        assert isinstance(message, protocol.Message)
        assert not isinstance(message, Listen) or message.rate >= 8000


@given(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=8) | st.lists(st.integers(), max_size=4)))
def test_states_survive_the_address(state: dict) -> None:
    packed = protocol.pack_state(state)
    assert protocol.unpack_state(packed) == state
    assert set(packed) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


@given(st.text(max_size=60))
def test_other_addresses_are_refused(text: str) -> None:
    with contextlib.suppress(InputError):
        assert isinstance(protocol.unpack_state(text), dict)
