"""What a drill works with in one environment: the disasters it can cause, and the ways it writes sentinels."""

from __future__ import annotations

from collections.abc import Mapping

from engine.adapters.databases import SqlAndRedis
from engine.core.drill import Fault, SentinelStore
from engine.drills.faults import PodKilled, VolumeLost
from engine.drills.sql import SqlSentinels
from engine.outside import Outside


def faults(outside: Outside) -> Mapping[str, Fault]:
    """By YAML key, acting as the deployer."""
    made: tuple[Fault, ...] = (PodKilled(outside.deployer), VolumeLost(outside.deployer))
    return {fault.key: fault for fault in made}


def sentinel_stores(outside: Outside) -> Mapping[str, SentinelStore]:
    """By YAML key."""
    made: tuple[SentinelStore, ...] = (SqlSentinels(SqlAndRedis(), outside.deployer, outside.secret_store),)
    return {store.key: store for store in made}
