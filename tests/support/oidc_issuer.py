"""An OpenID provider of one user after another: discovery, keys, an authorization endpoint that asks nothing, tokens.

Tokens are JSON Web Tokens (RFC 7519), signed with RS256, as Keycloak or Dex give them.
"""

import base64
import json
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import parse_qs, urlencode, urlsplit

from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256

KEY_ID: Final = "one"


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _number(value: int) -> str:
    return _base64url(value.to_bytes((value.bit_length() + 7) // 8, "big"))


@dataclass(slots=True)
class Issuer:
    """Who signs; `user` is who signs in next, `codes` what of each authorization code is to become a token."""

    url: str
    client_id: str
    user: str = "ada"
    key: rsa.RSAPrivateKey = field(default_factory=lambda: rsa.generate_private_key(65537, 2048))
    codes: dict[str, dict[str, Any]] = field(default_factory=dict)

    def token(
        self, user: str, *, audience: str | None = None, lives_s: float = 600, key: Any = None, has_email: bool = True
    ) -> str:
        """A token of this user; of another audience, dead already, or signed by somebody else, if asked for."""
        now = time.time()
        claims = {"iss": self.url, "aud": audience or self.client_id, "sub": user, "iat": now - 3600}
        claims |= {"exp": now + lives_s}
        if has_email:
            claims |= {"email": f"{user}@example.com", "email_verified": True}
        return self.signed(claims, key)

    def signed(self, claims: dict[str, Any], key: Any = None) -> str:
        """These claims as a token."""
        head = {"alg": "RS256", "kid": KEY_ID, "typ": "JWT"}
        whole = {name: int(value) if isinstance(value, float) else value for name, value in claims.items()}
        signed = ".".join(_base64url(json.dumps(part).encode()) for part in (head, whole))
        signature = (key or self.key).sign(signed.encode(), padding.PKCS1v15(), SHA256())
        return f"{signed}.{_base64url(signature)}"

    def document(self) -> dict[str, Any]:
        """What `/.well-known/openid-configuration` says (OpenID Connect Discovery 1.0)."""
        places = {"authorization_endpoint": "authorize", "token_endpoint": "token", "jwks_uri": "keys"}
        return {
            "issuer": self.url,
            **{name: f"{self.url}/{place}" for name, place in places.items()},
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
        }

    def keys(self) -> dict[str, Any]:
        """The public key (RFC 7517)."""
        public = self.key.public_key().public_numbers()
        key = {"kty": "RSA", "kid": KEY_ID, "use": "sig", "alg": "RS256"}
        return {"keys": [key | {"n": _number(public.n), "e": _number(public.e)}]}

    def authorize(self, query: dict[str, str]) -> str:
        """Where a browser goes on, once it has signed in."""
        code = _base64url(f"{self.user}-{len(self.codes)}".encode())
        self.codes[code] = {"user": self.user, "nonce": query.get("nonce")}
        return f"{query['redirect_uri']}?{urlencode({'code': code, 'state': query['state']})}"

    def exchange(self, form: dict[str, str]) -> dict[str, Any]:
        """Tokens for a code."""
        asked = self.codes.pop(form["code"])
        now = time.time()
        user = asked["user"]
        claims = {"iss": self.url, "aud": self.client_id, "sub": user, "iat": now, "exp": now + 600}
        claims |= {"email": f"{user}@example.com", "email_verified": True}
        if asked["nonce"]:
            claims["nonce"] = asked["nonce"]
        token = self.signed(claims)
        return {"access_token": token, "id_token": token, "token_type": "Bearer", "expires_in": 600}


@contextmanager
def issuing(port: int, client_id: str) -> Generator[Issuer]:
    """An issuer on this port of 127.0.0.1."""
    issuer = Issuer(f"http://127.0.0.1:{port}", client_id)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            url = urlsplit(self.path)
            query = {name: values[-1] for name, values in parse_qs(url.query).items()}
            if url.path == "/authorize":
                self.send_response(302)
                self.send_header("Location", issuer.authorize(query))
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self._answer({"/.well-known/openid-configuration": issuer.document, "/keys": issuer.keys}[url.path]())

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            self._answer(issuer.exchange({name: values[-1] for name, values in parse_qs(body).items()}))

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name of the base class
            """Say nothing."""

        def _answer(self, value: dict[str, Any]) -> None:
            body = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield issuer
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
