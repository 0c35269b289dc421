"""The configuration: one schema for all services, read from files and the environment, checked as a whole, secrets by reference only.

packaged defaults < ensemble.yaml < ENSEMBLE__SECTION__KEY < overrides  --merge-->  tree  --schema-->  Configuration
"""

from services.chassis.configuration.answering import answering_digest
from services.chassis.configuration.gateway_stores import CacheSection, IdempotencySection, ProfileCacheSection
from services.chassis.configuration.keys_file import read_keys_file
from services.chassis.configuration.load import configuration_file, load_configuration
from services.chassis.configuration.models import BreakerSection, LimitsSection, ModelSection, PriceSection
from services.chassis.configuration.parameters import plain_parameters
from services.chassis.configuration.problems import ConfigurationError, Problem
from services.chassis.configuration.profiles import GenerationSection, HedgeSection, MemberSection, ProfileSection, RefinerMemberSection, RetrySection
from services.chassis.configuration.providers import ProviderSection
from services.chassis.configuration.render import configuration_hash, render
from services.chassis.configuration.schema import Configuration
from services.chassis.configuration.servers import GatewaySection, LimiterSection, OrchestratorSection, RefinerSection, ServerSection
from services.chassis.configuration.store import DownPolicy, StoreDownSection, StoreSection
from services.chassis.configuration.surroundings import ParametersCheck
from services.chassis.configuration.telemetry import TelemetrySection
from services.chassis.configuration.tenants import DEFAULT_TENANT, BudgetSection, KeySection, TenantSection, have_credentials
from services.chassis.configuration.tls import GatewayTlsSection, TlsSection

__all__ = [
    "DEFAULT_TENANT",
    "BreakerSection",
    "BudgetSection",
    "CacheSection",
    "Configuration",
    "ConfigurationError",
    "DownPolicy",
    "GatewaySection",
    "GatewayTlsSection",
    "GenerationSection",
    "HedgeSection",
    "IdempotencySection",
    "KeySection",
    "LimiterSection",
    "LimitsSection",
    "MemberSection",
    "ModelSection",
    "OrchestratorSection",
    "ParametersCheck",
    "PriceSection",
    "Problem",
    "ProfileCacheSection",
    "ProfileSection",
    "ProviderSection",
    "RefinerMemberSection",
    "RefinerSection",
    "RetrySection",
    "ServerSection",
    "StoreDownSection",
    "StoreSection",
    "TelemetrySection",
    "TenantSection",
    "TlsSection",
    "answering_digest",
    "configuration_file",
    "configuration_hash",
    "have_credentials",
    "load_configuration",
    "plain_parameters",
    "read_keys_file",
    "render",
]
