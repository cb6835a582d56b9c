"""`substrate`: a chain spec, and whether a running Substrate node is the chain it describes."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field, model_validator

from engine.checks.chain_spec import ChainSpec, read_chain_spec
from engine.checks.jsonrpc import call
from engine.checks.looking import Served, finding_of, shorten
from engine.checks.substrate_formats import genesis_hash, read_metadata
from engine.core.action import Context, Finding
from engine.core.ports import Cluster
from engine.core.services import Http
from engine.errors import PermanentError, TemporaryError

# twox128("Timestamp") + twox128("Now"): milliseconds, 8 bytes
_NOW = "0xf0c365c3cf59d671eb72da0e7a4113c49f1f0515f462cdcf84e0f1d6045dfcbb"


class SubstrateParams(Served):
    """One or more looks at one node; all must be right."""

    chain_spec: str = Field(
        default="", description="A raw chain spec: well-formed, without development keys, and the node's genesis."
    )
    bootnodes: int = Field(default=1, ge=0, description="How many bootnodes the chain spec must have at least.")
    validators: int = Field(default=1, ge=0, description="How many validators it must begin with at least.")
    pallets: list[str] = Field(default_factory=list, description="Pallets that the runtime's metadata must list.")
    constants: dict[str, Any] = Field(
        default_factory=dict, description="`Pallet.Constant` (perhaps `.field`) of the metadata, and its value."
    )
    block_time: float = Field(default=0, ge=0, description="Seconds a block may take, as the last blocks' times tell.")
    tolerance: float = Field(default=0.25, ge=0, description="Share by which the measured block time may be longer.")
    blocks: int = Field(default=20, ge=2, le=1000, description="Over how many blocks it is measured.")

    @model_validator(mode="after")
    def _complete(self) -> SubstrateParams:
        if not (self.chain_spec or self.pallets or self.constants or self.block_time):
            raise ValueError("wants `chain_spec`, `pallets`, `constants` or `block_time`")
        return self


class SubstrateCheck:
    """Reads a file and asks a node by JSON-RPC; changes nothing."""

    key: ClassVar[str] = "substrate"
    Params: ClassVar[type] = SubstrateParams

    def __init__(self, http: Http, cluster: Cluster) -> None:
        self._http = http
        self._cluster = cluster

    def run(self, params: SubstrateParams, ctx: Context) -> Finding:
        return finding_of(lambda: self._look(params, ctx))

    def _look(self, params: SubstrateParams, ctx: Context) -> Finding:
        spec = _spec(params, ctx) if params.chain_spec else None
        findings = []
        with params.place(self._cluster) as place:
            node = _Node(self._http, params.url or f"{params.base}/", place, ctx)
            if spec:
                findings.append(_genesis(spec, node))
            if params.pallets or params.constants:
                findings.append(_runtime(params, node))
            if params.block_time:
                findings.append(_block_time(params, node))
        wrong = [f for f in findings if not f.ok]
        return Finding(not wrong, "; ".join(f.saw for f in wrong or findings))


class _Node:
    def __init__(self, http: Http, url: str, place: tuple[str, int] | None, ctx: Context) -> None:
        self._http, self._url, self._place, self._ctx = http, url, place, ctx

    def ask(self, method: str, *arguments: Any) -> Any:
        return call(self._http, self._url, self._place, method, list(arguments), self._ctx).get("result")

    def hash_of(self, number: int) -> str:
        return str(self.ask("chain_getBlockHash", number))


def _spec(params: SubstrateParams, ctx: Context) -> ChainSpec:
    """PermanentError with everything that is wrong with the file."""
    try:
        spec = read_chain_spec(ctx.inputs.path(params.chain_spec).read_text())
        problems = list(spec.problems(bootnodes=params.bootnodes, validators=params.validators))
    except (OSError, ValueError) as error:
        problems = [str(error)]
    if problems:
        raise PermanentError(f"chain spec {params.chain_spec}: {'; '.join(problems)}")
    return spec


def _genesis(spec: ChainSpec, node: _Node) -> Finding:
    version = int((node.ask("state_getRuntimeVersion") or {}).get("stateVersion", 0))
    wanted, seen = genesis_hash(spec.state, version), node.hash_of(0)
    if seen != wanted:
        return Finding(False, f"genesis {seen}, the chain spec {spec.name} makes {wanted}")
    return Finding(True, f"genesis {seen[:10]}… as of the chain spec {spec.name}")


def _runtime(params: SubstrateParams, node: _Node) -> Finding:
    try:
        metadata = read_metadata(bytes.fromhex(str(node.ask("state_getMetadata")).removeprefix("0x")))
    except ValueError as error:
        raise PermanentError(f"state_getMetadata: {error}") from None
    wrong = [f"no pallet {name}" for name in params.pallets if name not in metadata.pallets]
    for path, wanted in params.constants.items():
        seen = metadata.constant(path)
        if seen != wanted:
            wrong.append(f"{path} is {shorten(str(seen))}, wanted {wanted}")
    if wrong:
        return Finding(False, "; ".join(wrong))
    told = [f"{len(params.pallets)} pallets of {len(metadata.pallets)}"] if params.pallets else []
    return Finding(True, ", ".join([*told, *(f"{path} {wanted}" for path, wanted in params.constants.items())]))


def _block_time(params: SubstrateParams, node: _Node) -> Finding:
    head = int(str((node.ask("chain_getHeader") or {}).get("number", "0x0")), 16)
    first = max(1, head - params.blocks)
    if head - first < 2:
        return Finding(False, f"{head} blocks: too few to tell the block time")
    took = (_time(node, head) - _time(node, first)) / 1000 / (head - first)
    saw = f"block time {took:.2f} s over {head - first} blocks"
    if took <= params.block_time * (1 + params.tolerance):
        return Finding(True, saw)
    return Finding(False, f"{saw}, wanted {params.block_time:g} s and at most {params.tolerance:.0%} more")


def _time(node: _Node, number: int) -> int:
    """Milliseconds. TemporaryError when the node does not keep the block's state any more."""
    value = node.ask("state_getStorage", _NOW, node.hash_of(number))
    if not isinstance(value, str):
        raise TemporaryError(f"block {number} has no Timestamp.Now")
    return int.from_bytes(bytes.fromhex(value[2:]), "little")
