"""Which actions and checks there are, by YAML key. Importing this imports models, no outside client."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.actions.approval import ApprovalAction
from engine.actions.backup import BackupAction
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
from engine.core.action import Kind
from engine.drills.faults import PodKilled, VolumeLost
from engine.drills.sql import SqlSentinels

_ACTIONS = (
    ApprovalAction,
    BackupAction,
    BucketAction,
    CheckAction,
    CommandAction,
    ManifestAction,
    MigrationAction,
    PlaybookAction,
    RecordAction,
    ReleaseAction,
    RestoreAction,
    SecretAction,
)

_CHECKS = (
    AdmissionCheck,
    AlertCheck,
    DashboardsCheck,
    DnsCheck,
    HttpCheck,
    JsonRpcCheck,
    KubernetesCheck,
    MeshCheck,
    PromqlCheck,
    PromtoolCheck,
    RedisCheck,
    SqlCheck,
    SubstrateCheck,
    TcpCheck,
    TlsCheck,
    VaultCheck,
)

ACTION_TYPES: Mapping[str, type] = {action.key: action.Params for action in _ACTIONS}
"""Key -> the model of its parameters."""

CHECK_TYPES: Mapping[str, type] = {check.key: check.Params for check in _CHECKS}

UNDO_TYPES: Mapping[str, Any] = {a.key: undo for a in _ACTIONS if (undo := getattr(a, "Undo", None)) is not None}
"""Key -> what the step's `undo:` may be; an action that is not here finds its own way back, or has none."""

EVENTS = frozenset(action.key for action in _ACTIONS if action.kind is Kind.EVENT)
"""Actions that happen, instead of converging."""

FAULT_TYPES: Mapping[str, type] = {fault.key: fault.Params for fault in (PodKilled, VolumeLost)}
"""What a drill can cause."""

SENTINEL_TYPES: Mapping[str, type] = {way.key: way.Params for way in (SqlSentinels,)}
"""How a drill's sentinels are written."""
