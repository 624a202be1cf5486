"""Which receivers are refused: the table of an attacker's URLs and addresses."""

from ipaddress import ip_address

import pytest

from api.webhooks.target import Refused, addresses, is_public, parse

PRIVATE = [
    "127.0.0.1",
    "127.255.255.254",
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "100.100.100.200",
    "192.0.0.192",
    "192.0.0.8",
    "192.0.2.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "192.88.99.1",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "168.63.129.16",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:8.8.8.8",
    "::ffff:0:127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::808:808",
    "64:ff9b:1::7f00:1",
    "100::1",
    "2001::1",
    "2001:0:7f00:1::",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:808:808::",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fec0::1",
    "ff02::1",
    "ff0e::1",
]
PUBLIC = ["8.8.8.8", "1.1.1.1", "93.184.216.34", "2606:4700::1111", "2a00:1450:4001::200e"]


@pytest.mark.parametrize("address", PRIVATE)
def test_addresses_that_are_not_of_the_public_internet(address: str) -> None:
    assert not is_public(ip_address(address))
    with pytest.raises(Refused):
        addresses(parse("https://receiver.example/", False), False, lambda *_: ["8.8.8.8", address])
    literal = f"[{address}]" if ":" in address else address
    with pytest.raises(Refused):
        parse(f"https://{literal}/", False)


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses(address: str) -> None:
    target = parse("https://receiver.example/x?y=1", False)
    assert addresses(target, False, lambda *_: [address]) == [address]
    assert (target.host, target.port, target.resource) == ("receiver.example", 443, "/x?y=1")


@pytest.mark.parametrize(
    "url",
    [
        "http://receiver.example/",
        "ftp://receiver.example/",
        "file:///etc/passwd",
        "gopher://receiver.example:443/_x",
        "//receiver.example/",
        "receiver.example",
        "https://",
        "https:///x",
        "https://user@receiver.example/",
        "https://user:pw@receiver.example/",
        "https://@receiver.example/",
        "https://8.8.8.8@127.0.0.1/",
        "https://receiver.example#@127.0.0.1/",
        "https://receiver.example\\@127.0.0.1/",
        "https://receiver.example:22/",
        "https://receiver.example:80/",
        "https://receiver.example:6379/",
        "https://receiver.example:0/",
        "https://receiver.example:99999/",
        "https://receiver.example:x/",
        "https://receiver.example/a b",
        "https://receiver.example/\r\nX-Injected: 1",
        "https://receiver.example/\x00",
        "https://bücher.example/",
        "https://①②⑦.0.0.1/",
        "https://receiver_example/",
        "https://-receiver.example/",
        "https://[::1/",
        "https://[fe80::1%25eth0]/",
        "https://%31%32%37.0.0.1/",
        "https://127.0.0.1/",
        "https://[::ffff:127.0.0.1]/",
        "https://receiver.example/" + "x" * 2000,
    ],
)
def test_urls_that_are_refused(url: str) -> None:
    with pytest.raises(Refused):
        parse(url, False)


@pytest.mark.parametrize("spelling", ["2130706433", "0x7f000001", "0x7f.1", "127.1", "017700000001", "localhost"])
def test_other_spellings_of_this_machine_resolve_to_it_and_are_refused(spelling: str) -> None:
    with pytest.raises(Refused):
        addresses(parse(f"https://{spelling}/", False), False)


def test_loopback_is_an_exception_for_this_machine_only() -> None:
    assert addresses(parse("http://localhost:5000/", True), True, lambda *_: ["127.0.0.1"]) == ["127.0.0.1"]
    for url in ("http://10.0.0.1/", "http://169.254.169.254/latest", "https://8.8.8.8:22/", "http://8.8.8.8/"):
        with pytest.raises(Refused):
            parse(url, True)
    with pytest.raises(Refused):
        addresses(parse("http://receiver.example/", True), True, lambda *_: ["8.8.8.8"])
