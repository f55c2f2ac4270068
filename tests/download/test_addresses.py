"""What may be fetched, decided on URLs and addresses alone."""

from __future__ import annotations

import ipaddress

import pytest

from pipelines.download.addresses import Policy, Target, check_address, target
from pipelines.download.reasons import Failure, Reason

WEB = Policy(frozenset({80, 443}))
HOME = Policy(frozenset({80, 443}), allow_loopback=True, loopback_ports=frozenset({8741}))


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("file:///etc/passwd", Reason.URL_SCHEME),
        ("ftp://example.org/a.jpg", Reason.URL_SCHEME),
        ("gopher://example.org/", Reason.URL_SCHEME),
        ("data:image/png;base64,AAAA", Reason.URL_SCHEME),
        ("//example.org/a.jpg", Reason.URL_SCHEME),
        ("http:///a.jpg", Reason.URL_INVALID),
        ("http://exa mple.org/", Reason.URL_INVALID),
        ("http://example.org\\@127.0.0.1/", Reason.URL_INVALID),
        ("http://example.org/\r\nHost: other", Reason.URL_INVALID),
        ("http://example.org:99999/", Reason.URL_INVALID),
        ("http://exa%6dple.org/", Reason.URL_INVALID),
        ("http://[::1/", Reason.URL_INVALID),
        ("http://user:secret@example.org/", Reason.USERINFO_REFUSED),
        ("http://example.org:22/", Reason.PORT_REFUSED),
        ("http://2130706433/", Reason.ADDRESS_REFUSED),
        ("http://0x7f000001/", Reason.ADDRESS_REFUSED),
        ("http://0177.0.0.1/", Reason.ADDRESS_REFUSED),
        ("http://127.1/", Reason.ADDRESS_REFUSED),
        ("http://127.0.0.1./", Reason.ADDRESS_REFUSED),
        ("http://\uff12\uff11\uff13\uff10\uff17\uff10\uff16\uff14\uff13\uff13/", Reason.ADDRESS_REFUSED),
    ],
)
def test_a_url_that_is_no_plain_web_url_is_refused(url: str, reason: Reason) -> None:
    with pytest.raises(Failure) as caught:
        target(url, HOME)
    assert caught.value.reason == reason


def test_a_url_beyond_ascii_becomes_the_request_that_a_browser_sends() -> None:
    assert target("http://bücher.example/größe/图.jpg?q=é&r=%20#top", WEB) == Target(
        "http", "xn--bcher-kva.example", 80, "/gr%C3%B6%C3%9Fe/%E5%9B%BE.jpg?q=%C3%A9&r=%20"
    )


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.1", "10.0.0.1", "100.64.0.1", "127.0.0.1", "127.8.8.8", "169.254.169.254", "172.16.0.1",
        "192.168.1.1", "192.0.2.1", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255",
        "::", "::1", "fe80::1", "fe80::1%1", "fc00::1", "fd12::1", "ff02::1", "2001:db8::1",
        "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:8.8.8.8", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::a00:1",
        "2002:7f00:1::", "2001:0:7f00:1::", "fec0::1", "feff::1", "5f00::1", "4000::1", "3fff::1", "2001:20::1",
        "192.0.0.192", "192.0.0.9", "168.63.129.16", "192.88.99.1", "100.100.100.200", "fd00:ec2::254", "fd20:ce::254",
    ],
)  # fmt: skip
def test_an_address_that_is_not_public_is_refused(address: str) -> None:
    with pytest.raises(Failure) as caught:
        check_address(ipaddress.ip_address(address), 80, WEB)
    assert caught.value.reason == Reason.ADDRESS_REFUSED


@pytest.mark.parametrize("address", ["93.184.216.34", "1.1.1.1", "2606:2800:220:1:248:1893:25c8:1946"])
def test_a_public_address_is_allowed(address: str) -> None:
    check_address(ipaddress.ip_address(address), 443, WEB)


def test_allowing_loopback_allows_nothing_else() -> None:
    check_address(ipaddress.ip_address("127.0.0.1"), 8741, HOME)
    check_address(ipaddress.ip_address("::1"), 80, HOME)
    for address, port in [
        ("::ffff:127.0.0.1", 80), ("192.168.0.1", 80), ("127.0.0.1", 22), ("93.184.216.34", 8741),
    ]:  # fmt: skip
        with pytest.raises(Failure):
            check_address(ipaddress.ip_address(address), port, HOME)
