"""The variables the engine itself reads from an environment's inventory: how to reach what it works on."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


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

    local_networks: dict[str, list[str]] = Field(
        default_factory=dict,
        description="Interface of this machine -> networks behind it: their addresses are asked only while it exists.",
    )

    vault_address: str = Field("", description="URL of Vault or OpenBao; empty: through vault_service.")
    vault_service: str = Field("", description="`namespace/service:port`, reached by a port-forward.")
    vault_ca: str = Field("", description="File of the CA that signed its certificate; empty: the system's.")
    vault_mount: str = Field("kv", description="The KV version 2 engine.")
    vault_role: str = Field("runbook-engine", description="Role of the Kubernetes auth method to log in with.")
    vault_auth_mount: str = Field("kubernetes", description="Where that auth method is mounted.")
    vault_service_account: str = Field("runbook-system/engine", description="Service account to log in as.")

    s3_endpoint: str = Field("", description="URL of an S3-compatible store; empty: the provider's own.")
    s3_region: str = Field("us-east-1", description="Region of the buckets.")
    s3_access_key: str = Field("", description="Only for emulators; elsewhere the provider's credential chain.")
    s3_secret_key: str = Field("", description="Only for emulators.")

    backup_recipients: list[str] = Field(
        default_factory=list, description="age recipients of backups and preimages, or files of them."
    )
    backup_identities: list[str] = Field(
        default_factory=list, description="Files with age identities, to prove that a backup can be read."
    )

    @property
    def planner_context(self) -> str:
        return self.kube_context_planner or self.kube_context

    @property
    def deployer_context(self) -> str:
        return self.kube_context_deployer or self.kube_context
