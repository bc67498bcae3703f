"""OpenSIPS's management interface: bytes in, commands out; results in, bytes out. Pure."""

from clusterer.mi.commands import (
    Command,
    Listed,
    ListedCluster,
    ListedNode,
    ListNodes,
    MiError,
    Ok,
    Reload,
    Result,
    SetStatus,
    command_from_names,
    command_from_words,
    takes_parameters,
)

__all__ = [
    "Command",
    "ListNodes",
    "Listed",
    "ListedCluster",
    "ListedNode",
    "MiError",
    "Ok",
    "Reload",
    "Result",
    "SetStatus",
    "command_from_names",
    "command_from_words",
    "takes_parameters",
]
