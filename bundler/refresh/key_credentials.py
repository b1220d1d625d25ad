"""Withholds defs state keys that contain a credential: they are not used, and shown without it.

Keys appear in manifests, labels, logs and names of directories.
"""

from __future__ import annotations

import msgspec

from bundler.errors import ConfigurationError, CredentialsRefused
from bundler.refresh.model import Component, Found
from bundler.refresh.secrets import Secrets
from bundler.system.url_credentials import has_credentials, without_credentials


def withheld(found: Found, secrets: Secrets) -> Found:
    """What was found, with each key as it may be shown; such a component says why its key is
    refused."""
    components = tuple(_judged(component, secrets) for component in found.components)
    warnings = list(found.warnings)
    for before, after in zip(found.components, components, strict=True):
        if before.key != after.key:
            warnings = [text.replace(before.key, after.key) for text in warnings]
    return msgspec.structs.replace(found, components=components, warnings=tuple(warnings))


def _judged(component: Component, secrets: Secrets) -> Component:
    key = component.key
    secret = secrets.within(key)
    shown = without_credentials(key)
    if shown != key:
        is_certain = has_credentials(key)
        error: ConfigurationError | CredentialsRefused = (
            CredentialsRefused if is_certain else ConfigurationError
        )(
            f"The defs state key {_shown(shown, secrets)!r} contains the credentials of a URL.",
            hint="Keys appear in manifests, logs and directory names. Remove the credentials "
            "from the URL, or give the component a fixed key (`defs_state: {key: …}`); dagster-dbt "
            'accepts a separate token: token: "{{ env.GIT_TOKEN }}".',
        )
    elif secret is not None:
        error = CredentialsRefused(
            f"The defs state key {_shown(shown, secrets)!r} contains {secret.what}.",
            hint="Give the component a fixed key (`defs_state: {key: …}`), or, if that is "
            f'not a secret, set not-secrets = ["{secret.variable}"].',
        )
    else:
        return component
    warning = component.warning.replace(key, _shown(shown, secrets))
    return msgspec.structs.replace(
        component, key=_shown(shown, secrets), refused=error, warning=warning
    )


def _shown(key: str, secrets: Secrets) -> str:
    secret = secrets.within(key)
    return key if secret is None or secret.variable in secrets.settings else secrets.redact(key)
