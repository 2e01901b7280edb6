"""C2PA content credentials: a signed statement inside a file that it is AI-generated, by which tool and version.

Signed with a key of this machine, made at first use, or with the user's own: ``chain.pem`` (the certificate, then what
signed it) and ``key.pem`` in ``gsth/signing`` of the user's config folder, or in the folder that GSTH_SIGNING names.
A key of this machine proves that a file did not change since it was signed, and that several were signed by one
machine; who that is, only a certificate of an authority says.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gsth import artifacts
from gsth.errors import InputError, MissingExtraError, writes

MIMES = {".mp4": "video/mp4", ".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp"}
"""Endings of what can be signed and read."""
LABEL = "gsth.provenance"
"""Of gsth's own assertion in a manifest."""
AI_GENERATED = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
ALGORITHMS = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}
VALID_DAYS = 3650
CLOCK_SLACK = datetime.timedelta(days=2)
"""Certificates begin so long ago, for machines whose clock goes wrong by a time zone, or is set back."""


@dataclass(frozen=True)
class Credentials:
    """What a file's manifest says."""

    state: Literal["intact", "changed"]
    """changed: the file, or the manifest, is not what was signed."""
    tool: str
    ai_generated: bool
    signer: str
    trusted: bool
    """Whether an authority vouches for the signer."""
    said: dict[str, Any]
    """gsth's own assertion; empty in files of other tools."""


def library() -> Any:
    """The module c2pa.

    Raises:
        MissingExtraError: It is absent.
    """
    try:
        import c2pa
    except ImportError as error:
        raise MissingExtraError(
            "c2pa-python", "trust", "signing with content credentials (gsth drive --no-credentials omits it)"
        ) from error
    return c2pa


def sign(source: Path, out: Path, suffix: str, said: dict[str, Any]) -> None:
    """Write ``source`` with content credentials to ``out``, an ordinary file that need not exist.

    Args:
        source: A whole file of the format that ``suffix`` names.
        out: Where the signed copy goes.
        suffix: One of ``MIMES``.
        said: What gsth's own assertion holds, JSON.

    Raises:
        InputError: The signing key or certificate cannot be used.
        MissingExtraError: c2pa-python is absent.
    """
    c2pa = library()
    version = artifacts.gsth_version()
    manifest = {
        "claim_generator_info": [{"name": "gsth", "version": version}],
        "format": MIMES[suffix],
        "assertions": [
            {
                "label": "c2pa.actions.v2",
                "data": {
                    "actions": [
                        {
                            "action": "c2pa.created",
                            "digitalSourceType": AI_GENERATED,
                            "softwareAgent": {"name": "gsth", "version": version},
                        }
                    ]
                },
            },
            {"label": LABEL, "data": said},
        ],
    }
    try:
        with _signer(c2pa) as signer, c2pa.Builder(json.dumps(manifest)) as builder:
            with source.open("rb") as given, out.open("w+b") as made:
                builder.sign(signer, MIMES[suffix], given, made)
    except c2pa.C2paError as error:
        raise InputError(
            f"{signing_folder()}: content credentials cannot be signed with what lies there ({error})"
        ) from error


def read(path: Path) -> Credentials | None:
    """The credentials of a file, or None where it has none.

    Raises:
        InputError: The file is of a kind that cannot carry any, or is damaged beyond reading.
        MissingExtraError: c2pa-python is absent.
    """
    c2pa = library()
    mime = MIMES.get(path.suffix.lower())
    if mime is None:
        raise InputError(f"{path}: cannot hold content credentials; wanted one of {', '.join(MIMES)}")
    try:
        with path.open("rb") as file, c2pa.Reader(mime, file) as reader:
            told, state = json.loads(reader.json()), reader.get_validation_state()
    except c2pa.C2paError as error:
        if "ManifestNotFound" in type(error).__name__ or "ManifestNotFound" in str(error) or "no JUMBF" in str(error):
            return None
        raise InputError(f"{path}: its content credentials cannot be read ({error})") from error
    return _understood(told, state)


def signing_folder() -> Path:
    """Where key and certificate lie."""
    if named := os.environ.get("GSTH_SIGNING"):
        return Path(named)
    config = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(config) / "gsth" / "signing"


def _understood(told: dict[str, Any], state: str) -> Credentials:
    """A manifest store as c2pa-python reports it; what others wrote may lack any part."""
    manifest = told.get("manifests", {}).get(told.get("active_manifest"), {})
    generator = (manifest.get("claim_generator_info") or [{}])[0]
    assertions = {a.get("label"): a.get("data") for a in manifest.get("assertions", [])}
    actions = [
        a for label in ("c2pa.actions.v2", "c2pa.actions") for a in (assertions.get(label) or {}).get("actions", [])
    ]
    signature = manifest.get("signature_info") or {}
    said = assertions.get(LABEL)
    return Credentials(
        state="intact" if state in ("Valid", "Trusted") else "changed",
        tool=" ".join(str(generator[k]) for k in ("name", "version") if k in generator) or "an unnamed tool",
        ai_generated=any(a.get("digitalSourceType") == AI_GENERATED for a in actions),
        signer=str(signature.get("common_name") or signature.get("issuer") or "unnamed"),
        trusted=state == "Trusted",
        said=said if isinstance(said, dict) else {},
    )


# ------------------------------------------------------------------------------------------------ keys


@contextlib.contextmanager
def _signer(c2pa: Any) -> Any:
    folder = signing_folder()
    if not folder.exists():
        if os.environ.get("GSTH_SIGNING"):
            raise InputError(
                f"{folder}: there is no such folder; GSTH_SIGNING must name one with chain.pem and key.pem"
            )
        _make_key(folder)
    try:
        chain, key = (folder / "chain.pem").read_bytes(), (folder / "key.pem").read_bytes()
    except OSError as error:
        raise InputError(
            f"{folder}: lacks {error.filename and Path(error.filename).name} ({error.strerror}); put chain.pem and "
            "key.pem there, or remove the folder and gsth makes new ones"
        ) from error
    info = c2pa.C2paSignerInfo(_algorithm(folder, key), chain, key, None)
    with c2pa.Signer.from_info(info) as signer:
        yield signer


def _algorithm(folder: Path, pem: bytes) -> str:
    """C2PA's name of what a private key signs with."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(pem, None)
    except (ValueError, TypeError) as error:
        raise InputError(f"{folder / 'key.pem'}: is not a PEM private key without a password ({error})") from error
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in ALGORITHMS:
        return ALGORITHMS[key.curve.name]
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return "ed25519"
    if isinstance(key, rsa.RSAPrivateKey):
        return "ps256"
    raise InputError(
        f"{folder / 'key.pem'}: C2PA signs with P-256, P-384, P-521, Ed25519 or RSA keys, not with this one"
    )


def _make_key(folder: Path) -> None:
    """A key and its certificate, signed by an authority of its own that is thrown away; names no user or machine."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    authority, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    chain = _certificates(authority, key, secrets.token_hex(4))
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    part = folder.with_name(f".{folder.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        with writes(folder):
            part.mkdir(parents=True, mode=0o700)
            (part / "chain.pem").write_bytes(b"".join(c.public_bytes(serialization.Encoding.PEM) for c in chain))
            with open(os.open(part / "key.pem", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(pem)
            try:
                part.rename(folder)
            except OSError:
                if not folder.exists():  # else another process was first, and its key is as good
                    raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _certificates(authority: Any, key: Any, name: str) -> tuple[Any, Any]:
    """Leaf and authority, as C2PA 2 asks of them: SKI and AKI, digitalSignature, e-mail protection."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    now = datetime.datetime.now(datetime.UTC)

    def titled(common: str) -> Any:
        return x509.Name(
            [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "gsth"), x509.NameAttribute(NameOID.COMMON_NAME, common)]
        )

    def build(subject: Any, public: Any, usages: set[str], is_authority: bool) -> Any:
        parent = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key())
        uses = dict.fromkeys(
            (
                "digital_signature",
                "content_commitment",
                "key_encipherment",
                "data_encipherment",
                "key_agreement",
                "key_cert_sign",
                "crl_sign",
                "encipher_only",
                "decipher_only",
            ),
            False,
        ) | dict.fromkeys(usages, True)
        made = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(titled(f"gsth authority {name}"))
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - CLOCK_SLACK)
            .not_valid_after(now + datetime.timedelta(days=VALID_DAYS))
            .add_extension(x509.BasicConstraints(is_authority, None), critical=True)
            .add_extension(x509.KeyUsage(**uses), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(parent, critical=False)
        )
        if not is_authority:
            made = made.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
        return made.sign(authority, hashes.SHA256())

    leaf = build(titled(f"gsth key {name}"), key.public_key(), {"digital_signature"}, False)
    root = build(titled(f"gsth authority {name}"), authority.public_key(), {"key_cert_sign", "crl_sign"}, True)
    return leaf, root
