"""What a bucket is to be like: versioned, closed to the public, encrypted, and cleaned up by rules of its own."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, NamedTuple

from scanloop.errors import StorageError
from scanloop.storage.s3 import S3Store

OWN = "scanloop-"
"""How the ids of our rules start; rules of others are kept."""
UNKNOWN = frozenset({"NotImplemented", "MethodNotAllowed", "XNotImplemented", "501", "405"})
"""What servers answer to what they do not know."""
REFUSED = UNKNOWN | {"InvalidArgument", "MalformedXML"}
"""What some of them answer, when they are told to set what they do not know or lack a key for."""
OPTIONAL = frozenset({"public access", "default encryption"})
"""What a server may do without: that it does is said, and no error."""
ABSENT = frozenset(
    {
        "NoSuchLifecycleConfiguration",
        "NoSuchPublicAccessBlockConfiguration",
        "ServerSideEncryptionConfigurationNotFoundError",
    }
)
PUBLIC_ACCESS = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")

PROBE = "scanloop-probe"
"""Key of an object that is put and removed, to see whether objects can be put."""

Rule = dict[str, Any]


@dataclass(frozen=True)
class Wanted:
    """What a bucket is to be like; None leaves something as it is.

    Attributes:
        versioning: Keep what is overwritten or deleted.
        block_public_access: Ways of making objects public that are closed, of `PUBLIC_ACCESS`.
        encryption: Default encryption at rest: "AES256" or "aws:kms".
        raw: (prefix, days, storage class): move objects there when they are so old.
        abort_multipart_days: Give up uploads that were begun and not ended.
        expire_noncurrent_days: Delete what was overwritten or deleted so long ago.
        scratch: (prefix, days): delete objects there when they are so old.
    """

    versioning: bool
    block_public_access: tuple[str, ...]
    encryption: str | None
    raw: tuple[str, int, str] | None
    abort_multipart_days: int | None
    expire_noncurrent_days: int | None
    scratch: tuple[str, int] | None

    def rules(self) -> list[Rule]:
        """Lifecycle rules, in the words of S3."""
        rules: list[Rule] = []
        if self.raw:
            prefix, days, name = self.raw
            rules.append(_rule("raw", prefix, Transitions=[{"Days": days, "StorageClass": name}]))
        if self.abort_multipart_days:
            begun = {"DaysAfterInitiation": self.abort_multipart_days}
            rules.append(_rule("multipart", "", AbortIncompleteMultipartUpload=begun))
        if self.expire_noncurrent_days:
            kept = {"NoncurrentDays": self.expire_noncurrent_days}
            rules.append(_rule("noncurrent", "", NoncurrentVersionExpiration=kept))
        if self.scratch:
            rules.append(_rule("scratch", self.scratch[0], Expiration={"Days": self.scratch[1]}))
        return rules


class Change(NamedTuple):
    """One thing about a bucket: what it is, what it is to be, and how it gets there.

    `apply` is None where nothing is to be done; `now` is None where the server does not know such a thing. `outcome` is
    what is or would be done: "kept", "would change", "changed", "not known to this server", or that it was refused.
    """

    what: str
    now: str | None
    wanted: str
    apply: Callable[[], Any] | None
    outcome: str


def plan_changes(store: S3Store, wanted: Wanted) -> list[Change]:
    """What a bucket is and what it is to be, thing by thing; nothing is changed.

    Raises:
        StorageError: The bucket is missing, or the store refuses or does not answer.
    """
    store.call("head_bucket", None)
    planned = []
    if wanted.versioning:
        planned.append(_versioning(store))
    planned += _lifecycle(store, wanted.rules())
    if wanted.block_public_access:
        planned.append(_public_access(store, wanted.block_public_access))
    if wanted.encryption:
        planned.append(_encryption(store, wanted.encryption))
    return planned


def apply_changes(store: S3Store, wanted: Wanted) -> list[Change]:
    """Make a bucket what it is to be, and look whether it is.

    Returns:
        What was found before, and what was done about it.

    Raises:
        StorageError: The store refuses, does not answer, or does not keep what it accepted.
    """
    done: dict[Any, str] = {None: ""}
    changes = []
    for change in plan_changes(store, wanted):
        if change.apply not in done:  # rules come and go all at once
            done[change.apply] = _apply(change)
        changes.append(change._replace(outcome=done[change.apply] or change.outcome))
    refused = {change.what for change in changes if change.outcome.startswith("refused")}
    left = [change.what for change in plan_changes(store, wanted) if change.apply and change.what not in refused]
    if left:
        raise StorageError(
            f"s3://{store.address.bucket}: the server accepted and did not keep: {', '.join(left)}; check its version"
        )
    return changes


def _apply(change: Change) -> str:
    assert change.apply is not None
    try:
        change.apply()
    except StorageError as error:
        if change.what in OPTIONAL and error.code in REFUSED:
            return f"refused by this server ({error.code})"
        raise
    return "changed"


def _rule(name: str, prefix: str, **action: Any) -> Rule:
    return {"ID": f"{OWN}{name}", "Status": "Enabled", "Filter": {"Prefix": prefix}, **action}


def _get(store: S3Store, operation: str) -> Any:
    """Answer of the server; empty where nothing is set, None where it does not know such a thing."""
    try:
        return store.call(operation, None)
    except StorageError as error:
        if error.code in ABSENT:
            return {}
        if error.code in UNKNOWN:
            return None
        raise


def _versioning(store: S3Store) -> Change:
    answer = _get(store, "get_bucket_versioning")
    now = None if answer is None else answer.get("Status", "Disabled")
    return _change(
        "versioning",
        now,
        "Enabled",
        lambda: store.call("put_bucket_versioning", None, VersioningConfiguration={"Status": "Enabled"}),
    )


def _lifecycle(store: S3Store, wanted: list[Rule]) -> list[Change]:
    answer = _get(store, "get_bucket_lifecycle_configuration")
    there = {rule["ID"]: rule for rule in map(_canonical, (answer or {}).get("Rules", []))}
    others = [rule for name, rule in there.items() if not name.startswith(OWN)]

    def apply() -> None:
        if wanted or others:
            rules = {"Rules": [*others, *wanted]}
            store.call("put_bucket_lifecycle_configuration", None, LifecycleConfiguration=rules)
        else:
            store.call("delete_bucket_lifecycle", None)

    rules = {rule["ID"]: rule for rule in wanted}
    own = sorted({name for name in there if name.startswith(OWN)} | set(rules))
    return [
        _change(f"rule {name}", None if answer is None else _told(there.get(name)), _told(rules.get(name)), apply)
        for name in own
    ]


def _public_access(store: S3Store, ways: tuple[str, ...]) -> Change:
    answer = _get(store, "get_public_access_block")
    found = (answer or {}).get("PublicAccessBlockConfiguration", {})
    now = None if answer is None else ", ".join(name for name in PUBLIC_ACCESS if found.get(name)) or "open"

    def put(closed: Collection[str]) -> None:
        block = {name: name in closed for name in PUBLIC_ACCESS}
        store.call("put_public_access_block", None, PublicAccessBlockConfiguration=block)

    def apply() -> None:
        could_write = _can_write(store)
        put(ways)
        if could_write and not _can_write(store):
            put([name for name in PUBLIC_ACCESS if found.get(name)])
            raise StorageError(
                f"s3://{store.address.bucket}: with {', '.join(ways)} the server refuses every write: undone; "
                "Ceph 16 does so for BlockPublicAcls: set storage.block_public_acls to false (IgnorePublicAcls remains)"
            )

    return _change("public access", now, ", ".join(ways), apply)


def _can_write(store: S3Store) -> bool:
    """Whether an object can be put now; it is removed again, its version too."""
    try:
        answer = store.call("put_object", PROBE, Body=b"")
        store.call("delete_object", PROBE, **{name: answer[name] for name in ("VersionId",) if name in answer})
    except StorageError:
        return False
    return True


def _encryption(store: S3Store, algorithm: str) -> Change:
    answer = _get(store, "get_bucket_encryption")
    rules = (answer or {}).get("ServerSideEncryptionConfiguration", {}).get("Rules", [])
    found = [rule.get("ApplyServerSideEncryptionByDefault", {}).get("SSEAlgorithm") for rule in rules]
    now = None if answer is None else (found[0] if found and found[0] else "none")
    rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": algorithm}}
    return _change(
        "default encryption",
        now,
        algorithm,
        lambda: store.call("put_bucket_encryption", None, ServerSideEncryptionConfiguration={"Rules": [rule]}),
    )


def _change(what: str, now: str | None, wanted: str, apply: Callable[[], Any]) -> Change:
    if now is None:
        return Change(what, now, wanted, None, "not known to this server")
    return (
        Change(what, now, wanted, None, "kept") if now == wanted else Change(what, now, wanted, apply, "would change")
    )


def _canonical(rule: Rule) -> Rule:
    """A rule as we write it: servers add empty fields, and some give an old-style prefix back."""
    prefix = rule.get("Prefix", "")
    kept = {key: value for key, value in rule.items() if key != "Prefix" and value not in (None, [], {})}
    return {"ID": "", **kept, "Filter": rule.get("Filter") or {"Prefix": prefix}}


def _told(rule: Rule | None) -> str:
    """A rule in one line, whatever the order of its fields."""
    if rule is None:
        return "none"
    days = [
        *(f"to {step['StorageClass']} after {step['Days']} days" for step in rule.get("Transitions", [])),
        *([f"abort after {rule['AbortIncompleteMultipartUpload']['DaysAfterInitiation']} days"]
          if "AbortIncompleteMultipartUpload" in rule else []),
        *([f"delete old versions after {rule['NoncurrentVersionExpiration']['NoncurrentDays']} days"]
          if "NoncurrentVersionExpiration" in rule else []),
        *([f"delete after {rule['Expiration'].get('Days')} days"] if "Expiration" in rule else []),
    ]  # fmt: skip
    state = "" if rule["Status"] == "Enabled" else f" ({rule['Status']})"
    return f"{_where(rule['Filter'])}: {', '.join(days) or 'nothing'}{state}"


def _where(found: dict[str, Any]) -> str:
    return (found["Prefix"] or "all") if set(found) == {"Prefix"} else str(sorted(found.items()))
