# SPDX-License-Identifier: Apache-2.0
"""A signed token (JWT, ES256) for the rows that check one, made by openssl's own command."""

import base64
import functools
import json
import subprocess
import tempfile
import time
from pathlib import Path


def encoded(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Issuer:
    """A key of P-256: `public` is its PEM file, `jwks` the same as a JWK set, `token` a token that is good for a day."""

    def __init__(self):
        self.home = tempfile.TemporaryDirectory(prefix="tidegate-bench-issuer-")
        folder = Path(self.home.name)
        folder.chmod(0o755)
        key, self.public, self.jwks = folder / "key.pem", folder / "public.pem", folder / "keys.json"
        openssl = lambda *arguments, **options: subprocess.run(["openssl", *arguments], check=True, capture_output=True, **options).stdout
        openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", key)
        openssl("pkey", "-in", key, "-pubout", "-out", self.public)
        point = openssl("pkey", "-in", key, "-pubout", "-outform", "DER")[-64:]
        jwk = {"kty": "EC", "crv": "P-256", "kid": "bench", "x": encoded(point[:32]), "y": encoded(point[32:])}
        self.jwks.write_text(json.dumps({"keys": [jwk]}))
        claims = {"sub": "bench", "iss": "https://id.test", "aud": "api", "exp": int(time.time()) + 86_400}
        text = ".".join(encoded(json.dumps(part).encode()) for part in ({"alg": "ES256", "typ": "JWT", "kid": "bench"}, claims))
        self.token = f"{text}.{encoded(raw_signature(openssl('dgst', '-sha256', '-sign', key, input=text.encode())))}"


def raw_signature(der):
    """Of DER's two integers, 32 bytes each (RFC 7518 §3.4)."""
    numbers, at = [], 2
    for _ in range(2):
        length = der[at + 1]
        numbers.append(der[at + 2 : at + 2 + length].lstrip(b"\0").rjust(32, b"\0"))
        at += 2 + length
    return b"".join(numbers)


@functools.cache
def issuer():
    return Issuer()
