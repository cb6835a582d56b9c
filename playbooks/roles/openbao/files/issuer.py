"""Keep an issuer in OpenBao: issuer.py RECOVERY JWT_COMMAND CA CA_KEY NAMES EXEC... <SCRIPT. Prints what it changed.

SCRIPT (templates/issuer.sh.j2) makes the engine `pki` and its role. Then the issuer is looked at: it must come from the
CA and hold for another year, for exactly these NAMES (with commas). If not, OpenBao makes a key, which never leaves it,
and the CA signs its request. Whoever trusts the CA trusts the issuer, so it is bound twice (RFC 5280): extended key
usage `serverAuth`, that it cannot make a client of the API server, and name constraints, that it is no other server.
"""

from __future__ import annotations

import datetime as dt
import json
import sys
from pathlib import Path

from configure import session
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import ExtendedKeyUsageOID

DAYS = 5 * 365
RENEW_BEFORE = dt.timedelta(days=365)
NOW = dt.datetime.now(dt.UTC)
REQUEST = "bao write -field=csr pki/intermediate/generate/internal common_name='{}' key_type=ec key_bits=256"
LOOK = "bao read -field=certificate pki/cert/ca 2>/dev/null || true"
INSTALL = "bao write -format=json pki/intermediate/set-signed certificate=- <<'PEM'\n{}PEM\n"
USE = "bao write pki/config/issuers default={} >/dev/null"


def main() -> None:
    """Prepare, look, and where needed request, sign, install."""
    recovery, jwt_command, authority, key = (
        Path(sys.argv[1]),
        json.loads(sys.argv[2]),
        Path(sys.argv[3]),
        Path(sys.argv[4]),
    )
    names, command, script = sys.argv[5].split(","), sys.argv[6:], sys.stdin.read()
    ca = x509.load_pem_x509_certificate(authority.read_bytes())
    with session(command, recovery, jwt_command) as shell:
        print(shell(script), end="")
        if good(shell(LOOK), ca, names):
            return
        request = x509.load_pem_x509_csr(shell(REQUEST.format(f"Issuer of {names[0]}"[:64])).encode())
        signed = sign(request, ca, serialization.load_pem_private_key(key.read_bytes(), None), names)
        pem = signed.public_bytes(serialization.Encoding.PEM).decode()
        (issuer,) = json.loads(shell(INSTALL.format(pem)))["data"]["imported_issuers"]
        shell(USE.format(issuer))
    print(f"issuer for {', '.join(names)}, until {signed.not_valid_after_utc:%Y-%m-%d}")


def good(pem: str, ca: x509.Certificate, names: list[str]) -> bool:
    """Whether the CA signed it, for these names, and it holds for another year, or as long as the CA itself."""
    if not pem.strip():
        return False
    found = x509.load_pem_x509_certificate(pem.encode())
    try:
        found.verify_directly_issued_by(ca)
        allowed = found.extensions.get_extension_for_class(x509.NameConstraints).value.permitted_subtrees or []
    except (InvalidSignature, ValueError, TypeError, x509.ExtensionNotFound):
        return False
    lasts = found.not_valid_after_utc
    return {n.value for n in allowed} == set(names) and (lasts - NOW > RENEW_BEFORE or lasts >= ca.not_valid_after_utc)


def sign(request: x509.CertificateSigningRequest, ca: x509.Certificate, key, names: list[str]) -> x509.Certificate:
    """Five years, but no longer than the CA."""
    usage = dict.fromkeys(
        (
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    extensions = [
        (x509.BasicConstraints(ca=True, path_length=0), True),
        (x509.KeyUsage(digital_signature=True, key_cert_sign=True, crl_sign=True, **usage), True),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
        (x509.NameConstraints([x509.DNSName(name) for name in names], None), True),
        (x509.SubjectKeyIdentifier.from_public_key(request.public_key()), False),
        (x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.public_key()), False),
    ]
    builder = x509.CertificateBuilder(
        ca.subject, request.subject, request.public_key(), x509.random_serial_number(),
        NOW - dt.timedelta(minutes=5), min(NOW + dt.timedelta(days=DAYS), ca.not_valid_after_utc),
    )  # fmt: skip
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    return builder.sign(key, hashes.SHA256())


if __name__ == "__main__":
    main()
