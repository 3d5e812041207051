"""The TLS side of Modbus/TCP Security: both ends show a certificate, and there is no way around the check.

Source: MODBUS/TCP Security Protocol Specification (Modbus Organization, 2018), sections 8 and 9: TLS 1.2 or newer, a
client certificate always, port 802.
"""

from __future__ import annotations

import ssl

from drivers.errors import AuthenticationError
from drivers.modbus.settings import ModbusTls


def client_context(tls: ModbusTls) -> ssl.SSLContext:
    """The context of our end. The files are read each time: a renewed certificate counts from the next connection.

    Raises:
        AuthenticationError: a file is missing, not readable, or not what it should be.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_verify_locations(cafile=tls.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise AuthenticationError(
            f"ca_file {tls.ca_file}: {error}; give a readable PEM file of the certificates to trust"
        ) from error
    try:
        # Without the password function an encrypted key would ask at the terminal and stop everything.
        context.load_cert_chain(tls.certificate_file, tls.key_file, password=_no_password)
    except (OSError, ssl.SSLError, ValueError) as error:
        raise AuthenticationError(
            f"certificate_file {tls.certificate_file}, key_file {tls.key_file}: {error}; give readable PEM files "
            "that belong together, the key not encrypted"
        ) from error
    return context


def _no_password() -> str:
    raise ValueError("the key is encrypted")
