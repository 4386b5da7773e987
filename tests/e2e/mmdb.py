# SPDX-License-Identifier: Apache-2.0
"""Writes a small MaxMind database (format 2.0, https://maxmind.github.io/MaxMind-DB/): networks and where they are."""

import ipaddress
import struct

MAP, TEXT, DOUBLE, UINT16, UINT32 = 7, 2, 3, 5, 6
UINT64, ARRAY = 9, 11  # extended types: the type number less 7 is in a separate byte


def _head(kind, size):
    assert size < 29
    return bytes([kind << 5 | size]) if kind < 8 else bytes([size, kind - 7])


def _encode(value):
    if isinstance(value, dict):
        return _head(MAP, len(value)) + b"".join(_encode(k) + _encode(v) for k, v in value.items())
    if isinstance(value, list):
        return _head(ARRAY, len(value)) + b"".join(map(_encode, value))
    if isinstance(value, str):
        return _head(TEXT, len(value.encode())) + value.encode()
    if isinstance(value, float):
        return _head(DOUBLE, 8) + struct.pack(">d", value)
    kind, number = value
    return _head(kind, len(number)) + number


def _unsigned(kind, number):
    return kind, number.to_bytes((number.bit_length() + 7) // 8, "big")


def database(places):
    """The bytes of a database of {network: (latitude, longitude)}, or with a country behind, IPv4 and IPv6 in one tree.
    Networks do not overlap."""
    nodes, records = [[None, None]], []
    for network, (latitude, longitude, *country) in places.items():
        net = ipaddress.ip_network(network)
        bits = int(net.network_address)  # IPv4 addresses are at ::/96
        length = net.prefixlen + (96 if net.version == 4 else 0)
        records.append({"location": {"latitude": float(latitude), "longitude": float(longitude)}})
        if country:
            records[-1]["country"] = {"iso_code": country[0]}
        at = 0
        for depth in range(length):
            side = bits >> (127 - depth) & 1
            if depth == length - 1:
                nodes[at][side] = ("record", len(records) - 1)
            elif nodes[at][side] is None:
                nodes.append([None, None])
                nodes[at][side] = at = len(nodes) - 1
            else:
                at = nodes[at][side]
    offsets, data = [], b""
    for record in records:
        offsets.append(len(data))
        data += _encode(record)

    def pointer(side):
        if side is None:
            return len(nodes)
        return len(nodes) + 16 + offsets[side[1]] if isinstance(side, tuple) else side

    tree = b"".join(pointer(side).to_bytes(3, "big") for node in nodes for side in node)
    about = {
        "node_count": _unsigned(UINT32, len(nodes)),
        "record_size": _unsigned(UINT16, 24),
        "ip_version": _unsigned(UINT16, 6),
        "database_type": "Lab-City",
        "languages": ["en"],
        "binary_format_major_version": _unsigned(UINT16, 2),
        "binary_format_minor_version": _unsigned(UINT16, 0),
        "build_epoch": _unsigned(UINT64, 1_767_225_600),
        "description": {"en": "places of the lab"},
    }
    return tree + bytes(16) + data + b"\xab\xcd\xefMaxMind.com" + _encode(about)
