"""OpenSIPS's management interface (MI): its commands, its protocols, its servers."""

from clusterer.mi.commands import (
    Command,
    Listed,
    ListedCluster,
    ListedNode,
    ListNodes,
    MiError,
    Names,
    Ok,
    Recipes,
    Reload,
    Result,
    SetStatus,
    Which,
)
from clusterer.mi.requests import (
    command_from_list,
    command_from_names,
    command_from_words,
    takes_parameters,
    tell,
)

__all__ = [
    "Command",
    "ListNodes",
    "Listed",
    "ListedCluster",
    "ListedNode",
    "MiError",
    "Names",
    "Ok",
    "Recipes",
    "Reload",
    "Result",
    "SetStatus",
    "Which",
    "command_from_list",
    "command_from_names",
    "command_from_words",
    "takes_parameters",
    "tell",
]
