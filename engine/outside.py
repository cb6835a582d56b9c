"""The outside of one environment: adapters made from its settings, and the actions and checks built on them.

Nothing connects before it is used. Two identities: the planner's cluster may read and dry-run, the deployer's write.
"""

from __future__ import annotations

import os
import secrets
import threading
from base64 import b64decode, b64encode
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from engine.actions.approval import ApprovalAction
from engine.actions.backup import BackupAction
from engine.actions.backup_store import BackupStore, Signing
from engine.actions.bucket import BucketAction
from engine.actions.check import CheckAction
from engine.actions.command import CommandAction
from engine.actions.manifest import ManifestAction
from engine.actions.migration import MigrationAction
from engine.actions.playbook import PlaybookAction
from engine.actions.record import RecordAction
from engine.actions.release import ReleaseAction
from engine.actions.restore import RestoreAction
from engine.actions.secret import SecretAction
from engine.adapters.age import Age
from engine.adapters.ansible import AnsiblePlaybooks, HostRecords
from engine.adapters.azureblob import AzureBlob
from engine.adapters.databases import SqlAndRedis
from engine.adapters.dns import DnsResolver
from engine.adapters.helm import HelmCli
from engine.adapters.http import Requests
from engine.adapters.istioctl import Istioctl
from engine.adapters.keyvault import KeyVault, credential
from engine.adapters.kubernetes import KubernetesCluster
from engine.adapters.launcher import ProcessLauncher
from engine.adapters.local_networks import LocalNetworks
from engine.adapters.network import Sockets
from engine.adapters.s3 import S3
from engine.adapters.ssh_signature import SshSignatures
from engine.adapters.terminal import TerminalAsker
from engine.adapters.vault import Vault, kubernetes_login
from engine.checks.admission import AdmissionCheck
from engine.checks.alert import AlertCheck
from engine.checks.dashboards import DashboardsCheck
from engine.checks.dns import DnsCheck
from engine.checks.http import HttpCheck
from engine.checks.jsonrpc import JsonRpcCheck
from engine.checks.kubernetes import KubernetesCheck
from engine.checks.mesh import MeshCheck
from engine.checks.promql import PromqlCheck
from engine.checks.promtool import PromtoolCheck
from engine.checks.redis import RedisCheck
from engine.checks.sql import SqlCheck
from engine.checks.substrate import SubstrateCheck
from engine.checks.tcp import TcpCheck
from engine.checks.tls import TlsCheck
from engine.checks.vault import VaultCheck
from engine.core.action import Action, Check, Context, Inputs
from engine.core.events import Observer
from engine.core.history import RunView, runs
from engine.core.parts import Parts
from engine.core.ports import Analyzer, Cluster, Evidence, Helm, ObjectStore, Reference, SecretStore
from engine.core.processes import PlaybookRecords
from engine.core.redaction import Redactor, Secret
from engine.core.resolved import Resolver
from engine.errors import NotYetError, TemporaryError, UsageError
from engine.load.render import Scope
from engine.load.text import render_file
from engine.registry import CHECK_TYPES
from engine.report.record import render as render_record
from engine.run.environment import NAMESPACE, EnvironmentRecord
from engine.run.evidence import JournalEvidence
from engine.run.journal import Journal
from engine.settings import Settings

_FINGERPRINT_KEY = Reference("v1", "Secret", "fingerprint-key", NAMESPACE)


def read_settings(scope: Scope) -> Settings:
    """The engine's own variables, rendered. UsageError names the one that is wrong."""
    from pydantic import ValidationError

    try:
        return Settings.model_validate({n: scope.get(n) for n in Settings.model_fields if n in scope.names})
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        raise UsageError(f"the inventory's variable {name}: {first['msg']}") from error


def _expanded(path: str, variable: str) -> Path:
    """`~` replaced. UsageError for another user's home when there is no such user, or for ours when nobody knows it."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UsageError(f"the inventory's variable {variable}: {path} leads to a home that does not exist") from error


@dataclass(frozen=True)
class Outside:
    """Adapters of one environment, each made when first asked for."""

    settings: Settings
    environment: str
    runbook: str
    root: Path
    state: Path
    journal: Journal
    redactor: Redactor
    resources: ExitStack
    interactive: bool
    pending: Collection[str]
    """Names that steps register: a template with one of them waits for its step."""

    def parts(
        self, resolver: Resolver, inputs: Inputs, now: datetime, cancelled: threading.Event, observer: Observer
    ) -> tuple[Parts, Parts]:
        """What the planner works with, and what the deployer works with."""
        checks = self._checks()

        def parts(cluster: Cluster, context: str) -> Parts:
            return Parts(
                actions=self._actions(cluster, context, checks),
                checks=checks,
                resolver=resolver,
                inputs=inputs,
                now=now,
                cancelled=cancelled,
                observer=observer,
                redact=self.redactor.text,
                ask=self._ask,
            )

        return parts(self.planner, self.settings.planner_context), parts(self.deployer, self.settings.deployer_context)

    def record(self) -> EnvironmentRecord:
        """The environment record on the cluster."""
        return EnvironmentRecord(self.deployer, self.runbook, self.environment, self.journal)

    def target(self) -> str:
        """The cluster's uid; empty while there is none or it does not answer."""
        try:
            return self.planner.uid()
        except (NotYetError, TemporaryError):
            return ""

    @cached_property
    def asker(self) -> TerminalAsker:
        return TerminalAsker(interactive=self.interactive)

    def _ask(self, question: str) -> bool | None:
        answer = self.asker.ask(question)
        return answer.yes if answer else None

    @cached_property
    def launcher(self) -> ProcessLauncher:
        return ProcessLauncher(self.state, self.redactor, self.environment)

    @cached_property
    def planner(self) -> KubernetesCluster:
        return self._cluster(self.settings.planner_context)

    @cached_property
    def deployer(self) -> KubernetesCluster:
        return self._cluster(self.settings.deployer_context)

    def _cluster(self, context: str) -> KubernetesCluster:
        return KubernetesCluster(self._kubeconfig, context, self.redactor, self._fingerprint_key)

    @property
    def _kubeconfig(self) -> Path:
        return _expanded(self.settings.kubeconfig, "kubeconfig")

    def _actions(self, cluster: Cluster, context: str, checks: Mapping[str, Check]) -> Mapping[str, Action]:
        evidence = self._evidence()
        helm = self._helm(cluster, context)
        actions: tuple[Action, ...] = (
            ApprovalAction(self.asker, evidence, self._plan_digest),
            BackupAction(self.deployer, self.backups),
            BucketAction(self.object_store),
            CheckAction(CHECK_TYPES),
            CommandAction(self.launcher, evidence),
            ManifestAction(
                cluster,
                self._render,
                encryption=self.age,
                scope=self.runbook,
                analyzers=self._analyzers(context),
            ),
            MigrationAction(self.deployer),
            PlaybookAction(
                AnsiblePlaybooks(self.launcher, self.redactor, secrets.token_hex(4)),
                self._playbook_records(),
                lambda spec, ctx: checks[spec.family].run(spec.params, ctx),
                self.environment,
                f"inventories/{self.environment}",
                self.target,
            ),
            RecordAction(self.root, self.environment, self._record, evidence),
            ReleaseAction(helm, cluster),
            RestoreAction(self.deployer, self.backups),
            SecretAction(self.secret_store, f"{self.runbook}/{self.environment}"),
        )
        return {action.key: action for action in actions}

    def _analyzers(self, context: str) -> Mapping[str, Analyzer]:
        return {"istio": Istioctl(self.settings.istioctl_program, self._kubeconfig, context, self.launcher)}

    def _evidence(self) -> Evidence:
        return JournalEvidence(self.journal, self.environment)

    def _playbook_records(self) -> PlaybookRecords:
        return HostRecords.of(self.environment)

    def _helm(self, cluster: Cluster, context: str) -> Helm:
        return HelmCli(self.settings.helm_program, self._kubeconfig, context, self.launcher, cluster)

    def _checks(self) -> Mapping[str, Check]:
        http, network, databases, cluster = (
            Requests(self.networks),
            Sockets(self.networks),
            SqlAndRedis(),
            self.deployer,
        )
        checks: tuple[Check, ...] = (
            AlertCheck(http, cluster),
            DashboardsCheck(http, cluster),
            DnsCheck(DnsResolver(self.networks)),
            HttpCheck(http, cluster),
            JsonRpcCheck(http, cluster),
            KubernetesCheck(cluster),
            AdmissionCheck(cluster),
            MeshCheck(cluster),
            PromqlCheck(http, cluster),
            PromtoolCheck(self.launcher, self.settings.promtool_program),
            RedisCheck(databases, cluster, self.secret_store),
            SqlCheck(databases, cluster, self.secret_store),
            SubstrateCheck(http, cluster),
            TcpCheck(network, cluster),
            TlsCheck(network),
            VaultCheck(self.secret_store),
        )
        return {check.key: check for check in checks}

    @cached_property
    def networks(self) -> LocalNetworks:
        return LocalNetworks(self.settings.local_networks)

    # --- Secrets ----------------------------------------------------------------------------------------------------

    @cached_property
    def secret_store(self) -> SecretStore:
        """Vault or Key Vault, as the inventory says."""
        if self.settings.secret_store == "keyvault":  # noqa: S105
            return self._key_vault()
        return self._vault()

    def _key_vault(self) -> KeyVault:
        settings = self.settings

        def login() -> Any:
            return credential(
                settings.keyvault_credential,
                tenant=settings.keyvault_tenant,
                client=settings.keyvault_client,
                secret_file=str(_expanded(settings.keyvault_client_secret_file, "keyvault_client_secret_file")),
                token_file=settings.keyvault_token_file,
                authority=settings.keyvault_authority,
                ca=settings.keyvault_ca,
            )

        return KeyVault(settings.keyvault_url, login, self.redactor, ca=settings.keyvault_ca)

    def _vault(self) -> Vault:
        settings = self.settings
        return Vault(
            self._vault_url(), self._vault_token, self.redactor, mount=settings.vault_mount, ca=settings.vault_ca
        )

    def _vault_url(self) -> Callable[[], str]:
        """The store's address: as the inventory gives it, or through a tunnel that is opened anew when it broke."""
        settings = self.settings
        if settings.vault_address or not settings.vault_service:
            return lambda: settings.vault_address or "https://127.0.0.1:8200"
        tunnel = self.resources.enter_context(ExitStack())

        def connect() -> str:
            tunnel.close()
            host, port = tunnel.enter_context(self.deployer.tunnel(settings.vault_service))
            return f"https://{host}:{port}"

        return connect

    def _vault_token(self, url: str) -> Secret:
        """`VAULT_TOKEN`, else a login by the engine's service account."""
        given = os.environ.get("VAULT_TOKEN")
        if given:
            return self.redactor.register(given)
        settings = self.settings
        namespace, _, name = settings.vault_service_account.partition("/")
        token = self.deployer.service_account_token(namespace, name)
        return kubernetes_login(
            url, token, settings.vault_role, self.redactor, mount=settings.vault_auth_mount, ca=settings.vault_ca
        )

    @cached_property
    def age(self) -> Age:
        files = [_expanded(p, "backup_identities") for p in self.settings.backup_identities]
        return Age(self.settings.backup_recipients, lambda: [p.read_text() for p in files if p.exists()])

    def _fingerprint_key(self) -> bytes:
        """The key that secret values are masked with before they are compared: made once, kept on the cluster."""
        found = self.deployer.get(_FINGERPRINT_KEY)
        if found is None:
            fresh = b64encode(secrets.token_bytes(32)).decode()
            manifest = {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": _FINGERPRINT_KEY.name, "namespace": NAMESPACE},
                "data": {"key": fresh},
            }
            found = self.deployer.swap(manifest, "") or self.deployer.get(_FINGERPRINT_KEY)
        if found is None:
            raise TemporaryError(f"{_FINGERPRINT_KEY} was deleted while it was read")
        return b64decode(found["data"]["key"])

    # --- Objects ----------------------------------------------------------------------------------------------------

    @cached_property
    def object_store(self) -> ObjectStore:
        """S3 or Azure Blob storage, as the inventory says."""
        return self._azure_blob() if self.settings.object_store == "azureblob" else self._s3()

    @cached_property
    def backups(self) -> BackupStore:
        settings = self.settings

        def file(name: str) -> Path | None:
            return _expanded(getattr(settings, name), name) if getattr(settings, name) else None

        signing = Signing(SshSignatures(self.launcher), file("backup_signing_key"), file("backup_allowed_signers"))
        return BackupStore(self.object_store, self.age, signing)

    def _s3(self) -> S3:
        settings = self.settings
        credentials = (settings.s3_access_key, Secret(settings.s3_secret_key)) if settings.s3_access_key else None
        return S3(settings.s3_endpoint, settings.s3_region, credentials, self.redactor, networks=self.networks)

    def _azure_blob(self) -> AzureBlob:
        settings = self.settings
        key = (settings.azureblob_account, Secret(settings.azureblob_key)) if settings.azureblob_key else None
        return AzureBlob(settings.azureblob_endpoint, key, self.redactor, networks=self.networks)

    def _render(self, text: str, variables: Mapping[str, Any], name: str) -> str:
        """A manifest file with its templates rendered. UsageError names the file."""
        return render_file(text, variables, name, pending=self.pending)

    # --- The journal, for actions that tell of it ---------------------------------------------------------------------

    def _view(self, ctx: Context) -> RunView:
        run = (ctx.key or "").partition("/")[0]
        return runs(self.journal.events(run))[run]

    def _record(self, ctx: Context) -> str:
        return render_record(self._view(ctx))

    def _plan_digest(self, ctx: Context) -> str:
        return self._view(ctx).plan_digest
