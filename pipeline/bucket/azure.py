"""Which storage account an `az://` URL is of, and its key: from where Azure's own programs have them.

obstore reads AZURE_STORAGE_ACCOUNT_NAME, AZURE_STORAGE_ACCOUNT_KEY, AZURE_STORAGE_SAS_TOKEN, AZURE_STORAGE_ENDPOINT,
AZURE_CLIENT_ID, … by itself. The `az` command and Microsoft's libraries have two more ways: AZURE_STORAGE_ACCOUNT with
AZURE_STORAGE_KEY, and AZURE_STORAGE_CONNECTION_STRING.

https://learn.microsoft.com/en-us/azure/storage/common/storage-configure-connection-string
"""

from __future__ import annotations

from collections.abc import Mapping

_OF_CONNECTION = {
    "accountname": "account_name",
    "accountkey": "account_key",
    "sharedaccesssignature": "sas_key",
    "blobendpoint": "endpoint",
}
_OF_ENVIRONMENT = {
    "account_name": ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT"),
    "account_key": (
        "AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_ACCESS_KEY", "AZURE_STORAGE_MASTER_KEY", "AZURE_STORAGE_KEY",
    ),
    "endpoint": ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
}  # fmt: skip


def azure_settings(env: Mapping[str, str]) -> dict[str, str]:
    """Return what the environment says of the account, under obstore's names; `endpoint` is always known where
    `account_name` is. The single variables go before the connection string.
    """
    parts = [part.partition("=") for part in env.get("AZURE_STORAGE_CONNECTION_STRING", "").split(";")]
    connection = {name.strip().lower(): value.strip() for name, _, value in parts}
    settings = {ours: connection[theirs] for theirs, ours in _OF_CONNECTION.items() if connection.get(theirs)}
    for ours, names in _OF_ENVIRONMENT.items():
        if found := next((env[name] for name in names if env.get(name)), None):
            settings[ours] = found
    if "account_name" in settings and "endpoint" not in settings:
        suffix = connection.get("endpointsuffix") or "core.windows.net"
        settings["endpoint"] = f"https://{settings['account_name']}.blob.{suffix}"
    return settings
