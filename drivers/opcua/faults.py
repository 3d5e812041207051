"""From the library's exceptions and the server's status codes to the errors of all drivers."""

from __future__ import annotations

import struct
from typing import Final

from asyncua import ua

from drivers.errors import (
    AuthenticationError,
    DeadlineError,
    DeviceRefusedError,
    DriverError,
    EncodingError,
    NotConnectedError,
    NotWritableError,
    ProtocolError,
)

FAILURES: Final = (
    ua.UaError,
    OSError,
    TimeoutError,
    struct.error,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    AssertionError,
    OverflowError,
    RecursionError,
)
"""What a request may end in: the library decodes whatever a server sends with few checks of its own."""

_Codes = ua.StatusCodes
_AUTHENTICATION: Final = frozenset(
    {
        _Codes.BadUserAccessDenied,
        _Codes.BadIdentityTokenInvalid,
        _Codes.BadIdentityTokenRejected,
        _Codes.BadUserSignatureInvalid,
        _Codes.BadApplicationSignatureInvalid,
        _Codes.BadSecurityChecksFailed,
        _Codes.BadSecurityPolicyRejected,
        _Codes.BadSecurityModeRejected,
        _Codes.BadSecurityModeInsufficient,
        _Codes.BadCertificateInvalid,
        _Codes.BadCertificateUntrusted,
        _Codes.BadCertificateTimeInvalid,
        _Codes.BadCertificateIssuerTimeInvalid,
        _Codes.BadCertificateHostNameInvalid,
        _Codes.BadCertificateUriInvalid,
        _Codes.BadCertificateUseNotAllowed,
        _Codes.BadCertificateIssuerUseNotAllowed,
        _Codes.BadCertificateRevoked,
        _Codes.BadCertificateIssuerRevoked,
        _Codes.BadCertificateRevocationUnknown,
        _Codes.BadCertificateIssuerRevocationUnknown,
        _Codes.BadCertificateChainIncomplete,
        _Codes.BadCertificatePolicyCheckFailed,
        _Codes.BadNoValidCertificates,
    }
)
_GONE: Final = frozenset(
    {
        _Codes.BadSessionIdInvalid,
        _Codes.BadSessionClosed,
        _Codes.BadSessionNotActivated,
        _Codes.BadSecureChannelIdInvalid,
        _Codes.BadSecureChannelClosed,
        _Codes.BadSecureChannelTokenUnknown,
        _Codes.BadTcpSecureChannelUnknown,
        _Codes.BadConnectionClosed,
        _Codes.BadServerHalted,
        _Codes.BadShutdown,
        _Codes.BadTooManySessions,
        _Codes.BadCommunicationError,
        _Codes.BadNotConnected,
    }
)
_NOT_WRITABLE: Final = frozenset({_Codes.BadNotWritable, _Codes.BadAttributeIdInvalid})
_NOT_ENCODABLE: Final = frozenset({_Codes.BadTypeMismatch, _Codes.BadOutOfRange})
TOO_MUCH: Final = frozenset(
    {
        _Codes.BadTooManyOperations,
        _Codes.BadResponseTooLarge,
        _Codes.BadRequestTooLarge,
        _Codes.BadTcpMessageTooLarge,
        _Codes.BadEncodingLimitsExceeded,
        _Codes.BadEncodingError,
        _Codes.BadOutOfMemory,
        _Codes.BadInternalError,
        _Codes.BadUnexpectedError,
    }
)
"""A whole request refused for its size, or for one node in it: half of it may pass."""


class ServiceRefusedError(DeviceRefusedError):
    """The server answered a whole request with a bad status ``code``."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def status_name(code: int) -> str:
    """A status code in words: ``BadNodeIdUnknown``, or its number if nobody has named it."""
    known = ua.status_codes.code_to_name_doc.get(code & 0xFFFF0000)
    return known[0] if known else f"status 0x{code:08X}"


def request_error(error: BaseException, where: str, doing: str) -> DriverError:
    """The driver error for a request that failed as a whole. ``where`` is the endpoint, ``doing`` such as "reading"."""
    if isinstance(error, DriverError):
        return error
    if isinstance(error, ua.UaStatusCodeError):
        code = error.code
        name = status_name(code)
        if code in _AUTHENTICATION:
            return AuthenticationError(
                f"{where}: {doing}: the server refused us ({name}); check username, password_file, certificate_file, "
                "and that the server trusts our certificate"
            )
        if code in _GONE:
            return NotConnectedError(f"{where}: {doing}: {name}; a new session is made")
        if code in (_Codes.BadTimeout, _Codes.BadRequestTimeout):
            return DeadlineError(f"{where}: {doing}: the server says {name}")
        return ServiceRefusedError(f"{where}: {doing}: the server refused ({name})", code)
    if isinstance(error, TimeoutError):
        return DeadlineError(f"{where}: {doing}: no answer in time; the connection was dropped")
    if isinstance(error, OSError):
        return NotConnectedError(
            f"{where}: {doing}: {error or type(error).__name__}; check the address, the network, and that it is on"
        )
    return ProtocolError(f"{where}: {doing}: the answer cannot be understood ({type(error).__name__}: {error})")


def write_error(code: int, where: str, point: str) -> DriverError:
    """The driver error for a write that the server refused with a bad status."""
    name = status_name(code)
    if code in _NOT_WRITABLE:
        return NotWritableError(f"{where}: {point} cannot be written ({name}); see writable: in its file")
    if code in _NOT_ENCODABLE:
        return EncodingError(f"{where}: {point} does not take the value ({name}); check type: and limits:")
    if code == _Codes.BadWriteNotSupported:
        return NotWritableError(f"{where}: {point} cannot be written in this way ({name})")
    return DeviceRefusedError(f"{where}: {point}: the server refused the write ({name})")
