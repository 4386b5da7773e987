#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""open_loop.py ADDRESS HOST PATH RATE SECONDS [FIELD...]: sends requests at the times that the rate names, each on a connection of
its own, whether or not others are answered. So a slow server gets as many as a fast one. Prints JSON: for each request
[status, Retry-After or null, seconds from the time at which it was due to the end of its answer]. Status 0: it failed.
Once the load begins, it says "begins"."""

import asyncio
import json
import sys

WAIT_S = 20


async def exchange(address, request):
    reader, writer = await asyncio.open_connection(address, 80)
    try:
        writer.write(request)
        head, _, _ = (await reader.read(-1)).decode().partition("\r\n\r\n")
    finally:
        writer.close()
    status, *lines = head.split("\r\n")
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return int(status.split()[1]), fields.get("retry-after")


async def ask(loop, due, address, request):
    try:
        status, retry_after = await asyncio.wait_for(exchange(address, request), WAIT_S)
    except (OSError, IndexError, ValueError, asyncio.TimeoutError):
        status, retry_after = 0, None
    return status, retry_after, loop.time() - due


async def load(address, host, path, rate, seconds, *fields):
    loop = asyncio.get_running_loop()
    lines = (f"GET {path} HTTP/1.1", f"Host: {host}", "Connection: close", *fields)
    request = "".join(line + "\r\n" for line in (*lines, "")).encode()
    begin, asked = loop.time(), []
    print("begins", flush=True)
    for i in range(int(rate * seconds)):
        due = begin + i / rate
        await asyncio.sleep(max(0.0, due - loop.time()))
        asked.append(asyncio.create_task(ask(loop, due, address, request)))
    return await asyncio.gather(*asked)


if __name__ == "__main__":
    print(json.dumps(asyncio.run(load(*sys.argv[1:4], float(sys.argv[4]), float(sys.argv[5]), *sys.argv[6:]))))
