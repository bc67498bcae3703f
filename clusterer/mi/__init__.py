"""OpenSIPS's management interface (MI): its commands, its protocols, its servers."""
