#!/usr/bin/env python3
"""Makes what is missing of the cluster's keys and certificates; prints {"made": [...], "digest": "..."}.

Reads its specification (defaults/main.yml) from standard input. `cryptography` is there wherever Ansible is.
"""

import base64
import datetime as dt
import hashlib
import ipaddress
import json
import os
import secrets
import sys
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

NOW = dt.datetime.now(dt.UTC)
RENEW_BEFORE = dt.timedelta(days=30)
USAGE = {"server": ExtendedKeyUsageOID.SERVER_AUTH, "client": ExtendedKeyUsageOID.CLIENT_AUTH}


class Pki:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made: list[str] = []
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)

    def write(self, path: Path, data: bytes) -> None:
        """Whole or not at all: a run stopped here leaves no half of a key."""
        partial = path.with_name(path.name + ".new")
        partial.write_bytes(data)
        partial.chmod(0o600)
        partial.replace(path)
        self.made.append(path.name)

    def key(self, name: str, make=lambda: ec.generate_private_key(ec.SECP256R1())):
        path = self.folder / f"{name}.key"
        if not path.exists():
            pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
            self.write(path, make().private_bytes(pem, pkcs8, serialization.NoEncryption()))
        return serialization.load_pem_private_key(path.read_bytes(), None)

    def certificate(self, name: str) -> x509.Certificate | None:
        path = self.folder / f"{name}.crt"
        return x509.load_pem_x509_certificate(path.read_bytes()) if path.exists() else None

    def authority(self, name: str, cn: str) -> None:
        key = self.key(name)
        if self.certificate(name):
            return
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, cn)])
        builder = self._builder(subject, subject, key, days=3650)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        builder = builder.add_extension(_key_usage(signs_certificates=True), critical=True)
        self._sign(builder, key, name)

    def leaf(self, spec: dict) -> None:
        name, issuer = spec["name"], self.certificate(spec["ca"])
        key, old = self.key(name), self.certificate(name)
        if old and old.issuer == issuer.subject and old.not_valid_after_utc - NOW > RENEW_BEFORE:
            return
        attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, spec["o"])] if "o" in spec else []
        subject = x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, spec["cn"])])
        builder = self._builder(subject, issuer.subject, key, days=365)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_key_usage(signs_certificates=False), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([USAGE[u] for u in spec["usage"]]), critical=False)
        names = [x509.DNSName(n) for n in spec.get("dns", [])]
        names += [x509.IPAddress(ipaddress.ip_address(a)) for a in spec.get("ip", [])]
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        self._sign(builder, self.key(spec["ca"]), name)

    def _builder(self, subject, issuer, key, days: int) -> x509.CertificateBuilder:
        builder = x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        return builder.not_valid_before(NOW - dt.timedelta(minutes=5)).not_valid_after(NOW + dt.timedelta(days=days))

    def _sign(self, builder, key, name: str) -> None:
        """`key` is the issuer's."""
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())
        builder = builder.add_extension(identifier, critical=False)
        pem = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        self.write(self.folder / f"{name}.crt", pem)

    def kubeconfig(self, path: Path, server: str, contexts: list[dict]) -> None:
        def data(file: str) -> str:
            return base64.b64encode((self.folder / file).read_bytes()).decode()

        cluster = {"server": server, "certificate-authority-data": data("ca.crt")}
        users = [
            {"name": c["name"], "user": {
                "client-certificate-data": data(f"{c['certificate']}.crt"),
                "client-key-data": data(f"{c['certificate']}.key")}}
            for c in contexts
        ]  # fmt: skip
        content = {
            "apiVersion": "v1", "kind": "Config", "current-context": contexts[0]["name"],
            "clusters": [{"name": "lab", "cluster": cluster}], "users": users,
            "contexts": [{"name": c["name"], "context": {"cluster": "lab", "user": c["name"]}} for c in contexts],
        }  # fmt: skip
        text = (json.dumps(content, indent=1) + "\n").encode()
        if not path.exists() or path.read_bytes() != text:
            self.write(path, text)

    def service_account_key(self) -> None:
        key = self.key("sa", lambda: rsa.generate_private_key(65537, 2048))
        if not (self.folder / "sa.pub").exists():
            spki = serialization.PublicFormat.SubjectPublicKeyInfo
            self.write(self.folder / "sa.pub", key.public_key().public_bytes(serialization.Encoding.PEM, spki))

    def encryption_key(self) -> None:
        """Secrets are encrypted in etcd; the key never changes here, an older Secret must stay readable."""
        path = self.folder / "encryption.yaml"
        if path.exists():
            return
        key = {"name": "k1", "secret": base64.b64encode(secrets.token_bytes(32)).decode()}
        providers = [{"secretbox": {"keys": [key]}}, {"identity": {}}]
        content = {
            "apiVersion": "apiserver.config.k8s.io/v1", "kind": "EncryptionConfiguration",
            "resources": [{"resources": ["secrets"], "providers": providers}],
        }  # fmt: skip
        self.write(path, json.dumps(content).encode())

    def digest(self) -> str:
        """Of the certificates: daemons are restarted when it changes."""
        return hashlib.sha256(b"".join(p.read_bytes() for p in sorted(self.folder.glob("*.crt")))).hexdigest()[:16]


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates, key_cert_sign=signs_certificates, crl_sign=signs_certificates,
        content_commitment=False, key_encipherment=False, data_encipherment=False, key_agreement=False,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip


def main() -> None:
    os.umask(0o077)
    spec = json.load(sys.stdin)
    pki = Pki(Path(spec["dir"]))
    for authority in spec["authorities"]:
        pki.authority(**authority)
    for certificate in spec["certificates"]:
        pki.leaf(certificate)
        if certificate.get("kubeconfig"):
            name = certificate["name"]
            contexts = [{"name": name, "certificate": name}]
            pki.kubeconfig(pki.folder / f"{name}.kubeconfig", spec["server"], contexts)
    pki.kubeconfig(Path(spec["kubeconfig"]["path"]), spec["server"], spec["kubeconfig"]["contexts"])
    pki.service_account_key()
    pki.encryption_key()
    print(json.dumps({"made": pki.made, "digest": pki.digest()}))


if __name__ == "__main__":
    main()
