"""Which addresses may be asked: every spelling of a private one is refused, and what was checked is connected to."""

from __future__ import annotations

import asyncio
import ipaddress
import socket

import pytest
from every import every

from comfy_scoft.data.download.address import CheckedResolver, LinkError, check_url, is_public, system_lookup

PUBLIC = ["1.1.1.1", "8.8.8.8", "93.184.216.34", "2606:4700:4700::1111", "2a00:1450:4001:82a::200e", "64:ff9b::8.8.8.8"]
PUBLIC += ["::ffff:8.8.8.8", "2a00:1450:4001:82a:0:5efe:808:808"]
PRIVATE = [
    *("127.0.0.1", "127.255.255.254", "0.0.0.0", "0.1.2.3", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1"),  # noqa: S104
    *("169.254.169.254", "100.64.0.1", "100.100.100.200", "192.0.0.1", "192.0.0.8", "192.0.2.1", "198.18.0.1"),
    *("198.51.100.7", "203.0.113.9", "192.88.99.1", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255"),
    *("168.63.129.16", "::", "::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::7f00:1"),
    *("64:ff9b::127.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "2002:7f00:1::", "2002:808:808::", "2001::1"),
    *("2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:db8::1", "3fff::1", "fc00::1", "fd00:ec2::254", "fe80::1"),
    *("fe80::1%eth0", "2606:4700::1%eth0", "fec0::1", "ff02::1", "100::1", "5f00::1", "4000::1"),
    *("2a00:1450:4001:82a:0:5efe:7f00:1", "2a00:1450:4001:82a:200:5efe:a00:1"),
]


@every("text", PUBLIC)
def test_public_addresses_may_be_asked(text):
    assert is_public(ipaddress.ip_address(text))


@every("text", PRIVATE)
def test_private_and_special_addresses_may_not(text):
    assert not is_public(ipaddress.ip_address(text))


@every("network", ["127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16"])
def test_no_address_of_a_private_network_is_public_in_any_wrapping(network):
    net = ipaddress.IPv4Network(network)
    step = max(1, net.num_addresses // 200)
    for number in [*range(0, net.num_addresses, step), net.num_addresses - 1]:
        address = net[number]
        wrapped = [f"::ffff:{address}", f"64:ff9b::{address}", f"::{address}"]
        assert not any(is_public(ipaddress.ip_address(text)) for text in [str(address), *wrapped])


@every(
    "url",
    [
        *(f"http://[{text}]/a.jpg" if ":" in text else f"http://{text}/a.jpg" for text in PRIVATE if "%" not in text),
        "http://2130706433/a.jpg",
        "http://017700000001/a.jpg",
        "http://0x7f000001/a.jpg",
        "http://0x7f.0.0.1/a.jpg",
        "http://0177.0.0.1/a.jpg",
        "http://127.1/a.jpg",
        "http://127.0.1/a.jpg",
        "http://127.0.0.1./a.jpg",
        "http://0/a.jpg",
        "http://１２７.0.0.1/a.jpg",
        "http://①②⑦.⓪.⓪.①/a.jpg",
        "http://127。0。0。1/a.jpg",
        "http://[fe80::1%25eth0]/a.jpg",
        "http://[fe80::1%eth0]/a.jpg",
        "http://[::ffff:7f00:1]/a.jpg",
        "http://[0:0:0:0:0:0:0:1]/a.jpg",
        "http://a.jpg@127.0.0.1/",
        "http://user:pass@93.184.216.34/a.jpg",
        "http://93.184.216.34\\@127.0.0.1/a.jpg",
        "http://93.184.216.34:22/a.jpg",
        "https://93.184.216.34:8443/a.jpg",
        "http://93.184.216.34:0/a.jpg",
        "http://93.184.216.34:99999/a.jpg",
        "ftp://93.184.216.34/a.jpg",
        "file:///etc/passwd",
        "file://93.184.216.34/etc/passwd",
        "gopher://93.184.216.34/a.jpg",
        "data:image/png;base64,AAAA",
        "javascript:alert(1)",
        "//93.184.216.34/a.jpg",
        "/etc/passwd",
        "a.jpg",
        "http://",
        "http:///a.jpg",
        "http://[::1/a.jpg",
        "http://a b/a.jpg",
        "http://a\r\nHost: b/a.jpg",
        "http://exa\0mple.com/",
        "http://" + "x" * 5000,
        "",
        "http://%31%32%37.0.0.1/a.jpg",
    ],
)
def test_a_link_that_leads_anywhere_else_is_refused_in_a_sentence(url):
    with pytest.raises(LinkError) as error:
        check_url(url, (80, 443), is_public)
    text = str(error.value)
    assert text.endswith(".") and text.isprintable() and ". " not in text and len(text) < 300
    assert not error.value.retry


@every(
    "url",
    ["https://example.org/a.jpg", "http://93.184.216.34/a.jpg", "http://[2606:4700:4700::1111]/a", "HTTP://EXAMPLE.ORG"]
    + ["https://bücher.example/ä b.jpg?x=ü#y", "http://example.org:80/a", " https://under_score.example.org./a.jpg "],
)
def test_ordinary_links_pass(url):
    assert check_url(url, (80, 443), is_public).scheme in ("http", "https")


def resolve(answers, host="images.test"):
    async def lookup(name, port):
        return answers

    return asyncio.run(CheckedResolver(is_public, lookup).resolve(host, 80))


@every("text", PRIVATE)
def test_a_name_that_resolves_to_a_private_address_is_refused_even_beside_a_public_one(text):
    for answers in ([text], ["93.184.216.34", text], [text, "2606:4700:4700::1111"]):
        with pytest.raises(LinkError, match="^The host images.test is at .* not on the public internet"):
            resolve(answers)


def test_a_public_name_resolves_to_its_numbers_and_nothing_is_left_to_look_up():
    found = resolve(["93.184.216.34", "2606:4700:4700::1111", "93.184.216.34"])
    assert [(entry["host"], entry["family"]) for entry in found] == [
        ("93.184.216.34", socket.AF_INET),
        ("2606:4700:4700::1111", socket.AF_INET6),
    ]
    assert all(entry["flags"] & socket.AI_NUMERICHOST for entry in found)


def test_a_name_without_an_address_is_an_error_of_the_net():
    with pytest.raises(OSError, match="has no address"):
        resolve([])


def test_the_systems_own_names_for_this_machine_are_refused():
    with pytest.raises(LinkError, match="not on the public internet"):
        asyncio.run(CheckedResolver(is_public, system_lookup).resolve("localhost", 80))
