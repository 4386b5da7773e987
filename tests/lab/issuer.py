# SPDX-License-Identifier: Apache-2.0
"""An issuer of tokens (JWT), made of openssl's own command."""

import base64
import json
import subprocess


def encoded(data):
    return base64.urlsafe_b64encode(data if isinstance(data, bytes) else json.dumps(data).encode()).rstrip(b"=").decode()


class Issuer:
    """Signs tokens with openssl's own command, and writes its key as a JWK set."""

    def __init__(self, directory, name="issuer"):
        self.name, self.key, self.keys = name, directory / f"{name}.pem", directory / f"{name}.json"
        subprocess.run(["openssl", "genpkey", "-quiet", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", self.key], check=True)
        modulus = subprocess.run(["openssl", "rsa", "-in", self.key, "-noout", "-modulus"], check=True, capture_output=True).stdout
        number = bytes.fromhex(modulus.decode().strip().split("=")[1])
        self.keys.write_text(json.dumps({"keys": [{"kty": "RSA", "kid": name, "n": encoded(number), "e": "AQAB"}]}))

    def token(self, **claims):
        text = encoded({"alg": "RS256", "kid": self.name}) + "." + encoded(claims)
        signed = subprocess.run(["openssl", "dgst", "-sha256", "-sign", self.key], input=text.encode(), check=True, capture_output=True)
        return text + "." + encoded(signed.stdout)
