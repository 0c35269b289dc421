"""Which tenants there are and who speaks for them: out of the configuration and the keys file, and followed while the gateway runs.

Of the configuration the tenants are followed, that is their keys, names of certificates, profiles and models, and nothing else: profiles, models, addresses,
limits on time and where the keys file is stay what they were when the gateway started. A call that runs goes on, whatever becomes of its tenant.

Where the configuration or the keys file is wrong when it is read again, what was read of it before stays in force, and the log says what is wrong and where; of
the other one the new state counts all the same, so that a mistake in one does not keep a key alive that was taken out of the other.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path

from services.chassis.configuration import Configuration, ConfigurationError, TenantSection, have_credentials, read_keys_file
from services.chassis.configuration.keys_file import Keys
from services.chassis.reloading import INTERVAL_SECONDS, ConfigurationSource, watching
from services.gateway.caller import ANYONE, Caller
from services.gateway.callers import Credentials, Directory

_log = logging.getLogger(__name__)


class Tenancy:
    """Who may call, as of now."""

    def __init__(self, tenants: Mapping[str, TenantSection], keys_path: Path | None, source: ConfigurationSource | None, *, secret: bytes) -> None:
        self._tenants = tenants
        self._keys_path = keys_path
        self._keys: Keys = {}
        self._source = source
        self._secret = secret
        self._reading = asyncio.Lock()
        self._asks = False
        self._directory = Directory((), secret=secret)

    @property
    def files(self) -> list[Path]:
        """What a change of is a reason to read again."""
        return [file for file in (self._source.file if self._source is not None else None, self._keys_path) if file is not None]

    def caller(self, authorizations: Sequence[str | bytes], names: Callable[[], Sequence[str]]) -> Caller:
        """Return who calls, as `Directory.caller` does; `ANYONE` where nobody is asked."""
        return self._directory.caller(authorizations, names) if self._asks else ANYONE

    async def read(self) -> None:
        """Read the keys file for the first time. Raises `ConfigurationError`."""
        async with self._reading:
            if self._keys_path is not None:
                self._keys = await asyncio.to_thread(read_keys_file, self._keys_path, self._tenants)
            self._apply()
        if not self._asks:
            idle = [name for name, tenant in self._tenants.items() if tenant.profiles is not None or tenant.models is not None]
            if idle:
                _log.warning("nobody is asked who he is, because no tenant has keys or sans, so the profiles and models of %s restrict nobody", ", ".join(idle))

    async def reread(self) -> None:
        """Read everything again and go by what is right."""
        wrong = False
        async with self._reading:
            if self._source is not None:
                try:
                    self._tenants = (await asyncio.to_thread(self._source.read)).tenants
                except ConfigurationError as error:
                    wrong = True
                    _log.error("the configuration is wrong, so the tenants before it stay: %s", error)
            if self._keys_path is not None:
                try:
                    self._keys = await asyncio.to_thread(read_keys_file, self._keys_path, self._tenants)
                except ConfigurationError as error:
                    wrong = True
                    _log.error("the keys file is wrong, so the keys before it stay: %s", error)
            asked = self._asks
            self._apply()
        if not wrong:
            # After an error this would sound as if all were well.
            _log.info("tenants were read again; there are %d", len(self._tenants))
        if asked and not self._wanted():
            _log.warning("no tenant has keys or sans any more, so nobody is let in; a gateway that asks who calls does so until it is started anew")

    def _apply(self) -> None:
        self._directory = Directory(self._credentials(), secret=self._secret)
        # Taking out the last key must not let everybody in.
        self._asks = self._asks or self._wanted()

    def _wanted(self) -> bool:
        return self._keys_path is not None or have_credentials(self._tenants)

    def _credentials(self) -> Iterator[Credentials]:
        """Yield what each tenant is known by, the keys file's first: where both claim a key, the file is older, and the configuration holds."""
        callers = {
            name: Caller(
                tenant=name,
                profiles=None if tenant.profiles is None else frozenset(tenant.profiles),
                models=None if tenant.models is None else frozenset(tenant.models),
            )
            for name, tenant in self._tenants.items()
        }
        for name, keys in self._keys.items():
            if name in callers:
                yield Credentials(caller=callers[name], digests=tuple(bytes.fromhex(key.sha256) for key in keys))
        for name, tenant in self._tenants.items():
            yield Credentials(caller=callers[name], digests=tuple(bytes.fromhex(key.sha256) for key in tenant.keys or ()), names=tenant.sans or ())


@asynccontextmanager
async def tenancy_of(
    configuration: Configuration, source: ConfigurationSource | None, *, secret: bytes, interval_seconds: float = INTERVAL_SECONDS
) -> AsyncIterator[Tenancy]:
    """Know the tenants, and follow what becomes of them, while the context is open. Raises `ConfigurationError` for a keys file that is wrong at the start."""
    tenancy = Tenancy(configuration.tenants, configuration.gateway.keys_path, source, secret=secret)
    followed = source is not None or tenancy.files
    # Watched before it is read, so that no change in between is missed.
    async with watching(tenancy.files, tenancy.reread, interval_seconds=interval_seconds) if followed else nullcontext():
        await tenancy.read()
        yield tenancy
