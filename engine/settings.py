"""The variables the engine itself reads from an environment's inventory: how to reach what it works on."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Settings(BaseModel):
    """All optional; an action that needs one that is missing says which. Everything else in the inventory is the
    runbook's own."""

    model_config = ConfigDict(extra="ignore", coerce_numbers_to_str=True)

    runbook: str = Field("", description="Which runbook this environment deploys, when the project has several.")

    kubeconfig: str = Field("~/.kube/config", description="The kubeconfig file.")
    kube_context: str = Field("", description="Its context; empty: the current one.")
    kube_context_planner: str = Field("", description="The context that may read and dry-run; default kube_context.")
    kube_context_deployer: str = Field("", description="The context that may write; default kube_context.")
    helm_program: str = Field("helm", description="The helm program, version 4.")
    promtool_program: str = Field("promtool", description="The promtool program, which comes with Prometheus.")
    istioctl_program: str = Field("istioctl", description="The istioctl program, for `manifest: {analyze: istio}`.")

    kubernetes_version: str = Field(
        "", description="Version that `plan --offline` renders charts for, like 1.36.3; empty: that of its schemas."
    )

    local_networks: dict[str, list[str]] = Field(
        default_factory=dict,
        description="Interface of this machine -> networks behind it: their addresses are asked only while it exists.",
    )

    secret_store: Literal["vault", "keyvault"] = Field(
        "vault", description="Where secrets are: Vault or OpenBao (`vault_…`), or Azure Key Vault (`keyvault_…`)."
    )

    vault_address: str = Field("", description="URL of Vault or OpenBao; empty: through vault_service.")
    vault_service: str = Field("", description="`namespace/service:port`, reached by a port-forward.")
    vault_ca: str = Field("", description="File of the CA that signed its certificate; empty: the system's.")
    vault_mount: str = Field("kv", description="The KV version 2 engine.")
    vault_role: str = Field("runbook-engine", description="Role of the Kubernetes auth method to log in with.")
    vault_auth_mount: str = Field("kubernetes", description="Where that auth method is mounted.")
    vault_service_account: str = Field("runbook-system/engine", description="Service account to log in as.")

    keyvault_url: str = Field("", description="URL of the Azure Key Vault: https://NAME.vault.azure.net.")
    keyvault_credential: Literal["default", "workload", "client_secret"] = Field(
        "default", description="How to log in: what this machine has, a federated token, a client secret in a file."
    )
    keyvault_tenant: str = Field("", description="Tenant of the login; with `workload` default AZURE_TENANT_ID.")
    keyvault_client: str = Field("", description="Client ID of the login; with `workload` default AZURE_CLIENT_ID.")
    keyvault_client_secret_file: str = Field("", description="File of the client secret; never the secret itself.")
    keyvault_token_file: str = Field("", description="File of the federated token; default AZURE_FEDERATED_TOKEN_FILE.")
    keyvault_authority: str = Field("", description="URL to log in at, where it is not Microsoft's public one.")
    keyvault_ca: str = Field("", description="File of the CA of both; empty: the usual ones.")

    object_store: Literal["s3", "azureblob"] = Field(
        "s3", description="Where backups are: S3 and what speaks it (`s3_…`), or Azure Blob storage (`azureblob_…`)."
    )

    s3_endpoint: str = Field("", description="URL of an S3-compatible store; empty: the provider's own.")
    s3_region: str = Field("us-east-1", description="Region of the buckets.")
    s3_access_key: str = Field("", description="Only for emulators; elsewhere the provider's credential chain.")
    s3_secret_key: str = Field("", description="Only for emulators.")

    azureblob_endpoint: str = Field(
        "", description="The account's blob service: https://ACCOUNT.blob.core.windows.net."
    )
    azureblob_account: str = Field("", description="Only for emulators; elsewhere azure-identity's own chain.")
    azureblob_key: str = Field("", description="Only for emulators.")

    backup_recipients: list[str] = Field(
        default_factory=list, description="age recipients of backups and preimages, or files of them."
    )
    backup_identities: list[str] = Field(
        default_factory=list, description="Files with age identities, to prove that a backup can be read."
    )

    backup_signing_key: str = Field("", description="File of the SSH key that signs backups' manifests and proofs.")
    backup_allowed_signers: str = Field(
        "", description="File of the keys whose signatures count (ssh-keygen's ALLOWED SIGNERS, for runbook-backup)."
    )

    drills: Literal["allowed", "refused"] = Field(
        "refused", description="Whether `runbook drill` may break things of this environment on purpose."
    )

    @model_validator(mode="after")
    def _reachable_store(self) -> Settings:
        if self.secret_store == "keyvault":  # noqa: S105
            if not self.keyvault_url.startswith("https://"):
                raise ValueError("secret_store: keyvault needs keyvault_url, like https://NAME.vault.azure.net")
            needed = ("keyvault_tenant", "keyvault_client", "keyvault_client_secret_file")
            lacking = [name for name in needed if not getattr(self, name)]
            if self.keyvault_credential == "client_secret" and lacking:
                raise ValueError(f"keyvault_credential: client_secret needs {', '.join(lacking)}")
        return self

    @property
    def planner_context(self) -> str:
        return self.kube_context_planner or self.kube_context

    @property
    def deployer_context(self) -> str:
        return self.kube_context_deployer or self.kube_context
