# SPDX-License-Identifier: Apache-2.0
"""Capture files to be received again and again: the packets for a forwarder, and the answers of its neighbours."""

import socket
import struct

OURS = bytes.fromhex("027063617000")  # net_pcap's first device
ROUTER = bytes.fromhex("0200000000fe")
VIP4, VIP6 = "10.200.0.100", "fd10:200::100"
SYN, ACK = 0x02, 0x10
TCP, UDP = 6, 17
SMALLEST = 60  # 64 bytes on the wire with the FCS


def packed(address):
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


def backend4(number):
    return f"10.200.{128 + number // 250}.{number % 250 + 1}"


def backend6(number):
    return f"fd10:200::1:{number:x}"


def backend_mac(number):
    return b"\x02\x00\x00\x01" + struct.pack("!H", number)


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data + b"\0" * (len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def arp_reply(number):
    mac = backend_mac(number)
    body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 2) + mac + packed(backend4(number)) + OURS + packed("10.200.0.2")
    return (OURS + mac + b"\x08\x06" + body).ljust(SMALLEST, b"\0")


def advertisement(number):
    mac, source, destination = backend_mac(number), packed(backend6(number)), packed("fd10:200::2")
    message = b"\x88\0\0\0\x60\0\0\0" + source + b"\x02\x01" + mac
    pseudo = source + destination + struct.pack("!II", len(message), 58)
    message = message[:2] + struct.pack("!H", checksum(pseudo + message)) + message[4:]
    return OURS + mac + b"\x86\xdd" + struct.pack("!IHBB", 0x60000000, len(message), 58, 255) + source + destination + message


def client_frames(family, protocol, flows, flags=ACK, first=0):
    """One frame per flow, as small as the family allows: a different client each, one port. `first`: the first client."""
    if protocol == TCP:
        transport = struct.pack("!HHIIBBHHH", 40000, 80, 1, 2, 0x50, flags, 8192, 0xBEEF, 0)
    else:
        transport = struct.pack("!HHHH", 40000, 53, 8, 0)
    if family == 4:
        after = packed(VIP4) + transport
        padding = b"\0" * (SMALLEST - 34 - len(transport))
        head = struct.pack("!BBHHHBB", 0x45, 0, 20 + len(transport), 7, 0, 61, protocol)
        for i in range(flows):
            source = struct.pack("!I", 0x0B000000 + first + i)
            header = head + b"\0\0" + source + after[:4]
            yield OURS + ROUTER + b"\x08\x00" + head + struct.pack("!H", checksum(header)) + source + after + padding
    else:
        before = OURS + ROUTER + b"\x86\xdd" + struct.pack("!IHBB", 0x60000000, len(transport), protocol, 61) + packed("2001:db8::")[:12]
        after = packed(VIP6) + transport
        for i in range(flows):
            yield before + struct.pack("!I", first + i + 1) + after


def write_capture(path, family, protocol, flows, backends, flags=ACK, first=0):
    """Returns the number of frames in the file."""
    frames = 0
    with open(path, "wb", 1 << 20) as out:
        out.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
        answers = [answer(i) for i in range(backends) for answer in (arp_reply, advertisement)]
        for group in (answers, client_frames(family, protocol, flows, flags, first)):
            for frame in group:
                out.write(struct.pack("<IIII", 0, 0, len(frame), len(frame)) + frame)
                frames += 1
    return frames
